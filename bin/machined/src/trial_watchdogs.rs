//! What watches over a version on trial on this machine: init's guard, the kernel's watchdog in software, and the kernel itself.

use std::path::Path;
use std::time::Duration;

use domain_runtime::kernel_module::{ImageModules, LoadModules as _};
use domain_storage::TrialWatchdogs;
use parking_lot::Mutex;
use stdx::error_chain;
use sys::kernel_param::{KernelParam, Tree};
use sys::watchdog::{KernelWatchdogs, Watchdog, Watchdogs as _};
use sys::{guard, softdog};

/// A kernel that finds itself hanging panics, and so reboots. Not among them: tasks that wait for a disk for long, which slow
/// disks have as well.
const PANICS: [&str; 2] = ["kernel.softlockup_panic", "kernel.hardlockup_panic"];
/// How long the device may take to appear after its module.
const DEVICE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// Those of this machine.
#[derive(Debug, Default)]
pub(crate) struct NodeTrialWatchdogs {
    /// The process id of init's guard.
    guard: Option<u32>,
    /// What the kernel's parameters were before.
    before: Mutex<Vec<(KernelParam, String)>>,
}

impl NodeTrialWatchdogs {
    pub(crate) const fn new(guard: Option<u32>) -> Self {
        Self { guard, before: Mutex::new(Vec::new()) }
    }

    fn panic_on_lockups(&self) {
        for name in PANICS {
            let param = KernelParam::new(Tree::Sysctl, name);
            // Not every kernel has both.
            let Ok(before) = param.read() else { continue };
            match param.write("1") {
                Ok(()) => self.before.lock().push((param, before)),
                Err(error) => tracing::warn!(error = error_chain(&error), "a kernel that hangs may not reboot"),
            }
        }
    }
}

impl TrialWatchdogs for NodeTrialWatchdogs {
    fn controllers_run(&self) {
        if let Some(Err(error)) = self.guard.map(guard::end) {
            tracing::error!(error = error_chain(&error), "the machine reboots soon: init's guard cannot be ended");
        }
    }

    fn arm(&self) -> Result<Box<dyn Watchdog>, Box<dyn std::error::Error + Send + Sync>> {
        self.panic_on_lockups();
        ImageModules.load(softdog::MODULE, "")?;
        let begun = tokio::time::Instant::now();
        loop {
            let device = softdog::device(Path::new("/sys"))?;
            match device.filter(|device| device.exists()) {
                Some(device) => return Ok(KernelWatchdogs.open(&device)?),
                None if begun.elapsed() > DEVICE => {
                    return Err("the kernel's watchdog in software has no device".into());
                }
                #[expect(clippy::disallowed_methods, reason = "for a moment, once, until devtmpfs has it")]
                None => std::thread::sleep(POLL),
            }
        }
    }

    fn relax(&self) {
        for (param, before) in self.before.lock().drain(..) {
            if let Err(error) = param.write(&before) {
                tracing::warn!(error = error_chain(&error), "a parameter of the kernel stays as the trial had it");
            }
        }
    }
}
