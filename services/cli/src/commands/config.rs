//! `touchstone config`.

use crate::arguments::Config;
use crate::failure::{Failure, Status};
use crate::settings::Settings;
use crate::terminal::Terminal;

/// That the settings were read at all is the check.
pub(crate) fn config(what: &Config, settings: Settings, terminal: &mut Terminal) -> Result<Status, Failure> {
    match (what, terminal.is_json()) {
        (Config::Check, false) => terminal.say("the configuration is valid")?,
        (Config::Check, true) => terminal.say(r#"{"valid":true}"#)?,
        (Config::Show, false) => terminal.say(ops::config::render(&settings).trim_end())?,
        (Config::Show, true) => {
            let json = serde_json::to_string(&settings);
            terminal.say(json.map_err(|error| Failure::new(Status::Software, error))?)?;
        }
    }
    Ok(Status::Ok)
}
