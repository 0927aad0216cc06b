//! etcd, on control plane nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use etcd_edge::{Connector as _, EtcdConnector, LOCAL_ENDPOINT, Tls};
use stdx::Secret;
use supervisor::{HealthCheck, HealthSettings, RunContext, Service, ServiceError};
use sys::files::{self, Access, FileError};
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{BootstrapGate, has_member};
use crate::container::Runtime;
use crate::daemon::listens;
use crate::oci::{Mount, Privilege, Shape, with_path};
use crate::{ETCD_USER, group, oom};

/// Where the certificates of etcd are.
const SECRETS: &str = "/system/secrets/etcd";

/// How often a new member is looked for.
const MEMBER_POLL: Duration = Duration::from_millis(200);

/// Settings of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    pub name: String,
    pub advertised: Vec<IpAddr>,
    pub listen_peer: Vec<IpAddr>,
    pub listen_client: Vec<IpAddr>,
    /// `None` removes nothing; a value replaces the argument.
    pub extra_args: BTreeMap<String, String>,
    pub data_directory: PathBuf,
    /// How a member without data starts; one with data has none of this.
    pub initial: Option<InitialCluster>,
}

/// The cluster that a new member founds or joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialCluster {
    /// `new` or `existing`.
    pub state: String,
    /// `name=url` of each member, separated by commas.
    pub members: String,
}

impl InitialCluster {
    /// The state of a cluster that is founded.
    pub const NEW: &'static str = "new";
    /// The state of one that exists.
    pub const EXISTING: &'static str = "existing";
}

/// Runs etcd, as a member that its arguments know.
#[derive(Debug)]
pub struct EtcdService {
    image: String,
    args: Vec<String>,
    environment: Vec<String>,
    data_directory: PathBuf,
    runtime: Runtime,
    gate: BootstrapGate,
}

impl EtcdService {
    /// `args` are those of [`etcd_arguments`].
    pub fn new(
        image: String,
        args: Vec<String>,
        data_directory: PathBuf,
        runtime: Runtime,
        gate: BootstrapGate,
    ) -> Self {
        Self { image, args, environment: Vec::new(), data_directory, runtime, gate }
    }

    /// With these variables, `KEY=value`, besides those that it needs.
    #[must_use]
    pub fn with_environment(mut self, environment: Vec<String>) -> Self {
        self.environment = environment;
        self
    }
}

#[async_trait]
impl Service for EtcdService {
    fn id(&self) -> &'static str {
        "etcd"
    }

    fn depends_on(&self) -> Vec<String> {
        vec!["containerd".into()]
    }

    async fn prepare(&self, _cancel: CancellationToken) -> Result<(), ServiceError> {
        prepare_data(&self.data_directory)?;
        self.runtime.pull(&self.image).await
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        let shape = Shape {
            args: std::iter::once("/usr/local/bin/etcd".to_owned()).chain(self.args.iter().cloned()).collect(),
            environment: with_path("/usr/local/bin:/usr/bin:/bin", &self.environment),
            privilege: Privilege::User(ETCD_USER),
            mounts: vec![Mount::readonly(SECRETS), Mount::writable(&self.data_directory.display().to_string())],
            oom_score_adj: Some(oom::ETCD),
            cgroup: format!("/{}", group::ETCD),
        };
        let running = self.runtime.run(self.id(), &self.image, shape, Duration::from_secs(20), &run);
        // The permission to found a cluster is for one: as soon as there is a member it is spent, and data that is gone
        // later founds no second one.
        let founded = async {
            while !has_member(&self.data_directory) {
                tokio::time::sleep(MEMBER_POLL).await;
            }
            self.gate.spend()?;
            std::future::pending().await
        };
        // Nothing is lost with the look at the directory, and the container ends only by itself or when it is asked to.
        tokio::select! {
            ended = running => ended,
            failed = founded => failed,
        }
    }

    fn health(&self) -> Option<HealthCheck> {
        let settings = HealthSettings {
            initial_delay: Duration::from_secs(5),
            period: Duration::from_secs(20),
            timeout: Duration::from_secs(15),
        };
        Some(HealthCheck::new(settings, check_health))
    }
}

/// Whether the member has a leader and a quorum. A connection for each check: certificates change, and checks are seldom.
async fn check_health() -> Result<(), String> {
    let failed = |error: &dyn std::error::Error| stdx::error_chain(error);
    let read = |name: &str| {
        let path = Path::new(SECRETS).join(name);
        files::read(&path).map_err(|error| failed(&error))?.ok_or_else(|| format!("there is no {}", path.display()))
    };
    let tls = Tls { ca: read("ca.crt")?, crt: read("admin.crt")?, key: Secret::new(read("admin.key")?) };
    // While nobody listens the client would go on trying for as long as a request may take, and a start would wait for it.
    listens(SocketAddr::from(([127, 0, 0, 1], 2379))).await?;
    let etcd = EtcdConnector.connect(&[LOCAL_ENDPOINT.to_owned()], &tls).await.map_err(|error| failed(&error))?;
    etcd_edge::health::check(&*etcd).await.map_err(|error| failed(&error))
}

/// The data directory, private to etcd's user. Files that an older run left to somebody else are handed over; links are
/// not followed, as etcd's user may have put them there.
fn prepare_data(directory: &Path) -> Result<(), FileError> {
    files::make_directory(directory, Access::directory_of(ETCD_USER))?;
    files::chown_tree(directory, (ETCD_USER, ETCD_USER))
}

/// The arguments of etcd, without the program itself.
#[must_use]
pub fn etcd_arguments(settings: &EtcdSettings) -> Vec<String> {
    let urls = |addresses: &[IpAddr], port: u16| {
        let urls: Vec<String> = addresses.iter().map(|a| format!("https://{}", SocketAddr::new(*a, port))).collect();
        urls.join(",")
    };
    let mut args: BTreeMap<String, String> = BTreeMap::from(
        [
            ("name", settings.name.clone()),
            ("data-dir", settings.data_directory.display().to_string()),
            ("listen-peer-urls", urls(&settings.listen_peer, 2380)),
            ("listen-client-urls", urls(&settings.listen_client, 2379)),
            ("advertise-client-urls", urls(&settings.advertised, 2379)),
            ("initial-advertise-peer-urls", urls(&settings.advertised, 2380)),
            ("client-cert-auth", "true".to_owned()),
            ("cert-file", format!("{SECRETS}/server.crt")),
            ("key-file", format!("{SECRETS}/server.key")),
            ("trusted-ca-file", format!("{SECRETS}/ca.crt")),
            ("peer-client-cert-auth", "true".to_owned()),
            ("peer-cert-file", format!("{SECRETS}/peer.crt")),
            ("peer-key-file", format!("{SECRETS}/peer.key")),
            ("peer-trusted-ca-file", format!("{SECRETS}/ca.crt")),
            ("auto-tls", "false".to_owned()),
            ("peer-auto-tls", "false".to_owned()),
            ("experimental-initial-corrupt-check", "true".to_owned()),
            ("experimental-watch-progress-notify-interval", "5s".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    if let Some(initial) = &settings.initial {
        args.insert("initial-cluster".to_owned(), initial.members.clone());
        args.insert("initial-cluster-state".to_owned(), initial.state.clone());
    }
    args.extend(settings.extra_args.iter().map(|(key, value)| (key.clone(), value.clone())));
    args.into_iter().map(|(key, value)| format!("--{key}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_all_urls_and_extra_ones_win() {
        let settings = EtcdSettings {
            name: "cp".into(),
            advertised: vec!["10.5.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            listen_peer: vec!["::".parse().unwrap()],
            listen_client: vec!["::".parse().unwrap()],
            extra_args: BTreeMap::from([("auto-tls".into(), "x".into())]),
            data_directory: "/var/lib/etcd".into(),
            initial: Some(InitialCluster { state: "new".into(), members: "cp=https://10.5.0.2:2380".into() }),
        };
        let args = etcd_arguments(&settings);
        for expected in [
            "--advertise-client-urls=https://10.5.0.2:2379,https://[fd00::2]:2379",
            "--initial-cluster=cp=https://10.5.0.2:2380",
            "--initial-cluster-state=new",
            "--listen-peer-urls=https://[::]:2380",
            "--auto-tls=x",
        ] {
            assert!(args.iter().any(|a| a == expected), "{expected} is not in {args:?}");
        }
        let args = etcd_arguments(&EtcdSettings { initial: None, ..settings });
        assert!(args.iter().all(|arg| !arg.starts_with("--initial-cluster")), "{args:?}");
    }
}
