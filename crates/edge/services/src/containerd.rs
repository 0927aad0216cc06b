//! containerd, which runs all containers of the node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use containers::{Containerd, Namespace};
use supervisor::{HealthCheck, HealthSettings, LogStore, RunContext, Service, ServiceError};

use crate::daemon::{DaemonService, DaemonSpec};

/// Runs containerd as a process, with a health check.
#[derive(Debug)]
pub struct ContainerdService {
    daemon: DaemonService,
    socket: PathBuf,
}

impl ContainerdService {
    /// `socket` is where it listens.
    pub fn new(spec: DaemonSpec, socket: &Path, logs: LogStore) -> Self {
        Self { daemon: DaemonService::new(spec, Vec::new(), logs), socket: socket.to_owned() }
    }
}

#[async_trait]
impl Service for ContainerdService {
    fn id(&self) -> &str {
        self.daemon.id()
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        self.daemon.run(run).await
    }

    fn health(&self) -> Option<HealthCheck> {
        let containerd = Containerd::new(&self.socket, Namespace::System);
        let settings = HealthSettings { timeout: Duration::from_secs(5), ..HealthSettings::default() };
        Some(HealthCheck::new(settings, move || {
            let containerd = containerd.clone();
            async move { containerd.version().await.map(drop).map_err(|e| stdx::error_chain(&e)) }
        }))
    }
}
