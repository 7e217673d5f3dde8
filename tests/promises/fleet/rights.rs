//! Least privilege, end to end: three processes with the rights that are listed judge media; each of them without one of
//! its rights says which, and nothing is lost meanwhile.

use e2e::fleet::guard::{self, QUERY, Right, SCHEDULER, WORKER};
use e2e::fleet::{Fleet, Service};
use e2e::process::DEADLINE;
use proto::v1;
use testbed::{May, On, until, until_async};

/// Permissions: an exit code of the architecture.
const REFUSED: Option<i32> = Some(78);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_needs_its_rights_and_no_more() {
    let mut fleet = Fleet::builder().partitions(1).guarded().start().await;
    fleet.submit(3).await;
    fleet.settled().await;
    fleet.verify().await;

    for right in of_one_lane(WORKER) {
        fleet.worker(0).drain();
        fleet.kafka().forbid(WORKER, &[right]).expect("it had it");
        // A media of each lane waits for it.
        fleet.submit(3).await;
        without(fleet.worker(0), right);
        fleet.kafka().allow(WORKER, &[right]).expect("it is given");
        comes_back(fleet.worker(0));
        fleet.settled().await;
    }
    let asked_for_later = |right: &Right| {
        // The auditor asks for settings only of a topic that has forgotten something.
        matches!(right.0, On::Group(_)) || right.1 == May::DescribeConfigs
    };
    for right in of_one_lane(QUERY).into_iter().filter(|right| !asked_for_later(right)) {
        fleet.query(0).drain();
        fleet.kafka().forbid(QUERY, &[right]).expect("it had it");
        fleet.submit(3).await;
        without(fleet.query(0), right);
        fleet.kafka().allow(QUERY, &[right]).expect("it is given");
        comes_back(fleet.query(0));
        fleet.settled().await;
    }
    the_auditor_names_the_group(&mut fleet).await;
    for right in of_one_lane(SCHEDULER).into_iter().filter(|right| right.1 != May::Write) {
        fleet.scheduler().drain();
        fleet.kafka().forbid(SCHEDULER, &[right]).expect("it had it");
        without(fleet.scheduler(), right);
        fleet.kafka().allow(SCHEDULER, &[right]).expect("it is given");
        comes_back(fleet.scheduler());
    }
    the_front_door_names_the_topic(&mut fleet).await;
    fleet.submit(3).await;
    fleet.settled().await;
    fleet.verify().await;
}

/// The rights of a service; what holds of one lane's topic holds of the others'.
fn of_one_lane(user: &str) -> Vec<Right> {
    let other_lane = |right: &Right| matches!(right.0, On::Topic(name) if name.contains("media") && !name.contains("live"));
    guard::rights(user).into_iter().filter(|right| !other_lane(right)).collect()
}

/// Starts a service that lacks a right: it says which, as it ends or while it is not ready.
fn without(service: &mut Service, right: Right) {
    service.begin();
    let words = until("a service says what it lacks", DEADLINE, || {
        if let Some(end) = service.has_ended() {
            assert_eq!(end.code, REFUSED, "without {right:?}:\n{}", end.log);
            return Some(end.log);
        }
        let page = service.readiness()?;
        (page.status == 503 && page.body.contains("ACL")).then_some(page.body)
    });
    let (On::Topic(name) | On::Group(name) | On::TransactionalId(name)) = right.0;
    assert!(words.contains("ACL") && words.contains(name), "without {right:?}: {words}");
}

/// Waits until it is ready, and starts it if it has ended: rights arrive soon, but not at once.
fn comes_back(service: &mut Service) {
    until("a service is ready again", DEADLINE, || {
        if service.is_running() && service.has_ended().is_none() {
            return service.readiness().filter(|page| page.status == 200);
        }
        service.begin();
        None
    });
}

async fn the_auditor_names_the_group(fleet: &mut Fleet) {
    let right = (On::Group(proto::topics::WORKER_GROUP), May::Describe);
    fleet.kafka().forbid(QUERY, &[right]).expect("it had it");
    let output = until("the auditor lacks it", DEADLINE, || {
        let output = fleet.audit(0);
        (!output.status.success()).then_some(output)
    });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("ACL") && words.contains(proto::topics::WORKER_GROUP), "{words}");
    fleet.kafka().allow(QUERY, &[right]).expect("it is given");
    until("the auditor has it", DEADLINE, || fleet.audit(0).status.success().then_some(()));
}

async fn the_front_door_names_the_topic(fleet: &mut Fleet) {
    let topic = fleet.topics().media_live.clone();
    let right = (On::Topic(&topic), May::Write);
    fleet.kafka().forbid(SCHEDULER, &[right]).expect("it had it");
    let refusal = until_async("a media is refused", DEADLINE, || async { knock(fleet).await.err() }).await;
    assert_eq!(refusal.code(), tonic::Code::Internal, "{refusal}");
    let words = refusal.message();
    assert!(words.contains("WRITE") && words.contains("ACL") && words.contains(&topic), "{words}");
    fleet.kafka().allow(SCHEDULER, &[right]).expect("it is given");
    until_async("a media is taken", DEADLINE, || async { knock(fleet).await.ok() }).await;
}

/// Submits one of the live lane.
async fn knock(fleet: &Fleet) -> Result<v1::InputPosition, tonic::Status> {
    let mut media = fleet.platform(0).picture("knock", "pictures/0.png");
    media.faces = v1::Faces::Cropped.into();
    media.lane = v1::Lane::Live.into();
    fleet.platform(0).submit(media).await
}
