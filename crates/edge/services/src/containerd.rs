//! containerd, which runs all containers of the node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use containers::{Containerd, Namespace};
use supervisor::{HealthCheck, HealthSettings, LogStore, RunContext, Service, ServiceError};

use crate::daemon::{DaemonService, DaemonSpec};
use crate::{group, oom};

/// Runs containerd as a program, and asks it whether it is well.
#[derive(Debug)]
pub struct ContainerdService {
    daemon: DaemonService,
    socket: PathBuf,
}

impl ContainerdService {
    /// `config` is its configuration file, `socket` where it listens.
    pub fn new(config: &Path, socket: &Path, logs: LogStore) -> Self {
        let spec = DaemonSpec {
            id: "containerd",
            program: "/usr/bin/containerd".into(),
            args: vec![
                "--address".into(),
                socket.display().to_string(),
                "--config".into(),
                config.display().to_string(),
            ],
            environment: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
            user: None,
            oom_score_adj: oom::CONTAINERD,
            cgroup: group::RUNTIME,
            depends_on: Vec::new(),
            listens_on: None,
        };
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
