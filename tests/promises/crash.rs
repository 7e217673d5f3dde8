//! "Survives any crash": SIGKILL under load, five times at random moments, over one folder.

use std::time::Duration;

use e2e::client::Platform;
use e2e::paint;
use e2e::process::Standalone;

const MEDIA: usize = 2_000;
const PICTURES: usize = 64;
const BATCH: usize = 100;

/// Waits for a random share of the work, so that every run kills at other moments; the seed is printed.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::from(now.subsec_nanos()) | 1)
    }

    /// xorshift64 (Marsaglia, 2003).
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_verdict_per_media_survives_five_kills() {
    let data = tempfile::tempdir().expect("a folder");
    let mut moments = Moments::new();
    eprintln!("moments of death drawn from seed {}", moments.0);
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
        // A share of the media goes in with each life; what was refused by a death is submitted again.
        let until = MEDIA * (kill + 1) / 6;
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
        load.await;
        if kill == 5 {
            platform.verdicts(&ids).await;
            let report = standalone.verify();
            assert!(report.contains(&MEDIA.to_string()), "the auditor saw every media:\n{report}");
        } else {
            // Somewhere in the middle of the work, not at its end: drawn anew each time.
            tokio::time::sleep(Duration::from_millis(moments.next(150))).await;
            standalone.kill();
        }
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
