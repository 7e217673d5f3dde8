//! Where the forgery is, asked while learning: a linear map of the network's last features, which nobody serves.
//!
//! The answer to "forged or not" is one bit a picture, and of a forgery that changed an eye most of the features that it is
//! averaged over saw nothing. The forge knows which pixels it changed, so the features can be asked in every place (Li et
//! al., *Face X-ray*, CVPR 2020, teach a network the blending boundary as well).

use anyhow::{Context, Result};
use models::Architecture;
use tch::nn::{Init, VarStore};
use tch::{Kind, Reduction, Tensor};

/// Begins the names of its variables, which are no part of a model.
const NAME: &str = "localiser";

/// Channels of the last features, as published.
const FEATURES: u32 = 2048;

/// Puts its variables into the store. They begin at 0: in the first step none of its gradient reaches the network.
pub(crate) fn add(variables: &VarStore, architecture: Architecture) -> Result<()> {
    let place = variables.root().sub(NAME);
    let _weight = place.f_var("weight", &[1, architecture.channels(FEATURES), 1, 1], Init::Const(0.0))?;
    let _bias = place.f_var("bias", &[1], Init::Const(0.0))?;
    Ok(())
}

/// Whether the variable of that name is one of its.
pub(crate) fn has(name: &str) -> bool {
    name.split('.').next() == Some(NAME)
}

/// Its mean error over all places that are known. `features`: `[n, c, 8, 8]`; `changed`: `[n, 8, 8]`, the share of each place
/// that a forgery changed, −1 where nobody knows.
pub(crate) fn error(variables: &VarStore, features: &Tensor, changed: &Tensor) -> Result<Tensor> {
    let all = variables.variables();
    let variable = |leaf: &str| all.get(&format!("{NAME}.{leaf}")).context("the localiser has no variables");
    let features = features.f_to_kind(Kind::Float)?;
    let said =
        features.f_conv2d(variable("weight")?, Some(variable("bias")?), 1, 0, 1, 1)?.f_squeeze_dim(1)?;
    let known = changed.f_ge(0.0)?.f_to_kind(Kind::Float)?;
    let error = said.f_binary_cross_entropy_with_logits(
        &changed.f_clamp_min(0.0)?,
        Some(&known),
        None,
        Reduction::Sum,
    )?;
    Ok(error.f_div(&known.f_sum(Kind::Float)?.f_clamp_min(1.0)?)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn its_error_is_the_mean_over_the_places_that_are_known() {
        let architecture = Architecture::new(13, 2).unwrap();
        let variables = VarStore::new(Device::Cpu);
        add(&variables, architecture).unwrap();
        let channels = architecture.channels(FEATURES);
        let features = Tensor::zeros([2, channels, 8, 8], (Kind::Float, Device::Cpu));
        let _filled = features.get(1).narrow(0, 0, 1).fill_(1.0);
        tch::no_grad(|| {
            let _filled = variables.variables()["localiser.weight"].shallow_clone().fill_(2.0);
            let _filled = variables.variables()["localiser.bias"].shallow_clone().fill_(-1.0);
        });
        // Says -1 everywhere in the first picture, 1 in the second.
        let changed = Tensor::zeros([2, 8, 8], (Kind::Float, Device::Cpu));
        let _filled = changed.get(1).fill_(0.25);
        let _filled = changed.get(1).narrow(0, 0, 4).fill_(-1.0);
        let found = f64::try_from(error(&variables, &features, &changed).unwrap()).unwrap();
        let cost = |said: f64, share: f64| {
            share * (1.0 + (-said).exp()).ln() + (1.0 - share) * (1.0 + said.exp()).ln()
        };
        let expected = (64.0 * cost(-1.0, 0.0) + 32.0 * cost(1.0, 0.25)) / 96.0;
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        let unknown = changed.full_like(-1.0);
        assert_eq!(f64::try_from(error(&variables, &features, &unknown).unwrap()).unwrap(), 0.0);
    }
}
