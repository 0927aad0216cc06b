//! Health checks: how often, how long, and what is asked.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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

    /// Asks once. An answer that takes longer than the timeout is a failure.
    pub async fn ask(&self) -> Result<(), String> {
        match tokio::time::timeout(self.settings.timeout, (self.check)()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", self.settings.timeout)),
        }
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck").field("settings", &self.settings).finish_non_exhaustive()
    }
}
