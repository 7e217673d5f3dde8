use forensics::{BoundingBox, CropMode, DetectedFace};
use proptest::prelude::*;

use super::*;
use crate::crop_face;

fn points(of: impl Fn(f64, f64) -> (f64, f64)) -> [Point; 5] {
    template().map(|(x, y)| {
        let (x, y) = of(x, y);
        Point { x: x as f32, y: y as f32 }
    })
}

/// A picture whose bilinear samples are known: red grows with x, green with y.
fn ramp(width: u32, height: u32) -> Frame {
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [(x / 2) as u8, (y / 2) as u8, 77]));
    Frame::new(width, height, pixels.collect()).unwrap()
}

#[test]
fn the_template_is_the_published_one() {
    // From the statements of the Python of DeepfakeBench, run for outsize 256, scale 1.3.
    let expected = [
        (96.869_626, 120.433_055),
        (158.825_143, 120.090_374),
        (128.044_308, 155.668_747),
        (102.592_176, 191.939_341),
        (153.898_725, 191.655_563),
    ];
    for ((x, y), (expected_x, expected_y)) in template().into_iter().zip(expected) {
        assert!((x - expected_x).abs() < 0.001 && (y - expected_y).abs() < 0.001, "{x} {y}");
    }
}

#[test]
fn landmarks_on_the_template_change_nothing() {
    let frame = ramp(256, 256);
    let crop = crop(&frame, &points(|x, y| (x, y)), 0).unwrap().pixels;
    let differs = crop.iter().zip(frame.rgb()).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    // The last row and column may lean on the black border by a rounding of the landmarks to f32.
    assert!(differs <= 2 * CROP_SIDE * 3, "{differs} values differ");
}

#[test]
fn a_known_transform_is_undone() {
    // The face lies at 1.5 times its size, turned by 90 degrees, shifted: x' = 410 − 1.5 y, y' = 20 + 1.5 x.
    let frame = ramp(500, 500);
    let crop = crop(&frame, &points(|x, y| (410.0 - 1.5 * y, 20.0 + 1.5 * x)), 0).unwrap().pixels;
    for (x, y) in [(10usize, 10usize), (128, 128), (200, 30), (30, 240)] {
        let at = (y * CROP_SIDE + x) * 3;
        let expected = ((410.0 - 1.5 * y as f64) / 2.0, (20.0 + 1.5 * x as f64) / 2.0);
        assert!((f64::from(crop[at]) - expected.0).abs() <= 1.0, "red at {x},{y}: {}", crop[at]);
        assert!((f64::from(crop[at + 1]) - expected.1).abs() <= 1.0, "green at {x},{y}: {}", crop[at + 1]);
    }
}

#[test]
fn beyond_the_frame_it_is_black() {
    let frame = Frame::new(256, 256, vec![200; 256 * 256 * 3]).unwrap();
    let crop = crop(&frame, &points(|x, y| (x - 100.5, y)), 0).unwrap().pixels;
    let row = &crop[128 * CROP_SIDE * 3..129 * CROP_SIDE * 3];
    assert_eq!(&row[..3 * 90], &[0; 3 * 90][..], "left of the frame");
    assert_eq!(row[3 * 100], 100, "half of the pixel lies beyond the edge");
    assert_eq!(&row[3 * 110..], &[200; 3 * 146][..], "inside");
}

#[test]
fn the_fit_is_the_least_squares_one() {
    // Moving any parameter a little makes the residual larger.
    let from =
        [(10.0, 12.0), (60.0, 8.0), (33.0, 40.0), (15.0, 66.0), (58.0, 70.0)].map(|(x, y)| Point { x, y });
    let to = template();
    let residual = |fit: &Similarity| -> f64 {
        let pairs = from.iter().zip(&to);
        pairs
            .map(|(p, q)| {
                let (x, y) = fit.apply(f64::from(p.x), f64::from(p.y));
                (x - q.0).powi(2) + (y - q.1).powi(2)
            })
            .sum()
    };
    let best = Similarity::between(&from, &to).unwrap();
    for step in [-1e-3, 1e-3] {
        for other in [
            Similarity { a: best.a + step, ..best },
            Similarity { b: best.b + step, ..best },
            Similarity { tx: best.tx + step, ..best },
            Similarity { ty: best.ty + step, ..best },
        ] {
            assert!(residual(&other) > residual(&best));
        }
    }
}

#[test]
fn landmarks_without_extent_fall_back_to_the_box() {
    let frame = ramp(300, 300);
    let bounds = BoundingBox { left: 100.0, top: 100.0, right: 200.0, bottom: 200.0 };
    let face = |landmarks| DetectedFace { bounds, landmarks, confidence: 1.0 };
    let boxed = crop_face(&frame, &face([Point::default(); 5]), CropMode::Box);
    let far = points(|x, y| (x + 9_000.0, y));
    let mirrored = points(|x, y| (y, x));
    for landmarks in [[Point { x: 150.0, y: 150.0 }; 5], [Point { x: f32::NAN, y: 0.0 }; 5], far] {
        assert_eq!(crop_face(&frame, &face(landmarks), CropMode::Aligned).pixels, boxed.pixels);
    }
    // Mirrored landmarks are no degenerate case: the best rotation is taken, never a reflection.
    assert!(Similarity::between(&mirrored, &template()).is_none_or(|fit| fit.a.hypot(fit.b) < 0.5));
}

fn any_coordinate() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -500f32..1_000.0,
        1 => any::<f32>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_landmarks_give_a_crop(
        width in 1u32..200, height in 1u32..200,
        coordinates in proptest::collection::vec(any_coordinate(), 14),
        mode in prop_oneof![Just(CropMode::Aligned), Just(CropMode::Box), Just(CropMode::None)],
    ) {
        let frame = Frame::new(width, height, vec![9; (width * height * 3) as usize]).unwrap();
        let landmarks = std::array::from_fn(|i| Point { x: coordinates[2 * i], y: coordinates[2 * i + 1] });
        let bounds = BoundingBox {
            left: coordinates[10], top: coordinates[11], right: coordinates[12], bottom: coordinates[13],
        };
        let crop = crop_face(&frame, &DetectedFace { bounds, landmarks, confidence: 0.5 }, mode);
        prop_assert_eq!(crop.pixels.len(), CROP_SIDE * CROP_SIDE * 3);
        prop_assert!(crop.pixels.iter().all(|&value| value <= 9), "no colour that the frame has not");
    }

    #[test]
    fn any_similarity_is_found(angle in -3f64..3.0, zoom in 0.05f64..20.0, tx in -500f64..500.0, ty in -500f64..500.0) {
        let (a, b) = (zoom * angle.cos(), zoom * angle.sin());
        let placed = points(|x, y| (a * x - b * y + tx, b * x + a * y + ty));
        let fit = Similarity::between(&placed, &template()).unwrap();
        for (point, target) in placed.iter().zip(template()) {
            let (x, y) = fit.apply(f64::from(point.x), f64::from(point.y));
            prop_assert!((x - target.0).abs() < 0.05 && (y - target.1).abs() < 0.05);
        }
    }
}

#[test]
fn a_wide_crop_is_the_crop_with_its_surroundings() {
    let frame = ramp(600, 500);
    let landmarks = points(|x, y| (40.0 + 1.3 * x - 0.2 * y, 30.0 + 0.2 * x + 1.3 * y));
    let crop = crop(&frame, &landmarks, 0).unwrap();
    let wide = super::crop(&frame, &landmarks, 32).unwrap();
    assert_eq!(wide.pixels.len(), 320 * 320 * 3);
    for row in 0..CROP_SIDE {
        let inner = &wide.pixels[((row + 32) * 320 + 32) * 3..][..CROP_SIDE * 3];
        let same = inner.iter().zip(&crop.pixels[row * CROP_SIDE * 3..]).all(|(a, b)| a.abs_diff(*b) <= 1);
        assert!(same, "row {row} differs");
    }
    for (inner, outer) in crop.landmarks.iter().zip(wide.landmarks) {
        assert!((inner.x + 32.0 - outer.x).abs() < 1e-3 && (inner.y + 32.0 - outer.y).abs() < 1e-3);
    }
}
