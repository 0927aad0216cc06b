//! A service that is a program of the node's image.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use supervisor::{Condition, HealthCheck, HealthSettings, LogStore, Restart, RunContext, Service, ServiceError};
use sys::process::{Capabilities, Command};

/// How long a program may take to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The program and its user.
#[derive(Debug, Clone)]
pub struct DaemonSpec {
    pub id: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A user of its own without any capability; `None` runs it as root without the `withheld` ones.
    pub user: Option<u32>,
    /// Capabilities that it does not have.
    pub withheld: &'static [u32],
    pub oom_score_adj: i32,
    pub cgroup: &'static str,
    pub depends_on: Vec<String>,
    /// Where it listens when it is up.
    pub listens_on: Option<SocketAddr>,
}

/// Runs a [`DaemonSpec`].
pub struct DaemonService {
    spec: DaemonSpec,
    conditions: Vec<Arc<dyn Condition>>,
    logs: LogStore,
}

impl std::fmt::Debug for DaemonService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonService").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl DaemonService {
    pub fn new(spec: DaemonSpec, conditions: Vec<Arc<dyn Condition>>, logs: LogStore) -> Self {
        Self { spec, conditions, logs }
    }
}

#[async_trait]
impl Service for DaemonService {
    fn id(&self) -> &str {
        self.spec.id
    }

    fn depends_on(&self) -> Vec<String> {
        self.spec.depends_on.clone()
    }

    fn conditions(&self) -> Vec<Arc<dyn Condition>> {
        self.conditions.clone()
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        let spec = &self.spec;
        let mut command = Command::new(&spec.program)
            .args(spec.args.iter().cloned())
            .oom_score_adj(spec.oom_score_adj)
            .cgroups(join_group(spec.cgroup))
            .output(self.logs.sink(spec.id));
        for (key, value) in &spec.environment {
            command = command.env(key, value);
        }
        command = match spec.user {
            Some(user) => command.user(user, user).capabilities(Capabilities::None),
            None => command.capabilities(Capabilities::Without(spec.withheld.to_vec())),
        };
        let mut child = command.spawn()?;
        run.running(&format!("Process {} started with PID {}", spec.program.display(), child.pid()));
        // Both arms are cancel-safe: an exit status is taken only when the arm completes.
        tokio::select! {
            status = child.wait() => {
                let status = status?;
                if status.success() { Ok(()) } else { Err(format!("ended with {status}").into()) }
            }
            () = run.cancel.cancelled() => {
                child.stop(STOP_GRACE).await?;
                Ok(())
            }
        }
    }

    fn health(&self) -> Option<HealthCheck> {
        let address = self.spec.listens_on?;
        Some(HealthCheck::new(HealthSettings::default(), move || listens(address)))
    }

    fn restart(&self) -> Restart {
        Restart::Always
    }
}

/// Whether something accepts connections there.
pub(crate) async fn listens(address: SocketAddr) -> Result<(), String> {
    tokio::net::TcpStream::connect(address).await.map(drop).map_err(|e| format!("connecting to {address}: {e}"))
}

/// The files by which a process joins a group; none where the machine refuses the group, which is said once there.
pub(crate) fn join_group(name: &str) -> Vec<PathBuf> {
    let hierarchy = sys::cgroups::detect(std::path::Path::new("/sys/fs/cgroup"));
    hierarchy.create(name).unwrap_or_else(|error| {
        tracing::debug!(group = name, %error, "running without a control group");
        Vec::new()
    })
}
