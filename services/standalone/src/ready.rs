//! What a person reads when everything is up.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use crate::start::Addresses;

/// Prints addresses and the commands to try on standard output; the log goes to standard error.
pub(crate) fn announce(config: &Config, addresses: &Addresses, took: Duration) {
    let text = text(config, addresses, took);
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        tracing::debug!(%error, "nobody reads the announcement");
    }
}

fn text(config: &Config, addresses: &Addresses, took: Duration) -> String {
    let Addresses { grpc, s3, admin } = addresses;
    let data = config.folder.display();
    let touchstone = touchstone();
    let admin = admin.map(|admin| format!("  admin   http://{admin}/readyz, /livez, /metrics\n"));
    let model = model(config.model());
    let model = if model.is_empty() { String::new() } else { format!("  model   {model}\n") };
    format!(
        "touchstone is ready after {:.1} s\n  data    {data}\n  gRPC    {grpc}   grpcurl -plaintext {grpc} list\n  \
         S3      {s3}   bucket {}, keys in {data}/connection.toml\n{}{model}\n  {touchstone} --data {data} submit \
         portrait.jpg\n  {touchstone} --data {data} list\n  {touchstone} --data {data} verify\n\nSIGTERM or Ctrl-C \
         drains and ends it; the folder keeps everything.\n",
        took.as_secs_f64(),
        config.bucket(),
        admin.unwrap_or_default(),
    )
}

/// What must be known about a model that judges nothing.
pub(crate) fn model(model: &str) -> String {
    if model.starts_with("seeded") {
        "untrained (seeded weights): every face is INCONCLUSIVE (MODEL_NOT_CALIBRATED)".to_owned()
    } else if model == forensics::scripted::NAME {
        "scripted: a function of colours, for tests".to_owned()
    } else {
        String::new()
    }
}

/// The command line beside this program if it was built, so that the line can be pasted.
fn touchstone() -> String {
    let beside = || {
        let path = std::env::current_exe().ok()?.with_file_name("touchstone");
        path.is_file().then(|| short(&path).display().to_string())
    };
    beside().unwrap_or_else(|| "touchstone".to_owned())
}

/// The path from here, where it lies below.
fn short(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).to_owned()
}
