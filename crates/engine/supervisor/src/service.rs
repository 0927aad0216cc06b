//! The contract of a service.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::condition::Condition;
use crate::health::HealthCheck;

/// How long a service may take to prepare unless it says otherwise.
const PREPARE_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Why a run of a service ended badly.
pub type ServiceError = Box<dyn std::error::Error + Send + Sync>;

/// When a run that ended is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    Always,
    OnFailure,
    Never,
}

type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// Inputs of one run.
#[derive(Clone)]
pub struct RunContext {
    /// Fires when the service must end. A run that ignores it is dropped after the supervisor's grace.
    pub cancel: CancellationToken,
    running: Report,
}

impl RunContext {
    pub(crate) fn new(cancel: CancellationToken, running: Report) -> Self {
        Self { cancel, running }
    }

    /// Says that the service is up now ("Started task etcd (PID 812)"); from here on it is health-checked.
    pub fn running(&self, message: &str) {
        (self.running)(message);
    }
}

impl fmt::Debug for RunContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunContext").finish_non_exhaustive()
    }
}

/// Something that is kept running.
///
/// # Guarantees
/// `prepare` and `run` are called in turn, never twice at the same time.
///
/// # Assumptions
/// `run` returns soon after `RunContext::cancel` fires, and leaves nothing behind that keeps a next run from starting:
/// also what an earlier, killed machined left is cleaned up by `prepare`.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    fn id(&self) -> &str;

    /// Services that must be running and healthy first.
    fn depends_on(&self) -> Vec<String> {
        Vec::new()
    }

    fn conditions(&self) -> Vec<Arc<dyn Condition>> {
        Vec::new()
    }

    /// Prepares a run: images, directories, cleanup of remains.
    async fn prepare(&self, _cancel: CancellationToken) -> Result<(), ServiceError> {
        Ok(())
    }

    /// How long `prepare` may take; after that it is dropped, and tried again. The default has room for an image that comes
    /// over a slow line.
    fn prepare_deadline(&self) -> Duration {
        PREPARE_DEADLINE
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError>;

    fn health(&self) -> Option<HealthCheck> {
        None
    }

    fn restart(&self) -> Restart {
        Restart::Always
    }
}
