//! Decides from resources which services of the machine itself run, and with which settings.
//!
//! The kubelet's spec is written by the controllers of Kubernetes; [`crate::service_run`] makes the supervisor run all of them.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineType;
use resources::etcd::{EtcdConfig, EtcdSpec, EtcdStart, PkiStatus};
use resources::files::EtcFileStatus;
use resources::lifecycle::ServiceSpec;
use resources::machine::{Ownership, PlatformCapabilities};
use resources::runtime::MountStatus;
use resources::secrets::{ApiCertificate, TrustdCertificate};
use resources::time::TimeStatus;
use services::{APID_USER, ETCD_DATA, ETCD_USER, EtcdSettings, InitialCluster, TRUSTD_USER};

use crate::cri_parts::{CONTAINERD_FILE, FIRST_VERSION};

/// The condition of a service that keeps data.
const VOLUME: &str = "volume EPHEMERAL";

/// Paths of services' inputs.
#[derive(Debug, Clone)]
pub struct ServicePaths {
    /// containerd's configuration file.
    pub containerd_config: PathBuf,
    /// Where containerd listens.
    pub containerd_socket: PathBuf,
}

/// `runtime.ServiceSpecController`: containerd, apid, on a kernel of its own udevd and syslogd, and on control planes trustd and etcd.
///
/// A waiting service has a spec already, with its unmet condition: the boot sequence waits for every
/// required one.
#[derive(Debug)]
pub struct ServiceSpecController {
    paths: ServicePaths,
}

impl ServiceSpecController {
    #[must_use]
    pub const fn new(paths: ServicePaths) -> Self {
        Self { paths }
    }
}

#[async_trait]
impl Controller for ServiceSpecController {
    fn name(&self) -> &'static str {
        "runtime.ServiceSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID),
            Input::weak::<EtcFileStatus>().id(CONTAINERD_FILE),
            Input::weak::<MountStatus>().id(MountStatus::EPHEMERAL),
            Input::weak::<MachineType>(),
            Input::weak::<TimeStatus>(),
            Input::weak::<ApiCertificate>(),
            Input::weak::<TrustdCertificate>(),
            Input::weak::<EtcdSpec>(),
            Input::weak::<EtcdConfig>().id(EtcdConfig::ID),
            Input::weak::<EtcdStart>().id(EtcdStart::ID),
            Input::weak::<PkiStatus>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<ServiceSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let kind = ctx.get::<MachineType>(MachineType::ID)?.map_or(MachineType::Unknown, |kind| *kind);
        // The services of a control plane come before apid is let start: once apid is up, all that are required are known.
        if kind.is_control_plane() {
            let has_certificate = ctx.get::<TrustdCertificate>(TrustdCertificate::ID)?.is_some();
            let trustd = program("/usr/bin/trustd", TRUSTD_USER);
            ctx.put("trustd", held(trustd, (!has_certificate).then_some("the certificate of trustd")))?;
            let etcd = self.etcd(ctx)?;
            ctx.put("etcd", etcd)?;
        }
        let capabilities = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)?;
        if capabilities.is_some_and(|capabilities| capabilities.kernel == Ownership::Machine) {
            ctx.put("udevd", program("/usr/lib/systemd/systemd-udevd", 0))?;
            // A task of machined.
            ctx.put("syslogd", ServiceSpec { required: true, ..ServiceSpec::default() })?;
        }
        let containerd = self.containerd(ctx)?;
        ctx.put("containerd", containerd)?;
        let has_certificate = ctx.get::<ApiCertificate>(ApiCertificate::ID)?.is_some();
        let apid = program("/usr/bin/apid", APID_USER);
        ctx.put("apid", held(apid, (!has_certificate).then_some("the certificate of the API")))?;
        if kind == MachineType::Unknown {
            // A briefly missing type stops nothing.
            return Ok(());
        }
        ctx.keep_touched::<ServiceSpec>()
    }
}

impl ServiceSpecController {
    fn containerd(&self, ctx: &Ctx) -> Result<ServiceSpec, ReconcileError> {
        let file = ctx.get::<EtcFileStatus>(CONTAINERD_FILE)?;
        let ServicePaths { containerd_config, containerd_socket, .. } = &self.paths;
        let args = ["--address".into(), containerd_socket.display().to_string()];
        let config = ["--config".into(), containerd_config.display().to_string()];
        let containerd = ServiceSpec {
            args: args.into_iter().chain(config).collect(),
            environment: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            // It reads its file when it starts. Containers go on while their containerd is replaced.
            revision: file.map_or_else(|| FIRST_VERSION.to_owned(), |file| file.spec_version.clone()),
            ..program("/usr/bin/containerd", 0)
        };
        // Images and containers require it; etcd and the kubelet wait for containerd.
        let volume = ctx.get::<MountStatus>(MountStatus::EPHEMERAL)?;
        Ok(held(containerd, volume.is_none().then_some(VOLUME)))
    }

    fn etcd(&self, ctx: &Ctx) -> Result<ServiceSpec, ReconcileError> {
        let base = ServiceSpec { required: true, user: ETCD_USER, ..ServiceSpec::default() };
        let Some(volume) = ctx.get::<MountStatus>(MountStatus::EPHEMERAL)?.map(|status| status.target.clone()) else {
            return Ok(held(base, Some(VOLUME)));
        };
        let Some(spec) = ctx.get::<EtcdSpec>(EtcdSpec::ID)? else {
            let config = ctx.get::<EtcdConfig>(EtcdConfig::ID)?;
            let subnets =
                config.map(|config| config.advertise_valid_subnets.join(", ")).filter(|text| !text.is_empty());
            let reason = subnets.map(|subnets| format!("an address of the node in {subnets}"));
            return Ok(held(base, Some(reason.as_deref().unwrap_or("the configuration of etcd"))));
        };
        let start = ctx.get::<EtcdStart>(EtcdStart::ID)?;
        let initial = start
            .as_ref()
            .filter(|start| !start.initial_cluster.is_empty())
            .map(|start| InitialCluster { state: start.state.clone(), members: start.initial_cluster.clone() });
        let settings = EtcdSettings {
            name: spec.name.clone(),
            advertised: spec.advertised_addresses.clone(),
            listen_peer: spec.listen_peer_addresses.clone(),
            listen_client: spec.listen_client_addresses.clone(),
            extra_args: spec.extra_args.clone().into_iter().collect(),
            data_directory: Path::new(&volume).join(ETCD_DATA),
            initial,
        };
        let ends = start.as_ref().is_some_and(|start| start.ends);
        let args = services::etcd_arguments(&settings);
        let etcd = ServiceSpec { image: spec.image.clone(), args, volume, ends, ..base };
        let has_files = ctx.get::<PkiStatus>(PkiStatus::ID)?.is_some_and(|pki| pki.ready);
        let has_time = ctx.get::<TimeStatus>(TimeStatus::ID)?.is_some_and(|time| time.synced);
        Ok(held(
            etcd,
            match (has_time, has_files, &start) {
                (false, ..) => Some("time sync"),
                (true, false, _) => Some("the certificates of etcd"),
                (true, true, None) => Some("the members of etcd"),
                (true, true, Some(start)) => Some(start.waits_for.as_str()).filter(|reason| !reason.is_empty()),
            },
        ))
    }
}

/// A required program of the node's image.
fn program(path: &str, user: u32) -> ServiceSpec {
    ServiceSpec { required: true, program: path.to_owned(), user, ..ServiceSpec::default() }
}

fn held(spec: ServiceSpec, reason: Option<&str>) -> ServiceSpec {
    ServiceSpec { waits_for: reason.unwrap_or_default().to_owned(), ..spec }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::machine::PlatformMode;

    use super::*;

    fn start() -> Harness {
        Harness::with(ServiceSpecController::new(ServicePaths {
            containerd_config: "/etc/cri/containerd.toml".into(),
            containerd_socket: "/run/containerd.sock".into(),
        }))
    }

    fn waits(harness: &Harness) -> Vec<(String, String)> {
        let specs = harness.list::<ServiceSpec>();
        assert!(specs.iter().all(|spec| spec.required));
        specs.iter().map(|spec| (spec.id().to_owned(), spec.waits_for.clone())).collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(id, reason)| ((*id).to_owned(), (*reason).to_owned())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn containerd_is_there_from_the_start_and_restarts_when_its_file_is_another() {
        let harness = start();
        harness.settle().await;
        let apid = ("apid", "the certificate of the API");
        assert_eq!(waits(&harness), expected(&[apid, ("containerd", "volume EPHEMERAL")]));
        harness.put(MountStatus::EPHEMERAL, MountStatus::default());
        harness.settle().await;
        assert_eq!(waits(&harness), expected(&[apid, ("containerd", "")]));
        let revision = || harness.get::<ServiceSpec>("containerd").unwrap().revision.clone();
        assert_eq!(revision(), FIRST_VERSION);
        harness.put(CONTAINERD_FILE, EtcFileStatus { spec_version: FIRST_VERSION.to_owned() });
        harness.settle().await;
        assert_eq!(revision(), FIRST_VERSION);
        harness.put(CONTAINERD_FILE, EtcFileStatus { spec_version: "1".to_owned() });
        harness.settle().await;
        assert_eq!(revision(), "1");
    }

    #[tokio::test(start_paused = true)]
    async fn udevd_and_syslogd_run_on_a_kernel_of_the_machines_own() {
        let harness = start();
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.settle().await;
        assert_eq!(harness.ids::<ServiceSpec>(), ["apid", "containerd"]);
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        assert_eq!(harness.ids::<ServiceSpec>(), ["apid", "containerd", "syslogd", "udevd"]);
        assert_eq!(harness.get::<ServiceSpec>("udevd").unwrap().waits_for, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_control_plane_needs_trustd_and_etcd_and_says_what_they_wait_for() {
        let harness = start();
        harness.put(MachineType::ID, MachineType::ControlPlane);
        harness.put(ApiCertificate::ID, ApiCertificate::default());
        harness.settle().await;
        let first = [
            ("apid", ""),
            ("containerd", "volume EPHEMERAL"),
            ("etcd", "volume EPHEMERAL"),
            ("trustd", "the certificate of trustd"),
        ];
        assert_eq!(waits(&harness), expected(&first));
        harness.put(MountStatus::EPHEMERAL, MountStatus { target: "/mnt".into(), ..MountStatus::default() });
        harness.settle().await;
        assert_eq!(harness.get::<ServiceSpec>("etcd").unwrap().waits_for, "the configuration of etcd");
        let advertise_valid_subnets = vec!["192.168.77.0/24".to_owned()];
        harness.put(EtcdConfig::ID, EtcdConfig { advertise_valid_subnets, ..EtcdConfig::default() });
        harness.settle().await;
        let etcd = |harness: &Harness| harness.get::<ServiceSpec>("etcd").unwrap();
        assert_eq!(etcd(&harness).waits_for, "an address of the node in 192.168.77.0/24");
        harness.put(TrustdCertificate::ID, TrustdCertificate::default());
        harness.put(EtcdSpec::ID, EtcdSpec { name: "cp".into(), image: "etcd:1".into(), ..EtcdSpec::default() });
        harness.settle().await;
        assert_eq!(etcd(&harness).waits_for, "time sync");
        harness.put(TimeStatus::ID, TimeStatus { synced: true, ..TimeStatus::default() });
        harness.settle().await;
        assert_eq!(etcd(&harness).waits_for, "the certificates of etcd");
        harness.put(PkiStatus::ID, PkiStatus { ready: true, ..PkiStatus::default() });
        harness.settle().await;
        assert_eq!(etcd(&harness).waits_for, "the members of etcd");
        let waits = EtcdStart { waits_for: "a reset".into(), ends: true, ..EtcdStart::default() };
        harness.put(EtcdStart::ID, waits);
        harness.settle().await;
        assert_eq!((etcd(&harness).waits_for.as_str(), etcd(&harness).ends), ("a reset", true));
        let initial_cluster = "cp=https://10.5.0.2:2380".to_owned();
        harness.put(EtcdStart::ID, EtcdStart { state: "new".into(), initial_cluster, ..EtcdStart::default() });
        harness.settle().await;
        assert_eq!((etcd(&harness).waits_for.as_str(), etcd(&harness).image.as_str()), ("", "etcd:1"));
        for argument in ["--name=cp", "--data-dir=/mnt/lib/etcd", "--initial-cluster-state=new"] {
            assert!(etcd(&harness).args.contains(&argument.to_owned()), "{argument}");
        }
        assert_eq!(etcd(&harness).volume, "/mnt");
        assert_eq!(etcd(&harness).user, ETCD_USER);
        harness.destroy::<MachineType>(MachineType::ID);
        harness.settle().await;
        assert!(harness.get::<ServiceSpec>("etcd").is_some(), "a briefly missing type stops nothing");
        harness.put(MachineType::ID, MachineType::Worker);
        harness.settle().await;
        assert_eq!(harness.ids::<ServiceSpec>(), ["apid", "containerd"]);
    }
}
