//! "SIGTERM drains": exit 0 within the deadline, and nothing that was begun is done again.

use std::time::Duration;

use e2e::client::Platform;
use e2e::paint;
use e2e::process::Standalone;
use e2e::wait::until;

const MEDIA: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_was_begun_and_nothing_is_done_twice() {
    let data = tempfile::tempdir().expect("a folder");
    let ids: Vec<String> = (0..MEDIA).map(|n| format!("media-{n}")).collect();
    let first = Standalone::scripted(data.path());
    let platform = Platform::connect(&first.connection).await;
    platform.put("p.png", paint::crop(100, 0)).await;
    for batch in ids.chunks(500) {
        let media = batch.iter().map(|id| {
            let mut media = platform.picture(id, "p.png");
            media.faces = proto::v1::Faces::Cropped.into();
            media
        });
        platform.submit_all(media.collect()).await.expect("accepted");
    }
    until("work is under way", Duration::from_secs(60), || {
        (first.metric("touchstone_worker_media_total", "") > 50.0).then_some(())
    });
    first.ask_to_stop();
    // The drain deadline is 30 s; leaving takes a moment more.
    let status = first.wait(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "a drain within its deadline ends well");

    let done = drained(&std::fs::read_to_string(data.path().join("stderr.log")).expect("a log"));
    assert!(done.jobs > 50, "it was at work: {done:?}");
    assert_eq!(done.jobs, done.verdicts, "whatever was begun was published: {done:?}");

    let second = Standalone::scripted(data.path());
    let platform = Platform::connect(&second.connection).await;
    platform.verdicts(&ids).await;
    let rest = second.metric("touchstone_worker_media_total", "");
    assert_eq!(done.verdicts + rest as u64, MEDIA as u64, "the second life did the rest and nothing else");
    second.verify();
}

/// What the worker's last words say.
#[derive(Debug)]
struct Drained {
    jobs: u64,
    verdicts: u64,
}

fn drained(log: &str) -> Drained {
    let words =
        log.lines().rev().find(|line| line.contains("worker drained")).expect("the worker says farewell");
    let field = |name: &str| {
        let at = words.find(&format!("{name}=")).map(|at| at + name.len() + 1).expect("a field of that name");
        let digits: String = words[at..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    Drained { jobs: field("jobs"), verdicts: field("outcomes") }
}
