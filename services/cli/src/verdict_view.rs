//! Verdicts for people: a row each, or one in full.

use comfy_table::{Cell, Color};
use proto::{convert, v1};

use crate::failure::Failure;
use crate::terminal::{Terminal, cell, harmless};
use crate::time;

/// The header of a table of verdicts.
pub(crate) const HEADER: [&str; 7] = ["MEDIA", "OUTCOME", "REASON", "SCORE", "FACES", "TOOK", "DETAIL"];

/// One verdict as a row under [`HEADER`].
pub(crate) fn row(verdict: &v1::Verdict, terminal: &Terminal) -> Vec<Cell> {
    let timings = verdict.timings.unwrap_or_default();
    vec![
        cell(&verdict.media_id),
        outcome(verdict, terminal),
        cell(reason(verdict)),
        cell(score(verdict)),
        cell(verdict.faces.len().to_string()),
        cell(time::span(convert::std_duration(timings.total))),
        cell(&verdict.detail),
    ]
}

/// One verdict as a line of its own, where others may follow: what has a known width comes first.
pub(crate) fn line(verdict: &v1::Verdict) -> String {
    let made = time::shown(verdict.created_at.as_ref().and_then(convert::system_time));
    let (outcome, reason, score) = (outcome_name(verdict), reason(verdict), score(verdict));
    let faces = verdict.faces.len();
    let (media, detail) = (harmless(&verdict.media_id), harmless(&verdict.detail));
    let line = format!("{made}  {outcome:<16}  {reason:<21}  {score:>5}  {faces:>3}  {media}  {detail}");
    line.trim_end().to_owned()
}

/// In its colour.
fn outcome(verdict: &v1::Verdict, terminal: &Terminal) -> Cell {
    let colour = match verdict.outcome() {
        v1::Outcome::LikelyForged => Color::Red,
        v1::Outcome::LikelyAuthentic => Color::Green,
        v1::Outcome::Inconclusive => Color::Yellow,
        v1::Outcome::NotApplicable => Color::Blue,
        v1::Outcome::Failed => Color::Magenta,
        v1::Outcome::Unspecified => Color::Reset,
    };
    terminal.coloured(outcome_name(verdict), colour)
}

/// Without its prefix.
fn outcome_name(verdict: &v1::Verdict) -> &'static str {
    let name = verdict.outcome().as_str_name();
    name.strip_prefix("OUTCOME_").unwrap_or(name)
}

/// Why it abstains, does not apply or failed; empty for a verdict that says something.
fn reason(verdict: &v1::Verdict) -> &'static str {
    let (name, prefix) = match verdict.outcome() {
        v1::Outcome::Inconclusive => (verdict.inconclusive_reason().as_str_name(), "INCONCLUSIVE_REASON_"),
        v1::Outcome::NotApplicable => {
            (verdict.not_applicable_reason().as_str_name(), "NOT_APPLICABLE_REASON_")
        }
        v1::Outcome::Failed => (verdict.failure_class().as_str_name(), "FAILURE_CLASS_"),
        _ => ("", ""),
    };
    name.strip_prefix(prefix).unwrap_or(name)
}

fn score(verdict: &v1::Verdict) -> String {
    verdict.probability.map_or_else(|| "-".to_owned(), |probability| format!("{probability:.3}"))
}

/// One verdict in full: its fields, then its faces, then its frames.
pub(crate) fn full(verdict: &v1::Verdict, terminal: &mut Terminal) -> Result<(), Failure> {
    let mut fields = terminal.table(&[]);
    let mut field = |name: &str, value: Cell| {
        fields.add_row([terminal.bold(name), value]);
    };
    field("media", cell(&verdict.media_id));
    field("verdict", cell(&verdict.verdict_id));
    field("outcome", outcome(verdict, terminal));
    for (name, value) in facts(verdict) {
        field(name, cell(value));
    }
    terminal.show(&fields)?;
    if !verdict.faces.is_empty() {
        let mut table = terminal.table(&["FACE", "FRAME", "BOX", "SIZE", "SHARPNESS", "CONFIDENCE", "SCORE"]);
        for (index, face) in verdict.faces.iter().enumerate() {
            let bounds = face.r#box.map_or_else(
                || "-".to_owned(),
                |b| format!("{:.0},{:.0} to {:.0},{:.0}", b.left, b.top, b.right, b.bottom),
            );
            table.add_row([
                cell(index.to_string()),
                cell(face.frame.to_string()),
                cell(bounds),
                cell(format!("{:.0} px", face.size)),
                cell(format!("{:.0}", face.sharpness)),
                cell(format!("{:.3}", face.confidence)),
                cell(format!("{:.3}", face.score)),
            ]);
        }
        terminal.say("")?;
        terminal.show(&table)?;
    }
    if verdict.timeline.len() > 1 {
        let mut table = terminal.table(&["FRAME", "SCORE", "UNREADABLE", "KEY"]);
        for (index, frame) in verdict.timeline.iter().enumerate() {
            let class = frame.failure_class().as_str_name().trim_start_matches("FAILURE_CLASS_");
            table.add_row([
                cell(index.to_string()),
                cell(frame.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.3}"))),
                cell(if class == "UNSPECIFIED" { "" } else { class }),
                cell(&frame.key),
            ]);
        }
        terminal.say("")?;
        terminal.show(&table)?;
    }
    Ok(())
}

/// What else there is to say, in the order of its weight; what is not set is left out.
fn facts(verdict: &v1::Verdict) -> Vec<(&'static str, String)> {
    let mut facts = vec![("reason", reason(verdict).to_owned()), ("detail", verdict.detail.clone())];
    if let Some(probability) = verdict.probability {
        let interval =
            verdict.interval.map(|i| format!(" [{:.3}, {:.3}]", i.low, i.high)).unwrap_or_default();
        let logit = verdict.logit.map(|logit| format!(", logit {logit:.3}")).unwrap_or_default();
        facts.push(("P(forged)", format!("{probability:.3}{interval}{logit}")));
    }
    if verdict.frames_unreadable > 0 {
        facts.push(("unreadable frames", verdict.frames_unreadable.to_string()));
    }
    if verdict.faces_left_out > 0 {
        facts.push(("faces left out", verdict.faces_left_out.to_string()));
    }
    if let Some(model) = &verdict.model {
        let (sha, v1::ModelIdentity { name, version, precision, device_class, .. }) = (&model.sha256, model);
        facts.push(("model", format!("{name} {version} ({precision} on {device_class}), sha256 {sha}")));
    }
    facts.push(("preprocessing", verdict.preprocessing.clone()));
    facts.push(("policy", verdict.policy.clone()));
    for content in &verdict.contents {
        let pin = [&content.version, &content.etag].into_iter().find(|pin| !pin.is_empty());
        let pin = pin.map(|pin| format!(" @ {pin}")).unwrap_or_default();
        let sha = if content.sha256.is_empty() { "not read to its end" } else { &content.sha256 };
        facts.push(("content", format!("{}{pin}, sha256 {sha}", content.key)));
    }
    facts.push(("timings", timings(verdict)));
    for (key, value) in &verdict.labels {
        facts.push(("label", format!("{key}={value}")));
    }
    if let Some(met) = verdict.due_met {
        facts.push(("due", if met { "met" } else { "missed" }.to_owned()));
    }
    if verdict.generation > 0 {
        facts.push(("generation", verdict.generation.to_string()));
    }
    facts.push(("made", time::shown(verdict.created_at.as_ref().and_then(convert::system_time))));
    if let Some(input) = &verdict.input {
        facts.push(("input", format!("{}/{}@{}", input.topic, input.partition, input.offset)));
    }
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn timings(verdict: &v1::Verdict) -> String {
    let Some(t) = verdict.timings else { return String::new() };
    let stages = [
        ("queued", t.queued),
        ("fetch", t.fetch),
        ("decode", t.decode),
        ("faces", t.faces),
        ("wait", t.wait),
        ("inference", t.inference),
        ("total", t.total),
    ];
    let spans = stages.map(|(name, took)| format!("{name} {}", time::span(convert::std_duration(took))));
    spans.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_belongs_to_the_outcome() {
        let mut verdict =
            v1::Verdict { failure_class: v1::FailureClass::Truncated.into(), ..Default::default() };
        assert_eq!(reason(&verdict), "");
        verdict.set_outcome(v1::Outcome::Failed);
        assert_eq!(reason(&verdict), "TRUNCATED");
        verdict.set_outcome(v1::Outcome::NotApplicable);
        verdict.set_not_applicable_reason(v1::NotApplicableReason::NoFace);
        assert_eq!(reason(&verdict), "NO_FACE");
    }

    #[test]
    fn what_is_not_set_is_left_out() {
        let names: Vec<_> = facts(&v1::Verdict::default()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["made"]);
    }
}
