//! "A full disk loses nothing": said with the folder's name, not ready, and work goes on after space is made.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::client::Platform;
use e2e::paint;
use e2e::process::{DEADLINE, Standalone};
use testbed::until;

/// A small file system in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this machine does not let us mount.
    fn mount(folder: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(folder).expect("a folder");
        let options = format!("size={size}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "touchstone-test"]).arg(folder);
        command.status().is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }

    /// Takes what space there is, but for nothing.
    fn fill(&self) {
        let mut filler = fs::File::create(self.filler()).expect("a file");
        let block = vec![0u8; 4_096];
        while filler.write_all(&block).is_ok() {}
    }

    fn make_space(&self) {
        fs::remove_file(self.filler()).expect("the filler goes");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: the process under test may still be about to close its files.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_loses_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().join("log");
    let Some(disk) = SmallDisk::mount(&folder, "24m") else {
        let uid = Command::new("id").arg("-u").output().expect("id runs").stdout;
        assert_ne!(uid.trim_ascii(), b"0", "root can mount a tmpfs");
        eprintln!("skipped: this machine does not let the test mount a tmpfs (run it as root)");
        return;
    };
    let standalone = Standalone::scripted(data.path());
    let platform = Platform::connect(&standalone.connection).await;
    platform.put("p.png", paint::faces(1, 200)).await;
    let media = |n: usize| platform.picture(&format!("media-{n}"), "p.png");
    platform.submit(media(0)).await.expect("there is space");
    platform.verdict("media-0").await;

    disk.fill();
    let mut accepted = 1;
    let refusal = loop {
        match platform.submit_all((accepted..accepted + 200).map(media).collect()).await {
            Ok(()) => accepted += 200,
            Err(refusal) => break refusal,
        }
        assert!(accepted < 100_000, "a full disk takes no more");
    };
    assert_eq!(refusal.code(), tonic::Code::Unavailable, "{refusal:?}");
    let page =
        until("it is not ready", DEADLINE, || standalone.admin("/readyz").filter(|page| page.status == 503));
    assert!(page.body.contains(&*folder.to_string_lossy()), "the page names the folder: {}", page.body);
    assert_eq!(standalone.admin("/livez").map(|page| page.status), Some(200), "it lives");

    disk.make_space();
    standalone.wait_ready();
    // The refused batch may be there in part or not at all: only what was accepted is owed.
    let ids: Vec<String> = (0..accepted).map(|n| format!("media-{n}")).collect();
    platform.submit(media(100_000)).await.expect("there is space again");
    platform.verdicts(&ids).await;
    platform.verdict("media-100000").await;
    standalone.verify();
    standalone.kill();
}
