//! One step of learning: batch in, weights a little better. Holds all that a step depends on, so that what is saved and
//! loaded goes on as if nothing had happened.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use models::two_stream::{Network, Phase, Role, entries, trainable};
use models::{Architecture, Fusion, TwoStreamWeights};
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

use super::loader::Batch;
use super::localiser;

/// Which error is made small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Loss {
    /// Cross-entropy of the logits.
    CrossEntropy,
    /// AM-softmax on the raw logits, m = 0.45, s = 30, as published.
    AmSoftmax,
}

/// How large the steps are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Steps in all.
    pub(crate) steps: u64,
    /// Steps of linear warm-up.
    pub(crate) warm_up: u64,
    /// The largest learning rate; a cosine leads from it to a hundredth of it.
    pub(crate) rate: f64,
    /// Decoupled weight decay.
    pub(crate) decay: f64,
    pub(crate) loss: Loss,
    /// Weight of the localiser's error beside it; 0: there is none.
    #[serde(default)]
    pub(crate) localise: f64,
    /// Seed of dropout.
    pub(crate) seed: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Step {
    pub(crate) loss: f64,
    /// The localiser's, without its weight.
    pub(crate) localisation: Option<f64>,
    /// Norm of all gradients together, before clipping.
    pub(crate) gradient: f64,
    pub(crate) rate: f64,
}

/// The network while it learns.
pub(crate) struct Learner {
    architecture: Architecture,
    kind: Kind,
    pace: Pace,
    variables: VarStore,
    /// What is learned, by name: its first and second moment.
    moments: BTreeMap<String, [Tensor; 2]>,
    /// Every variable's exponential average: what is served.
    average: BTreeMap<String, Tensor>,
    /// Steps done.
    step: u64,
}

/// AdamW (Loshchilov & Hutter, *Decoupled Weight Decay Regularization*, 2019) with PyTorch's defaults.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;
/// Gradients are shrunk to this norm. Chosen.
const GRADIENT_MAX: f64 = 5.0;
/// What helps when numbers are no longer finite.
const AGAIN: &str = "train anew with a lower --rate and another --run";
/// The average's memory is some thousand steps, and shorter in the beginning.
const AVERAGE: f64 = 0.999;
/// What the network shows as its last features before they are pooled.
const LAST_FEATURES: &str = "fusion";
/// AM-softmax, as its authors gave them to DeepfakeBench.
const SCALE: f64 = 30.0;
const MARGIN: f64 = 0.45;

impl Pace {
    /// The learning rate of step `step`, counted from 0.
    pub(crate) fn rate_at(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return self.rate * (step + 1) as f64 / self.warm_up as f64;
        }
        let done = (step - self.warm_up) as f64 / (self.steps - self.warm_up).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
        self.rate * (0.01 + 0.99 * cosine)
    }
}

impl Learner {
    pub(crate) fn new(weights: &TwoStreamWeights, pace: Pace, device: Device, kind: Kind) -> Result<Self> {
        let variables = trainable(weights, device)?;
        if pace.localise > 0.0 {
            localiser::add(&variables, weights.architecture())?;
        }
        let mut moments = BTreeMap::new();
        let mut average = BTreeMap::new();
        for (name, variable) in variables.variables() {
            if variable.requires_grad() {
                moments.insert(
                    name.clone(),
                    [variable.f_zeros_like()?, variable.f_zeros_like()?].map(|t| t.detach()),
                );
            }
            average.insert(name, variable.detach().copy());
        }
        Ok(Self { architecture: weights.architecture(), kind, pace, variables, moments, average, step: 0 })
    }

    /// Steps done.
    pub(crate) fn done(&self) -> u64 {
        self.step
    }

    /// `batch` on any device.
    pub(crate) fn learn(&mut self, batch: &Batch) -> Result<Step> {
        let (loss, localisation) = self.errors(batch)?;
        let value = f64::try_from(&loss)?;
        if !value.is_finite() {
            bail!("step {}: the loss is {value}; {AGAIN}", self.step);
        }
        for variable in self.variables.trainable_variables() {
            variable.shallow_clone().zero_grad();
        }
        match &localisation {
            Some(error) => loss.f_add(&error.f_mul_scalar(self.pace.localise)?)?.f_backward()?,
            None => loss.f_backward()?,
        }
        let localisation = localisation.map(f64::try_from).transpose()?;
        let rate = self.pace.rate_at(self.step);
        let gradient = no_grad(|| self.update(rate))?;
        self.step += 1;
        no_grad(|| self.follow())?;
        Ok(Step { loss: value, localisation, gradient, rate })
    }

    /// The loss, and the localiser's error where it is asked.
    fn errors(&self, batch: &Batch) -> Result<(Tensor, Option<Tensor>)> {
        let device = self.variables.device();
        // Dropout depends on the step alone.
        tch::manual_seed((self.pace.seed ^ self.step.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as i64);
        let network =
            Network::from_variables(&self.variables, self.architecture, Fusion::Official, self.kind)?;
        let mut features = None;
        let mut keep = |stage: &str, tensor: &Tensor| {
            // Nothing after it writes into it.
            if stage == LAST_FEATURES {
                features = Some(tensor.shallow_clone());
            }
            Ok(())
        };
        let output = network.forward_observed(&images(&batch.pixels, device)?, Phase::Train, &mut keep)?;
        let loss = self.loss(&output.logits, &batch.labels.f_to_device(device)?)?;
        if self.pace.localise == 0.0 {
            return Ok((loss, None));
        }
        let features = features.context("the network shows its last features")?;
        let changed = batch.changed.f_to_device(device)?;
        Ok((loss, Some(localiser::error(&self.variables, &features, &changed)?)))
    }

    fn loss(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let logits = match self.pace.loss {
            Loss::CrossEntropy => logits.shallow_clone(),
            Loss::AmSoftmax => {
                let margin = labels.f_one_hot(2)?.f_to_kind(Kind::Float)?.f_mul_scalar(MARGIN)?;
                logits.f_sub(&margin)?.f_mul_scalar(SCALE)?
            }
        };
        Ok(logits.f_cross_entropy_loss::<Tensor>(labels, None, tch::Reduction::Mean, -100, 0.0)?)
    }

    /// AdamW, after clipping.
    fn update(&mut self, rate: f64) -> Result<f64> {
        let variables = self.variables.variables();
        let mut gradients = BTreeMap::new();
        let mut squares = Tensor::f_zeros([1], (Kind::Double, self.variables.device()))?;
        for name in self.moments.keys() {
            let gradient = variables[name].f_grad()?;
            // The noise stream's own classifier is used by nobody, so nothing reaches it.
            if gradient.defined() {
                squares = squares.f_add(&gradient.f_square()?.f_sum(Kind::Double)?)?;
                gradients.insert(name, gradient);
            }
        }
        let norm = f64::try_from(squares)?.sqrt();
        ensure!(norm.is_finite(), "step {}: the gradient is {norm}; {AGAIN}", self.step);
        let shrink = (GRADIENT_MAX / (norm + 1e-6)).min(1.0);
        for (name, mut gradient) in gradients {
            if shrink < 1.0 {
                gradient = gradient.f_mul_scalar(shrink)?;
            }
            let mut variable = variables[name].shallow_clone();
            // Normalisations, biases and γ are left alone.
            let decay = if variable.dim() >= 2 { self.pace.decay } else { 0.0 };
            adamw(&mut variable, &gradient, &self.moments[name], self.step, [rate, decay])?;
        }
        Ok(norm)
    }

    /// The average takes a step towards the variables.
    fn follow(&mut self) -> Result<()> {
        let share = 1.0 - AVERAGE.min((1 + self.step) as f64 / (10 + self.step) as f64);
        for (name, variable) in self.variables.variables() {
            let mut average = self.average[&name].shallow_clone();
            let _moved = average.f_lerp_(&variable.f_detach()?, share)?;
        }
        Ok(())
    }

    /// The averaged weights, on the CPU.
    pub(crate) fn averaged(&self) -> Result<TwoStreamWeights> {
        let served = self.average.iter().filter(|(name, _)| !localiser::has(name));
        let mut tensors: BTreeMap<_, _> =
            served.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        for entry in entries(self.architecture) {
            if entry.role == Role::Counter {
                tensors.insert(entry.name, Tensor::f_zeros(&entry.shape, (Kind::Int64, Device::Cpu))?);
            }
        }
        TwoStreamWeights::from_tensors(tensors, self.architecture).context("the averaged weights")
    }

    /// All that the next step depends on, by name.
    pub(crate) fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        let mut keep = |name: String, tensor: &Tensor| -> Result<()> {
            // A copy: the learner goes on writing into its own.
            state.insert(name, tensor.detach().copy().f_to_device(Device::Cpu)?);
            Ok(())
        };
        for (name, variable) in self.variables.variables() {
            keep(format!("weight/{name}"), &variable)?;
            keep(format!("average/{name}"), &self.average[&name])?;
        }
        for (name, [first, second]) in &self.moments {
            keep(format!("first/{name}"), first)?;
            keep(format!("second/{name}"), second)?;
        }
        keep("step".to_owned(), &Tensor::from(self.step as i64).view([1]))?;
        Ok(state)
    }

    /// Takes what [`Learner::state`] gave.
    pub(crate) fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let found = |name: String| state.get(&name).with_context(|| format!("no tensor {name}"));
        no_grad(|| {
            for (name, variable) in self.variables.variables() {
                variable.shallow_clone().f_copy_(found(format!("weight/{name}"))?)?;
                self.average[&name].shallow_clone().f_copy_(found(format!("average/{name}"))?)?;
            }
            for (name, [first, second]) in &self.moments {
                first.shallow_clone().f_copy_(found(format!("first/{name}"))?)?;
                second.shallow_clone().f_copy_(found(format!("second/{name}"))?)?;
            }
            self.step = i64::try_from(found("step".to_owned())?.f_view([1])?.f_get(0)?)? as u64;
            Ok(())
        })
    }
}

/// AdamW's step number `step`, counted from 0, on one variable.
fn adamw(
    variable: &mut Tensor,
    gradient: &Tensor,
    [first, second]: &[Tensor; 2],
    step: u64,
    [rate, decay]: [f64; 2],
) -> Result<()> {
    let time = i32::try_from(step + 1).unwrap_or(i32::MAX);
    let [first_bias, second_bias] = BETAS.map(|beta| 1.0 - beta.powi(time));
    let (mut first, mut second) = (first.shallow_clone(), second.shallow_clone());
    let _moved = first.f_lerp_(gradient, 1.0 - BETAS[0])?;
    let _moved = second.f_lerp_(&gradient.f_square()?, 1.0 - BETAS[1])?;
    let _shrunk = variable.f_mul_scalar_(1.0 - rate * decay)?;
    let deviation = second.f_div_scalar(second_bias)?.f_sqrt()?.f_add_scalar_(EPSILON)?;
    let change = first.f_div(&deviation)?.f_mul_scalar_(-rate / first_bias)?;
    let _moved = variable.f_add_(&change)?;
    Ok(())
}

/// u8 `[n, 256, 256, 3]` → f32 `[n, 3, 256, 256]` in [−1, 1], channels last (measured 2026-11-27 on a CPU: 1.5 times the
/// steps of planes).
fn images(pixels: &Tensor, device: Device) -> Result<Tensor> {
    let images = pixels.f_to_device(device)?.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?;
    Ok(images.f_mul_scalar(2.0 / 255.0)?.f_sub_scalar(1.0)?)
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;
    use crate::learn::start;

    fn pace(loss: Loss) -> Pace {
        Pace { steps: 40, warm_up: 4, rate: 1e-3, decay: 0.05, loss, localise: 0.0, seed: 3 }
    }

    /// libtorch has one generator for the process: tests that draw from it take turns.
    static GENERATOR: Mutex<()> = Mutex::new(());

    fn alone() -> MutexGuard<'static, ()> {
        GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first() -> TwoStreamWeights {
        start::first(None, Architecture::new(13, 2).unwrap(), 5).unwrap().weights
    }

    fn learner(loss: Loss) -> Learner {
        Learner::new(&first(), pace(loss), Device::Cpu, Kind::Float).unwrap()
    }

    fn localising() -> Learner {
        let pace = Pace { localise: 0.5, ..pace(Loss::CrossEntropy) };
        Learner::new(&first(), pace, Device::Cpu, Kind::Float).unwrap()
    }

    fn batch(step: u64) -> Batch {
        let pixels: Vec<u8> = (0..4 * 256 * 256 * 3u64)
            .map(|at| {
                ((at * 2_654_435_761 + step * 97) >> 7) as u8 >> u8::from(at / (256 * 256 * 3) % 2 == 1)
            })
            .collect();
        let changed = Tensor::zeros([4, 8, 8], (Kind::Float, Device::Cpu));
        let _filled = changed.slice(0, 1, 4, 2).fill_(0.7);
        Batch {
            pixels: Tensor::from_slice(&pixels).view([4, 256, 256, 3]),
            labels: Tensor::from_slice(&[0i64, 1, 0, 1]),
            changed,
        }
    }

    fn same(one: &Learner, other: &Learner) -> bool {
        let (one, other) = (one.state().unwrap(), other.state().unwrap());
        one.keys().eq(other.keys()) && one.iter().all(|(name, tensor)| tensor.equal(&other[name]))
    }

    #[test]
    fn a_stop_in_the_middle_changes_nothing() {
        let _alone = alone();
        let mut straight = localising();
        for step in 0..20 {
            straight.learn(&batch(step)).unwrap();
        }
        let mut first = localising();
        for step in 0..10 {
            first.learn(&batch(step)).unwrap();
        }
        assert!(!same(&first, &straight));
        let mut second = localising();
        second.restore(&first.state().unwrap()).unwrap();
        assert_eq!(second.done(), 10);
        for step in 10..20 {
            second.learn(&batch(step)).unwrap();
        }
        assert!(same(&second, &straight), "20 steps straight and 10 + 10 differ");
    }

    #[test]
    fn gradients_reach_every_parameter_and_the_filters_stay() {
        let _alone = alone();
        let mut learner = learner(Loss::AmSoftmax);
        let before = learner.state().unwrap();
        for step in 0..3 {
            assert!(learner.learn(&batch(step)).unwrap().gradient > 0.0);
        }
        let after = learner.state().unwrap();
        for entry in entries(learner.architecture) {
            if entry.role == Role::Counter {
                continue;
            }
            let name = format!("weight/{}", entry.name);
            let moved = !before[&name].equal(&after[&name]);
            let used = !entry.name.starts_with("xception_srm.model.last_linear");
            assert_eq!(moved, used && entry.role != Role::Filter, "{name} moved: {moved}");
            if entry.role == Role::Parameter && used {
                let reached = after[&format!("first/{}", entry.name)].abs().sum(Kind::Float);
                assert!(f64::try_from(reached).unwrap() > 0.0, "no gradient reached {name}");
            }
        }
    }

    #[test]
    fn losses_are_what_their_formulas_say() {
        let _alone = alone();
        let rows = [[0.2f64, -0.1], [0.5, 0.3], [-1.0, 0.4]];
        let labels = [0usize, 1, 1];
        let mean = |scale: f64, margin: f64| {
            let one = |(row, label): (&[f64; 2], &usize)| {
                let mine = scale * (row[*label] - margin);
                let others = scale * row[1 - label];
                (1.0 + (others - mine).exp()).ln()
            };
            rows.iter().zip(&labels).map(one).sum::<f64>() / 3.0
        };
        let logits = Tensor::from_slice(&rows.concat()).view([3, 2]).to_kind(Kind::Float);
        let labels = Tensor::from_slice(&labels.map(|label| label as i64));
        for (loss, expected) in [(Loss::CrossEntropy, mean(1.0, 0.0)), (Loss::AmSoftmax, mean(30.0, 0.45))] {
            let found = f64::try_from(learner(loss).loss(&logits, &labels).unwrap()).unwrap();
            assert!((found - expected).abs() < 1e-4, "{loss:?}: {found} {expected}");
        }
    }

    #[test]
    fn the_localiser_learns_and_teaches_the_network_where_it_is_asked() {
        let _alone = alone();
        let mut plain = learner(Loss::CrossEntropy);
        assert_eq!(plain.learn(&batch(0)).unwrap().localisation, None);
        assert!(plain.state().unwrap().keys().all(|name| !name.contains("localiser")));

        let mut asked = localising();
        assert!(asked.learn(&batch(0)).unwrap().localisation.unwrap() > 0.0);
        let variables = asked.variables.variables();
        for leaf in ["weight", "bias"] {
            let learned = &variables[&format!("localiser.{leaf}")];
            assert!(!learned.equal(&learned.zeros_like()), "{leaf}");
        }
        let mut gradient = variables["xception_rgb.model.conv4.pointwise.weight"].grad();
        let _zeros = gradient.zero_();
        let (_, localisation) = asked.errors(&batch(1)).unwrap();
        localisation.unwrap().backward();
        assert!(!gradient.equal(&gradient.zeros_like()));
    }

    #[test]
    fn a_gradient_that_is_too_long_is_shrunk() {
        let _alone = alone();
        let mut learner = learner(Loss::AmSoftmax);
        let told = learner.learn(&batch(0)).unwrap().gradient;
        assert!(told > GRADIENT_MAX, "{told}: the test needs a steep place");
        // After one step a first moment is a tenth of what arrived.
        let squares = learner
            .moments
            .values()
            .map(|[first, _]| f64::try_from((first / (1.0 - BETAS[0])).square().sum(Kind::Double)).unwrap());
        let arrived = squares.sum::<f64>().sqrt();
        assert!((arrived - GRADIENT_MAX).abs() < 1e-2, "{arrived}");
    }

    #[test]
    fn a_step_in_bf16_is_nearly_one_in_f32() {
        let _alone = alone();
        let first = first();
        let [whole, halved] = [Kind::Float, Kind::BFloat16].map(|kind| {
            let mut learner = Learner::new(&first, pace(Loss::CrossEntropy), Device::Cpu, kind).unwrap();
            let step = learner.learn(&batch(0)).unwrap();
            for (name, tensor) in learner.state().unwrap() {
                let finite = i64::try_from(tensor.isfinite().all()).unwrap();
                assert_eq!(finite, 1, "{name} in {kind:?}");
                assert!(tensor.kind() == Kind::Float || name == "step", "{name} is kept whole");
            }
            step
        });
        assert_ne!(whole.loss, halved.loss, "both were computed alike");
        assert!((whole.loss - halved.loss).abs() < 0.05 * whole.loss, "{whole:?} {halved:?}");
        assert!((whole.gradient - halved.gradient).abs() < 0.3 * whole.gradient, "{whole:?} {halved:?}");
    }

    /// Against PyTorch's own, through tch, on a bowl that is steep in one direction and flat in another.
    #[test]
    fn a_step_is_the_librarys_adamw() {
        use tch::nn::OptimizerConfig;
        let start = Tensor::from_slice(&[3.0f32, -2.0, 0.5, 8.0]).view([2, 2]);
        let steepness = Tensor::from_slice(&[1.0f32, 100.0, 0.01, 5.0]).view([2, 2]);
        let store = VarStore::new(Device::Cpu);
        let theirs = store.root().var_copy("w", &start);
        let mut optimiser = tch::nn::AdamW { wd: 0.05, ..Default::default() }.build(&store, 1e-2).unwrap();
        let ours = start.copy();
        let moments = [ours.zeros_like(), ours.zeros_like()];
        for step in 0..50 {
            let rate = 1e-2 / (1.0 + step as f64);
            optimiser.set_lr(rate);
            optimiser.backward_step(&(theirs.square() * &steepness).sum(Kind::Float));
            adamw(&mut ours.shallow_clone(), &(&ours * &steepness * 2.0), &moments, step, [rate, 0.05])
                .unwrap();
            let apart = f64::try_from((theirs.detach() - &ours).abs().max()).unwrap();
            assert!(apart < 1e-5, "step {step}: {apart}");
        }
    }

    #[test]
    fn the_average_follows() {
        let _alone = alone();
        let mut learner = learner(Loss::CrossEntropy);
        let name = "average/xception_rgb.model.conv1.weight";
        let before = learner.state().unwrap();
        learner.learn(&batch(0)).unwrap();
        let after = learner.state().unwrap();
        // The first step's share: 1 − 2/11.
        let now = &after["weight/xception_rgb.model.conv1.weight"];
        let expected = before[name].lerp(now, 1.0 - 2.0 / 11.0);
        let apart = f64::try_from((&after[name] - expected).abs().max()).unwrap();
        assert!(apart < 1e-7, "{apart}");
        assert!(!after[name].equal(now));
    }

    #[test]
    fn the_rate_warms_up_and_falls() {
        let pace = pace(Loss::CrossEntropy);
        assert_eq!(pace.rate_at(0), 0.25e-3);
        assert_eq!(pace.rate_at(4), 1e-3);
        assert!((4..39).all(|step| pace.rate_at(step + 1) < pace.rate_at(step)));
        assert!((pace.rate_at(40) - 1e-5).abs() < 1e-9);
    }
}
