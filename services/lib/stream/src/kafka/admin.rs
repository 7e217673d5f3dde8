//! Topics: what there is, and making more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::Core;
use super::catalog::Counts;
use super::client::{Ear, Troubles};
use super::error::{Doing, told, told_code};
use crate::error::StreamError;
use crate::log::{Cleanup, TopicPolicy, TopicSize, TopicSpec};
use crate::record::TopicPartition;
use crate::topics;

/// Topics of the broker's own begin with this.
const INTERNAL: &str = "__";
/// How often it is looked whether new topics have come up.
const LOOK: Duration = Duration::from_millis(20);

/// All topics that the broker shows this login. Blocks.
pub(crate) fn visible(core: &Core) -> Result<Vec<TopicSize>, StreamError> {
    let counts = core.refresh()?;
    let ours = counts.iter().filter(|(name, _)| !name.starts_with(INTERNAL));
    Ok(ours.map(|(name, &partitions)| TopicSize { name: Arc::clone(name), partitions }).collect())
}

/// Those of these topics that exist, with their policies. Blocks.
pub(crate) fn describe(core: &Core, names: &[String]) -> Result<Vec<TopicSpec>, StreamError> {
    let counts = core.refresh()?;
    Ok(there(core, &counts, names.iter().map(|name| &**name))?.into_values().collect())
}

/// Creates those of `wanted` that do not exist; all must be as wanted, or none is created. Blocks.
pub(crate) fn create(core: &Core, wanted: &[TopicSpec]) -> Result<(), StreamError> {
    let counts = core.refresh()?;
    let there = there(core, &counts, wanted.iter().map(|spec| &*spec.name))?;
    let missing = topics::missing(wanted, |name| there.get(name).cloned())?;
    if missing.is_empty() {
        return Ok(());
    }
    let timeout = core.config().request_timeout;
    let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let settings: Vec<_> = missing.iter().map(|spec| settings(spec.policy)).collect();
    let new = missing.iter().zip(&settings).map(|(spec, (cleanup, retention))| {
        let replication = TopicReplication::Fixed(core.config().replication_factor);
        let topic = NewTopic::new(&spec.name, spec.partitions, replication).set("cleanup.policy", cleanup);
        match retention {
            Some(retention) => topic.set("retention.ms", retention),
            None => topic,
        }
    });
    let new: Vec<_> = new.collect();
    let client = client(core)?;
    let created = wait(client.create_topics(&new, &options));
    for result in created.map_err(|error| told(Doing::Asking("new topics"), &error))? {
        match result {
            // Somebody was quicker; whether it is as wanted is seen below.
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(told_code(Doing::Creating(&topic), code, &code.to_string())),
        }
    }
    wait_until_there(core, &missing, timeout)?;
    if has_one_replica(core, &missing[0].name, timeout) {
        tracing::warn!(
            "the new topics have one replica: while its broker is away they can be neither read nor written, and with \
             its disk they are lost; kafka.replication_factor = 3 outlives one broker"
        );
    }
    let counts = core.catalog().counts();
    let there = self::there(core, &counts, wanted.iter().map(|spec| &*spec.name))?;
    topics::missing(wanted, |name| there.get(name).cloned()).map(drop)
}

/// A topic is created before every broker knows of it, and before its partitions have leaders that answer.
fn wait_until_there(core: &Core, wanted: &[&TopicSpec], timeout: Duration) -> Result<(), StreamError> {
    let until = Instant::now() + timeout;
    loop {
        let counts = core.refresh()?;
        let is_up = |spec: &TopicSpec| {
            let places = (0..spec.partitions).map(|index| TopicPartition::new(Arc::clone(&spec.name), index));
            counts.get(&spec.name) == Some(&spec.partitions)
                && places.map(|place| core.ends(&place)).all(|ends| ends.is_ok())
        };
        let Some(late) = wanted.iter().find(|spec| !is_up(spec)) else {
            return Ok(());
        };
        if Instant::now() > until {
            let why = format!("topic {} was created and did not come up within {timeout:?}", late.name);
            return Err(StreamError::Unavailable { why });
        }
        std::thread::park_timeout(LOOK);
    }
}

/// Whether the first partition of a topic is on one broker alone.
fn has_one_replica(core: &Core, topic: &str, timeout: Duration) -> bool {
    let metadata = core.enquirer().ok().and_then(|client| client.fetch_metadata(Some(topic), timeout).ok());
    metadata.is_some_and(|metadata| {
        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.next().is_some_and(|partition| partition.replicas().len() == 1)
    })
}

fn there<'a>(
    core: &Core,
    counts: &Counts,
    wanted: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<Arc<str>, TopicSpec>, StreamError> {
    let names: Vec<&str> = wanted.filter(|name| counts.contains_key(*name)).collect();
    let policies = policies(core, &names)?;
    let spec = |(name, policy): (String, TopicPolicy)| {
        let name: Arc<str> = name.into();
        let partitions = counts[&name];
        (Arc::clone(&name), TopicSpec { name, partitions, policy })
    };
    Ok(policies.into_iter().map(spec).collect())
}

fn policies(core: &Core, names: &[&str]) -> Result<BTreeMap<String, TopicPolicy>, StreamError> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let client = client(core)?;
    let asked: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(core.config().request_timeout));
    let answered = wait(client.describe_configs(&asked, &options))
        .map_err(|error| told(Doing::Asking("the settings of topics"), &error))?;
    let mut policies = BTreeMap::new();
    let mut untold = Vec::new();
    for (name, answer) in names.iter().zip(answered) {
        let resource = answer.map_err(|code| told_code(Doing::Describing(name), code, &code.to_string()))?;
        match policy(&resource) {
            Some(policy) => drop(policies.insert((*name).to_owned(), policy)),
            None => untold.push(*name),
        }
    }
    // rust-rdkafka leaves the error of a topic out: one that could not be described looks as if it had no settings.
    // Either it was deleted since the last look, or it is still there and the right is lacking.
    if !untold.is_empty() {
        let counts = core.refresh()?;
        if let Some(name) = untold.into_iter().find(|name| counts.contains_key(*name)) {
            return Err(told_code(Doing::Describing(name), Code::TopicAuthorizationFailed, ""));
        }
    }
    Ok(policies)
}

/// Blocks: this runs where blocking is allowed, on a thread that belongs to the runtime.
fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Handle::current().block_on(future)
}

/// For one errand: nobody polls it for its complaints, so it does not live long.
fn client(core: &Core) -> Result<AdminClient<Ear>, StreamError> {
    let ear = core.clients().ear("administrator", Arc::new(Troubles::default()));
    let client = AdminClient::from_config_and_context(&core.clients().administrator(), ear)
        .map_err(|error| told(Doing::Asking("an administrator"), &error))?;
    core.clients().admit(client.inner())?;
    Ok(client)
}

fn settings(policy: TopicPolicy) -> (&'static str, Option<String>) {
    match policy.cleanup {
        Cleanup::Compact => ("compact", None),
        // Kafka's own "for ever".
        Cleanup::Delete { retention_ms: i64::MAX } => ("delete", Some("-1".to_owned())),
        Cleanup::Delete { retention_ms } => ("delete", Some(retention_ms.to_string())),
    }
}

/// `None`: it tells nothing.
fn policy(resource: &ConfigResource) -> Option<TopicPolicy> {
    let value = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref());
    // Both at once removes by age too, whatever the key: what counts for a reader is that.
    let cleanup = if value("cleanup.policy")?.contains("delete") {
        let retention = value("retention.ms").and_then(|text| text.parse::<i64>().ok());
        Cleanup::Delete { retention_ms: retention.filter(|ms| *ms >= 0).unwrap_or(i64::MAX) }
    } else {
        Cleanup::Compact
    };
    Some(TopicPolicy { cleanup })
}
