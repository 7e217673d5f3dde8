//! One stream: the FF++/cadene variant of Xception, cut where the two streams meet.

use tch::{TchError, Tensor};

use super::architecture::{Architecture, INPUT_SIDE};
use super::layers::{Conv, Geometry, Phase, Target, Then};
use super::scope::Scope;

/// A stream's convolutions. The network walks them in stages, because the streams meet between them.
pub(crate) struct Stream {
    pub(crate) conv1: Conv,
    pub(crate) conv2: Conv,
    /// Blocks 1–3: 64 × 125² → 728 × 16².
    pub(crate) entry: Vec<Block>,
    /// Blocks 4–7 and 8–11: between the cross attentions and behind the second one.
    pub(crate) middle: [Vec<Block>; 2],
    pub(crate) exit: Exit,
    /// 2048 → 2. Both streams have one in every checkpoint; only the RGB stream's is used.
    pub(crate) classifier: Classifier,
}

/// Block 12 and the two last separable convolutions: 728 × 16² → 2048 × 8².
pub(crate) struct Exit {
    block12: Block,
    conv3: Separable,
    conv4: Separable,
}

pub(crate) struct Classifier {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

/// Separable convolutions around a skip: `x → rep(x) + skip(x)`.
pub(crate) struct Block {
    start: Start,
    units: Vec<Separable>,
    /// 1×1, stride 2; a block that has one also ends its other path with a pooling of stride 2.
    skip: Option<Conv>,
}

/// What comes first on a block's main path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Block 1.
    Convolution,
    /// All others. This ReLU must not touch the skip path.
    Relu,
}

/// Depthwise 3×3, then 1×1 with normalisation; no activation between.
struct Separable {
    depth: Conv,
    point: Conv,
}

impl Stream {
    pub(crate) fn new(scope: &Scope<'_>, architecture: Architecture) -> Result<Self, TchError> {
        let c = |published| architecture.channels(published);
        let block = |number: u32, channels: [i64; 3]| {
            let start = if number == 1 { Start::Convolution } else { Start::Relu };
            Block::halving(&scope.at(&format!("block{number}")), start, channels)
        };
        let middle = |numbers: std::ops::Range<u32>| -> Result<Vec<Block>, TchError> {
            numbers.map(|number| Block::middle(&scope.at(&format!("block{number}")), c(728))).collect()
        };
        let [before, behind] = architecture.middle_block_numbers();
        let stride_2 = Geometry { stride: 2, ..Geometry::POINT };
        Ok(Self {
            conv1: Conv::new(&scope.at("conv1"), [3, c(32), 3], stride_2)?
                .normalised(&scope.at("bn1"), c(32))?,
            conv2: Conv::new(&scope.at("conv2"), [c(32), c(64), 3], Geometry::POINT)?
                .normalised(&scope.at("bn2"), c(64))?,
            entry: vec![
                block(1, [c(64), c(128), c(128)])?,
                block(2, [c(128), c(256), c(256)])?,
                block(3, [c(256), c(728), c(728)])?,
            ],
            middle: [middle(before)?, middle(behind)?],
            exit: Exit {
                block12: block(12, [c(728), c(728), c(1024)])?,
                conv3: Separable::new(&scope.at("conv3"), [c(1024), c(1536)], &scope.at("bn3"))?,
                conv4: Separable::new(&scope.at("conv4"), [c(1536), c(2048)], &scope.at("bn4"))?,
            },
            classifier: Classifier {
                weight: scope.parameter("last_linear.1.weight", &[2, c(2048)])?,
                bias: scope.parameter("last_linear.1.bias", &[2])?,
            },
        })
    }

    pub(crate) fn prepare(&self, target: Target) -> Result<Self, TchError> {
        let middle = |blocks: &[Block]| -> Result<Vec<Block>, TchError> {
            blocks.iter().map(|block| block.prepare(target.at(16))).collect()
        };
        let entry = self.entry.iter().zip([125, 63, 32]);
        let classifier = |t: &Tensor| t.f_detach()?.f_to_device(target.device);
        Ok(Self {
            conv1: self.conv1.prepare(target.at(INPUT_SIDE))?,
            conv2: self.conv2.prepare(target.at(127))?,
            entry: entry.map(|(block, side)| block.prepare(target.at(side))).collect::<Result<_, _>>()?,
            middle: [middle(&self.middle[0])?, middle(&self.middle[1])?],
            exit: self.exit.prepare(target)?,
            classifier: Classifier {
                weight: classifier(&self.classifier.weight)?,
                bias: classifier(&self.classifier.bias)?,
            },
        })
    }
}

/// `x` through `blocks`, one after another.
pub(crate) fn walk(blocks: &[Block], x: Tensor, phase: Phase) -> Result<Tensor, TchError> {
    blocks.iter().try_fold(x, |x, block| block.forward(x, phase))
}

impl Exit {
    /// No ReLU at the end: the fusion takes the normalised features as they are.
    pub(crate) fn forward(&self, x: Tensor, phase: Phase) -> Result<Tensor, TchError> {
        let x = self.block12.forward(x, phase)?;
        let x = self.conv3.forward(&x, Then::Relu, phase)?;
        self.conv4.forward(&x, Then::Nothing, phase)
    }

    fn prepare(&self, target: Target) -> Result<Self, TchError> {
        Ok(Self {
            block12: self.block12.prepare(target.at(16))?,
            conv3: self.conv3.prepare(target.at(8))?,
            conv4: self.conv4.prepare(target.at(8))?,
        })
    }
}

impl Block {
    /// A block that halves the map: 1, 2, 3 and 12. `channels`: in, between, out.
    fn halving(scope: &Scope<'_>, start: Start, channels: [i64; 3]) -> Result<Self, TchError> {
        let [inputs, _, outputs] = channels;
        let stride_2 = Geometry { stride: 2, ..Geometry::POINT };
        let skip = Conv::new(&scope.at("skip"), [inputs, outputs, 1], stride_2)?
            .normalised(&scope.at("skipbn"), outputs)?;
        Ok(Self { start, units: units(scope, start, &channels)?, skip: Some(skip) })
    }

    fn middle(scope: &Scope<'_>, channels: i64) -> Result<Self, TchError> {
        Ok(Self { start: Start::Relu, units: units(scope, Start::Relu, &[channels; 4])?, skip: None })
    }

    fn forward(&self, x: Tensor, phase: Phase) -> Result<Tensor, TchError> {
        let mut y = match self.start {
            Start::Convolution => x.shallow_clone(),
            Start::Relu => x.f_relu()?,
        };
        let Some((last, first)) = self.units.split_last() else { return Ok(x) };
        for unit in first {
            y = unit.forward(&y, Then::Relu, phase)?;
        }
        match &self.skip {
            None => last.forward_onto(x, &y, phase),
            Some(skip) => {
                y = last.forward(&y, Then::Nothing, phase)?;
                y = y.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
                skip.forward_onto(y, &x, phase)
            }
        }
    }

    fn prepare(&self, target: Target) -> Result<Self, TchError> {
        Ok(Self {
            start: self.start,
            units: self.units.iter().map(|unit| unit.prepare(target)).collect::<Result<_, _>>()?,
            skip: self.skip.as_ref().map(|skip| skip.prepare(target)).transpose()?,
        })
    }
}

/// The separable convolutions of a block. Their numbers in `rep` count its ReLUs and normalisations too: 0, 3 or 1, 4, 7.
fn units(scope: &Scope<'_>, start: Start, channels: &[i64]) -> Result<Vec<Separable>, TchError> {
    let first = usize::from(start == Start::Relu);
    let pairs = channels.windows(2).enumerate();
    pairs
        .map(|(index, pair)| {
            let place = first + 3 * index;
            let (conv, norm) = (format!("rep.{place}"), format!("rep.{}", place + 1));
            Separable::new(&scope.at(&conv), [pair[0], pair[1]], &scope.at(&norm))
        })
        .collect()
}

impl Separable {
    fn new(scope: &Scope<'_>, [inputs, outputs]: [i64; 2], norm: &Scope<'_>) -> Result<Self, TchError> {
        Ok(Self {
            depth: Conv::depthwise(&scope.at("conv1"), inputs)?,
            point: Conv::new(&scope.at("pointwise"), [inputs, outputs, 1], Geometry::POINT)?
                .normalised(norm, outputs)?,
        })
    }

    fn forward(&self, x: &Tensor, then: Then, phase: Phase) -> Result<Tensor, TchError> {
        self.point.forward(&self.depth.forward(x, Then::Nothing, phase)?, then, phase)
    }

    fn forward_onto(&self, sum: Tensor, x: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        self.point.forward_onto(sum, &self.depth.forward(x, Then::Nothing, phase)?, phase)
    }

    fn prepare(&self, target: Target) -> Result<Self, TchError> {
        Ok(Self { depth: self.depth.prepare(target)?, point: self.point.prepare(target)? })
    }
}
