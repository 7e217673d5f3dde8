//! The wiring: how the two streams run, meet and end in a decision.

use tch::nn::VarStore;
use tch::{Device, Kind, TchError, Tensor};

use super::architecture::{Architecture, Fusion, INPUT_SIDE};
use super::attention::{FusionGate, PixelAttention};
use super::cross_modal::{CrossAttention, PreparedCrossAttention};
use super::layers::{Norm, Phase, Target, Then};
use super::scope::{Entry, Recorder, Role, Rounded, Scope, Source};
use super::srm::{FeatureFilter, ImageFilter};
use super::weights::TwoStreamWeights;
use super::xception::{Stream, walk};
use crate::shim;

/// The two-stream network, either as published (f32, NCHW, trainable) or prepared for inference.
pub struct Network {
    noise_filter: ImageFilter,
    rgb: Stream,
    noise: Stream,
    /// Adds what the filters see in the RGB stream's features to the noise stream.
    lift: [FeatureFilter; 2],
    attention: PixelAttention,
    attention_norm: Norm,
    cross: [Cross; 2],
    gate: FusionGate,
}

enum Cross {
    AsPublished(CrossAttention),
    Prepared(PreparedCrossAttention),
}

/// What one forward pass says about n images. All f32, on the network's device.
pub struct NetworkOutput {
    /// `[n, 2]`: authentic, forged; before softmax.
    pub logits: Tensor,
    /// `[n, 2048]` (the width's share of it): the pooled features.
    pub embedding: Tensor,
    /// `[n, 1, 125, 125]` in (0, 1): where the noise says to look.
    pub attention_map: Tensor,
}

/// Sees the inner stages of a forward pass: `srm`, `dual_cma0.0`, `dual_cma0.1`, `dual_cma1.0`, `dual_cma1.1`, `fusion`.
/// Later stages may write into the tensor: copy what is kept.
pub type StageObserver<'a> = dyn FnMut(&'static str, &Tensor) -> Result<(), TchError> + 'a;

/// Published head: half of the pooled features are dropped while learning.
const DROPOUT: f64 = 0.5;

/// Every entry of the state dict, in the order in which the modules ask for them.
pub(super) fn entries(architecture: Architecture) -> Vec<Entry> {
    let recorder = Recorder::default();
    Network::build(&recorder, architecture, Fusion::Official)
        .expect("the recorder gives a tensor for every name, and building computes nothing");
    recorder.0.into_inner()
}

impl Network {
    /// The network as published, over `weights` (shared, not copied).
    pub fn new(weights: &TwoStreamWeights, fusion: Fusion) -> Result<Self, TchError> {
        Self::build(weights, weights.architecture(), fusion)
    }

    /// The network as published over the variables that [`trainable`] made: an optimiser of that store trains it.
    /// With `kind` bf16, convolutions and cross attention compute on copies rounded to bf16, through which gradients reach
    /// the f32 variables; as those change, the network must be made again for every step. Normalisations, filters on
    /// pixels and the classifier stay in f32.
    pub fn from_variables(
        variables: &VarStore,
        architecture: Architecture,
        fusion: Fusion,
        kind: Kind,
    ) -> Result<Self, TchError> {
        Self::build(&Rounded { variables: variables.variables(), kind }, architecture, fusion)
    }

    fn build(source: &dyn Source, architecture: Architecture, fusion: Fusion) -> Result<Self, TchError> {
        let root = Scope::root(source);
        let c = |published| architecture.channels(published);
        let cross = |name: &str| CrossAttention::new(&root.at(name), architecture).map(Cross::AsPublished);
        Ok(Self {
            noise_filter: ImageFilter::new(&root.at("srm_conv0"))?,
            rgb: Stream::new(&root.at("xception_rgb.model"), architecture)?,
            noise: Stream::new(&root.at("xception_srm.model"), architecture)?,
            lift: [
                FeatureFilter::new(&root.at("srm_conv1"), c(32))?,
                FeatureFilter::new(&root.at("srm_conv2"), c(64))?,
            ],
            attention: PixelAttention::new(&root.at("srm_sa"), architecture)?,
            attention_norm: Norm::new(&root.at("srm_sa_post.0"), c(64))?,
            cross: [cross("dual_cma0")?, cross("dual_cma1")?],
            gate: FusionGate::new(&root.at("fusion"), architecture, fusion)?,
        })
    }

    /// The inference form on `device` in `kind` (f32 or bf16): normalisations folded, SRM copies merged, channels last,
    /// attention padded. Runs on whole batches only in [`Phase::Evaluate`], without gradients.
    pub fn prepare(&self, device: Device, kind: Kind) -> Result<Self, TchError> {
        let target = Target { device, kind, side: INPUT_SIDE };
        let cross = |cross: &Cross| match cross {
            Cross::AsPublished(cross) => cross.prepare(target).map(Cross::Prepared),
            Cross::Prepared(_) => Err(TchError::Convert("the network is prepared already".into())),
        };
        Ok(Self {
            noise_filter: self.noise_filter.prepare(target)?,
            rgb: self.rgb.prepare(target)?,
            noise: self.noise.prepare(target)?,
            lift: [self.lift[0].prepare(target.at(127))?, self.lift[1].prepare(target.at(125))?],
            attention: self.attention.prepare(target)?,
            attention_norm: self.attention_norm.prepare(target)?,
            cross: [cross(&self.cross[0])?, cross(&self.cross[1])?],
            gate: self.gate.prepare(target)?,
        })
    }

    /// `images`: `[n, 3, 256, 256]` f32, RGB, in [−1, 1], on the network's device.
    pub fn forward(&self, images: &Tensor, phase: Phase) -> Result<NetworkOutput, TchError> {
        self.forward_observed(images, phase, &mut |_, _| Ok(()))
    }

    /// `pixels`: `[n, 256, 256, 3]` u8, RGB, on the network's device. For a prepared network.
    pub fn forward_pixels(&self, pixels: &Tensor) -> Result<NetworkOutput, TchError> {
        // A permuted NHWC tensor is channels last, and the conversion keeps it so: no copy but the one to floats.
        let mut images = pixels.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?;
        let images = images.f_mul_scalar_(2.0 / 255.0)?.f_sub_scalar_(1.0)?;
        self.forward(&images, Phase::Evaluate)
    }

    /// [`Network::forward`], showing its inner stages.
    pub fn forward_observed(
        &self,
        images: &Tensor,
        phase: Phase,
        observe: &mut StageObserver<'_>,
    ) -> Result<NetworkOutput, TchError> {
        let (x, y, attention_map) = self.stems(images, phase, observe)?;
        let x = walk(&self.rgb.entry, x, phase)?;
        let y = walk(&self.noise.entry, y, phase)?;
        let (x, y) = self.cross[0].forward(x, y, phase)?;
        observe("dual_cma0.0", &x)?;
        observe("dual_cma0.1", &y)?;
        let x = walk(&self.rgb.middle[0], x, phase)?;
        let y = walk(&self.noise.middle[0], y, phase)?;
        let (x, y) = self.cross[1].forward(x, y, phase)?;
        observe("dual_cma1.0", &x)?;
        observe("dual_cma1.1", &y)?;
        let x = walk(&self.rgb.middle[1], x, phase)?;
        let y = walk(&self.noise.middle[1], y, phase)?;
        let x = self.rgb.exit.forward(x, phase)?;
        let y = self.noise.exit.forward(y, phase)?;
        let fused = self.gate.forward(&x, &y, phase)?;
        observe("fusion", &fused)?;
        let (logits, embedding) = self.decide(&fused, phase)?;
        Ok(NetworkOutput { logits, embedding, attention_map })
    }

    /// Image → both streams at 64 × 125², already with each other's first hints, and the attention map.
    fn stems(
        &self,
        images: &Tensor,
        phase: Phase,
        observe: &mut StageObserver<'_>,
    ) -> Result<(Tensor, Tensor, Tensor), TchError> {
        let images = match self.is_prepared() {
            true => shim::channels_last(images)?,
            false => images.shallow_clone(),
        };
        let noise = self.noise_filter.forward(&images, phase)?;
        observe("srm", &noise)?;
        let a = self.attention.forward(&noise, phase)?;

        let kind = self.rgb.conv1.weight.kind();
        let x = self.rgb.conv1.forward(&images.f_to_kind(kind)?, Then::Relu, phase)?;
        let y = self.noise.conv1.forward(&noise.f_to_kind(kind)?, Then::Relu, phase)?;
        // Both terms are ReLUs already, so the published ReLU of their sum changes nothing.
        let y = self.lift[0].forward(&x, phase)?.f_add(&y)?;

        let x = self.rgb.conv2.forward(&x, Then::Relu, phase)?;
        let y = self.noise.conv2.forward(&y, Then::Relu, phase)?;
        let y = self.lift[1].forward(&x, phase)?.f_add(&y)?;

        let x = self.attention_norm.forward(&x.f_addcmul(&x, &a)?, phase)?.f_relu_()?;
        Ok((x, y, a.f_to_kind(Kind::Float)?))
    }

    fn decide(&self, fused: &Tensor, phase: Phase) -> Result<(Tensor, Tensor), TchError> {
        let classifier = &self.rgb.classifier;
        let embedding = fused.f_mean_dim([2i64, 3].as_slice(), false, classifier.weight.kind())?;
        let kept = embedding.f_dropout(DROPOUT, phase == Phase::Train)?;
        Ok((kept.f_linear(&classifier.weight, Some(&classifier.bias))?, embedding))
    }

    fn is_prepared(&self) -> bool {
        matches!(self.cross[0], Cross::Prepared(_))
    }
}

impl Cross {
    fn forward(&self, x: Tensor, y: Tensor, phase: Phase) -> Result<(Tensor, Tensor), TchError> {
        match self {
            Cross::AsPublished(cross) => cross.forward(x, y, phase),
            Cross::Prepared(cross) => cross.forward(x, y),
        }
    }
}

/// `weights` as variables of an optimiser, under their official names. Filters and running statistics are in the store
/// without being learned; counters are not (a store holds floats only).
pub fn trainable(weights: &TwoStreamWeights, device: Device) -> Result<VarStore, TchError> {
    let variables = VarStore::new(device);
    for entry in entries(weights.architecture()) {
        let Some((path, leaf)) = entry.name.rsplit_once('.') else { continue };
        let place = path.split('.').fold(variables.root(), |place, part| place.sub(part));
        let init = tch::nn::Init::Const(0.0);
        let mut variable = match entry.role {
            Role::Counter => continue,
            Role::Parameter => place.f_var(leaf, &entry.shape, init)?,
            Role::Statistic | Role::Filter => place.f_zeros_no_train(leaf, &entry.shape)?,
        };
        tch::no_grad(|| variable.f_copy_(&weights.tensor(entry)?))?;
    }
    Ok(variables)
}
