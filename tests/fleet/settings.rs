//! What stands in the configuration files of a fleet's services.

use std::path::Path;

use testbed::VersityGateway;

use super::guard;

/// The bucket of every fleet.
pub(crate) const BUCKET: &str = "media";
/// Requests are signed for it; versitygw takes no other.
pub(crate) const REGION: &str = "us-east-1";

/// What the services of one fleet share.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) bootstrap: String,
    pub(crate) s3: String,
    pub(crate) partitions: usize,
    pub(crate) model: String,
    pub(crate) faces: String,
    /// Cores of each worker.
    pub(crate) threads: usize,
    pub(crate) delivery: String,
    /// More of the worker's file, such as a table.
    pub(crate) worker_more: String,
    /// Each service logs in as itself.
    pub(crate) guarded: bool,
}

impl Settings {
    fn process(&self, folder: &Path, user: &str) -> String {
        let login = if self.guarded { guard::login(user) } else { String::new() };
        format!(
            "[ops]\nadmin_listen = \"127.0.0.1:0\"\nfailpoints = {:?}\n[ops.telemetry]\nformat = \"json\"\n\
             [kafka]\nbootstrap_servers = {:?}\ndelivery = {:?}\n{login}",
            folder.join("failpoints"),
            self.bootstrap,
            self.delivery,
        )
    }

    fn buckets() -> String {
        format!("[buckets]\n\"*\" = [{BUCKET:?}]\n")
    }

    pub(crate) fn worker(&self, slot: &str, name: &str, fleet: &Path) -> String {
        let Self { s3, model, faces, threads, worker_more, .. } = self;
        format!(
            "{}{}[worker]\nslot = {slot:?}\n[worker.engine]\nmodel = {model:?}\nfaces = {faces:?}\nthreads = {threads}\n\
             [worker.examine]\nprobe_pause_max = \"1s\"\n\
             [s3]\nendpoint = {s3:?}\nregion = {REGION:?}\npath_style = true\naccess_key_id = {:?}\n\
             secret_access_key = {:?}\n{worker_more}",
            self.process(&fleet.join(name), guard::WORKER),
            Self::buckets(),
            VersityGateway::ACCESS_KEY,
            VersityGateway::SECRET_KEY,
        )
    }

    pub(crate) fn scheduler(&self, fleet: &Path) -> String {
        let partitions = self.partitions;
        format!(
            "{}{}[scheduler.topics]\npartitions = {partitions}\n[grpc]\n{LISTEN}",
            self.process(&fleet.join("scheduler"), guard::SCHEDULER),
            Self::buckets(),
        )
    }

    /// `store` is the table `[query.store]`.
    pub(crate) fn query(&self, name: &str, fleet: &Path, store: &str) -> String {
        let process = self.process(&fleet.join(name), guard::QUERY);
        format!("{process}[query.store]\n{store}[grpc]\n{LISTEN}")
    }
}

/// The remark marks the line that later lives replace with the address of the first.
const LISTEN: &str = "listen = \"127.0.0.1:0\" # grpc\n";
