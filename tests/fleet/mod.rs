//! A fleet: scheduler, queries and workers as processes of their own, over a real Kafka, S3 server and database.
//!
//! A test reads as a sentence: `Fleet::builder().workers(2).partitions(4).start().await`, `fleet.submit(2_000).await`,
//! `fleet.worker(0).kill()`, `fleet.settled().await`, `fleet.verify().await`.

mod builder;
pub mod guard;
mod proof;
mod service;
mod settings;
mod turn;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proto::topics::Topics;
use proto::v1::Lane;
use stream::kafka::KafkaLog;
use tempfile::TempDir;
use testbed::{Kafka, Postgres, VersityGateway, until};
use tokio::task::JoinSet;

pub use builder::{FleetBuilder, Programs, StoreKind};
pub use proof::Count;
pub use service::{End, Service};

use crate::client::Platform;
use crate::paint;
use crate::process::DEADLINE;
use builder::connection;
use settings::Settings;
use turn::Turn;

/// Distinct pictures; media share them in turn.
const PICTURES: usize = 16;
/// References of one call.
const BATCH: usize = 100;
/// Media take the lanes in turn: the group may give a worker all partitions of one lane and none of another.
const LANES: [Lane; 3] = [Lane::Live, Lane::Standard, Lane::Bulk];

/// Media on their way to the front door.
#[must_use = "a load that nobody waits for may not have arrived"]
pub struct Load(JoinSet<()>);

impl Load {
    /// Returns when the log has them all.
    pub async fn done(mut self) {
        while let Some(submitted) = self.0.join_next().await {
            submitted.expect("every media is taken");
        }
    }
}

/// A running fleet. What it started is stopped when it is dropped: services first, then what they stand on.
pub struct Fleet {
    /// The test's own reader.
    log: KafkaLog,
    scheduler: Service,
    queries: Vec<Service>,
    workers: Vec<Service>,
    kafka: Kafka,
    gateway: VersityGateway,
    postgres: Option<Postgres>,
    /// One for each query.
    platforms: Vec<Platform>,
    topics: Topics,
    /// The media that were submitted.
    ids: Vec<String>,
    settings: Settings,
    programs: Programs,
    folder: PathBuf,
    _temporary: Option<TempDir>,
    turn: Turn,
}

impl Fleet {
    /// Two workers that judge by script, four partitions, a SQLite store.
    pub fn builder() -> FleetBuilder {
        FleetBuilder::new()
    }

    /// From here on no other fleet runs: it would take the cores on which a bound is measured.
    pub async fn alone(&mut self) {
        self.turn.alone().await;
    }

    /// From here on others may run again.
    pub async fn in_company(&mut self) {
        self.turn.in_company().await;
    }

    /// Submits so many new media, and returns when the log has them all.
    pub async fn submit(&mut self, count: usize) {
        self.load(count).done().await;
    }

    /// Begins to submit so many new media, for doing something else meanwhile. What is refused for now is submitted again.
    pub fn load(&mut self, count: usize) -> Load {
        let first = self.ids.len();
        let ids: Vec<String> = (first..first + count).map(|number| format!("media-{number}")).collect();
        self.ids.extend_from_slice(&ids);
        let platform = self.platforms[0].clone();
        let mut submitting = JoinSet::new();
        submitting.spawn(async move {
            for (batch, ids) in ids.chunks(BATCH).enumerate() {
                let media = ids.iter().enumerate().map(|(index, id)| {
                    let picture = picture((first + batch * BATCH + index) % PICTURES);
                    let mut media = platform.picture(id, &picture);
                    media.faces = proto::v1::Faces::Cropped.into();
                    media.lane = LANES[(first + batch * BATCH + index) % LANES.len()].into();
                    media
                });
                submit_for_sure(&platform, media.collect()).await;
            }
        });
        Load(submitting)
    }

    /// A worker, in the order in which they were added.
    pub fn worker(&mut self, index: usize) -> &mut Service {
        &mut self.workers[index]
    }

    /// All workers.
    pub fn workers(&mut self) -> &mut [Service] {
        &mut self.workers
    }

    /// One more worker, with a slot of its own; its number.
    pub fn add_worker(&mut self) -> usize {
        let name = format!("worker-{}", self.workers.len());
        self.add(&name, &name)
    }

    /// One more worker, with the slot of another: its number.
    pub fn add_twin(&mut self, of: usize) -> usize {
        let slot = self.workers[of].name().to_owned();
        self.add(&format!("twin-of-{slot}"), &slot)
    }

    fn add(&mut self, name: &str, slot: &str) -> usize {
        let settings = self.settings.worker(slot, name, &self.folder);
        let mut worker = Service::new(name, &self.programs.worker, &self.folder, settings);
        worker.start();
        self.workers.push(worker);
        self.workers.len() - 1
    }

    /// The front door.
    pub fn scheduler(&mut self) -> &mut Service {
        &mut self.scheduler
    }

    /// The query over this store, in the order in which the builder was told of them.
    pub fn query(&mut self, index: usize) -> &mut Service {
        &mut self.queries[index]
    }

    /// The client of the query of this number.
    pub fn platform(&self, index: usize) -> &Platform {
        &self.platforms[index]
    }

    /// The broker.
    pub fn kafka(&mut self) -> &mut Kafka {
        &mut self.kafka
    }

    /// The object store.
    pub fn store(&mut self) -> &mut VersityGateway {
        &mut self.gateway
    }

    /// The database, in a fleet that has one.
    pub fn postgres(&mut self) -> Option<&mut Postgres> {
        self.postgres.as_mut()
    }

    /// The log, as the test itself reads it.
    pub fn log(&self) -> &KafkaLog {
        &self.log
    }

    /// The topics in use.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        std::iter::once(&self.scheduler).chain(&self.queries).chain(&self.workers)
    }

    /// Writes `connection.toml` for `touchstone --data FOLDER`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_connection(&self, folder: &Path) -> anyhow::Result<()> {
        let connection = connection(&self.scheduler, &self.queries[0], &self.gateway);
        let file = folder.join("connection.toml");
        let draft = file.with_extension("draft");
        std::fs::write(&draft, toml::to_string(&connection)?)?;
        Ok(std::fs::rename(draft, file)?)
    }

    /// Every service that was started, and not killed or asked to stop; workers first.
    fn running(&mut self) -> impl Iterator<Item = &mut Service> {
        let services =
            self.workers.iter_mut().chain(&mut self.queries).chain(std::iter::once(&mut self.scheduler));
        services.filter(|service| service.is_running())
    }

    /// SIGTERM to every service, workers first; how each ended.
    pub fn drain(&mut self) -> Vec<String> {
        let mut ends = Vec::new();
        for service in self.running() {
            let end = match service.has_ended() {
                Some(end) => end,
                None => service.drain(),
            };
            let how = end.code.map_or("ended by a signal".to_owned(), |code| format!("exit code {code}"));
            ends.push(format!("{}: {how}", service.name()));
        }
        ends
    }

    /// The folder that holds everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every service that was started, and not killed or asked to stop, runs: nobody covers for one that left.
    pub(crate) fn assert_alive(&mut self) {
        self.running().for_each(Service::assert_alive);
    }

    /// How many media were submitted so far.
    pub fn submitted(&self) -> usize {
        self.ids.len()
    }

    /// Waits until every partition is in one running worker's hands, and each has some.
    pub fn balanced(&mut self) {
        let partitions = LANES.len() * self.settings.partitions;
        until("the partitions are shared out", DEADLINE, || {
            let running = self.workers.iter().filter(|worker| worker.is_running());
            let shares: Vec<usize> = running.map(share).collect();
            (shares.iter().sum::<usize>() == partitions && shares.iter().all(|share| *share > 0))
                .then_some(())
        });
    }

    /// Waits until this worker has a partition.
    pub fn has_a_share(&mut self, worker: usize) {
        let worker = &self.workers[worker];
        until(&format!("{} has a partition", worker.name()), DEADLINE, || (share(worker) > 0).then_some(()));
    }

    /// Waits until every media that was submitted has its verdict in every store; how long that took.
    pub async fn settled(&self) -> Duration {
        let began = Instant::now();
        for query in 0..self.platforms.len() {
            self.known_to(query).await;
        }
        began.elapsed()
    }

    /// Waits until the query of this number has a verdict of every media that was submitted.
    pub async fn known_to(&self, query: usize) {
        self.platforms[query].verdicts(&self.ids).await;
    }
}

/// A test that fails says where each service stood, before the folder with their logs goes.
impl Drop for Fleet {
    #[allow(clippy::print_stderr, reason = "the test's own output is where it is looked for")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.services().for_each(|service| eprintln!("{}", service.state()));
        }
    }
}

/// How many partitions a worker has, as it tells.
fn share(worker: &Service) -> usize {
    worker.metrics("touchstone_stream_kafka_lag_records", "").len()
}

fn picture(number: usize) -> String {
    format!("pictures/{number}.png")
}

async fn put_pictures(platform: &Platform) {
    for number in 0..PICTURES {
        // Half of them forged, half authentic.
        let green = if number % 2 == 0 { 255 } else { 0 };
        platform.put(&picture(number), paint::crop(green, number as u32)).await;
    }
}

/// A batch that is refused for now is submitted again: the front door says that trying again helps.
async fn submit_for_sure(platform: &Platform, media: Vec<proto::v1::MediaReference>) {
    testbed::until_async("the front door takes media", DEADLINE, || async {
        match platform.submit_all(media.clone()).await {
            Ok(()) => Some(()),
            Err(refusal) if refusal.code() == tonic::Code::Unavailable => None,
            Err(refusal) => panic!("refused for good: {refusal}"),
        }
    })
    .await;
}
