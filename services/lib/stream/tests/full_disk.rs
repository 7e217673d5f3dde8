//! A disk that is really full: a small tmpfs. Where mounting is not allowed the same is tested with a page limit
//! (`local/tests/recovery.rs`), and this says so and passes.

// A test that cannot go on says where.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use prometheus::Registry;
use stream::local::{LocalConfig, LocalLog};
use stream::{
    Log, LogHealth, Metrics, NewRecord, ReadEnd, StreamError, TopicPartition, TopicPolicy, TopicSpec,
};

/// A small disk, unmounted at the end.
struct SmallDisk {
    place: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(place.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self { place })
    }

    fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.place.path()).status());
    }
}

#[tokio::test]
async fn a_disk_without_room_loses_nothing_and_work_goes_on_when_there_is_some() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("no small disk: mounting a tmpfs is not allowed here");
        return;
    };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0u8; 3 * 1024 * 1024]).unwrap();
    let folder = disk.path().join("log");
    let log =
        LocalLog::open(LocalConfig::new(&folder), Metrics::register(&Registry::new()).unwrap()).unwrap();
    let policy = TopicPolicy::delete_after(Duration::from_hours(24));
    log.create_topics(&[TopicSpec { name: "topic".into(), partitions: 1, policy }]).await.unwrap();
    let write = |index: usize| NewRecord::keyed("topic", index.to_string(), vec![b'v'; 20_000]);

    let mut acknowledged = Vec::new();
    let error = loop {
        match log.append(vec![write(acknowledged.len())]).await {
            Ok(positions) => acknowledged.extend(positions),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 1000, "8 MiB do not hold 20 MB");
    };
    assert!(matches!(error, StreamError::StorageFull { .. }), "{error:?}");
    assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
    let mut health = log.health();
    assert!(!health.borrow().is_ready());
    assert_eq!(count(&log).await, acknowledged.len(), "everything acknowledged can be read while it is full");

    std::fs::remove_file(&ballast).unwrap();
    let ready = tokio::time::timeout(Duration::from_secs(20), health.wait_for(LogHealth::is_ready));
    ready.await.expect("ready once there is room").unwrap();
    acknowledged.extend(log.append(vec![write(acknowledged.len())]).await.unwrap());
    log.close();

    let log =
        LocalLog::open(LocalConfig::new(&folder), Metrics::register(&Registry::new()).unwrap()).unwrap();
    assert_eq!(count(&log).await, acknowledged.len());
}

async fn count(log: &LocalLog) -> usize {
    let mut reader = log.read(vec![(TopicPartition::new("topic", 0), 0)], ReadEnd::Watermark).await.unwrap();
    let mut count = 0;
    while let Some(batch) = reader.next().await.unwrap() {
        count += batch.records.len();
    }
    count
}
