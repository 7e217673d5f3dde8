//! "Survives any crash": SIGKILL under load, five times at random moments, over one folder.

use std::time::Duration;

use e2e::client::Platform;
use e2e::moments::Moments;
use e2e::paint;
use e2e::process::Standalone;

const MEDIA: usize = 2_000;
const PICTURES: usize = 64;
const BATCH: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_verdict_per_media_survives_five_kills() {
    let data = tempfile::tempdir().expect("a folder");
    let mut moments = Moments::new();
    let mut submitted = 0;
    let ids: Vec<String> = (0..MEDIA).map(|n| format!("media-{n}")).collect();

    for kill in 0..6 {
        let standalone = Standalone::scripted(data.path());
        let platform = Platform::connect(&standalone.connection).await;
        if kill == 0 {
            for picture in 0..PICTURES {
                platform.put(&format!("p/{picture}.png"), paint::crop((picture * 4) as u8, 0)).await;
            }
        }
        // A share of the media goes in with each life; what a death left unanswered is submitted again.
        let until = MEDIA * (kill + 1) / 6;
        let before = submitted;
        let load = async {
            while submitted < until {
                let batch: Vec<_> = (submitted..until.min(submitted + BATCH))
                    .map(|n| {
                        let mut media = platform.picture(&ids[n], &format!("p/{}.png", n % PICTURES));
                        media.faces = proto::v1::Faces::Cropped.into();
                        media
                    })
                    .collect();
                let count = batch.len();
                platform.submit_all(batch).await.expect("a living standalone takes media");
                submitted += count;
            }
        };
        if kill < 5 {
            // Amid submissions, or right after the last one: with work in hand either way.
            let moment = Duration::from_millis(moments.next(150));
            tokio::select! {
                () = load => {}
                () = tokio::time::sleep(moment) => {}
            }
            standalone.kill();
            continue;
        }
        load.await;
        platform.verdicts(&ids).await;
        let report = standalone.verify();
        assert!(report.contains(&MEDIA.to_string()), "the auditor saw every media:\n{report}");
        let judged = standalone.metric("touchstone_worker_media_total", "");
        assert!(
            judged as usize > submitted - before,
            "the last life took over what the one before had in hand"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_every_verdict() {
    let data = tempfile::tempdir().expect("a folder");
    let first = Standalone::scripted(data.path());
    let platform = Platform::connect(&first.connection).await;
    platform.put("a.png", paint::faces(1, 255)).await;
    platform.submit(platform.picture("a", "a.png")).await.expect("accepted");
    let verdict = platform.verdict("a").await;
    assert_eq!(verdict.outcome(), proto::v1::Outcome::LikelyForged);
    first.kill();

    let second = Standalone::scripted(data.path());
    let again = Platform::connect(&second.connection).await.verdict("a").await;
    assert_eq!(again, verdict, "the same verdict, to the last field");
}
