//! `touchstone get`.

use proto::v1;
use proto::v1::get_verdict_request::By;

use crate::arguments::Get;
use crate::client::Client;
use crate::failure::{Failure, Status};
use crate::settings::Settings;
use crate::terminal::{Terminal, harmless};
use crate::verdict_view;

/// Shows each verdict that is there; when one is not, says so and ends with [`Status::NoInput`].
pub(crate) async fn get(what: Get, settings: Settings, terminal: &mut Terminal) -> Result<Status, Failure> {
    let mut client = Client::connect(&settings.connection).await?;
    let mut status = Status::Ok;
    for (index, id) in what.ids.into_iter().enumerate() {
        let by = if is_verdict_id(&id) && !what.media {
            By::VerdictId(id.clone())
        } else {
            By::MediaId(id.clone())
        };
        let request = client.call(v1::GetVerdictRequest { by: Some(by) });
        match client.verdicts.get_verdict(request).await {
            Ok(answer) if terminal.is_json() => {
                let json = terminal.json().verdict(answer.get_ref())?;
                terminal.say(json)?;
            }
            Ok(answer) => {
                if index > 0 {
                    terminal.say("")?;
                }
                verdict_view::full(answer.get_ref(), terminal)?;
            }
            Err(answer) if answer.code() == tonic::Code::NotFound => {
                status = Status::NoInput;
                let cause =
                    format_args!("no verdict for {} (tenant {})", harmless(&id), settings.connection.tenant);
                let next = "it may still be judged: `touchstone watch` shows verdicts as they come";
                terminal.complain(&Failure::new(status, cause).next(next));
            }
            Err(answer) => return Err(answer.into()),
        }
    }
    Ok(status)
}

/// 64 hex digits in lower case, as verdict ids are written.
fn is_verdict_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
