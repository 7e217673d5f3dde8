use std::collections::BTreeMap;

use super::*;
use tch::nn::OptimizerConfig;
use tch::{Device, Kind, Tensor};

fn copies(weights: &TwoStreamWeights) -> BTreeMap<String, Tensor> {
    weights.tensors().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect()
}

#[test]
fn the_state_dict_is_the_published_one() {
    let entries = entries(Architecture::FULL);
    assert_eq!(entries.len(), 626);
    let values = |role| -> i64 {
        entries.iter().filter(|e| e.role == role).map(|e| e.shape.iter().product::<i64>()).sum()
    };
    assert_eq!(values(Role::Parameter) + values(Role::Filter), 53_250_128);
    let shape = |name: &str| entries.iter().find(|e| e.name == name).map(|e| e.shape.clone());
    assert_eq!(shape("xception_rgb.model.block12.rep.4.pointwise.weight"), Some(vec![1024, 728, 1, 1]));
    assert_eq!(shape("xception_srm.model.block4.rep.7.conv1.weight"), Some(vec![728, 1, 3, 3]));
    assert_eq!(shape("xception_rgb.model.block1.rep.3.pointwise.weight"), Some(vec![128, 128, 1, 1]));
    assert_eq!(shape("dual_cma0.gamma1"), Some(vec![1]));
    assert_eq!(shape("dual_cma1.key_conv_share.weight"), Some(vec![91, 91, 1, 1]));
    assert_eq!(shape("fusion.ca.sharedMLP.0.weight"), Some(vec![128, 2048, 1, 1]));
    assert_eq!(shape("xception_rgb.model.last_linear.1.weight"), Some(vec![2, 2048]));
}

#[test]
fn keys_that_do_not_fit_are_all_named() {
    let weights = TwoStreamWeights::seeded(Architecture::MINI, "keys").unwrap();
    let mut tensors = copies(&weights);
    tensors.remove("dual_cma0.gamma1");
    tensors.remove("srm_conv1.kernel");
    tensors.insert("blur.weight".into(), Tensor::from_slice(&[1f32]));
    tensors.insert("srm_sa_post.0.weight".into(), Tensor::from_slice(&[1f32]));
    tensors.insert("srm_sa_post.0.num_batches_tracked".into(), Tensor::from(1f32));
    let error = TwoStreamWeights::from_tensors(tensors, Architecture::MINI).unwrap_err();
    let WeightsError::Mismatch(mismatch) = &error else { panic!("{error}") };
    assert_eq!(mismatch.missing.len(), 2);
    assert_eq!(mismatch.unexpected, ["blur.weight"]);
    assert_eq!(mismatch.misshapen.len(), 2);
    let text = error.to_string();
    for name in
        ["dual_cma0.gamma1", "srm_conv1.kernel", "blur.weight", "srm_sa_post.0.weight", "num_batches_tracked"]
    {
        assert!(text.contains(name), "{name} is not in: {text}");
    }
}

#[test]
fn weights_with_nan_are_refused_by_name() {
    let weights = TwoStreamWeights::seeded(Architecture::MINI, "nan").unwrap();
    let tensors = copies(&weights);
    let _filled = tensors["dual_cma1.gamma2"].shallow_clone().fill_(f64::NAN);
    let error = TwoStreamWeights::from_tensors(tensors, Architecture::MINI).unwrap_err();
    assert!(error.to_string().contains("dual_cma1.gamma2"), "{error}");
}

/// Width, depth and dialect change nothing about the two forms' agreement.
#[test]
fn the_inference_form_agrees_with_the_published_one() {
    for (architecture, fusion) in [
        (Architecture::MINI, Fusion::Official),
        (Architecture::MINI, Fusion::DeepfakeBench),
        (Architecture::new(13, 2).unwrap(), Fusion::Official),
    ] {
        let weights = TwoStreamWeights::seeded(architecture, "forms").unwrap();
        let plain = Network::new(&weights, fusion).unwrap();
        let prepared = plain.prepare(Device::Cpu, Kind::Float).unwrap();
        let pixels = Tensor::randint(256, [2, INPUT_SIDE, INPUT_SIDE, 3], (Kind::Uint8, Device::Cpu));
        let images = pixels.permute([0, 3, 1, 2]).contiguous().to_kind(Kind::Float) / 255;
        let images = (images - 0.5) / 0.5;
        let _inference = crate::InferenceMode::enter();
        let expected = plain.forward(&images, Phase::Evaluate).unwrap();
        let found = prepared.forward_pixels(&pixels).unwrap();
        for (name, found, expected) in [
            ("logits", found.logits, expected.logits),
            ("embedding", found.embedding, expected.embedding),
            ("attention", found.attention_map, expected.attention_map),
        ] {
            let error = crate::parity::relative_error(&found, &expected).unwrap();
            assert!(error < 2e-5, "{architecture} {fusion:?} {name}: {error}");
        }
    }
}

#[test]
fn an_optimiser_trains_every_parameter_under_its_official_name() {
    let weights = TwoStreamWeights::seeded(Architecture::new(13, 2).unwrap(), "train").unwrap();
    let variables = trainable(&weights, Device::Cpu).unwrap();
    let network =
        Network::from_variables(&variables, weights.architecture(), Fusion::Official, Kind::Float).unwrap();
    let mut optimiser = tch::nn::Adam::default().build(&variables, 1e-3).unwrap();
    tch::manual_seed(7);
    let images = Tensor::randn([4, 3, INPUT_SIDE, INPUT_SIDE], (Kind::Float, Device::Cpu)).clamp(-1.0, 1.0);
    let labels = Tensor::from_slice(&[0i64, 1, 0, 1]);
    let loss = |phase| network.forward(&images, phase).unwrap().logits.cross_entropy_for_logits(&labels);
    let before = f64::try_from(loss(Phase::Train)).unwrap();
    for _ in 0..4 {
        optimiser.backward_step(&loss(Phase::Train));
    }
    let after = f64::try_from(loss(Phase::Train)).unwrap();
    assert!(after < before, "the loss went from {before} to {after}");

    let trained = variables.variables();
    for entry in entries(weights.architecture()) {
        let Some(now) = trained.get(&entry.name) else {
            assert_eq!(entry.role, Role::Counter, "{} is not in the store", entry.name);
            continue;
        };
        let moved = now.detach().ne_tensor(&weights.tensors()[&entry.name]).any() != Tensor::from(false);
        // The noise stream's own classifier is in every checkpoint and used by nobody.
        let used = !entry.name.starts_with("xception_srm.model.last_linear");
        assert_eq!(moved, used && entry.role != Role::Filter, "{} moved: {moved}", entry.name);
    }
}
