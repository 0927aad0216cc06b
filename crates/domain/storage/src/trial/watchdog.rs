//! A version on trial that hangs is reset: by a watchdog in the kernel that this machine's controllers feed.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use stdx::error_chain;
use sys::watchdog::Watchdog;

/// How long controllers may stand still. A trial is looked at every few seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a machine may take to end a version.
const LEAVING: Duration = Duration::from_secs(300);

/// What watches over a version on trial.
pub trait TrialWatchdogs: Debug + Send + Sync {
    /// The controllers run: what would reset a machine that does not get as far ends.
    fn controllers_run(&self);

    /// Arms a watchdog that nobody else uses, and has the kernel end where it hangs itself.
    ///
    /// # Errors
    /// The machine has none.
    fn arm(&self) -> Result<Box<dyn Watchdog>, Box<dyn std::error::Error + Send + Sync>>;

    /// Takes back what [`arm`](Self::arm) had the kernel do.
    fn relax(&self);
}

/// The watchdog of this start. Dropped, it gives the machine time to end.
#[derive(Debug)]
pub(super) struct TrialWatchdog {
    watchdogs: Arc<dyn TrialWatchdogs>,
    state: State,
    is_told: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    Armed(Box<dyn Watchdog>),
    /// There is none, or it is left to itself.
    Over,
}

impl TrialWatchdog {
    pub(super) const fn new(watchdogs: Arc<dyn TrialWatchdogs>) -> Self {
        Self { watchdogs, state: State::Idle, is_told: false }
    }

    /// The controllers run.
    pub(super) fn runs(&mut self) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.watchdogs.controllers_run();
        }
    }

    /// Feeds it, and arms it first where it is not. A machine without one is not kept from its trial.
    pub(super) fn feed(&mut self) {
        match &mut self.state {
            State::Idle => self.state = self.arm(),
            State::Armed(dog) => {
                if let Err(error) = dog.feed() {
                    tracing::error!(error = error_chain(&error), "the watchdog of the trial is not fed");
                }
            }
            State::Over => {}
        }
    }

    fn arm(&self) -> State {
        let armed = self.watchdogs.arm().and_then(|mut dog| {
            dog.set_timeout(TIMEOUT)?;
            Ok(dog)
        });
        match armed {
            Ok(dog) => {
                tracing::info!(timeout = ?TIMEOUT, "a version on trial that hangs is reset");
                State::Armed(dog)
            }
            Err(error) => {
                tracing::warn!(error = error_chain(error.as_ref()), "a version on trial that hangs is not reset");
                State::Over
            }
        }
    }

    /// The version is good.
    pub(super) fn disarm(&mut self) {
        let State::Armed(dog) = std::mem::replace(&mut self.state, State::Over) else { return };
        self.watchdogs.relax();
        if let Err(error) = dog.disarm() {
            tracing::error!(error = error_chain(&error), "the watchdog of the trial stays armed");
        }
    }

    /// The machine ends, in time or by the watchdog.
    pub(super) fn leave(&mut self) {
        let State::Armed(mut dog) = std::mem::replace(&mut self.state, State::Over) else { return };
        if let Err(error) = dog.set_timeout(LEAVING) {
            tracing::warn!(error = error_chain(&error), "the machine has little time to end");
        }
    }
}

impl Drop for TrialWatchdog {
    fn drop(&mut self) {
        self.leave();
    }
}
