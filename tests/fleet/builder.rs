//! From a description to a running fleet.

use std::path::{Path, PathBuf};

use stream::StreamError;
use stream::kafka::{KafkaLog, KafkaSettings};
use testbed::{Kafka, KafkaVersion, Postgres, VersityGateway};

use super::service::Service;
use super::settings::{BUCKET, REGION, Settings};
use super::turn::Turn;
use super::{Fleet, guard, put_pictures};
use crate::binaries;
use crate::client::Platform;
use crate::process::{Connection, Store};

/// Where a query keeps its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A file.
    Sqlite,
    /// A database server.
    Postgres,
}

/// The programs of a fleet.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `touchstone-worker`.
    pub worker: PathBuf,
    /// `touchstone-scheduler`.
    pub scheduler: PathBuf,
    /// `touchstone-query`.
    pub query: PathBuf,
    /// `touchstone`.
    pub touchstone: PathBuf,
}

impl Programs {
    /// Those under test.
    pub fn under_test() -> Self {
        Self {
            worker: binaries::worker(),
            scheduler: binaries::scheduler(),
            query: binaries::query(),
            touchstone: binaries::touchstone(),
        }
    }

    /// Those of this folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            worker: folder.join("touchstone-worker"),
            scheduler: folder.join("touchstone-scheduler"),
            query: folder.join("touchstone-query"),
            touchstone: folder.join("touchstone"),
        }
    }
}

/// How a fleet is to be.
#[derive(Debug, Clone)]
pub struct FleetBuilder {
    workers: usize,
    partitions: usize,
    stores: Vec<StoreKind>,
    kafka: KafkaVersion,
    brokers: usize,
    folder: Option<PathBuf>,
    programs: Option<Programs>,
    model: String,
    faces: String,
    delivery: String,
    worker_more: String,
    one_database: bool,
    guarded: bool,
}

impl FleetBuilder {
    pub(super) fn new() -> Self {
        Self {
            workers: 2,
            partitions: 4,
            stores: vec![StoreKind::Sqlite],
            kafka: KafkaVersion::Newest,
            brokers: 1,
            folder: None,
            programs: None,
            model: "scripted".to_owned(),
            faces: "scripted".to_owned(),
            delivery: "exactly-once".to_owned(),
            worker_more: String::new(),
            one_database: false,
            guarded: false,
        }
    }

    /// So many workers.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// So many partitions of each topic.
    #[must_use]
    pub fn partitions(mut self, count: usize) -> Self {
        self.partitions = count;
        self
    }

    /// A query over each of these.
    #[must_use]
    pub fn stores(mut self, stores: &[StoreKind]) -> Self {
        self.stores = stores.to_vec();
        self
    }

    /// So many queries, replicas of each other: over one database.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.stores = vec![StoreKind::Postgres; count];
        self.one_database = true;
        self
    }

    /// The broker asks for logins and rights; each service has its own, and those that it needs. With one worker.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.guarded = true;
        self.workers = 1;
        self
    }

    /// Another broker than the newest.
    #[must_use]
    pub fn kafka(mut self, version: KafkaVersion) -> Self {
        self.kafka = version;
        self
    }

    /// So many brokers, which replicate each other.
    #[must_use]
    pub fn brokers(mut self, count: usize) -> Self {
        self.brokers = count;
        self
    }

    /// Keeps everything here instead of in a folder that goes with it.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Other programs than those under test.
    #[must_use]
    pub fn programs(mut self, programs: Programs) -> Self {
        self.programs = Some(programs);
        self
    }

    /// Who judges and who finds faces, as `[worker.engine]` names them.
    #[must_use]
    pub fn engines(mut self, model: &str, faces: &str) -> Self {
        self.model = model.to_owned();
        self.faces = faces.to_owned();
        self
    }

    /// `exactly-once` or `at-least-once`.
    #[must_use]
    pub fn delivery(mut self, delivery: &str) -> Self {
        self.delivery = delivery.to_owned();
        self
    }

    /// More of the workers' file: tables that are not in it yet.
    #[must_use]
    pub fn worker_settings(mut self, toml: &str) -> Self {
        self.worker_more.push_str(toml);
        self
    }

    /// Starts everything and waits until it is ready.
    pub async fn start(self) -> Fleet {
        let turn = Turn::shared().await;
        let programs = self.programs.unwrap_or_else(Programs::under_test);
        let temporary = tempfile::Builder::new().prefix("fleet-").tempdir().expect("a folder");
        let folder = self.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
        let temporary = self.folder.is_none().then_some(temporary);

        let kafka = Kafka::builder().version(self.kafka).brokers(self.brokers).folder(&folder.join("kafka"));
        let kafka = if self.guarded { guard::guarded(kafka) } else { kafka };
        let kafka = kafka.start().expect("Kafka starts");
        let gateway = VersityGateway::start_in(&folder.join("objects")).expect("versitygw starts");
        std::fs::create_dir_all(gateway.buckets().join(BUCKET)).expect("a bucket is a folder");
        let wants_postgres = self.stores.contains(&StoreKind::Postgres);
        let postgres = wants_postgres.then(|| {
            let (builder, own) = (Postgres::builder(), folder.join("postgres"));
            // In root's home nobody else can keep anything: then the rows go with the server, and are read anew.
            let builder = if Postgres::reaches(&own) { builder.folder(&own) } else { builder };
            builder.start().expect("PostgreSQL starts")
        });

        let settings = Settings {
            bootstrap: kafka.bootstrap(),
            s3: gateway.endpoint(),
            partitions: self.partitions,
            model: self.model,
            faces: self.faces,
            threads: (cores() / self.workers.max(1)).max(1),
            delivery: self.delivery,
            worker_more: self.worker_more,
            guarded: self.guarded,
        };
        let mut scheduler =
            Service::new("scheduler", &programs.scheduler, &folder, settings.scheduler(&folder));
        make_topics(&mut scheduler, &kafka, self.guarded);
        scheduler.start();
        let mut queries: Vec<Service> = self
            .stores
            .iter()
            .enumerate()
            .map(|(number, kind)| {
                let name = format!("query-{number}");
                let store = match kind {
                    StoreKind::Sqlite => format!("file = {:?}\n", folder.join(&name).join("verdicts.db")),
                    StoreKind::Postgres => {
                        let postgres = postgres.as_ref().expect("started above");
                        let database = format!("touchstone_{}", if self.one_database { 0 } else { number });
                        postgres.database(&database).expect("a database");
                        format!("url = {:?}\n", postgres.url(&database))
                    }
                };
                let mut query =
                    Service::new(&name, &programs.query, &folder, settings.query(&name, &folder, &store));
                query.start();
                query
            })
            .collect();
        scheduler.wait_ready();
        queries.iter_mut().for_each(Service::wait_ready);

        let mut platforms = Vec::new();
        for query in &queries {
            platforms.push(Platform::connect(&connection(&scheduler, query, &gateway)).await);
        }
        put_pictures(&platforms[0]).await;
        let log = reader(&settings).await.expect("the broker answers");
        let mut fleet = Fleet {
            scheduler,
            queries,
            workers: Vec::new(),
            kafka,
            gateway,
            postgres,
            platforms,
            log,
            topics: proto::topics::Topics::default(),
            ids: Vec::new(),
            settings,
            programs,
            folder,
            _temporary: temporary,
            turn,
        };
        for _ in 0..self.workers {
            fleet.add_worker();
        }
        fleet.workers.iter_mut().for_each(Service::wait_ready);
        if self.workers > 0 {
            fleet.balanced();
        }
        fleet
    }
}

fn make_topics(scheduler: &mut Service, kafka: &Kafka, guarded: bool) {
    let own = format!("sasl_username = {:?}", guard::SCHEDULER);
    let operators = format!("sasl_username = {:?}", guard::OPERATOR);
    if guarded {
        scheduler.change(&own, &operators);
    }
    let made = scheduler.run(&["topics", "create"]);
    assert_eq!(made.code, Some(0), "the topics are made:\n{}", made.log);
    if guarded {
        scheduler.change(&operators, &own);
        guard::give(kafka);
    }
}

pub(super) fn connection(scheduler: &Service, query: &Service, gateway: &VersityGateway) -> Connection {
    Connection {
        endpoint: scheduler.grpc().to_owned(),
        query: query.grpc().to_owned(),
        admin: query.admin().to_owned(),
        bucket: BUCKET.to_owned(),
        s3: Store {
            endpoint: gateway.endpoint(),
            region: REGION.to_owned(),
            access_key_id: VersityGateway::ACCESS_KEY.to_owned(),
            secret_access_key: VersityGateway::SECRET_KEY.to_owned(),
        },
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A client of the log for the test itself.
pub(super) async fn reader(fleet: &Settings) -> Result<KafkaLog, StreamError> {
    let settings = KafkaSettings { bootstrap_servers: fleet.bootstrap.clone(), ..KafkaSettings::default() };
    let settings = if fleet.guarded { guard::operator(settings) } else { settings };
    let config = settings.check().expect("a broker is all that the defaults lack");
    let metrics = stream::Metrics::register(&ops::metrics::Registry::new()).expect("a fresh registry");
    KafkaLog::connect(config, metrics, ops::Failpoints::default()).await
}
