//! `touchstone verify`: the auditor's report.

use proto::v1;
use proto::v1::verify_response::Event;

use crate::arguments::Verify;
use crate::client::Client;
use crate::failure::{Failure, Status};
use crate::settings::Settings;
use crate::terminal::{Terminal, cell, harmless};

/// Ends with [`Status::Data`] when a promise is broken; each violation stands on its own line, with its place.
pub(crate) async fn verify(
    what: Verify,
    settings: Settings,
    terminal: &mut Terminal,
) -> Result<Status, Failure> {
    let mut client = Client::connect(&settings.connection).await?;
    let request = v1::VerifyRequest { skip_store: what.skip_store };
    let mut events = client.audit.verify(request).await?.into_inner();
    let bar = terminal.progress("audit", 0);
    let mut report = None;
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::Progress(progress)) => {
                bar.set_length(progress.records_total);
                bar.set_position(progress.records_done);
                bar.set_message(harmless(&progress.phase));
            }
            Some(Event::Violation(violation)) => bar.suspend(|| show(&violation, terminal))?,
            Some(Event::Report(last)) => report = Some(last),
            None => {}
        }
    }
    bar.finish_and_clear();
    let report = report.ok_or_else(|| {
        Failure::new(Status::Temporary, "the audit ended without a report").next("run it again")
    })?;
    summarise(&report, terminal)?;
    Ok(if report.violations == 0 { Status::Ok } else { Status::Data })
}

fn show(violation: &v1::AuditViolation, terminal: &mut Terminal) -> Result<(), Failure> {
    if terminal.is_json() {
        let json = terminal.json().violation(violation)?;
        return terminal.say(serde_json::json!({ "violation": json }));
    }
    let kind = violation.kind().as_str_name();
    let mut line = kind.strip_prefix("KIND_").unwrap_or(kind).to_owned();
    for (name, place) in [("input", &violation.input), ("outcome", &violation.outcome)] {
        if let Some(place) = place {
            line += &format!(" {name} {}/{}@{}", harmless(&place.topic), place.partition, place.offset);
        }
    }
    if !violation.verdict_id.is_empty() {
        line += &format!(" verdict {}", harmless(&violation.verdict_id));
    }
    if !violation.detail.is_empty() {
        line += &format!(": {}", harmless(&violation.detail));
    }
    terminal.say(line)
}

fn summarise(report: &v1::AuditReport, terminal: &mut Terminal) -> Result<(), Failure> {
    let unjudged = report.inputs_beyond_retention;
    if unjudged > 0 {
        terminal.warn(format_args!(
            "{unjudged} references have no outcome and are not judged: outcomes as old as theirs would be were removed"
        ));
    }
    if terminal.is_json() {
        let json = terminal.json().report(report)?;
        return terminal.say(serde_json::json!({ "report": json }));
    }
    let mut table = terminal.table(&[]);
    for (name, count) in [
        ("references", report.inputs),
        ("of these committed", report.inputs_committed),
        ("outcomes", report.outcomes),
        ("of these verdicts", report.verdicts),
        ("of these dead letters", report.dead_letters),
        ("of these repeated, as at-least-once allows", report.outcomes_repeated),
        ("of these not committed yet, as it allows", report.outcomes_uncommitted),
        ("rows in the store", report.rows),
        ("not yet in the store", report.rows_pending),
        ("violations", report.violations),
        ("of these not listed", report.violations_unlisted),
    ] {
        table.add_row([cell(name), cell(count.to_string())]);
    }
    terminal.show(&table)?;
    terminal.say(match report.violations {
        0 => "nothing is lost, nothing is double",
        _ => "promises are broken: each line above names one, with its place",
    })
}
