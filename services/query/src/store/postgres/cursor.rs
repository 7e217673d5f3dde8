//! Walking a filter's verdicts newest first, with bounded work for any filter.
//!
//! One condition of the filter drives: its index yields candidates in the order of the list (several branches of
//! one index, where it has several values, are merged by the server). The other conditions are checked candidate by
//! candidate, and after [`EXAMINED_MAX`] of them the page ends early, with the place to go on from.

use tokio_postgres::types::ToSql;

use super::connection::Connection;
use super::{Failure, digest};
use crate::store::bounds::{BANDS, EXAMINED_MAX, PROBE_MAX, band};
use crate::store::{Filter, PageKey, Seat};

/// A name that more models share than this does not drive: each is a branch. Chosen.
const MODELS_MAX: usize = 64;

pub(super) struct Wanted {
    pub(super) tenant: String,
    pub(super) filter: Filter,
    pub(super) after: Option<PageKey>,
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) found: Vec<Found>,
    pub(super) next: Option<PageKey>,
}

#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: PageKey,
    /// Of the record.
    pub(super) bytes: usize,
}

pub(super) async fn keys(
    connection: &mut Connection,
    wanted: &Wanted,
    rows_max: usize,
) -> Result<Keys, Failure> {
    let models = models(connection, &wanted.filter).await?;
    let conditions = Conditions::new(&wanted.filter, models);
    if conditions.models.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Keys::default());
    }
    let driver = driver(connection, wanted, &conditions).await?;
    let (mut keys, mut examined, mut last) = (Keys::default(), 0, wanted.after);
    loop {
        // Mostly what is examined passes; if not, so many more as fill the page at this rate. One more than that says
        // whether there is more.
        let missing = rows_max - keys.found.len();
        let likely = match (examined, keys.found.len()) {
            (0, _) => missing,
            (_, 0) => EXAMINED_MAX,
            (examined, found) => missing * examined / found * 5 / 4 + 16,
        };
        let batch_max = likely.min(EXAMINED_MAX - examined);
        let candidates =
            candidates(connection, wanted, (&conditions, &driver), (last, batch_max + 1)).await?;
        let is_end = candidates.len() <= batch_max;
        for candidate in candidates {
            if keys.found.len() == rows_max || examined == EXAMINED_MAX {
                keys.next = last;
                return Ok(keys);
            }
            examined += 1;
            last = Some(candidate.key);
            if candidate.passes(&wanted.filter, &conditions) {
                keys.found.push(Found { key: candidate.key, bytes: candidate.bytes });
            }
        }
        if is_end {
            return Ok(keys);
        }
    }
}

/// A filter's conditions as the tables have them.
struct Conditions {
    /// Digests.
    labels: Vec<Vec<u8>>,
    /// Numbers of the models that fit; `None`: any.
    models: Option<Vec<i32>>,
}

impl Conditions {
    fn new(filter: &Filter, models: Option<Vec<i32>>) -> Self {
        let labels = filter.labels.iter().map(|(key, value)| digest(&[key, value])).collect();
        Self { labels, models }
    }
}

async fn models(connection: &mut Connection, filter: &Filter) -> Result<Option<Vec<i32>>, Failure> {
    if filter.model_name.is_none() && filter.model_sha256.is_none() {
        return Ok(None);
    }
    let digest = |text: &Option<String>| text.as_ref().map(|text| digest(&[text]));
    let sql = "SELECT id FROM models
        WHERE ($1::bytea IS NULL OR name_digest = $1) AND ($2::bytea IS NULL OR sha256_digest = $2)";
    let rows = connection.query(sql, &[&digest(&filter.model_name), &digest(&filter.model_sha256)]).await?;
    Ok(Some(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?))
}

/// The condition that drives, as its values: one branch each.
struct Driver {
    condition: Condition,
    branches: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Time,
    Outcome,
    Probability,
    Model,
    Label,
}

enum Value {
    Nothing,
    Number(i32),
    Digest(Vec<u8>),
}

impl Condition {
    /// What is read from, and what selects its index.
    fn sources(self) -> (&'static str, &'static str) {
        match self {
            Self::Time => ("verdicts", "k.seat >= 0"),
            Self::Outcome => ("verdicts", "k.outcome = "),
            Self::Probability => ("verdicts", "k.band = "),
            Self::Model => ("verdicts", "k.model = "),
            Self::Label => ("labels", "k.label = "),
        }
    }
}

/// A statement's text and its parameters as they come.
struct Sql<'w> {
    text: String,
    parameters: Vec<&'w (dyn ToSql + Sync)>,
}

impl<'w> Sql<'w> {
    /// Of every branch: the tenant, the range of time, the place to go on from.
    fn new(wanted: &'w Wanted, range: &'w Range) -> Self {
        Self {
            text: String::new(),
            parameters: vec![&wanted.tenant, &range.from, &range.below.0, &range.below.1],
        }
    }

    /// The place of a further parameter.
    fn bind(&mut self, value: &'w (dyn ToSql + Sync)) -> String {
        self.parameters.push(value);
        format!("${}", self.parameters.len())
    }

    /// All branches, each with its own end, so that no plan can read more than that.
    fn push_branches(&mut self, driver: &'w Driver, end: &str) {
        let (table, condition) = driver.condition.sources();
        for (index, branch) in driver.branches.iter().enumerate() {
            let value = match branch {
                Value::Nothing => String::new(),
                Value::Number(number) => self.bind(number),
                Value::Digest(digest) => self.bind(digest),
            };
            let union = if index == 0 { "" } else { " UNION ALL " };
            self.text.push_str(&format!(
                "{union}(SELECT k.created_at, k.seat FROM {table} k WHERE k.tenant = $1 AND k.created_at >= $2
                    AND (k.created_at, k.seat) < ($3, $4) AND {condition}{value} {end})"
            ));
        }
    }
}

/// Where a walk begins and ends.
struct Range {
    from: i64,
    below: (i64, i64),
}

impl Range {
    fn new(filter: &Filter, after: Option<PageKey>) -> Self {
        let after = after.map_or((i64::MAX, i64::MAX), |key| (key.created_at_us, key.seat.number()));
        let to = filter.created_to_us.map_or((i64::MAX, i64::MAX), |to| (to, i64::MIN));
        Self { from: filter.created_from_us.unwrap_or(i64::MIN), below: after.min(to) }
    }
}

/// The rarest condition, by counting a little; without any condition, time.
async fn driver(
    connection: &mut Connection,
    wanted: &Wanted,
    conditions: &Conditions,
) -> Result<Driver, Failure> {
    let mut choices = choices(&wanted.filter, conditions);
    if choices.len() > 1 {
        let range = Range::new(&wanted.filter, wanted.after);
        let sql = probe(wanted, &range, &choices);
        let rows = connection.query(&sql.text, &sql.parameters).await?;
        let mut rarest = (i64::MAX, 0);
        for index in 0..choices.len() {
            rarest = rarest.min((rows[0].try_get(index)?, index));
        }
        return Ok(choices.swap_remove(rarest.1));
    }
    Ok(choices.pop().unwrap_or(Driver { condition: Condition::Time, branches: vec![Value::Nothing] }))
}

fn choices(filter: &Filter, conditions: &Conditions) -> Vec<Driver> {
    let mut choices = Vec::new();
    let mut choice = |condition, branches: Vec<Value>| choices.push(Driver { condition, branches });
    for label in &conditions.labels {
        choice(Condition::Label, vec![Value::Digest(label.clone())]);
    }
    if !filter.outcomes.is_empty() {
        choice(Condition::Outcome, filter.outcomes.iter().copied().map(Value::Number).collect());
    }
    if let Some(models) = conditions.models.as_ref().filter(|models| models.len() <= MODELS_MAX) {
        choice(Condition::Model, models.iter().copied().map(Value::Number).collect());
    }
    if filter.probability_min.is_some() || filter.probability_max.is_some() {
        let first = filter.probability_min.map_or(0, band);
        let last = filter.probability_max.map_or(BANDS - 1, band);
        // A range without any is empty, and one branch finds nothing that passes.
        choice(Condition::Probability, (first..=last.max(first)).map(Value::Number).collect());
    }
    choices
}

fn probe<'w>(wanted: &'w Wanted, range: &'w Range, choices: &'w [Driver]) -> Sql<'w> {
    let mut sql = Sql::new(wanted, range);
    for (index, choice) in choices.iter().enumerate() {
        let begin = if index == 0 { "SELECT " } else { ", " };
        sql.text.push_str(&format!("{begin}(SELECT count(*) FROM (SELECT FROM ("));
        let end = format!("LIMIT {PROBE_MAX}");
        sql.push_branches(choice, &end);
        sql.text.push_str(&format!(") AS branches {end}) AS counted)"));
    }
    sql
}

struct Candidate {
    key: PageKey,
    bytes: usize,
    outcome: i32,
    probability: Option<f32>,
    model: i32,
    /// Whether it has the labels asked for.
    labelled: bool,
}

/// The next ones of a walk, in order.
async fn candidates(
    connection: &mut Connection,
    wanted: &Wanted,
    (conditions, driver): (&Conditions, &Driver),
    (after, count): (Option<PageKey>, usize),
) -> Result<Vec<Candidate>, Failure> {
    let range = Range::new(&wanted.filter, after);
    let limit = i64::try_from(count).unwrap_or(i64::MAX);
    let sql = walk(Sql::new(wanted, &range), (conditions, driver), &limit);
    let rows = connection.query(&sql.text, &sql.parameters).await?;
    let mut candidates = Vec::with_capacity(rows.len());
    for row in rows {
        candidates.push(Candidate {
            key: PageKey { created_at_us: row.try_get(0)?, seat: Seat::from_number(row.try_get(1)?) },
            bytes: usize::try_from(row.try_get::<_, i32>(2)?).unwrap_or(0),
            outcome: row.try_get(3)?,
            probability: row.try_get(4)?,
            model: row.try_get(5)?,
            labelled: row.try_get(6)?,
        });
    }
    // They come so; but no part of the statement says it.
    candidates.sort_unstable_by_key(|candidate| std::cmp::Reverse(candidate.key));
    Ok(candidates)
}

fn walk<'w>(mut sql: Sql<'w>, (conditions, driver): (&'w Conditions, &'w Driver), limit: &'w i64) -> Sql<'w> {
    // Keys first, from the index alone; then the rows of so many and no more, found by what only one index has: a plan
    // may be made while the tables are empty, and every index as good as another.
    let mut labelled = "true".to_owned();
    for label in &conditions.labels {
        if matches!(&driver.branches[..], [Value::Digest(driving)] if driving == label) {
            continue;
        }
        let place = sql.bind(label);
        labelled.push_str(&format!(
            " AND EXISTS (SELECT FROM labels l WHERE l.tenant = $1 AND l.label = {place}
                AND l.created_at = k.created_at AND l.seat = k.seat)"
        ));
    }
    let limit = sql.bind(limit);
    let end = format!("ORDER BY created_at DESC, seat DESC LIMIT {limit}");
    sql.text.push_str(&format!(
        "SELECT v.created_at, v.seat, octet_length(v.record), v.outcome, v.probability, v.model, {labelled}
         FROM (SELECT created_at, seat FROM ("
    ));
    sql.push_branches(driver, &end);
    sql.text.push_str(&format!(") AS branches {end}) AS k JOIN verdicts v ON v.seat = k.seat"));
    sql
}

impl Candidate {
    fn passes(&self, filter: &Filter, conditions: &Conditions) -> bool {
        let probability = |holds: &dyn Fn(f32) -> bool| self.probability.is_some_and(holds);
        (filter.outcomes.is_empty() || filter.outcomes.contains(&self.outcome))
            && filter.probability_min.is_none_or(|min| probability(&|p| p >= min))
            && filter.probability_max.is_none_or(|max| probability(&|p| p <= max))
            && conditions.models.as_ref().is_none_or(|models| models.contains(&self.model))
            && self.labelled
    }
}

#[cfg(test)]
mod tests {
    use testbed::Postgres as Server;

    use super::*;
    use crate::store::Address;
    use crate::store::postgres::{Postgres, PostgresConfig};

    /// As a literal, for a statement without parameters.
    fn literal(index: usize, sql: &str) -> String {
        // Of each kind, as `Sql` binds them.
        match index {
            0 => "'t'".to_owned(),
            _ if sql.contains(&format!(".label = ${}", index + 1)) => r"'\x00'".to_owned(),
            _ => "1".to_owned(),
        }
    }

    #[tokio::test]
    async fn no_filter_is_sorted_by_hand_and_each_walks_its_own_index() {
        let database = Server::shared().create_database().unwrap();
        let config = PostgresConfig {
            address: Address::parse(&Server::shared().url(&database)).unwrap(),
            password_file: None,
            readers: 1,
            waiting_max: 1,
            connect_timeout: std::time::Duration::from_secs(20),
            statement_timeout: std::time::Duration::from_secs(20),
        };
        let tasks = ops::Tasks::new(ops::Shutdown::new(std::time::Duration::ZERO));
        let postgres = Postgres::open(&config, "verdicts", &tasks).await.unwrap();
        let mut lease = postgres.readers.lease().await.unwrap();
        let filters = [
            Filter::default(),
            Filter { outcomes: [1, 2].into(), ..Filter::default() },
            Filter { probability_min: Some(0.4), ..Filter::default() },
            Filter { model_name: Some("m".into()), outcomes: [1].into(), ..Filter::default() },
            Filter { model_sha256: Some("00".into()), probability_max: Some(0.1), ..Filter::default() },
            Filter { labels: [("k".into(), "v".into())].into(), outcomes: [1].into(), ..Filter::default() },
        ];
        for filter in filters {
            let models = filter.model_name.as_ref().or(filter.model_sha256.as_ref()).map(|_| vec![1, 2, 3]);
            let conditions = Conditions::new(&filter, models);
            let wanted = Wanted { tenant: "t".into(), filter: filter.clone(), after: None };
            let time = Driver { condition: Condition::Time, branches: vec![Value::Nothing] };
            for driver in choices(&filter, &conditions).into_iter().chain([time]) {
                let (range, limit) = (Range::new(&filter, None), 100);
                let sql = walk(Sql::new(&wanted, &range), (&conditions, &driver), &limit);
                let literals = (0..sql.parameters.len()).map(|index| literal(index, &sql.text));
                let literals = literals.collect::<Vec<_>>().join(", ");
                let connection = lease.connection();
                connection.batch(&format!("PREPARE walk AS {}", sql.text)).await.unwrap();
                let plan =
                    connection.query(&format!("EXPLAIN EXECUTE walk ({literals})"), &[]).await.unwrap();
                connection.batch("DEALLOCATE walk").await.unwrap();
                let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
                let plan = plan.join("\n");
                for hand in ["Sort  ", "Seq Scan", "Bitmap", "Hash"] {
                    assert!(!plan.contains(hand), "{}: {plan}", sql.text);
                }
                let index = match driver.condition {
                    Condition::Time => "verdicts_time",
                    Condition::Outcome => "verdicts_outcome",
                    Condition::Probability => "verdicts_band",
                    Condition::Model => "verdicts_model",
                    Condition::Label => "labels_pkey",
                };
                let walks = plan.matches(&format!("Backward using {index}")).count();
                assert_eq!(walks, driver.branches.len(), "{}: {plan}", sql.text);
                let ranges = plan.matches("(ROW(created_at, seat) < ROW(").count();
                assert_eq!(ranges, driver.branches.len(), "each reads one range of its index: {plan}");
                assert!(plan.contains("using verdicts_pkey on verdicts v"), "{}: {plan}", sql.text);
            }
        }
    }
}
