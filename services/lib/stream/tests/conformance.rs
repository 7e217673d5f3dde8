//! The embedded log passes the suite that every log passes.

// A test that cannot go on says where.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus::Registry;
use stream::conformance::{self, Subject};
use stream::local::{LocalConfig, LocalLog};
use stream::{Log, Metrics};
use tempfile::TempDir;

struct Local {
    folder: TempDir,
    log: LocalLog,
}

fn open(folder: &TempDir) -> LocalLog {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    LocalLog::open(LocalConfig::new(folder.path()), metrics).unwrap()
}

#[async_trait]
impl Subject for Local {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    async fn reopen(&mut self) {
        self.log.close();
        self.log = open(&self.folder);
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(20)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_passes_the_suite() {
    conformance::run(|| async {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder);
        Local { folder, log }
    })
    .await;
}

#[test]
fn names_of_cases_are_unique() {
    let mut names: Vec<_> = conformance::cases().iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), conformance::cases().len());
}
