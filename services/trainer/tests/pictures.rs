//! Pictures are well formed, whatever the data, and say what they show.

use forensics::{Calibration, Thresholds};
use quick_xml::Reader;
use quick_xml::events::Event;
use trainer::plots::{self, Curve, Group, Part, RocCurve};
use trainer::{Estimate, Mark, Ranking, Reliability, Scored, Sheet, Tile, TileError};

const TITLE: &str = "Anna & \"Bert\" <\u{7}>";
const STEEP: Calibration = Calibration::Platt { slope: 50.0, intercept: 0.0, covariance: [0.0; 3] };

/// The words of a document that is well formed and whose numbers are numbers.
#[track_caller]
fn words(svg: &str) -> String {
    assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
    let mut reader = Reader::from_str(svg);
    let (mut words, mut depth, mut roots) = (String::new(), 0, 0);
    loop {
        match reader.read_event().expect("well formed") {
            Event::Start(element) => {
                roots += usize::from(depth == 0);
                depth += 1;
                assert!(element.attributes().all(|attribute| attribute.is_ok()));
            }
            Event::Empty(element) => assert!(element.attributes().all(|attribute| attribute.is_ok())),
            Event::End(_) => depth -= 1,
            Event::Text(text) => words.push_str(&text.decode().expect("UTF-8")),
            Event::GeneralRef(name) => words.push_str(&format!("&{};", name.decode().expect("UTF-8"))),
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!((depth, roots), (0, 1), "one element, closed");
    words
}

fn scored() -> Vec<Scored> {
    let logit = |index: u32| (index % 17) as f32 - 8.0 + if index.is_multiple_of(2) { 1.5 } else { -1.5 };
    (0..400)
        .map(|index| Scored { logit: logit(index), forged: index.is_multiple_of(2), identity: index / 8 })
        .collect()
}

#[test]
fn pictures_of_nothing_are_pictures() {
    let nothing = Reliability { bins: Vec::new(), calibration_error: 0.0 };
    for svg in [
        plots::training(TITLE, &[], &[]),
        plots::training(TITLE, &[(0, f64::NAN)], &[Curve { name: TITLE, points: &[] }]),
        plots::roc(TITLE, &[]),
        plots::reliability(TITLE, &nothing),
        plots::scores(TITLE, &[], &Calibration::None, None),
        plots::groups(TITLE, &[]),
        Sheet::new(TITLE).to_svg(),
        Sheet::new(TITLE).row(TITLE, Vec::new()).to_svg(),
    ] {
        assert!(words(&svg).contains("Anna &amp; &quot;Bert&quot; &lt;\u{fffd}&gt;"), "{svg}");
    }
}

#[test]
fn curves_and_charts_say_their_numbers() {
    let auc = Estimate { value: 0.98765, low: 0.97, high: 0.99 };
    let points = Ranking::new(&scored()).roc().unwrap();
    let svg = plots::roc("ROC", &[RocCurve { name: "swapped", points: &points, auc }]);
    assert!(words(&svg).contains("swapped: AUC 0.988 [0.970, 0.990]"));

    let parts =
        [Part { name: "JPEG 75", count: 12, auc: Some(auc) }, Part { name: "JPEG 40", count: 1, auc: None }];
    let found = words(&plots::groups("Groups", &[Group { name: "Quality", parts: &parts }]));
    assert!(
        ["0.988 [0.970, 0.990]", "n = 12", "not defined", "Quality"].iter().all(|word| found.contains(word))
    );

    let loss: Vec<(u64, f64)> = (0..50_000).map(|step| (step, 3.0 / (1.0 + step as f64))).collect();
    let curve = Curve { name: "regional", points: &[(10_000, 0.7), (50_000, 0.912_3)] };
    let svg = plots::training("Run", &loss, &[curve]);
    assert!(words(&svg).contains("regional 0.912") && words(&svg).contains("50k"));
    assert!(svg.len() < 100_000, "{} bytes: a long run is thinned", svg.len());
}

#[test]
fn scores_at_the_ends_of_the_scale_are_drawn() {
    let svg = plots::scores("Scores", &scored(), &STEEP, Thresholds::new(1.0, 0.0));
    let found = words(&svg);
    assert!(
        ["authentic (200)", "forged (200)", "INCONCLUSIVE"].iter().all(|word| found.contains(word)),
        "{found}"
    );
    let reliability = Ranking::new(&scored()).reliability(&STEEP).unwrap();
    let title = format!("(expected calibration error {:.3})", reliability.calibration_error);
    assert!(words(&plots::reliability("Reliability", &reliability)).contains(&title));
}

#[test]
fn a_sheet_holds_its_tiles() {
    let tile = |mark| {
        Tile::new(9, &[120; 9 * 9 * 3], mark).unwrap().caption("anna-0001", "a line that is far too long")
    };
    let sheet =
        Sheet::new("Sheet").row("Row", vec![tile(Mark::Forged); 11]).row("Next", vec![tile(Mark::None)]);
    let svg = sheet.to_svg();
    let found = words(&svg);
    assert_eq!(svg.matches("data:image/jpeg;base64,/9j/").count(), 12);
    assert_eq!(svg.matches("stroke-width=\"4\"").count(), 11);
    assert!(found.contains("a line that is far too…") && found.contains("anna-0001"));
    assert!(matches!(Tile::new(9, &[0; 10], Mark::None), Err(TileError::Size { side: 9, bytes: 10 })));
    assert!(matches!(Tile::new(0, &[], Mark::None), Err(TileError::Size { .. })));
    assert!(matches!(Tile::new(70_000, &[], Mark::None), Err(TileError::Side(70_000))));
}
