//! Health checks: interval, timeout and probe.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

/// Timing of a check. The default is 1 s before the first, then every 5 s, each at most 500 ms (Talos 1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSettings {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_secs(1),
            period: Duration::from_secs(5),
            timeout: Duration::from_millis(500),
        }
    }
}

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A question that a healthy service answers with `Ok`.
#[derive(Clone)]
pub struct HealthCheck {
    pub settings: HealthSettings,
    check: Arc<dyn Fn() -> CheckFuture + Send + Sync>,
}

impl HealthCheck {
    pub fn new<F, T>(settings: HealthSettings, check: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { settings, check: Arc::new(move || Box::pin(check())) }
    }

    /// Asks once. An answer that takes longer than the timeout is a failure, and so is a panic.
    pub async fn ask(&self) -> Result<(), String> {
        let asked = AssertUnwindSafe(async { (self.check)().await }).catch_unwind();
        match tokio::time::timeout(self.settings.timeout, asked).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(format!("the check panicked: {}", stdx::tasks::panic_message(&*panic))),
            Err(_) => Err(format!("no answer within {:?}", self.settings.timeout)),
        }
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck").field("settings", &self.settings).finish_non_exhaustive()
    }
}
