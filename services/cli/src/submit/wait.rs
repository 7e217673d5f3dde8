//! Waiting for verdicts: a watch for speed, and a look into the store now and then for what a watch may miss.
//!
//! A verdict answers a submission when it names the submission's place in the log. The watch shows every one, also
//! that of a media which already had the very same verdict. A watch can miss some (it was too slow, the service was
//! restarted); then the store is asked, and any verdict of the media counts, because the store keeps only the first of
//! equal verdicts.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use indicatif::ProgressBar;
use proto::v1;
use proto::v1::watch_verdicts_response::Event;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Streaming;

use super::{Accepted, show_verdicts};
use crate::client::Client;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Between looks into the store. Chosen: the watch is the quick way.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Media ids in one look; the service takes as many.
const LOOK_MAX: usize = 1_000;

/// Verdicts that are kept while submitting goes on, before it is known which of them are awaited. Chosen: 64 MiB at
/// one kilobyte each.
const EARLY_MAX: usize = 65_536;

/// Topic, partition, offset.
type Place = (String, i32, i64);

pub(super) struct Waiting {
    client: Client,
    events: Option<Streaming<v1::WatchVerdictsResponse>>,
    resume_token: String,
    /// Verdicts that came before it was known whether anybody waits for them.
    early: HashMap<Place, v1::Verdict>,
    /// The watch may have missed some.
    missed: bool,
}

impl Waiting {
    /// From now on no verdict is missed.
    pub(super) async fn start(client: &Client) -> Result<Self, Failure> {
        let mut waiting = Self {
            client: client.clone(),
            events: None,
            resume_token: String::new(),
            early: HashMap::new(),
            missed: false,
        };
        waiting.open().await?;
        Ok(waiting)
    }

    async fn open(&mut self) -> Result<(), Failure> {
        let request =
            v1::WatchVerdictsRequest { resume_token: self.resume_token.clone(), ..Default::default() };
        self.events = Some(self.client.verdicts.watch_verdicts(request).await?.into_inner());
        Ok(())
    }

    /// Does `work` and keeps the verdicts that come meanwhile.
    pub(super) async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                verdict = self.next_verdict() => {
                    if self.early.len() < EARLY_MAX {
                        self.early.insert(place(verdict.input.as_ref()), verdict);
                    } else {
                        self.missed = true;
                    }
                }
            }
        }
    }

    /// Waits for the verdicts of all; shows them, and says how many are missing at the end of the time.
    pub(super) async fn all(
        &mut self,
        accepted: Vec<Accepted>,
        timeout: Duration,
        terminal: &mut Terminal,
    ) -> Result<usize, Failure> {
        let bar = terminal.progress("verdicts", accepted.len() as u64);
        let mut found = Found::new(&accepted, bar);
        for (place, verdict) in std::mem::take(&mut self.early) {
            found.take(&place, verdict, terminal)?;
        }
        let deadline = Instant::now() + timeout;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while found.missing() > 0 {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                verdict = self.next_verdict() => {
                    found.take(&place(verdict.input.as_ref()), verdict, terminal)?;
                }
                _ = looks.tick() => self.look(&accepted, &mut found, terminal).await?,
            }
        }
        found.bar.finish_and_clear();
        if !terminal.is_json() {
            show_verdicts(&found.in_order(&accepted), terminal)?;
        }
        Ok(found.missing())
    }

    /// The next verdict of the watch; waits for ever while there is none. Cancel safe.
    async fn next_verdict(&mut self) -> v1::Verdict {
        while let Some(events) = &mut self.events {
            let Ok(Some(response)) = events.message().await else {
                self.events = None;
                break;
            };
            if !response.resume_token.is_empty() {
                self.resume_token = response.resume_token;
            }
            match response.event {
                Some(Event::Verdict(verdict)) => return verdict,
                Some(Event::Gap(_)) => self.missed = true,
                Some(Event::Heartbeat(_)) | None => {}
            }
        }
        self.missed = true;
        std::future::pending().await
    }

    /// Asks the store for what is missing, and takes a broken watch up again. A service that is away is waited for.
    async fn look(
        &mut self,
        accepted: &[Accepted],
        found: &mut Found,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        if self.events.is_none() && self.open().await.is_err() {
            return Ok(());
        }
        let missing: Vec<&Accepted> =
            accepted.iter().filter(|a| !found.has(&place(Some(&a.position)))).collect();
        for some in missing.chunks(LOOK_MAX) {
            let media_ids = some.iter().map(|accepted| accepted.media_id.clone()).collect();
            let request = self.client.call(v1::BatchGetVerdictsRequest { media_ids });
            let Ok(answer) = self.client.verdicts.batch_get_verdicts(request).await else { return Ok(()) };
            for verdict in answer.into_inner().verdicts {
                for waiting in some.iter().filter(|accepted| accepted.media_id == verdict.media_id) {
                    let awaited = place(Some(&waiting.position));
                    if self.missed || place(verdict.input.as_ref()) == awaited {
                        found.take(&awaited, verdict.clone(), terminal)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn place(position: Option<&v1::InputPosition>) -> Place {
    let position = position.cloned().unwrap_or_default();
    (position.topic, position.partition, position.offset)
}

/// The verdicts so far, by the place of their reference.
struct Found {
    verdicts: HashMap<Place, Option<v1::Verdict>>,
    bar: ProgressBar,
}

impl Found {
    fn new(accepted: &[Accepted], bar: ProgressBar) -> Self {
        Self { verdicts: accepted.iter().map(|a| (place(Some(&a.position)), None)).collect(), bar }
    }

    /// Keeps the verdict if somebody waits for it; as JSON it is shown at once.
    fn take(&mut self, place: &Place, verdict: v1::Verdict, terminal: &mut Terminal) -> Result<(), Failure> {
        let Some(slot @ None) = self.verdicts.get_mut(place) else { return Ok(()) };
        self.bar.inc(1);
        if terminal.is_json() {
            let json = terminal.json().verdict(&verdict)?;
            self.bar.suspend(|| terminal.say(json))?;
        }
        *slot = Some(verdict);
        Ok(())
    }

    fn has(&self, place: &Place) -> bool {
        self.verdicts.get(place).is_some_and(Option::is_some)
    }

    fn missing(&self) -> usize {
        self.verdicts.values().filter(|verdict| verdict.is_none()).count()
    }

    fn in_order(&self, accepted: &[Accepted]) -> Vec<&v1::Verdict> {
        accepted.iter().filter_map(|a| self.verdicts.get(&place(Some(&a.position)))?.as_ref()).collect()
    }
}
