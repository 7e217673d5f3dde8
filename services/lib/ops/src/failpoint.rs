//! Named places in which a test may end or freeze this process, at exactly that line.
//!
//! A test arms a point by writing a file of its name into the folder that `[ops] failpoints` names; the process that
//! gets there first takes the file away and signals itself. Without a folder a point costs one comparison.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use signal_hook::consts::{SIGABRT, SIGKILL, SIGSTOP};

/// The failpoints of one process. Cloning shares them; the default has none armed, ever.
#[derive(Clone, Debug, Default)]
pub struct Failpoints {
    folder: Option<Arc<Path>>,
}

/// What happens at an armed point: the content of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL: as a crash.
    Kill,
    /// SIGSTOP, until somebody sends SIGCONT: as a machine that hangs.
    Stop,
}

impl Failpoints {
    /// Those armed in this folder; with an empty path, none.
    pub fn in_folder(folder: &Path) -> Self {
        let folder = (!folder.as_os_str().is_empty()).then(|| folder.into());
        Self { folder }
    }

    /// The process is here. Returns, unless a test has armed this point.
    pub fn reach(&self, point: &str) {
        let Some(folder) = &self.folder else { return };
        let armed = folder.join(point);
        let Ok(fault) = std::fs::read_to_string(&armed) else { return };
        // Whoever moves the file has it: of several processes one goes.
        let taken = folder.join(format!("{point}.taken-{}", std::process::id()));
        if std::fs::rename(&armed, taken).is_ok() {
            let signal = match &*fault {
                "kill" => SIGKILL,
                "stop" => SIGSTOP,
                // A test that means something else must not pass because nothing happened.
                _ => SIGABRT,
            };
            tracing::warn!(point, fault, "failpoint");
            // A signal to oneself cannot fail but for a wrong number.
            let _delivered = signal_hook::low_level::raise(signal);
        }
    }
}

impl Fault {
    /// Arms `point` in `folder`. For tests.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn arm(self, folder: &Path, point: &str) -> std::io::Result<()> {
        let fault = match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
        };
        // Whole at once: a process that looks now finds nothing or all of it.
        let draft: PathBuf = folder.join(format!("{point}.draft"));
        std::fs::write(&draft, fault)?;
        std::fs::rename(draft, folder.join(point))
    }
}
