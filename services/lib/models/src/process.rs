//! What libtorch needs from its process before the first tensor.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Once;

use crate::shim;

/// How idle OpenMP threads wait, in variables that libgomp reads while it is loaded, before `main`. By default they spin
/// for milliseconds behind every operation: on a busy host half of the CPU time (measured 2026-11-24).
const OPENMP: [(&str, &str); 2] = [("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "0")];

/// Call it first in the `main` of whatever computes: it may start the program afresh, with the same process id and
/// arguments, once (0.3 s).
///
/// A variable that the user has set stays as it is. Where the program cannot be started again it goes on as it is: slower,
/// not wrong.
pub fn prepare_process() {
    if OPENMP.iter().any(|(name, _)| env::var_os(name).is_none())
        && let Ok(program) = env::current_exe()
    {
        let mut arguments = env::args_os();
        let mut again = Command::new(program);
        if let Some(name) = arguments.next() {
            again.arg0(name);
        }
        let set = OPENMP.into_iter().filter(|(name, _)| env::var_os(name).is_none());
        // Returns only if it fails.
        let _why_not = again.args(arguments).envs(set).exec();
    }
    prepare_libraries();
}

/// The part that can be done at any time, and is done again by whoever opens a device: memory and CUDA.
pub(crate) fn prepare_libraries() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        shim::keep_freed_memory();
        shim::load_cuda();
    });
}
