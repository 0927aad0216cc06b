//! Revisions of a machine's configuration: which one is in force, which one is on disk, which one reverts, and what
//! applying another one means.
//!
//! A state machine without I/O and without a clock: time is passed in, as the time since the machine started. Writing
//! files, rebooting and telling others is the caller's work.

use std::time::Duration;

use crate::diff;
use crate::documents::Documents;

/// Time since the machine started, on a clock that never jumps.
pub type Uptime = Duration;

/// How a configuration is to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// At once where all that differs can change while running, else by a reboot.
    Auto,
    /// At once; refused where something differs that cannot change while running.
    NoReboot,
    /// By a reboot.
    Reboot,
    /// At the next boot, whenever that is.
    Staged,
    /// At once, and back after this time; never written to disk.
    Try(Duration),
}

impl ApplyMode {
    /// As users write it: `no-reboot`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::NoReboot => "no-reboot",
            Self::Reboot => "reboot",
            Self::Staged => "staged",
            Self::Try(_) => "try",
        }
    }
}

/// A configuration that is in force for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    pub documents: Documents,
    /// When the configuration from before it returns.
    pub reverts_at: Uptime,
}

/// Effect of applying a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The mode in effect; never [`ApplyMode::Auto`].
    pub mode: ApplyMode,
    /// For people, as Talos 1.7 words it; without the remarks of a dry run or a trial.
    pub details: String,
    /// Why `auto` became a reboot.
    pub because: Option<NotImmediate>,
}

impl Judgement {
    fn new(mode: ApplyMode, because: Option<NotImmediate>) -> Self {
        let details = match mode {
            ApplyMode::Reboot => "Applied configuration with a reboot",
            ApplyMode::Staged => "Staged configuration to be applied after the next reboot",
            ApplyMode::Auto | ApplyMode::NoReboot | ApplyMode::Try(_) => "Applied configuration without a reboot",
        };
        Self { mode, details: details.to_owned(), because }
    }
}

/// Something differs that cannot change while the machine runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this config change can't be applied in immediate mode\ndiff: {diff}")]
pub struct NotImmediate {
    /// The fields, such as `machine.type`.
    pub fields: Vec<String>,
    /// All that differs, unified.
    pub diff: String,
}

/// The revisions of a configured machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revisions {
    /// In force, unless there is a trial.
    base: Documents,
    /// On disk.
    persistent: Documents,
    trial: Option<Trial>,
}

impl Revisions {
    /// Those of a machine that has just got `documents`, and has them on disk.
    #[must_use]
    pub const fn booted(documents: Documents, persistent: Documents) -> Self {
        Self { base: documents, persistent, trial: None }
    }

    /// The configuration in force.
    #[must_use]
    pub fn active(&self) -> &Documents {
        self.trial.as_ref().map_or(&self.base, |trial| &trial.documents)
    }

    /// The configuration on disk.
    #[must_use]
    pub const fn persistent(&self) -> &Documents {
        &self.persistent
    }

    /// The configuration that takes effect at the next boot, where that is not the one from before a trial or in force.
    #[must_use]
    pub fn staged(&self) -> Option<&Documents> {
        (self.persistent != self.base).then_some(&self.persistent)
    }

    /// The configuration that reverts automatically.
    #[must_use]
    pub const fn trial(&self) -> Option<&Trial> {
        self.trial.as_ref()
    }

    /// Stops the timer of a trial; its configuration stays in force until the next boot.
    pub fn stop_timer(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.base = trial.documents;
        }
    }

    /// Ends a trial whose time has come; returns whether there was one.
    pub fn expire(&mut self, now: Uptime) -> bool {
        self.trial.take_if(|trial| trial.reverts_at <= now).is_some()
    }

    /// The effect of applying `new` in this mode.
    ///
    /// # Errors
    /// Something differs from the configuration in force that cannot change while running, and the mode needs that.
    pub fn judge(&self, new: &Documents, mode: ApplyMode) -> Result<Judgement, NotImmediate> {
        let because = self.not_immediate(new);
        let (mode, because) = match (mode, because) {
            (ApplyMode::Auto, None) => (ApplyMode::NoReboot, None),
            (ApplyMode::Auto, Some(because)) => (ApplyMode::Reboot, Some(because)),
            (ApplyMode::NoReboot | ApplyMode::Try(_), Some(because)) => return Err(because),
            (mode, _) => (mode, None),
        };
        Ok(Judgement::new(mode, because))
    }

    /// The same for a machine whose configuration is on no disk yet: nothing runs that could not change. None where the mode
    /// asks for a reboot, which would lose the configuration.
    #[must_use]
    pub fn judge_unwritten(mode: ApplyMode) -> Option<Judgement> {
        match mode {
            ApplyMode::Auto => Some(Judgement::new(ApplyMode::NoReboot, None)),
            ApplyMode::NoReboot | ApplyMode::Try(_) => Some(Judgement::new(mode, None)),
            ApplyMode::Reboot | ApplyMode::Staged => None,
        }
    }

    fn not_immediate(&self, new: &Documents) -> Option<NotImmediate> {
        let (Some(old), Some(root)) = (self.active().v1alpha1(), new.v1alpha1()) else { return None };
        let fields = diff::needs_reboot(old, root);
        (!fields.is_empty()).then(|| NotImmediate { fields, diff: diff::diff(self.active(), new) })
    }

    /// The revisions after `new` was applied in a mode that was [judged](Self::judge). A second trial falls back to the
    /// first, since that is what is in force.
    #[must_use]
    pub fn applied(&self, new: Documents, mode: ApplyMode, now: Uptime) -> Self {
        let mut next = self.clone();
        next.stop_timer();
        match mode {
            ApplyMode::Try(lasting) => {
                next.trial = Some(Trial { documents: new, reverts_at: now.saturating_add(lasting) });
            }
            ApplyMode::Staged | ApplyMode::Reboot => next.persistent = new,
            ApplyMode::Auto | ApplyMode::NoReboot => {
                next.persistent = new.clone();
                next.base = new;
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn documents(name: &str, token: &str) -> Documents {
        let text =
            format!("version: v1alpha1\nmachine: {{type: worker, token: {token}}}\ncluster: {{clusterName: {name}}}\n");
        Documents::from_yaml(text.as_bytes()).unwrap()
    }

    fn live(name: &str) -> Documents {
        documents(name, "a")
    }

    fn fixed(name: &str) -> Documents {
        documents(name, "b")
    }

    fn booted() -> Revisions {
        Revisions::booted(live("one"), live("one"))
    }

    #[test]
    fn auto_reboots_only_for_what_cannot_change_while_running() {
        let judged = booted().judge(&live("two"), ApplyMode::Auto).unwrap();
        assert_eq!(
            (judged.mode, judged.details.as_str()),
            (ApplyMode::NoReboot, "Applied configuration without a reboot")
        );
        let judged = booted().judge(&fixed("one"), ApplyMode::Auto).unwrap();
        assert_eq!((judged.mode, judged.details.as_str()), (ApplyMode::Reboot, "Applied configuration with a reboot"));
        let because = judged.because.unwrap();
        assert_eq!(because.fields, ["machine.token"]);
        assert!(
            because.to_string().starts_with("this config change can't be applied in immediate mode\ndiff: --- a\n")
        );
    }

    #[test]
    fn modes_without_a_reboot_are_refused_for_what_needs_one() {
        for mode in [ApplyMode::NoReboot, ApplyMode::Try(MINUTE)] {
            assert_eq!(booted().judge(&fixed("one"), mode).unwrap_err().fields, ["machine.token"], "{mode:?}");
        }
        for mode in [ApplyMode::Reboot, ApplyMode::Staged] {
            assert_eq!(booted().judge(&fixed("one"), mode).unwrap().mode, mode);
            assert_eq!(booted().judge(&live("one"), mode).unwrap().mode, mode, "it is the requested one");
        }
    }

    #[test]
    fn staged_and_reboot_change_the_disk_and_not_what_is_in_force() {
        for mode in [ApplyMode::Staged, ApplyMode::Reboot] {
            let next = booted().applied(fixed("two"), mode, MINUTE);
            assert_eq!((next.active(), next.persistent()), (&live("one"), &fixed("two")));
            assert_eq!(next.staged(), Some(&fixed("two")));
            let unstaged = next.applied(live("three"), ApplyMode::NoReboot, MINUTE);
            assert_eq!((unstaged.active(), unstaged.staged()), (&live("three"), None));
        }
    }

    #[test]
    fn a_trial_returns_by_itself_and_never_reaches_the_disk() {
        let mut trial = booted().applied(live("two"), ApplyMode::Try(MINUTE), MINUTE);
        assert_eq!((trial.active(), trial.persistent()), (&live("two"), &live("one")));
        assert_eq!(trial.staged(), None);
        assert!(!trial.expire(2 * MINUTE - Duration::from_nanos(1)));
        assert!(trial.expire(2 * MINUTE));
        assert_eq!(trial, booted());
        assert!(!trial.expire(3 * MINUTE));
    }

    #[test]
    fn a_second_trial_falls_back_to_the_first() {
        let first = booted().applied(live("two"), ApplyMode::Try(MINUTE), Duration::ZERO);
        let mut second = first.applied(live("three"), ApplyMode::Try(MINUTE), MINUTE / 2);
        assert_eq!(second.active(), &live("three"));
        assert!(!second.expire(MINUTE), "the first timer was stopped");
        assert!(second.expire(MINUTE + MINUTE / 2));
        assert_eq!((second.active(), second.persistent()), (&live("two"), &live("one")));
    }

    #[test]
    fn a_stopped_timer_leaves_the_trial_in_force_until_the_next_boot() {
        let mut trial = booted().applied(live("two"), ApplyMode::Try(MINUTE), Duration::ZERO);
        trial.stop_timer();
        assert!(!trial.expire(10 * MINUTE));
        assert_eq!((trial.active(), trial.staged()), (&live("two"), Some(&live("one"))));
    }

    #[test]
    fn a_change_is_judged_against_the_trial_in_force() {
        let trial = booted().applied(live("two"), ApplyMode::Try(MINUTE), Duration::ZERO);
        let staged = trial.applied(fixed("x"), ApplyMode::Staged, Duration::ZERO);
        assert_eq!((staged.active(), staged.persistent()), (&live("two"), &fixed("x")));
        assert!(staged.trial().is_none());
    }
}
