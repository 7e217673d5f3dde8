//! Walking a filter's verdicts newest first, with bounded work for any filter.
//!
//! One condition of the filter drives: its index yields candidates in the order of the list (several branches of
//! one index, where it has several values, are merged). The other conditions are checked candidate by candidate,
//! and after [`EXAMINED_MAX`] of them the page ends early, with the place to go on from.

use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, Rows, params_from_iter};

use super::Failure;
use crate::store::bounds::{BANDS, EXAMINED_MAX, PROBE_MAX, band};
use crate::store::{Filter, PageKey, Seat};

pub(super) struct Wanted {
    pub(super) tenant: String,
    pub(super) filter: Filter,
    pub(super) after: Option<PageKey>,
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) found: Vec<PageKey>,
    pub(super) next: Option<PageKey>,
}

pub(super) fn keys(connection: &Connection, wanted: &Wanted, rows_max: usize) -> Result<Keys, Failure> {
    let driver = driver(connection, wanted)?;
    let mut statements = open(connection, wanted, &driver)?;
    let mut branches = Vec::with_capacity(statements.len());
    for (statement, branch) in statements.iter_mut().zip(&driver.branches) {
        branches.push(Cursor::new(statement.query(params_from_iter(wanted.parameters(branch)))?)?);
    }
    let mut keys = Keys::default();
    let mut last = None;
    for examined in 0.. {
        let newest = branches.iter_mut().max_by_key(|branch| branch.head.as_ref().map(|head| head.key));
        let Some(branch) = newest else { return Ok(keys) };
        let Some(candidate) = branch.head.take() else { return Ok(keys) };
        if keys.found.len() == rows_max || examined == EXAMINED_MAX {
            keys.next = last;
            return Ok(keys);
        }
        last = Some(candidate.key);
        branch.step()?;
        if candidate.passes(&wanted.filter) && has_labels(connection, wanted, candidate.key)? {
            keys.found.push(candidate.key);
        }
    }
    Ok(keys)
}

impl Wanted {
    /// Of every statement: the tenant, the range of time, the place to go on from, then the branch's own.
    fn parameters(&self, branch: &[Value]) -> Vec<Value> {
        let to = self.filter.created_to_us.map_or(i64::MAX, |to| to.saturating_sub(1));
        let after = self.after.map_or((i64::MAX, i64::MAX), |key| (key.created_at_us, key.seat.number()));
        let mut values = vec![
            Value::from(self.tenant.clone()),
            Value::from(self.filter.created_from_us.unwrap_or(i64::MIN)),
            Value::from(to.min(after.0)),
            Value::from(after.0),
            Value::from(after.1),
        ];
        values.extend_from_slice(branch);
        values
    }
}

/// The condition that drives, as its values: one branch each.
struct Driver {
    condition: Condition,
    branches: Vec<Vec<Value>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Time,
    Outcome,
    Probability,
    ModelName,
    ModelSha256,
    Label,
}

impl Condition {
    /// What is read from, and what its index demands of a row.
    fn sources(self) -> (&'static str, &'static str) {
        match self {
            Self::Time => ("verdicts AS k INDEXED BY verdicts_time", ""),
            Self::Outcome => ("verdicts AS k INDEXED BY verdicts_outcome", " AND k.outcome = ?6"),
            Self::Probability => ("verdicts AS k INDEXED BY verdicts_band", " AND k.band = ?6"),
            Self::ModelName => ("verdicts AS k INDEXED BY verdicts_model_name", " AND k.model_name = ?6"),
            Self::ModelSha256 => {
                ("verdicts AS k INDEXED BY verdicts_model_sha256", " AND k.model_sha256 = ?6")
            }
            Self::Label => ("labels AS k", " AND k.key = ?6 AND k.value = ?7"),
        }
    }
}

/// The rarest condition, by counting a little; without any condition, time.
fn driver(connection: &Connection, wanted: &Wanted) -> Result<Driver, Failure> {
    let mut choices = choices(&wanted.filter);
    if choices.len() > 1 {
        let mut rarest = (i64::MAX, 0);
        for (index, choice) in choices.iter().enumerate() {
            let mut count = 0;
            for branch in &choice.branches {
                let (table, condition) = choice.condition.sources();
                let sql = format!(
                    "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {RANGE}{condition} LIMIT {PROBE_MAX})"
                );
                let values = params_from_iter(wanted.parameters(branch));
                count += connection.prepare_cached(&sql)?.query_row(values, |row| row.get::<_, i64>(0))?;
                if count >= rarest.0 {
                    break;
                }
            }
            rarest = rarest.min((count, index));
        }
        return Ok(choices.swap_remove(rarest.1));
    }
    Ok(choices.pop().unwrap_or(Driver { condition: Condition::Time, branches: vec![vec![]] }))
}

fn choices(filter: &Filter) -> Vec<Driver> {
    let mut choices = Vec::new();
    let mut choice = |condition, branches: Vec<Vec<Value>>| choices.push(Driver { condition, branches });
    for (key, value) in &filter.labels {
        choice(Condition::Label, vec![vec![key.clone().into(), value.clone().into()]]);
    }
    if !filter.outcomes.is_empty() {
        choice(Condition::Outcome, filter.outcomes.iter().map(|&outcome| vec![outcome.into()]).collect());
    }
    if let Some(name) = &filter.model_name {
        choice(Condition::ModelName, vec![vec![name.clone().into()]]);
    }
    if let Some(sha256) = &filter.model_sha256 {
        choice(Condition::ModelSha256, vec![vec![sha256.clone().into()]]);
    }
    if filter.probability_min.is_some() || filter.probability_max.is_some() {
        let first = filter.probability_min.map_or(0, band);
        let last = filter.probability_max.map_or(BANDS - 1, band);
        choice(Condition::Probability, (first..=last).map(|band| vec![band.into()]).collect());
    }
    choices
}

/// `<=` and the tie break instead of a row value, so that one range of the index is read.
const RANGE: &str = "k.tenant = ?1 AND k.created_at >= ?2 AND k.created_at <= ?3
    AND (k.created_at < ?4 OR k.seat < ?5)";

fn open<'c>(
    connection: &'c Connection,
    wanted: &Wanted,
    driver: &Driver,
) -> Result<Vec<CachedStatement<'c>>, Failure> {
    let sql = sql(&wanted.filter, driver.condition);
    let prepare = |_| connection.prepare_cached(&sql).map_err(Failure::from);
    driver.branches.iter().map(prepare).collect()
}

fn sql(filter: &Filter, driver: Condition) -> String {
    let probability = filter.probability_min.is_some() || filter.probability_max.is_some();
    // Columns that nobody asks for stay unread: the index alone then answers.
    let checks = [
        ("outcome", !filter.outcomes.is_empty() && driver != Condition::Outcome),
        ("probability", probability),
        ("model_name", filter.model_name.is_some() && driver != Condition::ModelName),
        ("model_sha256", filter.model_sha256.is_some() && driver != Condition::ModelSha256),
    ];
    let (mut table, condition) = driver.sources();
    let mut row = "k";
    if driver == Condition::Label && checks.iter().any(|(_, check)| *check) {
        (table, row) = ("labels AS k CROSS JOIN verdicts AS v ON v.seat = k.seat", "v");
    }
    let columns =
        checks.map(|(column, check)| if check { format!("{row}.{column}") } else { "NULL".to_owned() });
    format!(
        "SELECT k.created_at, k.seat, {} FROM {table} WHERE {RANGE}{condition}
         ORDER BY k.created_at DESC, k.seat DESC",
        columns.join(", ")
    )
}

/// One branch, and its next candidate.
struct Cursor<'s> {
    rows: Rows<'s>,
    head: Option<Candidate>,
}

struct Candidate {
    key: PageKey,
    outcome: Option<i32>,
    probability: Option<f64>,
    model_name: Option<String>,
    model_sha256: Option<String>,
}

impl<'s> Cursor<'s> {
    fn new(rows: Rows<'s>) -> Result<Self, Failure> {
        let mut cursor = Self { rows, head: None };
        cursor.step()?;
        Ok(cursor)
    }

    fn step(&mut self) -> Result<(), Failure> {
        self.head = match self.rows.next()? {
            None => None,
            Some(row) => Some(Candidate {
                key: PageKey { created_at_us: row.get(0)?, seat: Seat::from_number(row.get(1)?) },
                outcome: row.get(2)?,
                probability: row.get(3)?,
                model_name: row.get(4)?,
                model_sha256: row.get(5)?,
            }),
        };
        Ok(())
    }
}

impl Candidate {
    /// A column that was not read is the driver's own, or not asked for.
    fn passes(&self, filter: &Filter) -> bool {
        let differs = |read: &Option<String>, wanted: &Option<String>| read.is_some() && read != wanted;
        let bound = |limit: Option<f32>, holds: fn(f64, f64) -> bool| {
            limit.is_none_or(|limit| self.probability.is_some_and(|p| holds(p, f64::from(limit))))
        };
        self.outcome.is_none_or(|outcome| filter.outcomes.contains(&outcome))
            && bound(filter.probability_min, |p, min| p >= min)
            && bound(filter.probability_max, |p, max| p <= max)
            && !differs(&self.model_name, &filter.model_name)
            && !differs(&self.model_sha256, &filter.model_sha256)
    }
}

fn has_labels(connection: &Connection, wanted: &Wanted, at: PageKey) -> Result<bool, Failure> {
    if wanted.filter.labels.is_empty() {
        return Ok(true);
    }
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM labels WHERE tenant = ?1 AND key = ?2 AND value = ?3 AND created_at = ?4 AND seat = ?5",
    )?;
    for (key, value) in &wanted.filter.labels {
        let values: [&dyn rusqlite::ToSql; 5] =
            [&wanted.tenant, key, value, &at.created_at_us, &at.seat.number()];
        if !statement.exists(values)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema;

    #[test]
    fn no_filter_is_sorted_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let connection = schema::open_writer(&folder.path().join("s.db"), "t").unwrap();
        let filters = [
            Filter::default(),
            Filter { outcomes: [1, 2].into(), ..Filter::default() },
            Filter { probability_min: Some(0.4), ..Filter::default() },
            Filter { model_name: Some("m".into()), outcomes: [1].into(), ..Filter::default() },
            Filter { model_sha256: Some("00".into()), probability_max: Some(0.1), ..Filter::default() },
            Filter { labels: [("k".into(), "v".into())].into(), outcomes: [1].into(), ..Filter::default() },
        ];
        for filter in filters {
            for driver in choices(&filter)
                .into_iter()
                .chain([Driver { condition: Condition::Time, branches: vec![vec![]] }])
            {
                let wanted = Wanted { tenant: "t".into(), filter: filter.clone(), after: None };
                let sql = format!("EXPLAIN QUERY PLAN {}", sql(&filter, driver.condition));
                let values = params_from_iter(wanted.parameters(&driver.branches[0]));
                let mut statement = connection.prepare(&sql).unwrap();
                let plan: Vec<String> =
                    statement.query_map(values, |row| row.get(3)).unwrap().map(Result::unwrap).collect();
                let plan = plan.join("; ");
                assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
                assert!(plan.contains("created_at>? AND created_at<?"), "{sql}: {plan}");
            }
        }
    }
}
