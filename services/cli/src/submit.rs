//! `touchstone submit`: what is named on the command line becomes media; files go up first; verdicts are awaited.

mod plan;
mod upload;
mod wait;

use std::time::SystemTime;

use futures::StreamExt;
use proto::v1::submit_result::Result as Submitted;
use proto::{convert, v1};

use crate::arguments::{Faces, Lane, Submit};
use crate::client::Client;
use crate::failure::{Failure, Status};
use crate::settings::Settings;
use crate::terminal::{Terminal, harmless};
use crate::{time, verdict_view};

use plan::Planned;
use upload::Uploader;
use wait::Waiting;

/// Media in one call: the first are judged while the last still go up. The service takes 1,000. Chosen.
const BATCH_MAX: usize = 64;

/// Every media is submitted, whatever becomes of the others; the exit code tells the worst that happened.
pub(crate) async fn submit(
    what: Submit,
    mut settings: Settings,
    terminal: &mut Terminal,
) -> Result<Status, Failure> {
    if let Some(due) = what.due {
        time::ahead(SystemTime::now(), due)?;
    }
    let planned = plan::plan(&what.what, what.as_frames)?;
    if planned.len() > 1 && (what.id.is_some() || what.request_id.is_some()) {
        let cause = format!("--id and --request-id name one media, and {} are given", planned.len());
        return Err(Failure::new(Status::Usage, cause).next("leave them out, or submit one by one"));
    }
    if let Some(bucket) = &what.bucket {
        settings.upload.bucket.clone_from(bucket);
    }
    let uploader = Uploader::new(&settings, &planned).await?;
    let client = Client::connect(&settings.connection).await?;
    // Before the first submission, or a quick verdict would pass unseen.
    let mut waiting = if what.no_wait { None } else { Some(Waiting::start(&client).await?) };
    let mut submission =
        Submission { client, what: &what, tenant: settings.connection.tenant.clone(), refused: 0 };
    let submitting = submission.run(planned, uploader, settings.upload.concurrency as usize, terminal);
    let accepted = match &mut waiting {
        Some(waiting) => waiting.meanwhile(submitting).await?,
        None => submitting.await?,
    };
    let refused = submission.refused;
    let missing = match &mut waiting {
        Some(waiting) => waiting.all(accepted, what.timeout.get(), terminal).await?,
        None => show_accepted(&accepted, terminal)?,
    };
    if missing > 0 {
        let cause = format!("{missing} media have no verdict after {}", what.timeout);
        let next = "they are in the log and will have one: `touchstone list`, or `touchstone get MEDIA`";
        return Err(Failure::new(Status::Temporary, cause).next(next));
    }
    Ok(if refused > 0 { Status::Data } else { Status::Ok })
}

/// A media that the log has.
pub(crate) struct Accepted {
    pub(crate) media_id: String,
    pub(crate) position: v1::InputPosition,
}

struct Submission<'a> {
    client: Client,
    what: &'a Submit,
    tenant: String,
    refused: usize,
}

impl Submission<'_> {
    async fn run(
        &mut self,
        planned: Vec<Planned>,
        uploader: Uploader,
        concurrency: usize,
        terminal: &mut Terminal,
    ) -> Result<Vec<Accepted>, Failure> {
        let bar = terminal.progress("submitted", planned.len() as u64);
        let uploads = futures::stream::iter(planned.into_iter().map(|media| uploader.place(media)));
        let mut ready = uploads.buffered(concurrency).ready_chunks(BATCH_MAX);
        let mut accepted = Vec::new();
        while let Some(placed) = ready.next().await {
            let mut media = Vec::with_capacity(placed.len());
            for placed in placed {
                match placed {
                    Ok(placed) => media.push(self.reference(placed.media_id, placed.source)?),
                    // What cannot be uploaded is one media's misfortune, unless the store is at fault.
                    Err(failure) if failure.status == Status::NoInput => self.refuse(&failure, terminal),
                    Err(failure) => return Err(failure),
                }
            }
            bar.inc(media.len() as u64);
            accepted.extend(self.send(media, terminal).await?);
        }
        bar.finish_and_clear();
        Ok(accepted)
    }

    fn reference(
        &self,
        media_id: String,
        source: v1::media_reference::Source,
    ) -> Result<v1::MediaReference, Failure> {
        let what = self.what;
        let due_at = what.due.map(|due| time::ahead(SystemTime::now(), due)).transpose()?;
        let faces = match what.faces {
            Faces::Detect => v1::Faces::Detect,
            Faces::Cropped => v1::Faces::Cropped,
        };
        let lane = match what.lane {
            Lane::Live => v1::Lane::Live,
            Lane::Standard => v1::Lane::Standard,
            Lane::Bulk => v1::Lane::Bulk,
        };
        Ok(v1::MediaReference {
            tenant: self.tenant.clone(),
            media_id: what.id.clone().unwrap_or(media_id),
            source: Some(source),
            faces: faces.into(),
            lane: lane.into(),
            due_at: due_at.map(convert::timestamp),
            labels: what.label.iter().cloned().collect(),
            request_id: what.request_id.clone().unwrap_or_default(),
            submitted_at: None,
            generation: what.generation,
        })
    }

    async fn send(
        &mut self,
        media: Vec<v1::MediaReference>,
        terminal: &mut Terminal,
    ) -> Result<Vec<Accepted>, Failure> {
        let ids: Vec<_> = media.iter().map(|media| media.media_id.clone()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let request = self.client.call(v1::BatchSubmitMediaRequest { media });
        let answer = self.client.media.batch_submit_media(request).await?.into_inner();
        if answer.results.len() != ids.len() {
            let cause = format!("{} answers for {} media", answer.results.len(), ids.len());
            return Err(Failure::new(Status::Protocol, cause));
        }
        let mut accepted = Vec::with_capacity(ids.len());
        for (media_id, result) in ids.into_iter().zip(answer.results) {
            match result.result {
                Some(Submitted::Position(position)) => accepted.push(Accepted { media_id, position }),
                Some(Submitted::Refusal(refusal)) => {
                    let field =
                        if refusal.field.is_empty() { String::new() } else { format!("{}: ", refusal.field) };
                    let cause =
                        format!("{} is refused: {field}{}", harmless(&media_id), harmless(&refusal.message));
                    self.refuse(&Failure::new(Status::Data, cause), terminal);
                }
                None => return Err(Failure::new(Status::Protocol, "an answer without a result")),
            }
        }
        Ok(accepted)
    }

    fn refuse(&mut self, failure: &Failure, terminal: &mut Terminal) {
        self.refused += 1;
        terminal.complain(failure);
    }
}

/// Without waiting, the place in the log is the answer.
fn show_accepted(accepted: &[Accepted], terminal: &mut Terminal) -> Result<usize, Failure> {
    let mut table = terminal.table(&["MEDIA", "POSITION"]);
    for Accepted { media_id, position } in accepted {
        if terminal.is_json() {
            let position = terminal.json().position(position)?;
            terminal.say(serde_json::json!({ "mediaId": media_id, "position": position }))?;
        } else {
            let place = format!("{}/{}@{}", position.topic, position.partition, position.offset);
            table.add_row([harmless(media_id), place]);
        }
    }
    if !terminal.is_json() && !table.is_empty() {
        terminal.show(&table)?;
    }
    Ok(0)
}

/// The verdicts that were waited for, in the order of submission.
fn show_verdicts(verdicts: &[&v1::Verdict], terminal: &mut Terminal) -> Result<(), Failure> {
    let mut table = terminal.table(&verdict_view::HEADER);
    for verdict in verdicts {
        table.add_row(verdict_view::row(verdict, terminal));
    }
    if table.is_empty() { Ok(()) } else { terminal.show(&table) }
}
