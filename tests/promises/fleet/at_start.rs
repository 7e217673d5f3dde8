//! What is wrong at the start is said at the start: the setting's name, what to do, and an exit code for the supervisor.

use std::path::Path;

use e2e::binaries;
use e2e::fleet::{End, Service};
use tempfile::TempDir;
use testbed::{Kafka, free_port};

/// Exit codes of the architecture.
const CONFIG: Option<i32> = Some(64);
const UNAVAILABLE: Option<i32> = Some(69);
const REFUSED: Option<i32> = Some(78);

/// The three services in a folder, each with enough settings to start.
struct Stage {
    folder: TempDir,
    bootstrap: String,
    /// Begins the names of this test's topics and group: the broker is everybody's.
    prefix: String,
    /// More of the table `[kafka]`.
    login: String,
}

impl Stage {
    fn on(bootstrap: String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().file_name().expect("it has a name").to_string_lossy();
        let prefix = name.trim_start_matches('.').to_owned();
        Self { folder, bootstrap, prefix, login: String::new() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn process(&self, more: &str) -> String {
        let Self { bootstrap, prefix, login, .. } = self;
        format!(
            "{more}\n[ops]\nadmin_listen = \"127.0.0.1:0\"\n[ops.telemetry]\nformat = \"json\"\n\
             [kafka]\nbootstrap_servers = {bootstrap:?}\nrequest_timeout = \"3s\"\n{login}\
             [topics]\nmedia_live = \"{prefix}.live\"\nmedia_standard = \"{prefix}.standard\"\n\
             media_bulk = \"{prefix}.bulk\"\nverdicts = \"{prefix}.verdicts\"\n\
             dead_letters = \"{prefix}.dead-letters\"\n"
        )
    }

    fn scheduler(&self, name: &str, partitions: u32) -> Service {
        let settings = format!(
            "{}[scheduler.topics]\npartitions = {partitions}\n[grpc]\nlisten = \"127.0.0.1:0\"\n",
            self.process("")
        );
        Service::new(name, &binaries::scheduler(), self.path(), settings)
    }

    fn query(&self, name: &str, store: &str) -> Service {
        let settings =
            format!("{}[query.store]\n{store}\n[grpc]\nlisten = \"127.0.0.1:0\"\n", self.process(""));
        Service::new(name, &binaries::query(), self.path(), settings)
    }

    fn query_over_a_file(&self, name: &str) -> Service {
        self.query(name, &format!("file = {:?}", self.path().join(format!("{name}.db"))))
    }

    fn worker(&self, slot: &str, more: &str) -> Service {
        let settings = format!(
            "{}[buckets]\n\"*\" = [\"media\"]\n[worker]\nslot = {slot:?}\ngroup = \"{}.workers\"\n[worker.engine]\nmodel = \"scripted\"\n\
             faces = \"scripted\"\n[s3]\nendpoint = \"http://127.0.0.1:{}\"\naccess_key_id = \"key\"\n\
             secret_access_key = \"secret\"\n",
            self.process(more),
            self.prefix,
            free_port().expect("a free port"),
        );
        let name = if slot.is_empty() { "worker" } else { slot };
        Service::new(name, &binaries::worker(), self.path(), settings)
    }

    fn all(&self) -> [Service; 3] {
        [self.scheduler("scheduler", 2), self.query_over_a_file("query"), self.worker("worker-0", "")]
    }
}

fn says(end: &End, code: Option<i32>, words: &[&str]) {
    assert_eq!(end.code, code, "{}", end.log);
    for words in words {
        assert!(end.log.contains(words), "{words:?} in:\n{}", end.log);
    }
}

#[test]
fn settings_that_are_not_known_or_missing_are_named() {
    let stage = Stage::on("127.0.0.1:9".to_owned());
    says(&stage.worker("", "").run(&[]), CONFIG, &["worker.slot: is required"]);
    let unknown = stage.worker("worker-0", "slots = 3").run(&[]);
    says(&unknown, CONFIG, &["slots: unknown key", "config.toml"]);
    let unnamed = Stage::on(String::new());
    for mut service in unnamed.all() {
        says(&service.run(&[]), CONFIG, &["kafka.bootstrap_servers"]);
    }
}

#[test]
fn a_configuration_can_be_checked_without_starting() {
    let stage = Stage::on("127.0.0.1:9".to_owned());
    for mut service in stage.all() {
        let checked = service.run(&["--check-config"]);
        says(&checked, Some(0), &["bootstrap_servers = \"127.0.0.1:9\""]);
    }
    let shown = stage.worker("worker-1", "").run(&["--check-config"]).log;
    assert!(shown.contains("[redacted]") && !shown.contains("secret_access_key = \"secret\""), "{shown}");
}

#[test]
fn a_broker_that_does_not_answer_is_named() {
    let nowhere = format!("127.0.0.1:{}", free_port().expect("a free port"));
    let stage = Stage::on(nowhere.clone());
    for mut service in stage.all() {
        says(&service.run(&[]), UNAVAILABLE, &["kafka.bootstrap_servers", &nowhere]);
    }
}

#[test]
fn topics_are_asked_for_made_and_checked() {
    let stage = Stage::on(Kafka::shared().bootstrap());
    let create = "touchstone-scheduler topics create";
    for mut service in stage.all() {
        says(&service.run(&[]), REFUSED, &[create, &format!("{}.verdicts", stage.prefix)]);
    }
    let standard = format!("{}.standard: 2 partitions", stage.prefix);
    let made = stage.scheduler("scheduler", 2).run(&["topics", "create"]);
    says(&made, Some(0), &[&format!("created  {standard}")]);
    let found = stage.scheduler("scheduler", 2).run(&["topics", "create"]);
    says(&found, Some(0), &[&format!("found    {standard}")]);

    let words = ["has 2 partitions, scheduler.topics.partitions says 3", "change the setting"];
    says(&stage.scheduler("scheduler", 3).run(&[]), REFUSED, &words);
    says(&stage.scheduler("scheduler", 3).run(&["topics", "create"]), REFUSED, &words);

    // And with them the services start, two of each kind side by side; workers do so in every fleet.
    let mut fleet = [
        stage.scheduler("scheduler-0", 2),
        stage.scheduler("scheduler-1", 2),
        stage.query_over_a_file("query-0"),
        stage.query_over_a_file("query-1"),
    ];
    for service in &mut fleet {
        service.start();
        service.wait_ready();
    }
    for service in &mut fleet {
        says(&service.drain(), Some(0), &["drained"]);
    }
}

#[test]
fn an_object_store_that_is_away_is_waited_for() {
    let stage = Stage::on(Kafka::shared().bootstrap());
    says(&stage.scheduler("scheduler", 1).run(&["topics", "create"]), Some(0), &[]);
    let mut worker = stage.worker("worker-0", "");
    worker.start();
    worker.wait_unready("look at s3.endpoint");
    says(&worker.drain(), Some(0), &["drained"]);
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let stage = Stage::on(Kafka::shared().bootstrap());
    says(&stage.scheduler("scheduler", 1).run(&["topics", "create"]), Some(0), &[]);
    // Where a folder should be there is a file.
    let file = stage.path().join("file");
    std::fs::write(&file, "no folder").expect("the folder is writable");
    let store = file.join("verdicts.db");
    let mut query = stage.query("query-0", &format!("file = {store:?}"));
    says(&query.run(&[]), UNAVAILABLE, &["query.store: ", &store.display().to_string()]);
    let port = free_port().expect("a free port");
    let url = format!("url = \"postgresql://nobody@127.0.0.1:{port}/touchstone\"");
    let mut query = stage.query("query-1", &url);
    says(&query.run(&[]), UNAVAILABLE, &["query.store: ", &format!("127.0.0.1:{port}")]);
}

/// A broker on which `admin` may do everything and `alice` nothing.
fn guarded() -> Kafka {
    let users = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"admin\" \
                 password=\"root\" user_admin=\"root\" user_alice=\"open sesame\";";
    Kafka::builder()
        .setting("listener.security.protocol.map", "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT")
        .setting("sasl.enabled.mechanisms", "PLAIN")
        .setting("sasl.mechanism.inter.broker.protocol", "PLAIN")
        .setting("inter.broker.listener.name", "PLAINTEXT")
        .setting("listener.name.plaintext.plain.sasl.jaas.config", users)
        .setting("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .setting("super.users", "User:admin;User:ANONYMOUS")
        .start()
        .expect("Kafka starts")
}

#[test]
fn a_right_that_is_missing_is_named() {
    let kafka = guarded();
    let login = |user: &str, password: &str| {
        format!(
            "security_protocol = \"sasl_plaintext\"\nsasl_mechanism = \"PLAIN\"\nsasl_username = {user:?}\n\
             sasl_password = {password:?}\n"
        )
    };
    let mut stage = Stage::on(kafka.bootstrap());
    stage.login = login("admin", "root");
    says(&stage.scheduler("admin", 1).run(&["topics", "create"]), Some(0), &["created"]);
    stage.login = login("alice", "open sesame");
    for mut service in stage.all() {
        says(&service.run(&[]), REFUSED, &["ACL", &stage.prefix]);
    }
    stage.login = login("alice", "guess");
    for mut service in stage.all() {
        let end = service.run(&[]);
        says(&end, REFUSED, &["kafka.sasl_username alice"]);
        assert!(!end.log.contains("guess"), "{}", end.log);
    }
}
