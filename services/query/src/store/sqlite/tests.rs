use std::time::Duration;

use super::*;
use crate::store::{Store, conformance};
use crate::testing::{row, tenant, verdict};

fn config(folder: &tempfile::TempDir) -> SqliteConfig {
    SqliteConfig { file: folder.path().join("deep/verdicts.db"), readers: 2, waiting_max: 64 }
}

fn open(folder: &tempfile::TempDir, topic: &str) -> Result<Store, StoreError> {
    let tasks = ops::Tasks::new(ops::Shutdown::new(Duration::ZERO));
    Store::open_sqlite(&config(folder), topic, &tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let folders = Mutex::new(Vec::new());
    conformance::suite(async || {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, "verdicts").unwrap();
        folders.lock().unwrap().push(folder);
        store
    })
    .await;
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let rows = vec![row(0, 0, &verdict("default", "m", 1))];
    let stretch = Stretch { partition: 0, expected: None, next_offset: 1, rows };
    open(&folder, "verdicts").unwrap().apply(vec![stretch]).await.unwrap();
    let store = open(&folder, "verdicts").unwrap();
    assert_eq!(store.offsets().await, Ok(vec![(0, 1)]));
    let newest = store.newest(&tenant("default"), vec!["m".to_owned()]).await.unwrap();
    assert_eq!(newest.len(), 1);
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder, "verdicts").unwrap());
    let refused = |result: Result<Store, StoreError>| match result {
        Err(StoreError::Refused { why, .. }) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    };
    assert!(refused(open(&folder, "another")).contains("follows topic verdicts, not another"));
    let file = config(&folder).file;
    let connection = Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    assert!(refused(open(&folder, "verdicts")).contains("schema 99"));
    connection.pragma_update(None, "application_id", 7).unwrap();
    assert!(refused(open(&folder, "verdicts")).contains("another program's"));
    drop(connection);
    for tail in ["", "-wal", "-shm"] {
        let _gone = std::fs::remove_file(format!("{}{tail}", file.display()));
    }
    std::fs::write(&file, b"not a database, and long enough to look like one: ".repeat(100)).unwrap();
    assert!(refused(open(&folder, "verdicts")).contains("remove it"));
}

#[tokio::test]
async fn a_full_queue_is_busy_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig { readers: 1, waiting_max: 1, ..config(&folder) };
    let tasks = ops::Tasks::new(ops::Shutdown::new(Duration::ZERO));
    let sqlite = Sqlite::open(&config, "verdicts", &tasks).unwrap();
    let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
    let (started, begun) = oneshot::channel();
    let holding = sqlite.read(move |_| {
        started.send(()).unwrap();
        held.recv().unwrap();
        Ok(())
    });
    let flood = async {
        begun.await.unwrap();
        let waiting = sqlite.offsets();
        let busy = async {
            let busy = sqlite.offsets().await;
            release.send(()).unwrap();
            busy
        };
        let (waited, busy) = tokio::join!(biased; waiting, busy);
        assert_eq!(busy, Err(StoreError::Busy { waiting: 1 }));
        assert_eq!(waited, Ok(vec![]));
    };
    let (held, ()) = tokio::join!(holding, flood);
    held.unwrap();
}
