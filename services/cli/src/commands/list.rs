//! `touchstone list`.

use std::time::SystemTime;

use proto::v1;

use crate::arguments::List;
use crate::client::Client;
use crate::failure::{Failure, Status};
use crate::settings::Settings;
use crate::terminal::Terminal;
use crate::verdict_view;

/// The most verdicts that the service gives at once.
const PAGE_MAX: usize = 1_000;

/// Pages on until the limit; JSON is written as it comes, a table needs all its rows to be as narrow as it can be.
pub(crate) async fn list(what: List, settings: Settings, terminal: &mut Terminal) -> Result<Status, Failure> {
    let filter = what.filters.to_wire(SystemTime::now())?;
    let mut client = Client::connect(&settings.connection).await?;
    let mut left = if what.limit == 0 { usize::MAX } else { what.limit };
    let mut table = terminal.table(&verdict_view::HEADER);
    let mut page_token = String::new();
    loop {
        let page_size = i32::try_from(left.min(PAGE_MAX)).unwrap_or(i32::MAX);
        let request = v1::ListVerdictsRequest { filter: Some(filter.clone()), page_size, page_token };
        let request = client.call(request);
        let page = client.verdicts.list_verdicts(request).await?.into_inner();
        left = left.saturating_sub(page.verdicts.len());
        for verdict in &page.verdicts {
            if terminal.is_json() {
                let json = terminal.json().verdict(verdict)?;
                terminal.say(json)?;
            } else {
                table.add_row(verdict_view::row(verdict, terminal));
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() || left == 0 {
            break;
        }
    }
    if !terminal.is_json() {
        if table.is_empty() {
            terminal.hint("no verdicts match");
        } else {
            terminal.show(&table)?;
        }
        if !page_token.is_empty() {
            terminal
                .hint(format_args!("there are more; --limit {} or --limit 0 shows them", what.limit * 10));
        }
    }
    Ok(Status::Ok)
}
