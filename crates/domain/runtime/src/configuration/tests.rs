use std::path::PathBuf;

use controller::testing::Harness;
use platform::{FakeInventory, FakePlatform, PlatformError};
use resources::block::DiscoveredVolume;
use resources::machine::{PlatformCapabilities, PlatformMode};
use resources::revision::{ApplyMode, ConfigCaller, ConfigOutcome};
use state::Key;
use tempfile::TempDir;

use super::*;

const GOOD: &str = include_str!("../../testdata/worker.yaml");
const PART: &str = "apiVersion: v1alpha1\nkind: KmsgLogConfig\nname: a\nurl: tcp://10.0.0.1:514/\n";
const MINUTE: Duration = Duration::from_secs(60);

fn controller(platform: &Arc<FakePlatform>, events: &EventBus) -> ConfigurationController {
    let inventory = Arc::new(FakeInventory::default());
    ConfigurationController::new(Arc::clone(platform) as Arc<_>, inventory, events.clone())
}

/// A machine with its volumes in a temporary directory.
struct World {
    harness: Harness,
    events: EventBus,
    platform: Arc<FakePlatform>,
    dir: TempDir,
    requests: std::cell::Cell<u32>,
}

impl World {
    fn new(prepare: impl FnOnce(&TempDir, FakePlatform) -> FakePlatform) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir_all(dir.path().join("state")).unwrap();
        let container = PlatformCapabilities { mode: PlatformMode::Container, ..Default::default() };
        let platform = Arc::new(prepare(&dir, FakePlatform::new(container)));
        let events = EventBus::new(Arc::new(stdx::SystemClock));
        let harness = Harness::with(controller(&platform, &events));
        Self { harness, events, platform, dir, requests: std::cell::Cell::new(0) }
    }

    async fn boot(&self) {
        for (volume, directory) in [(MountStatus::STATE, "state"), (MountStatus::EPHEMERAL, "var")] {
            let target = self.dir.path().join(directory).display().to_string();
            self.harness.put(volume, MountStatus { target, ..MountStatus::default() });
        }
        self.harness.put(AcquireConfigSpec::ID, AcquireConfigSpec {});
        self.harness.settle().await;
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    fn on_disk(&self) -> String {
        std::fs::read_to_string(self.file("config.yaml")).unwrap_or_default()
    }

    fn active(&self) -> Option<String> {
        self.harness.get::<MachineConfig>(MachineConfig::ACTIVE_ID).map(|config| config.text.clone())
    }

    fn revision(&self, id: &str) -> Option<String> {
        self.harness.get::<MachineConfigRevision>(id).map(|revision| revision.config.0.clone())
    }

    fn clients(&self) -> Option<MaintenanceClients> {
        let is_asked = self.harness.get::<MaintenanceServiceRequest>(MAINTENANCE_ID).is_some();
        let access = self.harness.get::<MaintenanceAccess>(MaintenanceAccess::ID).map(|access| access.clients);
        assert_eq!(is_asked, access.is_some());
        access
    }

    async fn request(&self, request: MachineConfigRequest) -> MachineConfigResult {
        self.requests.set(self.requests.get() + 1);
        let id = self.requests.get().to_string();
        self.harness.put(&id, request);
        self.harness.settle().await;
        let result = MachineConfigResult::clone(&self.harness.get::<MachineConfigResult>(&id).unwrap());
        self.harness.destroy::<MachineConfigRequest>(&id);
        self.harness.settle().await;
        assert!(self.harness.ids::<MachineConfigResult>().is_empty(), "a result outlives its request");
        result
    }

    async fn apply(&self, text: &str, mode: ApplyMode) -> MachineConfigResult {
        self.request(request(text, mode)).await
    }
}

fn request(text: &str, mode: ApplyMode) -> MachineConfigRequest {
    let caller = ConfigCaller::Administrator;
    MachineConfigRequest { config: text.into(), mode, lasting: MINUTE.into(), caller, dry_run: false }
}

fn live(name: &str) -> String {
    let changed = GOOD.replacen("cluster:\n", &format!("cluster:\n  clusterName: {name}\n"), 1);
    assert_ne!(changed, GOOD);
    changed
}

fn fixed() -> String {
    let changed = GOOD.replacen("machine:\n", "machine:\n  env: {A: b}\n", 1);
    assert_ne!(changed, GOOD);
    changed
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_used_is_no_machine_that_was_never_configured() {
    let disks = PlatformCapabilities { disks: Ownership::Machine, ..Default::default() };
    let world = World::new(|_, _| FakePlatform::new(disks).answering(Ok(Some(GOOD.to_owned()))));
    let status = |phase| VolumeStatus { phase, reason: "bad superblock".into(), ..VolumeStatus::default() };
    world.harness.put(MountStatus::STATE, status(VolumePhase::Failed));
    world.harness.put(AcquireConfigSpec::ID, AcquireConfigSpec {});
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.clients(), Some(MaintenanceClients::Nobody), "it may belong to a cluster");
    assert!(world.active().is_none(), "the platform is not asked: what is on STATE has precedence");
    std::fs::write(world.file("config.yaml"), live("kept")).unwrap();
    world.harness.put(MountStatus::STATE, status(VolumePhase::Mounted));
    world.boot().await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!((world.clients(), world.active()), (None, Some(live("kept"))), "repaired meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_volume_without_its_key_is_for_the_administrators_that_meta_knows() {
    let disks = PlatformCapabilities { disks: Ownership::Machine, ..Default::default() };
    let world = World::new(|_, _| FakePlatform::new(disks).answering(Ok(Some(GOOD.to_owned()))));
    let status = VolumeStatus { phase: VolumePhase::Locked, reason: "no key".into(), ..VolumeStatus::default() };
    world.harness.put(MountStatus::STATE, status);
    let id = machine::meta::resource_id(machine::meta::tag::API_AUTHORITIES);
    let authority = pki::Authority::generate(pki::CaProfile::Os, std::time::SystemTime::UNIX_EPOCH).unwrap();
    world.harness.put(AcquireConfigSpec::ID, AcquireConfigSpec {});
    for (value, clients) in [
        (authority.certificate().to_pem(), MaintenanceClients::Administrators),
        ("damaged".to_owned(), MaintenanceClients::Nobody),
    ] {
        world.harness.put(&id, MetaKey { value });
        tokio::time::sleep(MINUTE).await;
        assert_eq!(world.clients(), Some(clients));
    }
}

async fn configured() -> World {
    let world = World::new(|dir, platform| {
        std::fs::write(dir.path().join("state/config.yaml"), GOOD).unwrap();
        platform
    });
    world.boot().await;
    assert_eq!(world.active().as_deref(), Some(GOOD));
    world
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_before_the_volume_is_mounted_and_somebody_asks() {
    let world = World::new(|dir, platform| {
        std::fs::write(dir.path().join("state/config.yaml"), GOOD).unwrap();
        platform
    });
    world.harness.put(AcquireConfigSpec::ID, AcquireConfigSpec {});
    world.harness.settle().await;
    assert_eq!((world.active(), world.clients()), (None, None));
    world.boot().await;
    assert_eq!(world.active().as_deref(), Some(GOOD));
    assert_eq!(world.harness.ids::<AcquireConfigStatus>(), ["machine-config"]);
    let held = world.harness.get::<MountStatus>(MountStatus::STATE).unwrap();
    assert_eq!(held.metadata.finalizers, ["config.ConfigurationController"]);
}

#[tokio::test(start_paused = true)]
async fn the_platform_is_asked_only_without_a_configuration_on_disk_and_its_answer_is_kept() {
    let world = World::new(|_, platform| platform.answering(Ok(Some(GOOD.into()))));
    world.boot().await;
    assert_eq!((world.active().as_deref(), world.on_disk().as_str()), (Some(GOOD), GOOD));
    assert!(std::fs::read_to_string(world.file("api-authorities.pem")).unwrap().contains("BEGIN CERTIFICATE"));
    let kept = format!("{GOOD}# kept\n");
    let world = World::new(|dir, platform| {
        std::fs::write(dir.path().join("state/config.yaml"), &kept).unwrap();
        platform.answering(Ok(Some(GOOD.into())))
    });
    world.boot().await;
    assert_eq!((world.active(), world.platform.unasked()), (Some(kept), 1));
    assert!(world.file("api-authorities.pem").exists(), "nodes of an earlier version get it at the next boot");
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_does_not_answer_yet_is_asked_again() {
    let silent = || Err(PlatformError::Unavailable { platform: "fake", source: "no route".into() });
    let world =
        World::new(|_, platform| platform.answering(silent()).answering(silent()).answering(Ok(Some(GOOD.into()))));
    world.boot().await;
    assert_eq!((world.active(), world.clients()), (None, None), "maintenance mode is not opened by silence");
    world.harness.advance(Duration::from_secs(10)).await;
    assert_eq!(world.active().as_deref(), Some(GOOD));
    assert_eq!(world.events.kept().len(), 1, "the same failure is announced once");
}

#[tokio::test(start_paused = true)]
async fn a_medium_that_is_attached_in_maintenance_mode_is_found() {
    let absent = || Err(PlatformError::NoFilesystem { label: "metal-iso", file: "config.yaml" });
    let world = World::new(|_, platform| platform.answering(absent()));
    world.boot().await;
    assert_eq!(world.clients(), Some(MaintenanceClients::Anybody), "an operator may configure it meanwhile");
    let broken = Err(PlatformError::Unavailable { platform: "fake", source: "no medium".into() });
    for (number, answer) in [absent(), broken, Ok(Some("version: [".into()))].into_iter().enumerate() {
        world.platform.answer_next(answer);
        world.harness.put(&format!("sd{number}"), DiscoveredVolume::default());
        world.harness.settle().await;
        assert_eq!(world.platform.unasked(), 0, "volume {number}");
        assert_eq!((world.active(), world.clients()), (None, Some(MaintenanceClients::Anybody)), "volume {number}");
    }
    world.platform.answer_next(Ok(Some(GOOD.into())));
    world.harness.put("sr0", DiscoveredVolume::default());
    world.harness.settle().await;
    assert_eq!((world.active().as_deref(), world.on_disk().as_str(), world.clients()), (Some(GOOD), GOOD, None));
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_state_takes_anybodys_configuration() {
    let world = World::new(|_, platform| platform);
    world.boot().await;
    assert_eq!(world.clients(), Some(MaintenanceClients::Anybody));
    assert_eq!(world.events.kept().len(), 1, "only that it is in maintenance");
    let anybody = |text| MachineConfigRequest { caller: ConfigCaller::Anonymous, ..request(text, ApplyMode::Auto) };
    assert_eq!(world.request(anybody(GOOD)).await.outcome, ConfigOutcome::Applied);
    assert_eq!((world.active().as_deref(), world.on_disk().as_str(), world.clients()), (Some(GOOD), GOOD, None));
    assert_eq!(world.request(anybody(GOOD)).await.outcome, ConfigOutcome::NotAllowed);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_configuration_of_a_cluster_is_put_right_by_its_administrators_alone() {
    let authority = pki::Authority::generate(pki::CaProfile::Os, std::time::SystemTime::UNIX_EPOCH).unwrap();
    let pem = authority.certificate().to_pem();
    let world = World::new(|dir, platform| {
        std::fs::write(dir.path().join("state/config.yaml"), "machine: [broken").unwrap();
        std::fs::write(dir.path().join("state/api-authorities.pem"), &pem).unwrap();
        platform.answering(Ok(Some(GOOD.into())))
    });
    world.boot().await;
    assert_eq!((world.clients(), world.platform.unasked()), (Some(MaintenanceClients::Administrators), 1));
    let access = world.harness.get::<MaintenanceAccess>(MaintenanceAccess::ID).unwrap();
    assert_eq!(access.accepted_cas[0].crt.as_bytes(), pem.as_bytes());
    assert!(matches!(world.events.kept()[0].payload, Payload::ConfigValidationError { .. }));
    assert_eq!(world.on_disk(), "machine: [broken", "left for inspection");
    let anybody = MachineConfigRequest { caller: ConfigCaller::Anonymous, ..request(GOOD, ApplyMode::Auto) };
    assert_eq!(world.request(anybody).await.outcome, ConfigOutcome::NotAllowed);
    assert_eq!(world.apply(GOOD, ApplyMode::Auto).await.outcome, ConfigOutcome::Applied);
    assert_eq!((world.active().as_deref(), world.on_disk().as_str(), world.clients()), (Some(GOOD), GOOD, None));
}

#[tokio::test(start_paused = true)]
async fn a_machine_with_state_and_no_known_authority_takes_nobodys_configuration() {
    for (name, text) in [("state/config.yaml", "\0garbage"), ("state/config.yaml", ""), ("var/lib/etcd/member/db", "x")]
    {
        let world = World::new(|dir, platform| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            platform
        });
        world.boot().await;
        assert_eq!(world.clients(), Some(MaintenanceClients::Nobody), "{name} {text:?}");
        assert_eq!(world.apply(GOOD, ApplyMode::Auto).await.outcome, ConfigOutcome::NotAllowed);
        assert_eq!(world.active(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_is_read_again() {
    let world = World::new(|dir, platform| {
        // Reading a directory is an I/O error, also for root.
        std::fs::create_dir(dir.path().join("state/config.yaml")).unwrap();
        platform.answering(Ok(Some(GOOD.into())))
    });
    world.boot().await;
    assert_eq!((world.active(), world.clients()), (None, None), "still trying");
    world.harness.advance(Duration::from_secs(10)).await;
    assert_eq!((world.clients(), world.platform.unasked()), (Some(MaintenanceClients::Nobody), 1));
    assert!(matches!(world.events.kept()[0].payload, Payload::ConfigLoadError { .. }));
    assert_eq!(world.events.kept()[1].payload, running_maintenance(Action::Start));
    std::fs::remove_dir(world.file("config.yaml")).unwrap();
    std::fs::write(world.file("config.yaml"), GOOD).unwrap();
    world.harness.advance(MINUTE).await;
    assert_eq!((world.active().as_deref(), world.clients()), (Some(GOOD), None));
}

#[tokio::test(start_paused = true)]
async fn parts_wait_for_the_root_document() {
    let world = World::new(|_, platform| platform.answering(Ok(Some(PART.into()))));
    world.boot().await;
    assert_eq!(world.clients(), Some(MaintenanceClients::Anybody));
    assert_eq!(world.harness.ids::<MachineConfig>(), [MachineConfig::MAINTENANCE_ID]);
    let more = PART.replace("name: a", "name: b");
    assert_eq!(world.apply(&more, ApplyMode::Auto).await.outcome, ConfigOutcome::Applied);
    assert_eq!((world.active(), world.on_disk().as_str()), (None, ""));
    assert_eq!(world.apply(GOOD, ApplyMode::Auto).await.outcome, ConfigOutcome::Applied);
    let active = world.active().unwrap();
    assert!(active.contains("name: a") && active.contains("name: b") && active.contains("type: worker"), "{active}");
    assert_eq!(
        (world.on_disk(), world.harness.ids::<MachineConfig>()),
        (active, vec![MachineConfig::ACTIVE_ID.to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn maintenance_mode_refuses_what_needs_a_running_machine() {
    let world = World::new(|_, platform| platform);
    world.boot().await;
    for mode in [ApplyMode::NoReboot, ApplyMode::Staged] {
        let refused = world.apply(GOOD, mode).await;
        assert_eq!(refused.outcome, ConfigOutcome::NotSupported);
        assert!(refused.details.0.ends_with("is not supported in maintenance mode"), "{}", refused.details.0);
    }
    let dry = world.request(MachineConfigRequest { dry_run: true, ..request(GOOD, ApplyMode::Auto) }).await;
    assert_eq!(dry.details.0, "Dry run summary:\nNode is running in maintenance mode and does not have a config yet.");
    assert_eq!((world.active(), world.on_disk().as_str()), (None, ""));
    let broken = world.apply("machine: [broken", ApplyMode::Auto).await;
    assert_eq!(broken.outcome, ConfigOutcome::NotValid);
    assert_eq!(world.apply(GOOD, ApplyMode::Try).await.outcome, ConfigOutcome::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_live_change_is_in_force_and_on_disk_when_it_is_said_to_be_applied() {
    let world = configured().await;
    let result = world.apply(&live("two"), ApplyMode::Auto).await;
    assert_eq!(
        (result.mode, result.details.0.as_str()),
        (ApplyMode::NoReboot, "Applied configuration without a reboot")
    );
    assert_eq!((world.active(), world.on_disk()), (Some(live("two")), live("two")));
    assert_eq!(world.revision(MachineConfigRevision::STAGED), None);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_persisted_is_not_in_force() {
    let world = configured().await;
    std::fs::remove_file(world.file("config.yaml")).unwrap();
    std::fs::create_dir(world.file("config.yaml")).unwrap();
    let result = world.apply(&live("two"), ApplyMode::Auto).await;
    assert_eq!(result.outcome, ConfigOutcome::Failed);
    assert!(result.details.0.starts_with("persisting the configuration: writing "), "{}", result.details.0);
    assert_eq!(world.active().as_deref(), Some(GOOD));
}

#[tokio::test(start_paused = true)]
async fn a_staged_change_waits_for_the_next_boot() {
    let world = configured().await;
    let result = world.apply(&fixed(), ApplyMode::Staged).await;
    assert_eq!(result.details.0, "Staged configuration to be applied after the next reboot");
    assert_eq!((world.active().as_deref(), world.on_disk()), (Some(GOOD), fixed()));
    assert_eq!(world.revision(MachineConfigRevision::STAGED), Some(fixed()));
    assert_eq!(world.revision(MachineConfigRevision::PERSISTENT), Some(fixed()));
    assert_eq!(world.revision(MachineConfigRevision::ACTIVE).as_deref(), Some(GOOD));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_needs_a_reboot_is_persisted_or_refused_by_its_mode() {
    let world = configured().await;
    for mode in [ApplyMode::NoReboot, ApplyMode::Try] {
        let refused = world.apply(&fixed(), mode).await;
        assert_eq!(refused.outcome, ConfigOutcome::NotValid);
        let text = "this config change can't be applied in immediate mode\ndiff: --- a\n";
        assert!(refused.details.0.starts_with(text), "{}", refused.details.0);
    }
    let dry = world.request(MachineConfigRequest { dry_run: true, ..request(&fixed(), ApplyMode::Auto) }).await;
    let said = "Dry run summary:\nApplied configuration with a reboot (skipped in dry-run).\nConfig diff:\n--- a\n";
    assert!(dry.details.0.starts_with(said), "{}", dry.details.0);
    assert_eq!(world.on_disk(), GOOD);
    let result = world.apply(&fixed(), ApplyMode::Auto).await;
    let said = "Applied configuration with a reboot: this config change can't be applied in immediate mode\ndiff: ";
    assert!(result.mode == ApplyMode::Reboot && result.details.0.starts_with(said), "{}", result.details.0);
    assert_eq!((world.active().as_deref(), world.on_disk()), (Some(GOOD), fixed()));
}

#[tokio::test(start_paused = true)]
async fn a_trial_returns_by_itself_and_is_never_on_disk() {
    let world = configured().await;
    let result = world.apply(&live("two"), ApplyMode::Try).await;
    assert_eq!(
        result.details.0,
        "Applied configuration without a reboot\nThe config is applied in 'try' mode and will be automatically reverted \
         back in 1m0s"
    );
    assert_eq!((world.active(), world.on_disk().as_str()), (Some(live("two")), GOOD));
    let trial = world.harness.get::<MachineConfigRevision>(MachineConfigRevision::TRIAL).unwrap();
    assert!(trial.revert_at.0.is_some());
    world.harness.advance(MINUTE / 2).await;
    world.apply(&live("three"), ApplyMode::Try).await;
    world.harness.advance(MINUTE - Duration::from_secs(1)).await;
    assert_eq!(world.active(), Some(live("three")), "the first timer was stopped");
    world.harness.advance(Duration::from_secs(2)).await;
    assert_eq!(world.active(), Some(live("two")), "a second trial falls back to the first");
    assert_eq!((world.revision(MachineConfigRevision::TRIAL), world.on_disk().as_str()), (None, GOOD));
}

#[tokio::test(start_paused = true)]
async fn any_other_mode_stops_the_timer_of_a_trial() {
    let world = configured().await;
    world.apply(&live("two"), ApplyMode::Try).await;
    world.apply(&fixed(), ApplyMode::Staged).await;
    world.harness.advance(2 * MINUTE).await;
    assert_eq!((world.active(), world.on_disk()), (Some(live("two")), fixed()));
    assert_eq!(world.revision(MachineConfigRevision::TRIAL), None);
}

#[tokio::test(start_paused = true)]
async fn requests_are_judged_one_after_the_other_against_what_is_in_force_then() {
    let world = configured().await;
    world.harness.put("a", request(&fixed(), ApplyMode::Staged));
    world.harness.put("b", request(&live("two"), ApplyMode::NoReboot));
    world.harness.put("c", request("machine: [broken", ApplyMode::NoReboot));
    world.harness.settle().await;
    let outcome = |id: &str| world.harness.get::<MachineConfigResult>(id).unwrap().outcome;
    assert_eq!(["a", "b", "c"].map(outcome), [ConfigOutcome::Applied, ConfigOutcome::Applied, ConfigOutcome::NotValid]);
    assert_eq!((world.active(), world.on_disk()), (Some(live("two")), live("two")));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_once_the_volume_goes() {
    let world = configured().await;
    let key = Key::of::<MountStatus>(MountStatus::STATE);
    assert!(!world.harness.store.teardown(&key, "").unwrap());
    world.harness.settle().await;
    assert!(world.harness.store.teardown(&key, "").unwrap(), "it releases it");
    let refused = world.apply(&live("two"), ApplyMode::Auto).await;
    assert_eq!(refused.outcome, ConfigOutcome::NotPossible);
    assert_eq!((world.active().as_deref(), world.on_disk().as_str()), (Some(GOOD), GOOD));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_would_cut_off_the_api_is_refused_and_a_dry_run_says_so() {
    let world = configured().await;
    let control_plane = GOOD.replacen("type: worker", "type: controlplane", 1);
    assert_ne!(control_plane, GOOD);
    let dry = world.request(MachineConfigRequest { dry_run: true, ..request(&control_plane, ApplyMode::Auto) }).await;
    assert_eq!(dry.outcome, ConfigOutcome::Applied, "{}", dry.details.0);
    assert!(dry.warnings.iter().any(|warning| warning.starts_with("it would be refused: ")), "{:?}", dry.warnings);
    for mode in [ApplyMode::Auto, ApplyMode::Staged, ApplyMode::Reboot] {
        let refused = world.apply(&control_plane, mode).await;
        assert_eq!(refused.outcome, ConfigOutcome::NotValid, "{mode}");
        assert!(refused.details.0.contains("machine.ca.key"), "{}", refused.details.0);
    }
    assert_eq!((world.on_disk().as_str(), world.active().as_deref()), (GOOD, Some(GOOD)));
    let maintained = World::new(|_, platform| platform);
    maintained.boot().await;
    assert_eq!(maintained.apply(&control_plane, ApplyMode::Auto).await.outcome, ConfigOutcome::NotValid);
    assert_eq!(maintained.apply(GOOD, ApplyMode::Auto).await.outcome, ConfigOutcome::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_on_disk_that_a_later_version_would_not_accept_stays_in_force() {
    let on_disk = |text: &str| {
        let text = text.to_owned();
        World::new(move |dir, platform| {
            std::fs::write(dir.path().join("state/config.yaml"), text).unwrap();
            platform
        })
    };
    let faults = "machine:\n  network: {hostname: '-', interfaces: [{deviceSelector: {}}]}\n";
    let faulty = GOOD.replacen("machine:\n", faults, 1);
    let world = on_disk(&faulty);
    world.boot().await;
    assert_eq!((world.active().as_deref(), world.clients()), (Some(faulty.as_str()), None));
    assert_eq!(world.apply(&faulty, ApplyMode::Auto).await.outcome, ConfigOutcome::NotValid, "not a second time");
    let unreachable = on_disk(&GOOD.replacen("type: worker", "type: controlplane", 1));
    unreachable.boot().await;
    assert_eq!(unreachable.active(), None);
    assert!(unreachable.clients().is_some());
}

/// A machine whose disks are its own and empty.
fn metal(answer: Option<&str>) -> World {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir_all(dir.path().join("state")).unwrap();
    let platform = FakePlatform::new(PlatformCapabilities::owning_all(PlatformMode::Metal));
    let platform = Arc::new(platform.answering(Ok(answer.map(str::to_owned))));
    let events = EventBus::new(Arc::new(stdx::SystemClock));
    let harness = Harness::with(controller(&platform, &events));
    World { harness, events, platform, dir, requests: std::cell::Cell::new(0) }
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_a_volume_is_configured_and_writes_when_there_is_one() {
    let good = GOOD.replace("machine:\n", "machine:\n  install: {disk: /dev/vda}\n");
    let world = metal(Some(&good));
    world.harness.put(AcquireConfigSpec::ID, AcquireConfigSpec {});
    world.harness.settle().await;
    assert_eq!(world.active().as_deref(), Some(good.as_str()));
    assert_eq!(world.revision(MachineConfigRevision::PERSISTENT), None, "it is on no disk");
    let target = world.dir.path().join("state").display().to_string();
    world.harness.put(MountStatus::STATE, MountStatus { target, ..MountStatus::default() });
    world.harness.settle().await;
    assert_eq!(world.on_disk(), good);
    assert_eq!(world.revision(MachineConfigRevision::PERSISTENT).as_deref(), Some(good.as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_a_volume_and_an_answer_is_in_maintenance() {
    let world = metal(None);
    world.harness.put(AcquireConfigSpec::ID, AcquireConfigSpec {});
    world.harness.settle().await;
    assert_eq!(world.clients(), Some(MaintenanceClients::Anybody));
    let events = || world.events.kept().into_iter().map(|event| event.payload).collect::<Vec<_>>();
    assert_eq!(events(), [running_maintenance(Action::Start)]);
    let good = GOOD.replace("machine:\n", "machine:\n  install: {disk: /dev/vda}\n");
    let result = world.apply(&good, ApplyMode::Auto).await;
    assert_eq!(result.outcome, ConfigOutcome::Applied, "{}", result.details.0);
    assert_eq!(world.active().as_deref(), Some(good.as_str()));
    assert_eq!(events(), [running_maintenance(Action::Start), running_maintenance(Action::Stop)]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_not_installed_yet_takes_another_configuration_in_memory() {
    let good = GOOD.replace("machine:\n", "machine:\n  install: {disk: /dev/vda}\n");
    let other = good.replace("/dev/vda", "/dev/vdb").replacen("machine:\n", "machine:\n  env: {a: b}\n", 1);
    let world = metal(Some(&good));
    world.harness.put(AcquireConfigSpec::ID, AcquireConfigSpec {});
    world.harness.settle().await;
    for mode in [ApplyMode::Reboot, ApplyMode::Staged] {
        let refused = world.apply(&other, mode).await;
        assert_eq!(refused.outcome, ConfigOutcome::NotPossible, "{mode}");
        assert!(refused.details.0.contains("is not installed yet"), "{}", refused.details.0);
    }
    let applied = world.apply(&other, ApplyMode::Auto).await;
    assert_eq!((applied.outcome, applied.mode), (ConfigOutcome::Applied, ApplyMode::NoReboot), "{}", applied.details.0);
    assert_eq!(world.active().as_deref(), Some(other.as_str()));
    assert_eq!(world.revision(MachineConfigRevision::PERSISTENT), None, "it is on no disk");
    let target = world.dir.path().join("state").display().to_string();
    world.harness.put(MountStatus::STATE, MountStatus { target, ..MountStatus::default() });
    world.harness.settle().await;
    assert_eq!(world.on_disk(), other);
}
