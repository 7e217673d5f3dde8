//! `touchstone --data DIR …` against a standalone: nothing is typed but the folder.

use std::path::Path;

use cli::Status;
use standalone::Standalone;
use stream::local::{LocalConfig, LocalLog};
use stream::{Log, NewRecord, Position};
use tempfile::TempDir;

use crate::stage::{self, Answer, touchstone};

/// A standalone, and a folder with three pictures, one of them no picture.
struct Stage {
    data: TempDir,
    pictures: TempDir,
    standalone: Standalone,
}

impl Stage {
    async fn new() -> Self {
        let folder = || tempfile::tempdir().expect("a temporary folder");
        let (data, pictures) = (folder(), folder());
        let standalone = stage::start(data.path()).await;
        for (name, bytes) in
            [("forged.png", stage::face(255)), ("honest.png", stage::face(0)), ("text.jpg", b"text".to_vec())]
        {
            std::fs::write(pictures.path().join(name), bytes).expect("the folder is writable");
        }
        Self { data, pictures, standalone }
    }

    async fn run(&self, arguments: &[&str]) -> Answer {
        let data = text(self.data.path());
        touchstone(&[&["--data", data], arguments].concat()).await
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is text")
}

fn lines(answer: &Answer) -> Vec<serde_json::Value> {
    answer.out.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submit_waits_and_everything_can_be_read_back() {
    let stage = Stage::new().await;
    let folder = text(stage.pictures.path());
    let answer = stage.run(&["submit", folder, "--label", "batch=7"]).await;
    assert_eq!(answer.status, Status::Ok, "{answer:?}");
    for (name, outcome) in [
        ("forged.png", "LIKELY_FORGED"),
        ("honest.png", "LIKELY_AUTHENTIC"),
        ("text.jpg", "UNSUPPORTED_MEDIA"),
    ] {
        let row = answer.out.lines().find(|line| line.contains(name)).expect("a row for each");
        assert!(row.contains(outcome), "{row}");
    }
    assert!(!answer.out.contains('\u{1b}'), "no colours where nobody looks");

    // Once more: the same verdicts under the same ids.
    let again = stage.run(&["submit", folder, "--label", "batch=7", "-o", "json"]).await;
    assert_eq!((again.status, lines(&again).len()), (Status::Ok, 3), "{again:?}");

    let listed = stage.run(&["list", "--outcome", "likely-forged", "--label", "batch=7", "-o", "json"]).await;
    let [forged] = &lines(&listed)[..] else {
        panic!("one row for two submissions of one media: {listed:?}")
    };
    let (media, verdict) = (forged["mediaId"].as_str().unwrap(), forged["verdictId"].as_str().unwrap());
    for id in [media, verdict] {
        let shown = stage.run(&["get", id]).await;
        assert!(shown.out.contains(verdict) && shown.out.contains("LIKELY_FORGED"), "{shown:?}");
    }
    let watched = stage.run(&["watch", "--from-start", "-n", "3", "-o", "json"]).await;
    assert_eq!((watched.status, lines(&watched).len()), (Status::Ok, 3), "{watched:?}");
    let audited = stage.run(&["verify"]).await;
    assert_eq!(audited.status, Status::Ok, "{audited:?}");
    assert!(audited.out.contains("nothing is lost, nothing is double"), "{}", audited.out);
    stage.standalone.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_promise_has_its_place_and_its_exit_code() {
    let mut stage = Stage::new().await;
    stage.run(&["submit", text(stage.pictures.path())]).await;
    stage.standalone.stop().await.unwrap();
    let place = plant(stage.data.path()).await;
    stage.standalone = stage::start(stage.data.path()).await;

    let audited = stage.run(&["verify"]).await;
    assert_eq!(audited.status, Status::Data, "{audited:?}");
    let input = "OUTCOME_WITHOUT_INPUT input touchstone.media.standard.v1/0@99999";
    let line = audited.out.lines().find(|line| line.starts_with(input)).expect("a line for it");
    assert!(line.contains(&format!(" outcome {place}")), "{line}");
    assert!(audited.out.contains("promises are broken"), "{}", audited.out);
    let audited = stage.run(&["verify", "-o", "json"]).await;
    let first = &lines(&audited)[0]["violation"];
    assert_eq!((audited.status, &first["input"]["offset"]), (Status::Data, &"99999".into()), "{first}");
    stage.standalone.stop().await.unwrap();
}

/// Writes an outcome whose input is not there into a log that nobody else holds open.
async fn plant(data: &Path) -> Position {
    let metrics = stream::Metrics::register(&ops::metrics::Registry::new()).expect("a fresh registry");
    let log = LocalLog::open(LocalConfig::new(data.join("log")), metrics).expect("nobody else has it");
    let topics = proto::topics::Topics::default();
    let input =
        forensics::InputPosition { topic: topics.media_standard.clone(), partition: 0, offset: 99_999 };
    let mut outcome = NewRecord::keyed(topics.dead_letters.as_str(), "k", "no reference");
    outcome.headers = proto::topics::outcome_headers(&input, "worker-0", "test");
    let place = log.append(vec![outcome]).await.expect("the topic exists").remove(0);
    tokio::task::spawn_blocking(move || log.close()).await.expect("it closes");
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_can_be_the_frames_of_one_media() {
    let stage = Stage::new().await;
    let folder = text(stage.pictures.path());
    let answer = stage.run(&["submit", "--as-frames", "--id", "clip", folder, "-o", "json"]).await;
    let [verdict] = &lines(&answer)[..] else { panic!("{answer:?}") };
    assert_eq!(
        (verdict["mediaId"].as_str(), verdict["timeline"].as_array().unwrap().len()),
        (Some("clip"), 3)
    );

    // And a prefix in the store is one media, too; its id is its URI.
    let key = verdict["timeline"][0]["key"].as_str().unwrap();
    let uri = format!("s3://media/{}/", key.rsplit_once('/').unwrap().0);
    let answer = stage.run(&["submit", &uri, "-o", "json"]).await;
    let [same] = &lines(&answer)[..] else { panic!("{answer:?}") };
    assert_eq!((same["mediaId"].as_str(), &same["contents"]), (Some(&*uri), &verdict["contents"]));
    stage.standalone.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misfortune_has_its_exit_code_a_cause_and_a_next_step() {
    let stage = Stage::new().await;
    let picture = stage.pictures.path().join("forged.png");
    for (arguments, status, words) in [
        (vec!["get", "nobody"], Status::NoInput, "no verdict for nobody"),
        (vec!["submit", "s3://not-ours/a.png"], Status::Data, "not-ours"),
        (vec!["submit", "/nowhere/a.png"], Status::NoInput, "/nowhere/a.png"),
        (vec!["submit", text(&picture), "--bucket", "not-ours"], Status::NoPermission, "not-ours"),
        (vec!["submit", "s3://a/b", "s3://a/c", "--id", "x"], Status::Usage, "--id"),
        (vec!["list", "--since", "yesterday"], Status::Usage, "yesterday"),
        (vec!["list", "--no-such-flag"], Status::Usage, "--no-such-flag"),
        (vec!["list", "--tenant", "Not A Tenant"], Status::Usage, "connection.tenant"),
    ] {
        let answer = stage.run(&arguments).await;
        assert_eq!(answer.status, status, "{arguments:?}: {answer:?}");
        assert!(answer.err.contains(words) && answer.out.is_empty(), "{arguments:?}: {answer:?}");
    }
    // Another tenant sees nothing of this one's.
    let mine = stage.run(&["submit", text(&picture), "--id", "mine"]).await;
    assert_eq!(mine.status, Status::Ok, "{mine:?}");
    assert_eq!(stage.run(&["get", "mine", "--tenant", "other"]).await.status, Status::NoInput);

    let gone = format!("http://{}", stage.standalone.addresses().grpc);
    stage.standalone.stop().await.unwrap();
    let answer = touchstone(&["list", "--endpoint", &gone]).await;
    assert_eq!(answer.status, Status::Unavailable, "{answer:?}");
    assert!(answer.err.contains("next: start one with"), "{answer:?}");
    assert_eq!(touchstone(&["list"]).await.status, Status::Usage, "no service is named");
}

#[tokio::test]
async fn what_needs_no_service_works_without_one() {
    assert!(touchstone(&["--version"]).await.out.starts_with("touchstone "));
    assert!(touchstone(&["completions", "bash"]).await.out.contains("_touchstone"));
    assert_eq!(touchstone(&["config", "check"]).await.status, Status::Ok);
    let shown = touchstone(&["config", "show"]).await;
    assert!(shown.out.contains("call_deadline = \"30s\""), "{shown:?}");
    assert_eq!(touchstone(&["model", "inspect", "/nowhere"]).await.status, Status::NoInput);
}
