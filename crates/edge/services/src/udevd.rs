//! udevd, which handles devices as they come, and loads modules for them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use supervisor::{HealthCheck, HealthSettings, LogStore, RunContext, Service, ServiceError};
use sys::udev::{Devices as _, Udevadm};

use crate::daemon::{DaemonService, DaemonSpec};

/// Talos 1.7.
const PERIOD: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(55);
/// Its control program would take the processor from the start of the API.
const INITIAL_DELAY: Duration = Duration::from_secs(5);

/// Runs udevd as a process, with a health check.
#[derive(Debug)]
pub struct UdevdService {
    daemon: DaemonService,
}

impl UdevdService {
    #[must_use]
    pub fn new(spec: DaemonSpec, logs: LogStore) -> Self {
        Self { daemon: DaemonService::new(spec, Vec::new(), logs) }
    }
}

#[async_trait]
impl Service for UdevdService {
    fn id(&self) -> &str {
        self.daemon.id()
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        self.daemon.run(run).await
    }

    fn health(&self) -> Option<HealthCheck> {
        let settings = HealthSettings { initial_delay: INITIAL_DELAY, period: PERIOD, timeout: TIMEOUT };
        let udevd = Arc::new(Udevadm::default());
        Some(HealthCheck::new(settings, move || {
            let udevd = Arc::clone(&udevd);
            async move { udevd.ready().await.map_err(|error| stdx::error_chain(&error)) }
        }))
    }
}
