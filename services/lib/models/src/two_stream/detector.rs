//! The network behind the seam: crops in, logits out, on one device, owned by one thread.

use std::path::Path;

use forensics::{
    Calibration, CropBatch, DetectorError, ForgeryDetector, Logit, ModelIdentity, Preprocessing, Thresholds,
};
use tch::{Device, Tensor};

use super::placed::{PlacedNetwork, logits, pairs};
use crate::bundle::{Bundle, BundleError, Golden};
use crate::device::{DeviceConfig, DeviceError, Placement, detector_error};

/// The two-stream network on its device. Loaded, it has proven itself on the bundle's golden vectors.
pub struct TwoStream {
    network: PlacedNetwork,
    placement: Placement,
    batch_max: usize,
    identity: ModelIdentity,
    preprocessing: Preprocessing,
    calibration: Calibration,
    thresholds: Option<Thresholds>,
    golden: Golden,
}

/// Why a model does not serve.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bundle is not used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device does not do what it must, or the self-test failed.
    #[error(transparent)]
    Detector(#[from] DetectorError),
}

/// What reviewers get to see of one crop, beside its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Forged minus authentic.
    pub logit: Logit,
    /// The pooled features: 2048 values (the width's share of it).
    pub embedding: Vec<f32>,
    /// Row-major [`ATTENTION_SIDE`]² values in (0, 1): where the noise says to look.
    pub attention_map: Vec<f32>,
}

/// Side of the attention map.
pub const ATTENTION_SIDE: usize = 125;

impl TwoStream {
    /// Reads the bundle in `folder`, places it on the configured device, warms up and tests itself.
    pub fn load(folder: &Path, config: &DeviceConfig) -> Result<Self, LoadError> {
        Self::from_bundle(Bundle::read(folder)?, config)
    }

    /// The same for a bundle in memory.
    pub fn from_bundle(bundle: Bundle, config: &DeviceConfig) -> Result<Self, LoadError> {
        let placement = config.open()?;
        let Bundle { manifest, weights, sha256, golden } = bundle;
        let network = PlacedNetwork::new(&weights, manifest.fusion, placement)?;
        drop(weights);
        let identity = ModelIdentity {
            name: manifest.name,
            version: manifest.version,
            sha256,
            precision: placement.precision(),
            device: placement.class(),
        };
        let mut detector = Self {
            network,
            placement,
            batch_max: 1,
            identity,
            preprocessing: manifest.preprocessing,
            calibration: manifest.calibration,
            thresholds: manifest.thresholds,
            golden,
        };
        detector.self_test()?;
        detector.batch_max = detector.probe(config.batch_limit(&placement))?;
        tracing::info!(
            model.name = detector.identity.name,
            model.version = detector.identity.version,
            model.sha256 = hex::encode(sha256),
            batch_max = detector.batch_max,
            "model loaded, self-test passed"
        );
        Ok(detector)
    }

    /// Logits with their evidence, in the batch's order.
    pub fn examine(&mut self, batch: &CropBatch) -> Result<Vec<Evidence>, DetectorError> {
        let outputs = self.network.forward(batch)?;
        let logits = logits(&outputs, batch.count())?;
        let rows = |tensor: &Tensor| -> Result<Vec<Vec<f32>>, DetectorError> {
            let rows =
                tensor.f_flatten(1, -1).and_then(|t| t.f_to_device(Device::Cpu)).and_then(Vec::try_from);
            rows.map_err(|error| detector_error(&error, batch.count()))
        };
        let mut evidence = Vec::with_capacity(batch.count());
        let mut logits = logits.into_iter();
        for output in &outputs {
            let maps = rows(&output.attention_map)?;
            for ((embedding, attention_map), logit) in
                rows(&output.embedding)?.into_iter().zip(maps).zip(&mut logits)
            {
                evidence.push(Evidence { logit, embedding, attention_map });
            }
        }
        Ok(evidence)
    }

    /// The largest batch up to `limit` that fits the device, found by trying. A CPU's memory is not tried: its batches are
    /// small, and a host that swaps answers late instead of refusing.
    fn probe(&mut self, limit: usize) -> Result<usize, DetectorError> {
        if self.placement.device == Device::Cpu {
            return Ok(limit);
        }
        let crop = self.golden.inputs.crop(0).to_vec();
        let (mut fits, mut size) = (1, 2);
        while size <= limit {
            let mut batch = CropBatch::with_capacity(size);
            let _all_fit = (0..size).all(|_| batch.push(&crop));
            match self.score(&batch) {
                Ok(_) => fits = size,
                Err(DetectorError::OutOfMemory { .. }) => break,
                Err(error) => return Err(error),
            }
            size *= 2;
        }
        Ok(fits)
    }
}

impl ForgeryDetector for TwoStream {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    fn thresholds(&self) -> Option<Thresholds> {
        self.thresholds
    }

    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn score(&mut self, batch: &CropBatch) -> Result<Vec<Logit>, DetectorError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.network.score(batch)
    }

    fn self_test(&mut self) -> Result<(), DetectorError> {
        let inputs = self.golden.inputs.clone();
        let outputs = self.network.forward(&inputs)?;
        let found = pairs(&outputs, inputs.count())?;
        self.golden.check(&found, self.placement.precision()).map_err(DetectorError::SelfTest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Storage, patterns, write};
    use crate::device::{DeviceChoice, PrecisionChoice};
    use crate::two_stream::Architecture;
    use crate::two_stream::cpu_piece;
    use forensics::CropMode;

    fn cpu() -> DeviceConfig {
        let (device, precision) = (DeviceChoice::Cpu, PrecisionChoice::F32);
        DeviceConfig { device, precision, ..DeviceConfig::default() }
    }

    fn narrow_bundle() -> Bundle {
        let preprocessing = Preprocessing { crop: CropMode::None, face_detector: "none".into() };
        Bundle::seeded(Architecture::new(13, 2).unwrap(), "detector", preprocessing).unwrap()
    }

    #[test]
    fn a_crops_score_does_not_depend_on_its_batch() {
        let mut detector = TwoStream::from_bundle(narrow_bundle(), &cpu()).unwrap();
        let patterns = patterns();
        let mut batch = CropBatch::default();
        for index in 0..2 * cpu_piece() + 1 {
            assert!(batch.push(patterns.crop(index % 2)));
        }
        let logits = detector.score(&batch).unwrap();
        assert_eq!(logits.len(), batch.count());
        let alone = detector.score(&patterns).unwrap();
        assert_ne!(alone[0], alone[1], "two different crops must not score the same");
        for (index, logit) in logits.iter().enumerate() {
            let difference = (logit.get() - alone[index % 2].get()).abs();
            assert!(difference < 1e-4, "crop {index} differs by {difference}");
        }
        assert_eq!(detector.score(&CropBatch::default()), Ok(Vec::new()));
    }

    #[test]
    fn evidence_comes_with_its_score() {
        let mut detector = TwoStream::from_bundle(narrow_bundle(), &cpu()).unwrap();
        let evidence = detector.examine(&patterns()).unwrap();
        assert_eq!(evidence.len(), 2);
        let scores = detector.score(&patterns()).unwrap();
        for (evidence, score) in evidence.iter().zip(scores) {
            assert_eq!(evidence.logit, score);
            assert_eq!(evidence.attention_map.len(), ATTENTION_SIDE * ATTENTION_SIDE);
            assert!(evidence.attention_map.iter().all(|value| (0.0..=1.0).contains(value)));
            assert!(!evidence.embedding.is_empty());
        }
    }

    #[test]
    fn a_model_that_no_longer_gives_its_golden_logits_is_not_served() {
        let mut bundle = narrow_bundle();
        bundle.golden.logits[1][0] += 0.01;
        let Err(LoadError::Detector(DetectorError::SelfTest(why))) = TwoStream::from_bundle(bundle, &cpu())
        else {
            panic!("it was served")
        };
        assert!(why.contains("golden input 1"), "{why}");
    }

    #[test]
    fn a_written_bundle_is_served_under_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let seeded = narrow_bundle();
        let written =
            write(folder.path(), &seeded.manifest, &seeded.weights, Storage::F16, Some(&patterns())).unwrap();
        let detector = TwoStream::load(folder.path(), &cpu()).unwrap();
        assert_eq!(detector.identity().sha256, written.sha256);
        assert_eq!(detector.identity().name, "two-stream-untrained");
        assert_eq!(detector.calibration(), Calibration::None);
        assert_eq!(detector.thresholds(), None);
        assert_eq!(detector.preprocessing(), &seeded.manifest.preprocessing);
    }
}
