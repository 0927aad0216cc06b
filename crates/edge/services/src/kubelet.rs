//! The kubelet.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use supervisor::{Condition, HealthCheck, HealthSettings, RunContext, Service, ServiceError};
use tokio_util::sync::CancellationToken;

use crate::container::Runtime;
use crate::oci::{Bind, Privilege, Shape};
use crate::{group, oom};

/// Settings of the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletSettings {
    pub image: String,
    /// Without the program itself.
    pub args: Vec<String>,
    pub extra_binds: Vec<Bind>,
}

/// Runs the kubelet.
pub struct KubeletService {
    settings: KubeletSettings,
    runtime: Runtime,
    conditions: Vec<Arc<dyn Condition>>,
}

impl std::fmt::Debug for KubeletService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeletService").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KubeletService {
    pub fn new(settings: KubeletSettings, runtime: Runtime, conditions: Vec<Arc<dyn Condition>>) -> Self {
        Self { settings, runtime, conditions }
    }
}

/// Directories shared by kubelet and node. Missing ones are created.
const WRITABLE: [&str; 11] = [
    "/dev",
    "/sys",
    "/run",
    "/etc/cni",
    "/etc/kubernetes",
    "/opt",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log",
];

const READONLY: [&str; 4] = ["/etc/hosts", "/etc/machine-id", "/etc/os-release", "/etc/resolv.conf"];

#[async_trait]
impl Service for KubeletService {
    fn id(&self) -> &'static str {
        "kubelet"
    }

    fn depends_on(&self) -> Vec<String> {
        vec!["containerd".into()]
    }

    fn conditions(&self) -> Vec<Arc<dyn Condition>> {
        self.conditions.clone()
    }

    async fn prepare(&self, _cancel: CancellationToken) -> Result<(), ServiceError> {
        for path in
            ["/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/var/lib/kubelet/seccomp"]
        {
            std::fs::create_dir_all(path)?;
        }
        self.runtime.pull(&self.settings.image).await
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        let mut binds: Vec<Bind> = WRITABLE.into_iter().map(Bind::writable).collect();
        binds.extend(READONLY.into_iter().map(Bind::readonly));
        binds.extend(self.settings.extra_binds.iter().cloned());
        let args = std::iter::once("/usr/local/bin/kubelet".to_owned()).chain(self.settings.args.iter().cloned());
        let shape = Shape {
            args: args.collect(),
            environment: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            privilege: Privilege::Host,
            binds,
            oom_score_adj: Some(oom::KUBELET),
            cgroup: format!("/{}", group::KUBELET),
        };
        self.runtime.run(self.id(), &self.settings.image, shape, Duration::from_secs(30), &run).await
    }

    fn health(&self) -> Option<HealthCheck> {
        let settings = HealthSettings { initial_delay: Duration::from_secs(2), ..HealthSettings::default() };
        Some(HealthCheck::new(settings, healthz))
    }
}

/// `GET /healthz` on the kubelet's own port: 200 is well.
async fn healthz() -> Result<(), String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", 10248)).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = ask.await.map_err(|e| format!("asking the kubelet: {e}"))?;
    let first = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    if first.contains(" 200 ") { Ok(()) } else { Err(format!("the kubelet answered {first:?}")) }
}
