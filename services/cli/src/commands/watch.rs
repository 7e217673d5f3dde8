//! `touchstone watch`: verdicts as they come, resumable.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proto::v1;
use proto::v1::watch_verdicts_response::Event;
use tonic::{Code, Streaming};

use crate::arguments::Watch;
use crate::client::Client;
use crate::failure::{Failure, Status};
use crate::settings::Settings;
use crate::terminal::Terminal;
use crate::{time, verdict_view};

/// Pauses between attempts to reconnect: doubled from the first to the last. Chosen.
const RECONNECT_FIRST: Duration = Duration::from_millis(250);
const RECONNECT_LAST: Duration = Duration::from_secs(10);

/// Ends at the limit, or with Ctrl-C, and then says how to go on.
pub(crate) async fn watch(
    what: Watch,
    settings: Settings,
    terminal: &mut Terminal,
) -> Result<Status, Failure> {
    let filter = what.filters.to_wire(SystemTime::now())?;
    let state = what.state.as_deref().map(read_state).transpose()?;
    let resume_token = state.or(what.resume).unwrap_or_default();
    let mut watcher = Watcher {
        settings,
        filter,
        from_start: what.from_start,
        resume_token,
        state: what.state,
        left: what.limit.unwrap_or(usize::MAX),
    };
    let ended = tokio::select! {
        ended = watcher.run(terminal) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if !watcher.resume_token.is_empty() && watcher.state.is_none() {
        terminal.hint(format_args!("go on with: touchstone watch --resume {}", watcher.resume_token));
    }
    ended.map(|()| Status::Ok)
}

struct Watcher {
    settings: Settings,
    filter: v1::VerdictFilter,
    from_start: bool,
    resume_token: String,
    state: Option<PathBuf>,
    left: usize,
}

impl Watcher {
    /// Follows the stream, and takes it up again where it broke off.
    async fn run(&mut self, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut pause = RECONNECT_FIRST;
        let mut events = self.open().await?;
        while self.left > 0 {
            match events.message().await {
                Ok(Some(event)) => {
                    pause = RECONNECT_FIRST;
                    self.take(event, terminal)?;
                    continue;
                }
                Ok(None) => {}
                Err(answer) if passing(answer.code()) => {}
                Err(answer) => return Err(answer.into()),
            }
            terminal.hint(format_args!("the stream broke off; trying again in {}", time::span(pause)));
            events = loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_LAST);
                match self.open().await {
                    Ok(events) => break events,
                    Err(failure) if failure.status == Status::Unavailable => {}
                    Err(failure) => return Err(failure),
                }
            };
        }
        Ok(())
    }

    async fn open(&self) -> Result<Streaming<v1::WatchVerdictsResponse>, Failure> {
        let mut client = Client::connect(&self.settings.connection).await?;
        let request = v1::WatchVerdictsRequest {
            filter: Some(self.filter.clone()),
            resume_token: self.resume_token.clone(),
            from_start: self.from_start && self.resume_token.is_empty(),
        };
        Ok(client.verdicts.watch_verdicts(request).await?.into_inner())
    }

    fn take(&mut self, response: v1::WatchVerdictsResponse, terminal: &mut Terminal) -> Result<(), Failure> {
        match response.event {
            Some(Event::Verdict(verdict)) => {
                self.left -= 1;
                if terminal.is_json() {
                    let json = terminal.json().verdict(&verdict)?;
                    terminal.say(json)?;
                } else {
                    terminal.say(verdict_view::line(&verdict))?;
                }
            }
            Some(Event::Gap(gap)) => {
                terminal.warn(format_args!(
                    "{} verdicts were not sent because this reader was too slow; `touchstone list` has them",
                    gap.missed_count
                ));
            }
            Some(Event::Heartbeat(_)) | None => {}
        }
        // Only after the verdict is out: a crash in between shows it twice rather than never.
        if !response.resume_token.is_empty() && response.resume_token != self.resume_token {
            self.resume_token = response.resume_token;
            if let Some(state) = &self.state {
                write_state(state, &self.resume_token)?;
            }
        }
        Ok(())
    }
}

/// Whether the stream may be taken up again: the service is restarting, or the connection broke.
fn passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Aborted | Code::Cancelled | Code::Internal)
}

fn read_state(file: &Path) -> Result<String, Failure> {
    match std::fs::read_to_string(file) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::file(file, &error)),
    }
}

/// Whole or not at all: a new file takes the old one's place.
fn write_state(file: &Path, token: &str) -> Result<(), Failure> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = std::fs::write(&new, token).and_then(|()| std::fs::rename(&new, file));
    written.map_err(|error| Failure::file(file, &error))
}
