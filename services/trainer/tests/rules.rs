//! What must hold for any scores: of metrics, intervals, calibration and thresholds.

use forensics::{Calibration, Logit};
use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use trainer::metrics::{self, Resampling, bootstrap, confusion};
use trainer::{Budgets, CalibrationError, Ranking, Scored, Targets, platt, temperature, thresholds};

fn uniform(generator: &mut ChaCha8Rng) -> f64 {
    (f64::from(generator.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0)
}

/// Box–Muller.
fn normal(generator: &mut ChaCha8Rng) -> f64 {
    (-2.0 * uniform(generator).ln()).sqrt() * (std::f64::consts::TAU * uniform(generator)).cos()
}

/// `identities` people with `draws` pairs each, an authentic one at −1 and a forged one at +1, standard deviation 1 in
/// all, of whose variance `shared` (in [0, 1]) belongs to the person and the class.
fn people(seed: u64, identities: u32, draws: u32, shared: f64) -> Vec<Scored> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut scored = Vec::new();
    for identity in 0..identities {
        for forged in [false, true] {
            let person = normal(&mut generator) * shared.sqrt();
            for _ in 0..draws {
                let noise = normal(&mut generator) * (1.0 - shared).sqrt();
                let logit = (if forged { 1.0 } else { -1.0 } + person + noise) as f32;
                scored.push(Scored { logit, forged, identity });
            }
        }
    }
    scored
}

/// Φ(√2): the AUC of two normal distributions two standard deviations apart.
const PEOPLE_AUC: f64 = 0.921_350_4;

fn slope_of(calibration: &Calibration) -> (f64, f64, [f64; 3]) {
    match *calibration {
        Calibration::Platt { slope, intercept, covariance } => (slope, intercept, covariance),
        Calibration::None => panic!("no calibration"),
    }
}

prop_compose! {
    /// Both classes, ties included, five identities or so.
    fn scores()(raw in prop::collection::vec((-40i8..40, any::<bool>(), 0u32..6), 4..120)) -> Vec<Scored> {
        let mut scored: Vec<Scored> = raw
            .into_iter()
            .map(|(x, forged, identity)| Scored { logit: f32::from(x) / 8.0, forged, identity })
            .collect();
        (scored[0].forged, scored[1].forged) = (true, false);
        (scored[0].identity, scored[1].identity) = (0, 1);
        scored
    }
}

proptest! {
    #[test]
    fn ranks_alone_make_the_auc(scored in scores()) {
        let mut moved = scored.clone();
        for scored in &mut moved {
            scored.logit = scored.logit.exp() * 3.0 - 7.0;
        }
        prop_assert_eq!(Ranking::new(&scored).auc(), Ranking::new(&moved).auc());
        prop_assert_eq!(Ranking::new(&scored).average_precision(), Ranking::new(&moved).average_precision());
        prop_assert_eq!(Ranking::new(&scored).equal_error_rate(), Ranking::new(&moved).equal_error_rate());
    }

    #[test]
    fn swapped_labels_give_the_complement(scored in scores()) {
        let mut swapped = scored.clone();
        for scored in &mut swapped {
            scored.forged = !scored.forged;
        }
        let (auc, eer) = (Ranking::new(&scored).auc().unwrap(), Ranking::new(&scored).equal_error_rate().unwrap());
        prop_assert!((auc + Ranking::new(&swapped).auc().unwrap() - 1.0).abs() < 1e-12);
        prop_assert!((eer + Ranking::new(&swapped).equal_error_rate().unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_order_of_the_scores_does_not_matter(scored in scores()) {
        let mut reversed = scored.clone();
        reversed.reverse();
        let calibration = Calibration::Platt { slope: 1.0, intercept: 0.0, covariance: [0.0; 3] };
        prop_assert_eq!(Ranking::new(&scored).auc(), Ranking::new(&reversed).auc());
        prop_assert_eq!(Ranking::new(&scored).reliability(&calibration), Ranking::new(&reversed).reliability(&calibration));
    }

    #[test]
    fn bins_hold_every_score_once(scored in scores()) {
        let reliability = Ranking::new(&scored).reliability(&Calibration::None).unwrap();
        let mass: f64 = reliability.bins.iter().map(|bin| bin.mass).sum();
        prop_assert!((mass - 1.0).abs() < 1e-9);
        prop_assert_eq!(reliability.bins.iter().map(|bin| bin.authentic + bin.forged).sum::<u64>(), scored.len() as u64);
        prop_assert!((0.0..=1.0).contains(&reliability.calibration_error));
        prop_assert!(reliability.bins.windows(2).all(|pair| pair[0].predicted <= pair[1].predicted));
    }

    #[test]
    fn thresholds_keep_their_budgets(scored in scores(), alarms in 0.0..0.5, misses in 0.0..0.5) {
        let calibration = Calibration::Platt { slope: 0.7, intercept: -0.2, covariance: [0.0; 3] };
        let budgets = Budgets { false_alarms: alarms, misses };
        let found = thresholds(&scored, &calibration, budgets).unwrap();
        let confusion = confusion(&scored, &calibration, found);
        let share = |count: u64, outcomes: metrics::Outcomes| count as f64 / outcomes.total() as f64;
        prop_assert!(share(confusion.of_authentic.forged, confusion.of_authentic) <= alarms + 1e-9);
        prop_assert!(share(confusion.of_forged.authentic, confusion.of_forged) <= misses + 1e-9);
        prop_assert_eq!(
            Ranking::new(&scored).false_alarms(&calibration, found.forged).unwrap(),
            share(confusion.of_authentic.forged, confusion.of_authentic)
        );
        // Nothing is given away: the next authentic score below would break the budget.
        let below = |s: &&Scored| !s.forged && s.probability(&calibration) < found.forged;
        let next = scored.iter().filter(below).map(|s| s.probability(&calibration)).reduce(f32::max);
        if let Some(next) = next {
            prop_assert!(Ranking::new(&scored).false_alarms(&calibration, next).unwrap() > alarms - 1e-9);
        }
    }

    #[test]
    fn an_interval_repeats_and_is_about_the_value_of_all(scored in scores(), seed in any::<u64>()) {
        let resampling = Resampling { count: 100, seed };
        let found = bootstrap(&scored, Ranking::auc, resampling);
        prop_assert_eq!(found, bootstrap(&scored, Ranking::auc, resampling));
        if let Some(found) = found {
            prop_assert_eq!(Some(found.value), Ranking::new(&scored).auc());
        }
    }
}

#[test]
fn one_class_defines_nothing() {
    let scored =
        [Scored { logit: 1.0, forged: true, identity: 0 }, Scored { logit: 2.0, forged: true, identity: 1 }];
    let ranking = Ranking::new(&scored);
    assert_eq!(ranking.auc(), None);
    assert_eq!(ranking.average_precision(), None);
    assert_eq!(ranking.equal_error_rate(), None);
    assert_eq!(ranking.tpr_at_fpr(0.01), None);
    assert_eq!(ranking.roc(), None);
    assert_eq!(ranking.reliability(&Calibration::None), None);
    assert_eq!(ranking.false_alarms(&Calibration::None, 0.5), None);
    assert_eq!(bootstrap(&scored, Ranking::auc, Resampling::default()), None);
    assert_eq!(Ranking::new(&[]).auc(), None);
    let missing = Err(CalibrationError::ClassMissing { authentic: 0, forged: 2 });
    assert_eq!(platt(&scored, Targets::Smoothed), missing);
}

/// Nominal 95 %; 200 simulations tell 95 % from 90 % (standard error 1.5 %).
#[test]
fn intervals_by_identity_hold_the_truth_as_often_as_they_say() {
    let resampling = Resampling { count: 200, seed: 1 };
    let (mut by_identity, mut by_picture) = (0, 0);
    for seed in 0..200 {
        let mut scored = people(seed, 60, 10, 0.7);
        let covers = |scored: &[Scored]| {
            let found = bootstrap(scored, Ranking::auc, resampling).unwrap();
            usize::from(found.low <= PEOPLE_AUC && PEOPLE_AUC <= found.high)
        };
        by_identity += covers(&scored);
        for (index, scored) in scored.iter_mut().enumerate() {
            scored.identity = index as u32;
        }
        by_picture += covers(&scored);
    }
    assert!((180..=199).contains(&by_identity), "{by_identity} of 200");
    assert!(
        by_picture < 150,
        "pictures as units hold it as well: {by_picture} of 200 (the simulation shows nothing)"
    );
}

#[test]
fn scores_calibrated_perfectly_have_a_small_calibration_error() {
    let mut generator = ChaCha8Rng::seed_from_u64(7);
    let draw = |identity: u32| {
        let z = normal(&mut generator) * 3.0;
        let forged = uniform(&mut generator) < 1.0 / (1.0 + (-z).exp());
        Scored { logit: z as f32, forged, identity }
    };
    let scored: Vec<Scored> = (0..40_000).map(draw).collect();
    let ours = Ranking::new(&scored).reliability(&Calibration::None).unwrap();
    assert!(ours.calibration_error < 0.01, "{}", ours.calibration_error);
    assert!(
        ours.bins.len() == 10 && ours.bins.iter().all(|bin| (bin.mass - 0.1).abs() < 1e-3),
        "{:?}",
        ours.bins
    );
    let wrong = Calibration::Platt { slope: 4.0, intercept: 0.0, covariance: [0.0; 3] };
    assert!(Ranking::new(&scored).reliability(&wrong).unwrap().calibration_error > 0.05);
}

#[test]
fn the_fit_finds_the_line_that_made_the_scores() {
    // Two normals at ±1 with variance 1 have log-odds 2x; 0.5 · (2x) + 3 is refitted through a shifted copy.
    let mut scored = people(3, 4000, 3, 0.0);
    let (slope, intercept, _) = slope_of(&platt(&scored, Targets::Smoothed).unwrap());
    assert!((slope - 2.0).abs() < 0.05 && intercept.abs() < 0.05, "{slope} {intercept}");
    let (slope, intercept, covariance) = slope_of(&temperature(&scored, Targets::Smoothed).unwrap());
    assert!((slope - 2.0).abs() < 0.05 && intercept == 0.0 && covariance[1..] == [0.0, 0.0]);
    for scored in &mut scored {
        scored.logit = scored.logit * 0.25 + 40.0;
    }
    let (slope, intercept, _) = slope_of(&platt(&scored, Targets::Smoothed).unwrap());
    assert!((slope - 8.0).abs() < 0.2 && (intercept + 320.0).abs() < 8.0, "{slope} {intercept}");
    // Each class has half of the mass, however rare it is.
    scored.retain(|scored| !scored.forged || scored.identity.is_multiple_of(10));
    let rare = slope_of(&platt(&scored, Targets::Smoothed).unwrap());
    assert!((rare.0 - 8.0).abs() < 0.4 && (rare.0 * 40.0 + rare.1).abs() < 0.15, "{rare:?}");
}

#[test]
fn draws_of_one_identity_are_not_evidence_of_their_own() {
    let scored = people(5, 50, 2, 0.3);
    let repeated: Vec<Scored> = scored.iter().flat_map(|&scored| [scored; 5]).collect();
    let (once, again) = (platt(&scored, Targets::Plain).unwrap(), platt(&repeated, Targets::Plain).unwrap());
    let (once, again) = (slope_of(&once), slope_of(&again));
    for (a, b) in once.2.into_iter().zip(again.2) {
        assert!((a - b).abs() <= 1e-9 * a.abs().max(1e-3), "{once:?} {again:?}");
    }
}

#[test]
fn the_covariance_is_that_of_leaving_one_identity_out() {
    let mut scored = people(11, 150, 4, 0.5);
    for scored in &mut scored {
        scored.logit = scored.logit * 3.0 + 5.0;
    }
    let (slope, intercept, covariance) = slope_of(&platt(&scored, Targets::Plain).unwrap());
    let mut jackknife = [0.0; 3];
    for left_out in 0..150 {
        let rest: Vec<Scored> = scored.iter().copied().filter(|scored| scored.identity != left_out).collect();
        let (s, i, _) = slope_of(&platt(&rest, Targets::Plain).unwrap());
        let (ds, di) = (s - slope, i - intercept);
        for (sum, term) in jackknife.iter_mut().zip([ds * ds, ds * di, di * di]) {
            *sum += term * 149.0 / 150.0;
        }
    }
    for (ours, theirs) in covariance.into_iter().zip(jackknife) {
        assert!((ours / theirs - 1.0).abs() < 0.15, "{covariance:?} {jackknife:?}");
    }
}

#[test]
fn classes_apart_have_a_smoothed_fit_only() {
    let apart: Vec<Scored> = (0..40)
        .map(|index: u32| Scored {
            logit: if index.is_multiple_of(2) { -8.0 } else { 9.0 } + index as f32 / 40.0,
            forged: index % 2 == 1,
            identity: index / 4,
        })
        .collect();
    assert_eq!(platt(&apart, Targets::Plain), Err(CalibrationError::Separable));
    assert_eq!(temperature(&apart, Targets::Plain), Err(CalibrationError::Separable));
    let calibration = platt(&apart, Targets::Smoothed).unwrap();
    let (slope, _, _) = slope_of(&calibration);
    assert!(slope > 0.0 && slope < 1.0, "{slope}");
    // 20 of each class: σ at the forged ones' middle is 21/22.
    let p = f64::from(calibration.probability(Logit::new(9.5).unwrap()).get());
    assert!((p - 21.0 / 22.0).abs() < 0.01, "{p}");
    // One threshold parts them: nothing is inconclusive.
    let found = thresholds(&apart, &calibration, Budgets::default()).unwrap();
    assert_eq!(found.forged, found.authentic);
    let confusion = confusion(&apart, &calibration, found);
    assert_eq!((confusion.of_authentic.authentic, confusion.of_forged.forged), (20, 20));
}

#[test]
fn scores_that_do_not_rank_are_refused() {
    let mut scored = people(2, 30, 2, 0.0);
    for scored in &mut scored {
        scored.forged = !scored.forged;
    }
    assert!(matches!(platt(&scored, Targets::Smoothed), Err(CalibrationError::Slope(slope)) if slope < 0.0));
    let falling = Calibration::Platt { slope: -1.0, intercept: 0.0, covariance: [0.0; 3] };
    assert_eq!(thresholds(&scored, &falling, Budgets::default()), Err(CalibrationError::Slope(-1.0)));
    assert_eq!(
        thresholds(&scored, &Calibration::None, Budgets::default()),
        Err(CalibrationError::Uncalibrated)
    );
    let steep = Calibration::Platt { slope: 1.0, intercept: 1e6, covariance: [0.0; 3] };
    assert_eq!(thresholds(&scored, &steep, Budgets::default()), Err(CalibrationError::Saturated(0.01)));
    let greedy = Budgets { misses: 1.0, ..Budgets::default() };
    let rising = Calibration::Platt { slope: 1.0, intercept: 0.0, covariance: [0.0; 3] };
    assert_eq!(thresholds(&scored, &rising, greedy), Err(CalibrationError::Budget(1.0)));
    scored.iter_mut().for_each(|scored| scored.logit = 2.0);
    assert_eq!(platt(&scored, Targets::Smoothed), Err(CalibrationError::Constant));
    scored[0].logit = f32::NAN;
    assert!(matches!(platt(&scored, Targets::Smoothed), Err(CalibrationError::NotFinite(_))));
    let one: Vec<Scored> = people(2, 1, 20, 0.0);
    assert_eq!(platt(&one, Targets::Smoothed), Err(CalibrationError::OneIdentity));
}

#[test]
fn a_limit_that_is_reached_exactly_is_kept() {
    // One of 100 authentic lies above the second forged: a false positive rate of 1 % to the bit.
    let mut scored: Vec<Scored> =
        (0..100).map(|identity| Scored { logit: -(identity as f32), forged: false, identity }).collect();
    scored.extend([0.5, -0.5].map(|logit| Scored { logit, forged: true, identity: 0 }));
    assert_eq!(Ranking::new(&scored).tpr_at_fpr(0.01), Some(1.0));
    assert_eq!(Ranking::new(&scored).tpr_at_fpr(0.009), Some(0.5));
}

#[test]
fn equal_scores_lie_in_the_bin_of_their_middle() {
    let score = |logit: f32, forged: bool| Scored { logit, forged, identity: 0 };
    let scored = [score(3.0, true), score(-3.0, true), score(-3.0, false), score(-3.0, false)];
    let found = Ranking::new(&scored).reliability(&Calibration::None).unwrap();
    let masses: Vec<f64> = found.bins.iter().map(|bin| bin.mass).collect();
    assert_eq!(masses, [0.75, 0.25]);
    assert_eq!((found.bins[0].authentic, found.bins[0].forged, found.bins[1].forged), (2, 1, 1));
    assert!((found.bins[0].observed - 1.0 / 3.0).abs() < 1e-12 && found.bins[1].observed == 1.0);
}
