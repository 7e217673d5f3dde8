//! Row 8: a member that stood still past its session, and goes on. It is a process of its own, stopped by a
//! failpoint within its commit: where only the broker can refuse it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ops::{Failpoints, Fault};
use stream::{Commit, Log, MemberEvent};
use testbed::{Kafka, KafkaVersion, Server, Signal};

use super::support::{
    DEADLINE, Mode, append, audit_in, commit, connect, connect_with, membership, metric, name, records, soon,
    topic, until_done,
};

/// What the child is told: `mode bootstrap group slot input output folder`.
const TASK: &str = "STREAM_ZOMBIE_TEST_TASK";
const INPUTS: usize = 10;

/// The member that stands still. Does nothing when it is run as an ordinary test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zombie_child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<Arc<str>> = task.split(' ').map(Arc::from).collect();
    let [mode, bootstrap, group, slot, input, output, folder] = &words[..] else { panic!("{task}") };
    let mode = Mode::ALL.into_iter().find(|known| format!("{known:?}") == **mode).unwrap();
    let failpoints = Failpoints::in_folder(Path::new(&**folder));
    let (log, registry) = connect_with(mode.settings(bootstrap), failpoints).await;
    let mut member = log.join(membership(group, slot, std::slice::from_ref(input))).await.unwrap();
    let (inputs, offsets) = records(&mut *member, INPUTS).await;
    say(folder, "has-records", "");
    let answer = commit(&*member.committer(), output, &inputs, &offsets).await;
    let fenced = metric(&registry, "touchstone_stream_fenced_writes_total", None);
    say(folder, "answered", &format!("{fenced} {answer:?}"));
    // What the intake hears of it: the partition is lost, and later there is one again; or the end.
    let heard = loop {
        match member.next().await {
            Ok(MemberEvent::Assigned(_)) => break "assigned again".to_owned(),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    say(folder, "heard", &heard);
}

fn say(folder: &str, name: &str, text: &str) {
    let draft = Path::new(folder).join("draft");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, Path::new(folder).join(name)).unwrap();
}

fn said(folder: &Path, name: &str) -> String {
    testbed::until(name, DEADLINE, || std::fs::read_to_string(folder.join(name)).ok())
}

/// Stops a member at a failpoint, lets another take over and do the work, and wakes the first up. Gives what the
/// first was answered, and what its intake heard.
async fn stand_still(mode: Mode, kafka: &Kafka, failpoint: &str) -> (String, String) {
    let (log, _) = connect(mode.settings(&kafka.bootstrap())).await;
    let (input, output) = (topic(&log, "input", 1).await, topic(&log, "output", 1).await);
    let (group, slot) = (name("group"), name("slot"));
    append(&log, &input, INPUTS).await;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let task = format!("{mode:?} {} {group} {slot} {input} {output} {}", kafka.bootstrap(), path.display());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "zombie::zombie_child", "--nocapture"]).env(TASK, task);
    Fault::Stop.arm(&path, failpoint).unwrap();
    let child = Server::spawn("the zombie", &command, &path.join("log")).unwrap();
    let taken = path.join(format!("{failpoint}.taken-{}", child.id()));
    off(move || testbed::until("it stands still", DEADLINE, || taken.exists().then_some(()))).await;

    // Another takes over once the session is over (6 s), and the open transaction, if there is one.
    let mut other = log.join(membership(&group, &name("slot"), std::slice::from_ref(&input))).await.unwrap();
    let (inputs, offsets) = records(&mut *other, INPUTS).await;
    let answer = commit(&*other.committer(), &output, &inputs, &offsets).await;
    assert!(matches!(&answer, Commit::Committed { .. }), "{answer:?}");

    child.signal(Signal::Continue).unwrap();
    let folder = path.clone();
    let answered = off(move || said(&folder, "answered")).await;
    // With the other gone, the first is given the partition again, if it is still a member.
    soon("leave", other.leave()).await.unwrap();
    let heard = off(move || said(&path, "heard")).await;
    until_done(&log, &group, &input, &output, 1).await;
    assert_eq!(audit_in(mode, &log, &group, (&input, &output), 1).await, INPUTS, "{}", child.log());
    (answered, heard)
}

async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn is_refused_and_rejoins((answered, heard): &(String, String)) {
    assert!(answered.starts_with("1 ") && answered.contains("StaleEpoch"), "{answered}");
    assert_eq!(heard, "assigned again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stood_still_before_its_transaction_is_refused_and_joins_again() {
    is_refused_and_rejoins(&stand_still(Mode::Newest, Kafka::shared(), "before-begin").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stood_still_is_refused_with_the_classic_protocol() {
    is_refused_and_rejoins(&stand_still(Mode::Classic, Kafka::shared(), "before-begin").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stood_still_moves_no_offsets_without_transactions() {
    is_refused_and_rejoins(&stand_still(Mode::AtLeastOnce, Kafka::shared(), "before-begin").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stood_still_is_refused_by_kafka_4_0_too() {
    let kafka = Kafka::builder().version(KafkaVersion::Kafka40).start().unwrap();
    is_refused_and_rejoins(&stand_still(Mode::Newest, &kafka, "before-begin").await);
    is_fenced(&stand_still(Mode::Newest, &kafka, "before-commit").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stood_still_within_its_transaction_is_fenced() {
    is_fenced(&stand_still(Mode::Newest, Kafka::shared(), "before-commit").await);
}

fn is_fenced((answered, heard): &(String, String)) {
    assert!(answered.starts_with("1 Fenced"), "{answered}");
    assert!(heard.contains("newer"), "{heard}");
}
