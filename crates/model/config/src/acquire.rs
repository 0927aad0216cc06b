//! How a machine gets its first configuration: from disk, from its platform where there is none on disk, else from an
//! operator in maintenance mode. Documents without the root document are kept and wait for the rest.
//!
//! A state machine without I/O and without a clock: the caller does the [`Step`] and reports the outcome.

use std::time::Duration;

use crate::documents::Documents;
use crate::error::{ConfigError, ConfigErrors};
use crate::patch::{self, Patch, PatchError};
use crate::revision::Uptime;
use crate::validate::{Mode, validate};

/// How often the disk is read anew at once when it cannot be read; then maintenance opens while reading goes on.
const DISK_ATTEMPTS: u32 = 5;
const DISK_RETRY: Duration = Duration::from_millis(500);
const DISK_RETRY_IN_MAINTENANCE: Duration = Duration::from_secs(30);
const PLATFORM_RETRY: Duration = Duration::from_secs(1);
const PLATFORM_RETRY_MAX: Duration = Duration::from_secs(60);

/// Origin of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Disk,
    Platform,
    Maintenance,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the configuration on disk, not before this time, and report it by [`Acquisition::disk`].
    ReadDisk { not_before: Uptime },
    /// Ask the platform, not before this time, and report its answer by [`Acquisition::platform`].
    AskPlatform { not_before: Uptime },
    /// Serve maintenance mode: documents come by [`Acquisition::submit`]. Where the disk could not be read, read it again
    /// at this time.
    Maintain { read_disk_at: Option<Uptime> },
    /// There is a configuration.
    Done { documents: Documents, source: Source },
}

/// Why a source gave nothing usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Trying again may help: an I/O error, a platform that does not answer yet.
    Passing,
    /// The platform has none until somebody attaches a medium.
    Absent,
    /// It will not: damage, a text that is no configuration.
    Lasting,
}

/// Why submitted documents were not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("the machine still looks for its configuration on disk and platform")]
    NotInMaintenance,
    #[error("merging the documents with those that the machine has")]
    Merge(#[source] PatchError),
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
}

/// The acquisition of one machine.
#[derive(Clone, Debug)]
pub struct Acquisition {
    mode: Mode,
    state: State,
    /// Documents that wait for the root document.
    partial: Option<Documents>,
}

#[derive(Clone, Debug)]
enum State {
    Disk { attempts: u32, not_before: Uptime },
    Platform { attempts: u32, not_before: Uptime },
    Maintenance { read_disk_at: Option<Uptime>, awaits_medium: bool },
    Done { documents: Documents, source: Source },
}

impl State {
    /// Maintenance mode that only an operator ends.
    const MAINTENANCE: Self = Self::Maintenance { read_disk_at: None, awaits_medium: false };
}

impl Acquisition {
    /// Begins with the disk. Configurations have to be valid for `mode`.
    #[must_use]
    pub const fn new(mode: Mode) -> Self {
        Self { mode, state: State::Disk { attempts: 0, not_before: Uptime::ZERO }, partial: None }
    }

    /// The current step.
    #[must_use]
    pub fn step(&self) -> Step {
        match &self.state {
            State::Disk { not_before, .. } => Step::ReadDisk { not_before: *not_before },
            State::Platform { not_before, .. } => Step::AskPlatform { not_before: *not_before },
            State::Maintenance { read_disk_at, .. } => Step::Maintain { read_disk_at: *read_disk_at },
            State::Done { documents, source } => Step::Done { documents: documents.clone(), source: *source },
        }
    }

    /// Whether the platform is to be asked again in maintenance mode, as a medium may have been attached. Documents that an
    /// operator submitted end that.
    #[must_use]
    pub const fn awaits_medium(&self) -> bool {
        matches!(self.state, State::Maintenance { awaits_medium: true, .. }) && self.partial.is_none()
    }

    /// Documents that wait for the rest.
    #[must_use]
    pub const fn partial(&self) -> Option<&Documents> {
        self.partial.as_ref()
    }

    /// The result of reading the disk; `None` if there is no file.
    pub fn disk(&mut self, outcome: Result<Option<Documents>, Failure>, now: Uptime) {
        match outcome {
            Ok(None) => self.state = State::Platform { attempts: 0, not_before: now },
            Ok(Some(documents)) => self.found(documents, Source::Disk),
            Err(Failure::Lasting | Failure::Absent) => self.state = State::MAINTENANCE,
            Err(Failure::Passing) => {
                self.state = match &self.state {
                    State::Disk { attempts, .. } if attempts + 1 < DISK_ATTEMPTS => {
                        State::Disk { attempts: attempts + 1, not_before: now + DISK_RETRY * (1 << attempts) }
                    }
                    _ => {
                        State::Maintenance { read_disk_at: Some(now + DISK_RETRY_IN_MAINTENANCE), awaits_medium: false }
                    }
                };
            }
        }
    }

    /// The platform's answer; `None` is that it has none. One that does not answer is asked for ever: opening maintenance
    /// mode instead would let anybody configure a machine whose platform they can silence. A medium that is absent opens it,
    /// as in Talos 1.7, and is awaited there, whatever one that was attached has turned out to hold.
    pub fn platform(&mut self, outcome: Result<Option<Documents>, Failure>, now: Uptime) {
        match outcome {
            Ok(Some(documents)) => self.found(documents, Source::Platform),
            Err(Failure::Absent) => self.state = State::Maintenance { read_disk_at: None, awaits_medium: true },
            Ok(None) | Err(_) if self.awaits_medium() => {}
            Ok(None) | Err(Failure::Lasting) => self.state = State::MAINTENANCE,
            Err(Failure::Passing) => {
                let attempts = if let State::Platform { attempts, .. } = &self.state { *attempts } else { 0 };
                let delay = PLATFORM_RETRY.saturating_mul(1 << attempts.min(6)).min(PLATFORM_RETRY_MAX);
                self.state = State::Platform { attempts: attempts + 1, not_before: now + delay };
            }
        }
    }

    fn found(&mut self, documents: Documents, source: Source) {
        if documents.v1alpha1().is_some() {
            self.partial = None;
            self.state = State::Done { documents, source };
        } else {
            self.partial = Some(documents);
            self.state = State::MAINTENANCE;
        }
    }

    /// Documents from an operator, merged into those that are there. Returns warnings about the whole.
    ///
    /// # Errors
    /// They are not taken, and nothing has changed.
    pub fn submit(&mut self, documents: Documents) -> Result<Vec<ConfigError>, SubmitError> {
        if !matches!(self.state, State::Maintenance { .. }) {
            return Err(SubmitError::NotInMaintenance);
        }
        let merged = match &self.partial {
            Some(partial) => patch::apply(partial, &[Patch::Strategic(documents)]).map_err(SubmitError::Merge)?,
            None => documents,
        };
        let warnings = validate(&merged, self.mode).into_result()?;
        if merged.v1alpha1().is_some() {
            self.found(merged, Source::Maintenance);
        } else {
            self.partial = Some(merged);
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests;
