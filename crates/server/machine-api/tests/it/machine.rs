//! The services of a machine whose parts are real where that costs nothing, and fake where they are far away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::state::Store;
use async_trait::async_trait;
use containers::containerd::ContainerInfo;
use containers::{ContainerdError, Namespace};
use controller::Runtime;
use domain_runtime::configuration::ConfigurationController;
use futures::StreamExt;
use kube_edge::{FakeConnect, FakeKube};
use machine_api::{
    Away, BootstrapRefused, BootstrapSink, BoxError, ContainerList, EtcdMembers, Machine, MetaRefused, MetaValues,
    ResetRefused, ResetTargets, SequenceRequests, Versions, VersionsError, VolumeKeys, VolumeKeysRefused, VolumeSlots,
};
use parking_lot::Mutex;
use platform::{FakeInventory, FakePlatform};
use resources::config::{MachineConfig, MachineType};
use resources::lifecycle::{ServiceOverride, ServiceSpec};
use resources::machine::{MaintenanceAccess, MaintenanceClients, PlatformCapabilities};
use resources::revision::MachineConfigRequest;
use resources::runtime::{MaintenanceServiceRequest, MountStatus, PlatformMetadata};
use resources::secrets::{KubernetesRootSecret, OsRootSecret};
use resources::v1alpha1::AcquireConfigSpec;
use resources::values::CertificateAndKey;
use sequencer::{EventBus, Outcome, Refused, Sequence, SequenceId, events::Payload};
use stdx::tasks::{CancellationToken, TaskSet};
use stdx::{Secret, SystemClock};
use supervisor::{Supervisor, logs::LogStore};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;
use wire::cluster::cluster_service_client::ClusterServiceClient;
use wire::inspect::inspect_service_client::InspectServiceClient;
use wire::machine as api;
use wire::machine::apply_configuration_request::Mode;
use wire::machine::machine_service_client::MachineServiceClient;
use wire::volumekeys;
use wire::volumekeys::volume_keys_service_client::VolumeKeysServiceClient;

/// A valid configuration of a worker, the same at each call.
fn worker() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| {
        let now = stdx::Clock::now(&SystemClock);
        let ca = |profile| {
            let pair = pki::Authority::generate(profile, now).unwrap().pair().certificate_only();
            serde_json::to_string(&pair).unwrap()
        };
        let (os, kubernetes) = (ca(pki::CaProfile::Os), ca(pki::CaProfile::Kubernetes));
        format!(
            "version: v1alpha1\nmachine:\n  type: worker\n  token: abcdef.0123456789abcdef\n  ca: {os}\ncluster:\n  \
             token: abcdef.0123456789abcdef\n  ca: {kubernetes}\n  controlPlane:\n    endpoint: \
             https://10.5.0.2:6443\n  discovery:\n    enabled: false\n"
        )
    })
}

#[derive(Debug, Default)]
struct Sinks {
    bootstrapped: Mutex<bool>,
    sequences: Mutex<Vec<sequencer::Request>>,
    meta: Mutex<BTreeMap<u8, Vec<u8>>>,
    stays_in_etcd: Mutex<bool>,
    asked_of_etcd: Mutex<usize>,
    forgotten: Mutex<usize>,
    away: Arc<Mutex<Vec<Option<SequenceId>>>>,
}

#[async_trait]
impl BootstrapSink for Sinks {
    async fn bootstrap(&self) -> Result<(), BootstrapRefused> {
        if std::mem::replace(&mut *self.bootstrapped.lock(), true) {
            return Err(BootstrapRefused::AlreadyDone("etcd data directory is not empty".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl MetaValues for Sinks {
    async fn set(&self, key: u8, value: Vec<u8>) -> Result<(), MetaRefused> {
        match (key, value.len()) {
            (0, _) => Err(MetaRefused::Invalid("key 0".into())),
            (_, 0..100) => {
                self.meta.lock().insert(key, value);
                Ok(())
            }
            _ => Err(MetaRefused::Full("no room".into())),
        }
    }

    async fn delete(&self, key: u8) -> Result<(), MetaRefused> {
        self.meta.lock().remove(&key).map(drop).ok_or_else(|| MetaRefused::Absent("no value".into()))
    }
}

/// One encrypted volume, EPHEMERAL, which the key "right" opens.
#[async_trait]
impl VolumeKeys for Sinks {
    async fn slots(&self, volume: &str) -> Result<VolumeSlots, VolumeKeysRefused> {
        if volume != "EPHEMERAL" {
            return Err(VolumeKeysRefused::Absent(format!("{volume} is no encrypted volume of this machine")));
        }
        let reason = "slot 0 (tpm): PCR 7".to_owned();
        Ok(VolumeSlots { slots: vec![(0, "tpm".to_owned()), (1, "recovery-key".to_owned())], is_open: false, reason })
    }

    async fn add_recovery_key(&self, _: &str) -> Result<(u32, Secret<String>), VolumeKeysRefused> {
        Ok((1, Secret::new("right".to_owned())))
    }

    async fn unlock(&self, _: &str, key: Secret<String>) -> Result<(), VolumeKeysRefused> {
        let refused = || VolumeKeysRefused::NotPossible("the given key: wrong key".to_owned());
        (key.expose() == "right").then_some(()).ok_or_else(refused)
    }

    async fn rebind(&self, _: &str) -> Result<Vec<u32>, VolumeKeysRefused> {
        Err(VolumeKeysRefused::Unavailable("the machine has no TPM 2.0".to_owned()))
    }
}

/// A machine with the disks /dev/vda, which has the system, and /dev/vdb, which is part of an array.
#[async_trait]
impl ResetTargets for Sinks {
    async fn check(&self, reset: &sequencer::ResetParameters) -> Result<(), ResetRefused> {
        if reset.labels.iter().any(|label| label == "BOOT") {
            return Err(ResetRefused::Absent("/dev/vda has no partition BOOT".into()));
        }
        match reset.user_disks.first().map(String::as_str) {
            None => Ok(()),
            Some("/dev/vda") => Err(ResetRefused::Invalid("/dev/vda is the system disk".into())),
            Some("/dev/vdb") => Err(ResetRefused::NotPossible("/dev/vdb is part of md0".into())),
            Some(other) => Err(ResetRefused::Absent(format!("there is no disk {other}"))),
        }
    }
}

#[async_trait]
impl EtcdMembers for Sinks {
    async fn members(&self) -> Result<Vec<etcd_edge::Member>, BoxError> {
        Err("no certificate for etcd".into())
    }

    async fn can_leave(&self) -> Result<(), BoxError> {
        *self.asked_of_etcd.lock() += 1;
        if *self.stays_in_etcd.lock() { Err("it is the only member".into()) } else { Ok(()) }
    }

    async fn go_away(&self, preserve: bool) -> Result<Box<dyn Away>, BoxError> {
        if *self.stays_in_etcd.lock() && !preserve {
            return Err("it is the only member".into());
        }
        Ok(Box::new(FakeAway(Arc::clone(&self.away))))
    }
}

/// Writes down how it ended.
#[derive(Debug)]
struct FakeAway(Arc<Mutex<Vec<Option<SequenceId>>>>);

#[async_trait]
impl Away for FakeAway {
    async fn stay(self: Box<Self>) {
        self.0.lock().push(None);
    }

    fn until_the_end_of(self: Box<Self>, sequence: SequenceId) {
        self.0.lock().push(Some(sequence));
    }
}

/// A machine that can pull the image `good`, and has the version v1 beside the running one.
#[async_trait]
impl Versions for Sinks {
    async fn fetch(&self, image: &str) -> Result<(), VersionsError> {
        if image == "good" { Ok(()) } else { Err(VersionsError::Image(format!("no image {image}"))) }
    }

    fn forget(&self) {
        *self.forgotten.lock() += 1;
    }

    async fn roll_back(&self) -> Result<String, VersionsError> {
        Ok("v1".to_owned())
    }
}

impl SequenceRequests for Sinks {
    fn request(&self, request: sequencer::Request) -> Result<SequenceId, Refused> {
        let locked = !self.sequences.lock().is_empty();
        self.sequences.lock().push(request.clone());
        if locked {
            return Err(sequencer::Locked { asked: request.sequence, holder: "reset" }.into());
        }
        Ok(SequenceId(1))
    }

    fn request_after(&self, delay: std::time::Duration, request: sequencer::Request) {
        assert_eq!(delay.as_secs(), 10);
        self.request(request).unwrap();
    }
}

#[async_trait]
impl ContainerList for Sinks {
    async fn containers(&self, namespace: Namespace) -> Result<Vec<ContainerInfo>, ContainerdError> {
        let container = |id: &str| ContainerInfo {
            id: id.into(),
            image: "image".into(),
            labels: BTreeMap::new(),
            pid: 1,
            status: "RUNNING".into(),
        };
        Ok(if namespace == Namespace::System { vec![container("kubelet"), container("etcd")] } else { vec![] })
    }
}

pub(crate) struct Served {
    pub(crate) machine: Machine,
    sinks: Arc<Sinks>,
    pub(crate) channel: Channel,
    _tasks: TaskSet,
    _directory: TempDir,
}

impl Served {
    fn active(&self) -> Option<String> {
        let active = self.machine.store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID).unwrap();
        active.map(|config| config.text.clone())
    }

    /// Waits until the machine has a configuration or waits for one.
    async fn acquired(&self) {
        let waits = || self.machine.store.list_as::<MaintenanceServiceRequest>().unwrap().is_empty();
        while self.active().is_none() && waits() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn on_disk(&self) -> String {
        std::fs::read_to_string(self._directory.path().join("config.yaml")).unwrap()
    }

    pub(crate) fn client(&self) -> MachineServiceClient<Channel> {
        MachineServiceClient::new(self.channel.clone())
    }
}

fn served() -> Served {
    served_with(|_| {})
}

pub(crate) fn served_with(change: impl FnOnce(&mut Machine)) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("machine.sock");
    let store = Store::new();
    let sinks = Arc::new(Sinks::default());
    let clock = Arc::new(SystemClock);
    let mut machine = Machine {
        controllers: Runtime::new(store.clone()),
        store,
        supervisor: Supervisor::new(clock.clone()),
        logs: LogStore::default(),
        events: EventBus::new(clock.clone()),
        lifecycle: sinks.clone(),
        containers: sinks.clone(),
        bootstrap: sinks.clone(),
        etcd: sinks.clone(),
        meta: sinks.clone(),
        volume_keys: sinks.clone(),
        versions: sinks.clone(),
        reset_targets: sinks.clone(),
        kubernetes: Arc::new(FakeConnect::new(FakeKube::new("v1.30.0"))),
        time_servers: Arc::new(ntp::FakeAsk::default()),
        clock,
    };
    let metadata = PlatformMetadata { platform: "container".into(), ..PlatformMetadata::default() };
    machine.store.put(PlatformMetadata::ID, metadata, "").unwrap();
    machine.store.put(PlatformCapabilities::ID, PlatformCapabilities::default(), "").unwrap();
    let target = directory.path().display().to_string();
    machine.store.put(MountStatus::STATE, MountStatus { target, ..MountStatus::default() }, "").unwrap();
    machine.store.put(AcquireConfigSpec::ID, AcquireConfigSpec {}, "").unwrap();
    let platform = Arc::new(FakePlatform::new(PlatformCapabilities::default()));
    let inventory = Arc::new(FakeInventory::default());
    machine.controllers.register(ConfigurationController::new(platform, inventory, machine.events.clone())).unwrap();
    machine.controllers.start();
    change(&mut machine);
    let serving = machine_api::serve(machine.clone(), &socket, 0o600, None, CancellationToken::new()).unwrap();
    let tasks = TaskSet::new("test");
    tasks.spawn("machined", async move { serving.await.unwrap() });
    Served { machine, sinks, channel: transport::unix::channel(&socket), _tasks: tasks, _directory: directory }
}

pub(crate) async fn apply(
    it: &Served,
    text: &str,
    mode: Mode,
    dry_run: bool,
) -> Result<api::ApplyConfiguration, tonic::Status> {
    apply_as(it, "os:admin", text, mode, dry_run).await
}

async fn apply_as(
    it: &Served,
    role: &'static str,
    text: &str,
    mode: Mode,
    dry_run: bool,
) -> Result<api::ApplyConfiguration, tonic::Status> {
    it.acquired().await;
    let mut request = tonic::Request::new(api::ApplyConfigurationRequest {
        data: text.to_owned().into(),
        mode: mode.into(),
        dry_run,
        try_mode_timeout: None,
    });
    request.metadata_mut().insert("talos-role", role.parse().unwrap());
    Ok(it.client().apply_configuration(request).await?.into_inner().messages.remove(0))
}

#[tokio::test]
async fn version_tells_the_api_level_and_the_platform() {
    let answer = served().client().version(()).await.unwrap().into_inner().messages.remove(0);
    let version = answer.version.unwrap();
    assert_eq!((version.tag.as_str(), version.os.as_str()), (stdx::version::TAG, "linux"));
    assert_eq!((version.sha.as_str(), version.built.as_str()), (build_info::COMMIT, build_info::DATE));
    assert!(version.go_version.starts_with("rustc "), "{version:?}");
    let platform = answer.platform.unwrap();
    assert_eq!((platform.name.as_str(), platform.mode.as_str()), ("container", "container"));
    assert!(answer.features.unwrap().rbac);
}

#[tokio::test]
async fn a_first_configuration_is_applied_and_kept() {
    let it = served();
    let answer = apply(&it, worker(), Mode::Auto, false).await.unwrap();
    assert_eq!(answer.mode(), Mode::NoReboot);
    assert_eq!((it.active().as_deref(), it.on_disk().as_str()), (Some(worker()), worker()));
}

#[tokio::test]
async fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let it = served();
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
    let new = worker().replace("10.5.0.2", "10.5.0.9");
    let answer = apply(&it, &new, Mode::Auto, true).await.unwrap();
    assert!(answer.mode_details.starts_with("Dry run summary:\n"), "{}", answer.mode_details);
    assert!(
        answer
            .mode_details
            .contains("-        endpoint: https://10.5.0.2:6443\n+        endpoint: https://10.5.0.9:6443\n"),
        "{}",
        answer.mode_details
    );
    assert_eq!((it.active().as_deref(), it.on_disk().as_str()), (Some(worker()), worker()));
}

#[tokio::test]
async fn a_change_that_needs_a_reboot_is_refused_and_named() {
    let it = served();
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
    let new = worker().replacen("abcdef.0123456789abcdef", "fedcba.0123456789abcdef", 1);
    let status = apply(&it, &new, Mode::NoReboot, false).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("this config change can't be applied in immediate mode\ndiff: --- a\n"),
        "{status:?}"
    );
    assert!(status.message().contains("+    token: fedcba.0123456789abcdef\n"), "{status:?}");
    assert_eq!((it.active().as_deref(), it.on_disk().as_str()), (Some(worker()), worker()));
}

#[tokio::test]
async fn a_configuration_that_is_not_valid_is_refused_with_its_place() {
    let it = served();
    let broken = worker().replace("  type: worker\n", "  type: worker\n  wip: 1\n");
    let status = apply(&it, &broken, Mode::Auto, false).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("wip") && status.message().contains('4'), "{status:?}");
    assert_eq!(it.active(), None);
}

#[tokio::test]
async fn anybody_may_bring_the_first_configuration_and_only_an_administrator_the_next() {
    let it = served();
    apply_as(&it, "os:reader", worker(), Mode::Auto, false).await.unwrap();
    for dry_run in [false, true] {
        let status = apply_as(&it, "os:reader", worker(), Mode::Auto, dry_run).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
}

#[tokio::test]
async fn a_configuration_without_its_root_document_waits_for_it_and_replaces_none() {
    let it = served();
    let part = "apiVersion: v1alpha1\nkind: KmsgLogConfig\nname: a\nurl: tcp://10.0.0.1:514/\n";
    apply(&it, part, Mode::Auto, false).await.unwrap();
    assert_eq!(it.active(), None);
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
    let active = it.active().unwrap();
    assert!(active.contains("KmsgLogConfig") && active.contains("type: worker"), "{active}");
    let status = apply(&it, part, Mode::Auto, false).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("root document"), "{status:?}");
    assert_eq!(it.active().unwrap(), active);
}

#[tokio::test]
async fn configurations_are_applied_one_after_the_other() {
    let it = served();
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
    let texts: Vec<_> = (0..8).map(|n| format!("{}# {n}\n", worker())).collect();
    let applied = futures::future::join_all(texts.iter().map(|text| apply(&it, text, Mode::Auto, false))).await;
    for answer in applied {
        answer.unwrap();
    }
    let active = it.active().unwrap();
    assert!(texts.contains(&active));
    assert_eq!(it.on_disk(), active);
    assert!(it.machine.store.list_as::<MachineConfigRequest>().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_that_needs_a_reboot_asks_for_one_after_it_is_persisted() {
    let it = served();
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
    let new = worker().replacen("abcdef.0123456789abcdef", "fedcba.0123456789abcdef", 1);
    for (mode, is_dry, reboots) in [(Mode::Auto, true, 0), (Mode::Staged, false, 0), (Mode::Auto, false, 1)] {
        apply(&it, &new, mode, is_dry).await.unwrap();
        let asked = it.sinks.sequences.lock();
        assert_eq!(asked.len(), reboots, "{mode:?}");
        assert!(asked.iter().all(|asked| asked.sequence == Sequence::Reboot));
    }
    assert_eq!((it.active().as_deref(), it.on_disk()), (Some(worker()), new));
}

async fn reset(it: &Served, role: &'static str, reset: api::ResetRequest) -> Result<String, tonic::Status> {
    let mut request = tonic::Request::new(reset);
    request.metadata_mut().insert("talos-role", role.parse().unwrap());
    Ok(it.client().reset(request).await?.into_inner().messages.remove(0).actor_id)
}

#[tokio::test]
async fn a_graceful_reset_of_a_node_that_cannot_leave_etcd_is_refused() {
    let it = served();
    *it.sinks.stays_in_etcd.lock() = true;
    let graceful = api::ResetRequest { graceful: true, ..Default::default() };
    let refused = reset(&it, "os:admin", graceful.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "this node cannot leave etcd: it is the only member");
    assert_eq!(it.sinks.sequences.lock().len(), 0);
    reset(&it, "os:admin", api::ResetRequest::default()).await.unwrap();
    *it.sinks.stays_in_etcd.lock() = false;
    reset(&it, "os:admin", graceful).await.unwrap();
    let asked = it.sinks.sequences.lock()[1].options.parameters.clone();
    assert!(matches!(&asked, sequencer::Parameters::Reset(reset) if reset.graceful), "{asked:?}");
}

/// The node left its cluster, and then kept what it was to wipe.
#[tokio::test]
async fn a_reset_of_what_cannot_be_wiped_is_refused_before_anything_is_asked_of_the_node() {
    let it = served_metal();
    let wipe = |disks: &[&str], labels: &[&str]| api::ResetRequest {
        graceful: true,
        user_disks_to_wipe: disks.iter().map(ToString::to_string).collect(),
        system_partitions_to_wipe: labels
            .iter()
            .map(|label| api::ResetPartitionSpec { label: (*label).into(), wipe: true })
            .collect(),
        ..Default::default()
    };
    for (request, code, reason) in [
        (wipe(&["/dev/sdx"], &[]), Code::NotFound, "there is no disk /dev/sdx"),
        (wipe(&[], &["BOOT"]), Code::NotFound, "/dev/vda has no partition BOOT"),
        (wipe(&["/dev/vda"], &[]), Code::InvalidArgument, "/dev/vda is the system disk"),
        (wipe(&["/dev/vdb"], &[]), Code::FailedPrecondition, "/dev/vdb is part of md0"),
    ] {
        let refused = reset(&it, "os:admin", request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (code, format!("nothing was reset: {reason}").as_str()));
    }
    assert_eq!((it.sinks.sequences.lock().len(), *it.sinks.asked_of_etcd.lock()), (0, 0));
    reset(&it, "os:admin", wipe(&[], &["STATE"])).await.unwrap();
    assert_eq!(it.sinks.sequences.lock().len(), 1);
}

async fn upgrade(it: &Served, upgrade: api::UpgradeRequest) -> Result<String, tonic::Status> {
    let mut request = tonic::Request::new(upgrade);
    request.metadata_mut().insert("talos-role", "os:admin".parse().unwrap());
    Ok(it.client().upgrade(request).await?.into_inner().messages.remove(0).actor_id)
}

#[tokio::test]
async fn an_upgrade_is_refused_before_anything_stops_or_has_its_image_ready() {
    let it = configured_metal().await;
    *it.sinks.stays_in_etcd.lock() = true;
    let good = api::UpgradeRequest { image: "good".into(), ..Default::default() };
    for (request, code, reason) in [
        (api::UpgradeRequest::default(), Code::InvalidArgument, "no installer image"),
        (good.clone(), Code::FailedPrecondition, "it is the only member; --force"),
        (api::UpgradeRequest { image: "bad".into(), force: true, ..Default::default() }, Code::InvalidArgument, "bad"),
    ] {
        let refused = upgrade(&it, request).await.unwrap_err();
        assert_eq!(refused.code(), code);
        assert!(refused.message().contains(reason), "{refused}");
    }
    assert_eq!(it.sinks.sequences.lock().len(), 0);
    let stranger = it.client().upgrade(good.clone()).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unimplemented, "{stranger}");
    let preserved = api::UpgradeRequest { preserve: true, ..good };
    upgrade(&it, preserved.clone()).await.unwrap();
    let expected = sequencer::UpgradeParameters { image: "good".into(), preserve: true, ..Default::default() };
    assert_eq!(it.sinks.sequences.lock()[0].options.parameters, sequencer::Parameters::Upgrade(expected));
    assert_eq!(*it.sinks.forgotten.lock(), 0);
    // Another sequence runs: the image goes, and the actor has an event.
    upgrade(&it, preserved.clone()).await.unwrap();
    assert_eq!(*it.sinks.forgotten.lock(), 1);
    // The others may go away as soon as this node does not.
    let no_image = api::UpgradeRequest { image: "bad".into(), ..preserved };
    assert_eq!(upgrade(&it, no_image).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(*it.sinks.away.lock(), [Some(SequenceId(1)), None, None]);
}

#[tokio::test]
async fn a_staged_upgrade_is_a_sequence_of_its_own_and_keeps_no_image() {
    let it = configured_metal().await;
    let staged = api::UpgradeRequest { image: "good".into(), stage: true, preserve: true, ..Default::default() };
    upgrade(&it, staged).await.unwrap();
    assert_eq!(it.sinks.sequences.lock()[0].sequence, Sequence::StageUpgrade);
    assert_eq!(*it.sinks.forgotten.lock(), 1);
    assert_eq!(*it.sinks.away.lock(), [Some(SequenceId(1))]);
}

/// `talosctl upgrade --insecure` was refused on every machine.
#[tokio::test]
async fn a_machine_without_state_of_any_cluster_is_upgraded_by_anybody_and_without_options_of_a_node() {
    let it = served_metal();
    it.acquired().await;
    *it.sinks.stays_in_etcd.lock() = true;
    let plain = api::UpgradeRequest { image: "good".into(), ..Default::default() };
    let state = |clients| {
        let access = MaintenanceAccess { clients, ..MaintenanceAccess::default() };
        it.machine.store.put(MaintenanceAccess::ID, access, "config.ConfigurationController").unwrap();
    };
    for clients in [MaintenanceClients::Administrators, MaintenanceClients::Nobody] {
        state(clients);
        assert_eq!(it.client().upgrade(plain.clone()).await.unwrap_err().code(), Code::Unimplemented, "{clients:?}");
    }
    state(MaintenanceClients::Anybody);
    for (request, name) in [
        (api::UpgradeRequest { preserve: true, ..plain.clone() }, "preserve"),
        (api::UpgradeRequest { stage: true, ..plain.clone() }, "stage"),
        (api::UpgradeRequest { force: true, ..plain.clone() }, "force"),
    ] {
        let refused = it.client().upgrade(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.message(), format!("an upgrade in maintenance mode has no {name}"));
    }
    assert!(it.sinks.sequences.lock().is_empty());
    it.client().upgrade(plain).await.unwrap();
    assert_eq!(it.sinks.sequences.lock()[0].sequence, Sequence::MaintenanceUpgrade);
    assert!(it.sinks.away.lock().is_empty(), "it is in no cluster");
    let back = it.client().rollback(api::RollbackRequest {}).await.unwrap_err();
    assert_eq!(back.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_rollback_reboots_into_the_other_version() {
    let it = served_metal();
    let mut request = tonic::Request::new(api::RollbackRequest {});
    request.metadata_mut().insert("talos-role", "os:admin".parse().unwrap());
    it.client().rollback(request).await.unwrap();
    let asked = it.sinks.sequences.lock()[0].clone();
    assert_eq!((asked.sequence, asked.options.takeover), (Sequence::Reboot, sequencer::Takeover::Always));
}

/// `talosctl reset --insecure` and `meta --insecure` were refused on every machine.
#[tokio::test]
async fn a_machine_without_state_of_any_cluster_is_reset_and_has_its_meta_changed_by_anybody() {
    let it = served_metal();
    it.acquired().await;
    let state = |clients| {
        let access = MaintenanceAccess { clients, ..MaintenanceAccess::default() };
        it.machine.store.put(MaintenanceAccess::ID, access, "config.ConfigurationController").unwrap();
    };
    let codes = async || {
        let written = api::MetaWriteRequest { key: 12, value: b"mine".to_vec().into() };
        [
            it.client().reset(api::ResetRequest::default()).await.map_or_else(|status| status.code(), |_| Code::Ok),
            it.client().meta_write(written).await.map_or_else(|status| status.code(), |_| Code::Ok),
            it.client()
                .meta_delete(api::MetaDeleteRequest { key: 12 })
                .await
                .map_or_else(|status| status.code(), |_| Code::Ok),
        ]
    };
    for clients in [MaintenanceClients::Administrators, MaintenanceClients::Nobody] {
        state(clients);
        assert_eq!(codes().await, [Code::Unimplemented; 3], "{clients:?}");
    }
    assert!(it.sinks.sequences.lock().is_empty());
    state(MaintenanceClients::Anybody);
    assert_eq!(codes().await, [Code::Ok; 3]);
    assert_eq!(it.sinks.sequences.lock().len(), 1);
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
    assert_eq!(codes().await, [Code::Unimplemented; 3], "it has a configuration");
}

#[tokio::test]
async fn a_container_is_reset_by_ending_its_services_and_leaves_power_and_disks_to_its_host() {
    let it = served();
    let actor = reset(&it, "os:admin", api::ResetRequest { reboot: true, ..Default::default() }).await.unwrap();
    let asked = it.sinks.sequences.lock()[0].clone();
    assert_eq!((asked.sequence, asked.options.end), (Sequence::Reset, Some(Outcome::Reboot)));
    assert_eq!((asked.actor.as_str(), actor.len()), (actor.as_str(), 36));
    reset(&it, "os:admin", api::ResetRequest::default()).await.expect("that it is locked is an event");
    let wipes = api::ResetRequest { user_disks_to_wipe: vec!["/dev/sda".into()], ..Default::default() };
    assert_eq!(reset(&it, "os:admin", wipes).await.unwrap_err().code(), Code::Internal);
    let by_anybody = reset(&it, "os:reader", api::ResetRequest::default()).await.unwrap_err();
    assert_eq!(by_anybody.code(), Code::Unimplemented);
    assert_eq!(it.sinks.sequences.lock().len(), 2);
    let refused = [
        it.client().reboot(api::RebootRequest::default()).await.unwrap_err(),
        it.client().shutdown(api::ShutdownRequest::default()).await.unwrap_err(),
        it.client().rollback(api::RollbackRequest::default()).await.unwrap_err(),
        it.client().upgrade(api::UpgradeRequest::default()).await.unwrap_err(),
        it.client().meta_write(api::MetaWriteRequest::default()).await.unwrap_err(),
        it.client().meta_delete(api::MetaDeleteRequest::default()).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "method is not supported in container mode");
    }
}

#[tokio::test]
async fn a_service_that_a_condition_keeps_from_starting_is_listed_with_it() {
    let it = served();
    let waits_for = "an address of the node in 192.168.77.0/24".to_owned();
    it.machine.store.put("kubelet", ServiceSpec { waits_for, ..ServiceSpec::default() }, "").unwrap();
    let list = it.client().service_list(()).await.unwrap().into_inner().messages.remove(0);
    let kubelet = list.services.into_iter().find(|service| service.id == "kubelet").unwrap();
    assert_eq!(kubelet.state, "Waiting");
    let event = kubelet.events.unwrap().events.remove(0);
    assert_eq!(event.msg, "Waiting for an address of the node in 192.168.77.0/24");
    assert!(event.ts.is_some_and(|at| at.seconds > 0) && kubelet.health.unwrap().unknown);
}

#[tokio::test]
async fn services_are_started_stopped_and_restarted_by_an_override() {
    let it = served();
    for id in ["kubelet", "etcd", "ext-tool"] {
        it.machine.store.put(id, ServiceSpec::default(), "").unwrap();
    }
    let restart = |id: &str| api::ServiceRestartRequest { id: id.into() };
    let stop = |id: &str| api::ServiceStopRequest { id: id.into() };
    let wish = |id: &str| {
        let wish = it.machine.store.get_as::<ServiceOverride>(id).unwrap();
        wish.map(|wish| (wish.stopped, wish.restarts))
    };
    let answer = it.client().service_restart(restart("kubelet")).await.unwrap().into_inner().messages.remove(0);
    assert_eq!(answer.resp, "Service \"kubelet\" restarted");
    assert_eq!(wish("kubelet"), Some((false, 1)));
    let answer = it.client().service_stop(stop("ext-tool")).await.unwrap().into_inner().messages.remove(0);
    assert_eq!(answer.resp, "Service \"ext-tool\" stopped");
    assert_eq!(wish("ext-tool"), Some((true, 0)));
    let start = api::ServiceStartRequest { id: "ext-tool".into() };
    let answer = it.client().service_start(start).await.unwrap().into_inner().messages.remove(0);
    assert_eq!(answer.resp, "Service \"ext-tool\" started");
    assert_eq!(wish("ext-tool"), Some((false, 0)));
    let refused = it.client().service_stop(stop("kubelet")).await.unwrap_err();
    assert_eq!(refused.message(), "service \"kubelet\" doesn't support stop operation via API");
    let refused = it.client().service_restart(restart("etcd")).await.unwrap_err();
    assert_eq!(refused.message(), "service \"etcd\" doesn't support restart operation via API");
    let refused = it.client().service_restart(restart("none")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "service \"none\" not defined"));
    assert_eq!((wish("etcd"), wish("none")), (None, None));
}

#[tokio::test]
async fn a_health_check_with_a_wait_beyond_the_end_of_the_clock_is_served() {
    let it = served();
    let wait_timeout = Some(prost_types::Duration { seconds: i64::MAX, nanos: 0 });
    let control_plane_nodes = vec!["10.5.0.2".to_owned()];
    let cluster_info = Some(wire::cluster::ClusterInfo { control_plane_nodes, ..Default::default() });
    let mut request = tonic::Request::new(wire::cluster::HealthCheckRequest { wait_timeout, cluster_info });
    request.metadata_mut().insert("talos-role", "os:admin".parse().unwrap());
    // A panic would be an error of the connection.
    ClusterServiceClient::new(it.channel.clone()).health_check(request).await.unwrap();
}

#[tokio::test]
async fn bootstrap_works_once() {
    let it = served();
    it.client().bootstrap(api::BootstrapRequest::default()).await.unwrap();
    let status = it.client().bootstrap(api::BootstrapRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn kubeconfig_is_an_archive_with_one_file_and_lives_as_long_as_the_configuration_says() {
    let it = served();
    let text =
        "version: v1alpha1\nmachine:\n  type: controlplane\ncluster:\n  adminKubeconfig: { certLifetime: 2h0m0s }\n";
    it.machine.store.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text), "").unwrap();
    let none = it.client().kubeconfig(()).await.unwrap_err();
    assert_eq!(none.code(), Code::FailedPrecondition);
    let now = stdx::Clock::now(&SystemClock);
    let ca = pki::Authority::generate(pki::CaProfile::Kubernetes, now).unwrap().pair();
    let root = KubernetesRootSecret {
        name: "demo".into(),
        endpoint: "https://10.5.0.2:6443".into(),
        issuing_ca: Some(CertificateAndKey::new(ca.crt, ca.key)),
        ..KubernetesRootSecret::default()
    };
    it.machine.store.put(KubernetesRootSecret::ID, root, "").unwrap();
    let mut stream = it.client().kubeconfig(()).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(data) = stream.message().await.unwrap() {
        bytes.extend_from_slice(&data.bytes);
    }
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let mut files = archive.entries().unwrap();
    let mut file = files.next().unwrap().unwrap();
    assert_eq!(file.path().unwrap().to_str(), Some("kubeconfig"));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert!(text.contains("admin@demo") && text.contains("https://10.5.0.2:6443"), "{text}");
    let kubeconfig = &kubernetes::yaml::documents(&text).unwrap()[0];
    let certificate = kubeconfig["users"][0]["user"]["client-certificate-data"].as_str().unwrap();
    let pem = base64::engine::Engine::decode(&base64::engine::general_purpose::STANDARD, certificate).unwrap();
    let certificate = pki::Certificate::from_pem(&String::from_utf8(pem).unwrap()).unwrap();
    let left = certificate.not_after().duration_since(now).unwrap();
    assert!((Duration::from_secs(7190)..=Duration::from_secs(7210)).contains(&left), "{left:?}");
}

#[tokio::test]
async fn a_talosconfig_has_the_wanted_roles_and_lifetime_and_no_others() {
    let it = served();
    let ask = |roles: &[&str], seconds: i64| {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let crt_ttl = Some(prost_types::Duration { seconds, nanos: 0 });
        let mut client = it.client();
        async move {
            let request = api::GenerateClientConfigurationRequest { roles, crt_ttl };
            let reply = client.generate_client_configuration(request).await?;
            Ok::<_, tonic::Status>(reply.into_inner().messages.remove(0))
        }
    };
    assert_eq!(ask(&["os:reader"], 60).await.unwrap_err().code(), Code::FailedPrecondition);
    let now = stdx::Clock::now(&SystemClock);
    let ca = pki::Authority::generate(pki::CaProfile::Os, now).unwrap().pair();
    let root = OsRootSecret { issuing_ca: Some(CertificateAndKey::new(ca.crt, ca.key)), ..OsRootSecret::default() };
    it.machine.store.put(OsRootSecret::ID, root, "").unwrap();
    assert_eq!(ask(&["os:king"], 60).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask(&[], 60).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask(&["os:reader"], 0).await.unwrap_err().code(), Code::InvalidArgument);
    let made = ask(&["os:reader"], 7200).await.unwrap();
    let certificate = pki::Certificate::from_pem(std::str::from_utf8(&made.crt).unwrap()).unwrap();
    assert_eq!(certificate.roles().to_strings(), ["os:reader"]);
    let left = certificate.not_after().duration_since(now).unwrap().as_secs();
    assert!((7000..=7300).contains(&left), "{left}");
    assert!(std::str::from_utf8(&made.talosconfig).unwrap().contains("contexts:\n    default:\n"));
}

#[tokio::test]
async fn logs_are_read_to_their_end_from_a_tail_and_followed() {
    let it = served();
    it.machine.logs.sink("etcd")(b"one\ntwo\nthree\n");
    let request = |tail_lines, follow| api::LogsRequest { id: "etcd".into(), tail_lines, follow, ..Default::default() };
    let mut all = it.client().logs(request(-1, false)).await.unwrap().into_inner();
    assert_eq!(all.message().await.unwrap().unwrap().bytes, "one\ntwo\nthree\n");
    assert_eq!(all.message().await.unwrap(), None);
    let mut follow = it.client().logs(request(1, true)).await.unwrap().into_inner();
    assert_eq!(follow.message().await.unwrap().unwrap().bytes, "three\n");
    it.machine.logs.sink("etcd")(b"four\n");
    assert_eq!(follow.message().await.unwrap().unwrap().bytes, "four\n");
    let unknown = api::LogsRequest { id: "nope".into(), ..Default::default() };
    let status = it.client().logs(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("etcd"), "it says which logs there are: {status:?}");
}

#[tokio::test]
async fn events_start_where_the_client_asks() {
    // A bus of its own: the controller of the configuration has events too.
    let it = served_with(|machine| machine.events = EventBus::new(Arc::new(SystemClock)));
    for number in 0..5 {
        it.machine.events.publish(Payload::ConfigLoadError { error: number.to_string() });
    }
    let said = |event: &api::Event| {
        let data = event.data.as_ref().unwrap();
        assert_eq!(data.type_url, "talos/runtime/machine.ConfigLoadErrorEvent");
        let error: api::ConfigLoadErrorEvent = prost::Message::decode(data.value.as_slice()).unwrap();
        error.error
    };
    let tail = api::EventsRequest { tail_events: 2, ..Default::default() };
    let mut events = it.client().events(tail).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(said(&first), "3");
    assert_eq!(said(&events.message().await.unwrap().unwrap()), "4");
    it.machine.events.publish(Payload::ConfigLoadError { error: "5".into() });
    assert_eq!(said(&events.message().await.unwrap().unwrap()), "5");

    let since = api::EventsRequest { tail_id: first.id, ..Default::default() };
    let mut events = it.client().events(since).await.unwrap().into_inner();
    assert_eq!(said(&events.message().await.unwrap().unwrap()), "4");
    let all = api::EventsRequest { tail_events: -1, ..Default::default() };
    let mut events = it.client().events(all).await.unwrap().into_inner();
    assert_eq!(said(&events.message().await.unwrap().unwrap()), "0");
}

#[tokio::test]
async fn containers_of_the_node_are_listed() {
    let it = served();
    let request = api::ContainersRequest { namespace: "system".into(), ..Default::default() };
    let answer = it.client().containers(request).await.unwrap().into_inner().messages.remove(0);
    let ids: Vec<_> = answer.containers.iter().map(|c| (c.namespace.as_str(), c.id.as_str())).collect();
    assert_eq!(ids, [("system", "etcd"), ("system", "kubelet")]);
    let other = api::ContainersRequest { namespace: "moby".into(), ..Default::default() };
    assert_eq!(it.client().containers(other).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_directory_and_a_file_are_read() {
    let it = served();
    let path = it._directory.path().join("file");
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    let list = api::ListRequest { root: it._directory.path().display().to_string(), ..Default::default() };
    let list: Vec<_> = it.client().list(list).await.unwrap().into_inner().collect().await;
    assert_eq!(list.len(), 3);
    let read = api::ReadRequest { path: path.display().to_string() };
    let chunks: Vec<_> = it.client().read(read).await.unwrap().into_inner().collect().await;
    assert_eq!(chunks.iter().map(|chunk| chunk.as_ref().unwrap().bytes.len()).sum::<usize>(), 100_000);
}

#[tokio::test]
async fn an_error_of_etcd_is_passed_on() {
    let status = served().client().etcd_member_list(api::EtcdMemberListRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcd: no certificate for etcd"));
}

/// It said that the node has no certificate for etcd: scripts match the words of Talos 1.7.
#[tokio::test]
async fn a_worker_names_what_only_control_planes_answer() {
    let it = served();
    it.machine.store.put(MachineType::ID, MachineType::Worker, "").unwrap();
    let members = it.client().etcd_member_list(api::EtcdMemberListRequest::default()).await.unwrap_err();
    let only = "member list is only available on control plane nodes";
    assert_eq!((members.code(), members.message()), (Code::Unimplemented, only));
    let kubeconfig = it.client().kubeconfig(()).await.unwrap_err();
    let only = "kubeconfig is only available on control plane nodes";
    assert_eq!((kubeconfig.code(), kubeconfig.message()), (Code::Unimplemented, only));
}

/// The request of an operator who fills in a form.
fn generation(kind: api::machine_config::MachineType) -> api::GenerateConfigurationRequest {
    let route = api::RouteConfig { network: "0.0.0.0/0".into(), gateway: "10.5.0.1".into(), metric: 0 };
    let eth0 = api::NetworkDeviceConfig {
        interface: "eth0".into(),
        cidr: "10.5.0.7/24".into(),
        routes: vec![route],
        ..Default::default()
    };
    let network = api::NetworkConfig { hostname: "seven".into(), interfaces: vec![eth0] };
    let install = api::InstallConfig { install_disk: "/dev/vdb".into(), install_image: String::new() };
    let endpoint = "https://10.5.0.2:6443".to_owned();
    api::GenerateConfigurationRequest {
        config_version: "v1alpha1".into(),
        cluster_config: Some(api::ClusterConfig {
            name: "form".into(),
            control_plane: Some(api::ControlPlaneConfig { endpoint }),
            ..Default::default()
        }),
        machine_config: Some(api::MachineConfig {
            r#type: kind.into(),
            install_config: Some(install),
            network_config: Some(network),
            ..Default::default()
        }),
        override_time: None,
    }
}

#[tokio::test]
async fn a_configuration_is_generated_for_an_operator_and_can_be_applied() {
    use api::machine_config::MachineType;
    let it = served();
    it.acquired().await;
    let generate = async |request| it.client().generate_configuration(request).await;
    let answer = generate(generation(MachineType::TypeControlPlane)).await.unwrap().into_inner().messages.remove(0);
    let text = String::from_utf8(answer.data[0].to_vec()).unwrap();
    let documents = config::Documents::from_yaml(text.as_bytes()).unwrap();
    let root = documents.v1alpha1().unwrap();
    assert_eq!(root.machine().install.as_ref().unwrap().disk, "/dev/vdb");
    for line in ["hostname: seven", "interface: eth0", "- 10.5.0.7/24", "gateway: 10.5.0.1", "clusterName: form"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let talosconfig = String::from_utf8(answer.talosconfig.to_vec()).unwrap();
    assert!(talosconfig.contains("context: form") && talosconfig.contains("10.5.0.2"), "{talosconfig}");
    apply(&it, &text, Mode::Auto, false).await.unwrap();

    // The next node of the same cluster.
    let answer = generate(generation(MachineType::TypeWorker)).await.unwrap().into_inner().messages.remove(0);
    let worker = config::Documents::from_yaml(&answer.data[0]).unwrap();
    let own = |documents: &config::Documents| documents.v1alpha1().unwrap().machine().token.expose().to_owned();
    assert_eq!(own(&worker), own(&documents), "it has the secrets of the node");
}

#[tokio::test]
async fn choices_that_give_no_configuration_are_refused_and_workers_generate_none() {
    use api::machine_config::MachineType;
    let it = served();
    let refusal = async |request| {
        let status = it.client().generate_configuration(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let of = || generation(MachineType::TypeControlPlane);
    let version = api::GenerateConfigurationRequest { config_version: "v2".into(), ..of() };
    assert_eq!(refusal(version).await, (Code::InvalidArgument, "unsupported config version v2".to_owned()));
    for request in [
        api::GenerateConfigurationRequest { machine_config: None, ..of() },
        api::GenerateConfigurationRequest { cluster_config: None, ..of() },
        api::GenerateConfigurationRequest { cluster_config: Some(api::ClusterConfig::default()), ..of() },
    ] {
        assert_eq!(refusal(request).await, (Code::InvalidArgument, "invalid generate request".to_owned()));
    }
    let mut endpoint = of();
    let control_plane = Some(api::ControlPlaneConfig { endpoint: "http://x".into() });
    endpoint.cluster_config.as_mut().unwrap().control_plane = control_plane;
    assert_eq!(refusal(endpoint).await.0, Code::InvalidArgument);
    assert_eq!(refusal(generation(MachineType::TypeUnknown)).await.0, Code::InvalidArgument);
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
    let expected = (Code::FailedPrecondition, "config can't be generated on worker nodes".to_owned());
    assert_eq!(refusal(of()).await, expected);
}

#[tokio::test]
async fn what_does_not_work_yet_says_what_it_waits_for() {
    let status = served().client().restart(api::RestartRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().starts_with("Restart is not implemented yet: it waits for "), "{status:?}");
}

#[tokio::test]
async fn a_reader_sends_the_health_check_of_a_node_nowhere_outside_of_its_cluster() {
    let it = served();
    let check = async |role: &'static str, info: wire::cluster::ClusterInfo| {
        let cluster_info = Some(info);
        let mut request = tonic::Request::new(wire::cluster::HealthCheckRequest { cluster_info, ..Default::default() });
        request.metadata_mut().insert("talos-role", role.parse().unwrap());
        ClusterServiceClient::new(it.channel.clone()).health_check(request).await.map(drop)
    };
    let endpoint = wire::cluster::ClusterInfo { force_endpoint: "https://192.0.2.1:1".into(), ..Default::default() };
    let nodes = wire::cluster::ClusterInfo { control_plane_nodes: vec!["192.0.2.1".into()], ..Default::default() };
    for info in [endpoint, nodes] {
        assert_eq!(check("os:reader", info.clone()).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(check("os:operator", info.clone()).await.unwrap_err().code(), Code::PermissionDenied);
        check("os:admin", info).await.unwrap();
    }
}

#[tokio::test]
async fn a_health_check_has_a_short_lived_certificate_that_is_no_administrators() {
    let connect = FakeConnect::new(FakeKube::new("v1.30.0"));
    let it = served_with(|machine| machine.kubernetes = Arc::new(connect.clone()));
    let now = stdx::Clock::now(&SystemClock);
    let ca = pki::Authority::generate(pki::CaProfile::Kubernetes, now).unwrap().pair();
    let root = KubernetesRootSecret {
        endpoint: "https://10.5.0.2:6443".into(),
        issuing_ca: Some(CertificateAndKey::new(ca.crt, ca.key)),
        ..KubernetesRootSecret::default()
    };
    it.machine.store.put(KubernetesRootSecret::ID, root, "").unwrap();
    let request = wire::cluster::HealthCheckRequest::default();
    let mut progress = ClusterServiceClient::new(it.channel.clone()).health_check(request).await.unwrap().into_inner();
    while connect.kubeconfigs().is_empty() {
        progress.message().await.unwrap();
    }
    let text = connect.kubeconfigs().remove(0);
    let certificate = text.lines().find_map(|line| line.trim().strip_prefix("client-certificate-data: ")).unwrap();
    let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, certificate).unwrap();
    let certificate = pki::Certificate::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
    assert_eq!(certificate.subject().organizations, ["talos:health-readers"]);
    let lifetime = certificate.not_after().duration_since(now).unwrap();
    assert!(lifetime <= Duration::from_secs(11 * 60), "{lifetime:?}");
}

#[tokio::test]
async fn every_service_is_there() {
    let it = served();
    let answer = InspectServiceClient::new(it.channel.clone()).controller_runtime_dependencies(()).await.unwrap();
    assert_eq!(answer.into_inner().messages.len(), 1);
    let request = wire::cluster::HealthCheckRequest::default();
    let mut progress = ClusterServiceClient::new(it.channel.clone()).health_check(request).await.unwrap().into_inner();
    assert!(progress.message().await.unwrap().unwrap().message.starts_with("waiting for control plane nodes"));
    let disks = wire::storage::storage_service_client::StorageServiceClient::new(it.channel.clone()).disks(()).await;
    assert_eq!(disks.unwrap_err().code(), Code::FailedPrecondition, "a container has no disks of its own");
    let time = wire::time::time_service_client::TimeServiceClient::new(it.channel.clone()).time(()).await;
    assert_eq!(time.unwrap_err().code(), Code::FailedPrecondition, "there are no time servers");
}

#[tokio::test]
async fn the_time_is_compared_with_the_first_server_in_use_or_another_one() {
    let servers = ntp::FakeAsk::default();
    servers.tells("ntp.example.org", -2000);
    servers.tells("other.example.org", 3000);
    servers.answers("limited.example.org", ntp::Answer::KissOfDeath(*b"RATE"));
    let it = served_with(|machine| machine.time_servers = Arc::new(servers));
    let time_servers = vec!["ntp.example.org".to_owned()];
    let status = resources::network::TimeServerStatus { time_servers };
    it.machine.store.put(resources::network::TimeServerStatus::ID, status, "").unwrap();
    let mut client = wire::time::time_service_client::TimeServiceClient::new(it.channel.clone());
    let difference = |time: &wire::time::Time| {
        let millis = |at: &Option<prost_types::Timestamp>| {
            at.map(|at| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000).unwrap()
        };
        (millis(&time.remotetime) - millis(&time.localtime), time.server.clone())
    };
    let time = client.time(()).await.unwrap().into_inner();
    assert_eq!(difference(&time.messages[0]), (-2000, "ntp.example.org".into()));
    let ask = |server: &str| wire::time::TimeRequest { server: server.into() };
    let time = client.time_check(ask("other.example.org")).await.unwrap().into_inner();
    assert_eq!(difference(&time.messages[0]), (3000, "other.example.org".into()));
    for (server, code) in [
        ("absent.example.org", Code::Unavailable),
        ("limited.example.org", Code::Unavailable),
        ("", Code::InvalidArgument),
    ] {
        assert_eq!(client.time_check(ask(server)).await.unwrap_err().code(), code, "{server}");
    }
}

/// On a machine with disks of its own.
fn served_metal() -> Served {
    let it = served();
    let capabilities = PlatformCapabilities::owning_all(resources::machine::PlatformMode::Metal);
    it.machine.store.put(PlatformCapabilities::ID, capabilities, "").unwrap();
    it
}

/// One that is not in maintenance mode.
async fn configured_metal() -> Served {
    let it = served_metal();
    it.acquired().await;
    apply(&it, worker(), Mode::Auto, false).await.unwrap();
    it
}

fn by<T>(role: &'static str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("talos-role", role.parse().unwrap());
    request
}

#[tokio::test]
async fn values_of_meta_are_changed_by_administrators_and_refusals_have_their_codes() {
    let it = served_metal();
    let write = async |role, key, value: &[u8]| {
        let request = api::MetaWriteRequest { key, value: value.to_vec().into() };
        it.client().meta_write(by(role, request)).await.map(drop).map_err(|status| status.code())
    };
    let delete = async |key| {
        let request = by("os:admin", api::MetaDeleteRequest { key });
        it.client().meta_delete(request).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!(write("os:admin", 12, b"mine").await, Ok(()));
    assert_eq!(it.sinks.meta.lock()[&12], b"mine");
    assert_eq!(write("os:admin", 256, b"").await, Err(Code::InvalidArgument));
    assert_eq!(write("os:admin", 0, b"").await, Err(Code::InvalidArgument));
    assert_eq!(write("os:admin", 13, &[0; 100]).await, Err(Code::ResourceExhausted));
    assert_eq!(write("os:reader", 13, b"").await, Err(Code::Unimplemented), "as in maintenance mode");
    assert_eq!((delete(12).await, delete(12).await), (Ok(()), Err(Code::NotFound)));
    assert_eq!(delete(300).await, Err(Code::InvalidArgument));
}

#[tokio::test]
async fn keys_of_volumes_are_for_administrators_and_refusals_have_their_codes() {
    let it = served_metal();
    let mut client = VolumeKeysServiceClient::new(it.channel.clone());
    let slots = |volume: &str| volumekeys::SlotsRequest { volume: volume.into() };
    let unlock = |key: &str| volumekeys::UnlockRequest { volume: "EPHEMERAL".into(), key: key.into() };
    let rebind = || volumekeys::RebindRequest { volume: "EPHEMERAL".into() };
    let add = || volumekeys::AddRecoveryKeyRequest { volume: "EPHEMERAL".into() };
    for role in ["os:reader", "os:operator"] {
        let refused = [
            client.slots(by(role, slots("EPHEMERAL"))).await.unwrap_err(),
            client.unlock(by(role, unlock("right"))).await.unwrap_err(),
            client.rebind(by(role, rebind())).await.unwrap_err(),
            client.add_recovery_key(by(role, add())).await.unwrap_err(),
        ];
        assert!(refused.iter().all(|status| status.code() == Code::Unimplemented), "{role}: {refused:?}");
    }
    let admin = "os:admin";
    let found = client.slots(by(admin, slots("EPHEMERAL"))).await.unwrap().into_inner().messages.remove(0);
    let kinds: Vec<_> = found.slots.iter().map(|slot| (slot.slot, slot.kind.as_str())).collect();
    assert_eq!((kinds, found.open), (vec![(0, "tpm"), (1, "recovery-key")], false));
    assert_eq!(client.slots(by(admin, slots("META"))).await.unwrap_err().code(), Code::NotFound);
    let added = client.add_recovery_key(by(admin, add())).await.unwrap().into_inner().messages.remove(0);
    assert_eq!((added.slot, added.key.as_str()), (1, "right"));
    client.unlock(by(admin, unlock(&added.key))).await.unwrap();
    assert_eq!(client.unlock(by(admin, unlock("wrong"))).await.unwrap_err().code(), Code::FailedPrecondition);
    for key in [String::new(), "x".repeat(513)] {
        assert_eq!(client.unlock(by(admin, unlock(&key))).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let refused = client.rebind(by(admin, rebind())).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "the machine has no TPM 2.0"));

    let container = served();
    let mut client = VolumeKeysServiceClient::new(container.channel.clone());
    assert_eq!(client.slots(by(admin, slots("STATE"))).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn disks_are_those_of_the_resources() {
    let it = served_metal();
    let disk = resources::block::Disk {
        device_path: "/dev/nvme0n1".into(),
        size: 512 << 30,
        r#type: "nvme".into(),
        system_disk: true,
        ..Default::default()
    };
    it.machine.store.put("nvme0n1", disk, "block.DevicesController").unwrap();
    let disks = wire::storage::storage_service_client::StorageServiceClient::new(it.channel.clone()).disks(()).await;
    let disks = disks.unwrap().into_inner().messages.remove(0).disks;
    let shown = (disks[0].device_name.as_str(), disks[0].size, disks[0].r#type(), disks[0].system_disk);
    assert_eq!(shown, ("/dev/nvme0n1", 512 << 30, wire::storage::disk::DiskType::Nvme, true));
}
