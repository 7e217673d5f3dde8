//! "SIGTERM drains": exit 0 within the deadline, and nothing that was begun is done again.

use std::time::Duration;

use e2e::client::Platform;
use e2e::paint;
use e2e::process::Standalone;
use testbed::until;

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

    let begun = begun(&std::fs::read_to_string(data.path().join("stderr.log")).expect("a log"));
    assert!((51..MEDIA as u64).contains(&begun), "it was at work, and not at its end: {begun}");

    let second = Standalone::scripted(data.path());
    let platform = Platform::connect(&second.connection).await;
    platform.verdicts(&ids).await;
    let rest = second.metric("touchstone_worker_media_total", "");
    assert_eq!(
        begun + rest as u64,
        MEDIA as u64,
        "the second life did what the first had not begun, and no more"
    );
    second.verify();
}

/// How many media the first life began, by its last words.
fn begun(log: &str) -> u64 {
    let words =
        log.lines().rev().find(|line| line.contains("worker drained")).expect("the worker says farewell");
    // The line may be coloured: what counts is the number behind the field's name.
    let at = words.find("jobs").expect("a field of that name");
    let digits = words[at..].chars().skip_while(|c| *c != '=').skip(1).collect::<String>();
    let plain = digits.trim_start_matches("\u{1b}[0m");
    plain.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
}
