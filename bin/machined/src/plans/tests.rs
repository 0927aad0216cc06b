//! Outlines of all plans; and every plan through the failure of each task, and through a power cut after each task.

mod fake;

use std::time::Duration;

use sequencer::{
    ActorId, CONFIG_PAUSE, LastResult, OnFailure, Outcome, Parameters, RebootMode, ResetParameters, Sequence,
    ShutdownParameters, Then, UpgradeParameters, WipeMode,
};

use super::*;
use fake::{Case, Disk, Life, Scripted};

const KINDS: [MachineKind; 2] = [MachineKind::Container, MachineKind::Machine];

fn outline(kind: MachineKind, sequence: Sequence) -> Option<(String, Then)> {
    let node = Life::new(kind, Disk::default(), Scripted::Nothing);
    let plan = node.planner.plan(&Request::new(sequence, ActorId::machine()))?;
    let phases: Vec<_> = plan.outline().map(|(phase, tasks)| format!("{phase}: {}", tasks.join(" "))).collect();
    Some((phases.join("; "), plan.then()))
}

/// Names of phases and tasks that clients wait for and that documents have.
#[test]
fn a_container_has_the_phases_that_are_its_own() {
    let of = |sequence| outline(MachineKind::Container, sequence);
    let initialize = "systemRequirements: setupSystemDirectory mountPseudoFilesystems setRLimit; etc: createEtcFiles; \
                      earlyServices: startMachined; mountSystem: mountStatePartition mountEphemeralPartition; \
                      var: setupVarDirectory; containerd: startContainerd; config: loadConfig";
    assert_eq!(of(Sequence::Initialize), Some((initialize.into(), Then::Follow(Sequence::Boot))));
    let boot = "userSetup: writeUserFiles; startEverything: startAllServices";
    assert_eq!(of(Sequence::Boot), Some((boot.into(), Then::Idle)));
    let stop = |departure: &str| {
        format!(
            "{departure}; stopEverything: stopAllServices; unmountSystem: unmountEphemeralPartition \
             unmountStatePartition"
        )
    };
    let shutdown = stop("drain: cordonAndDrainNode; cleanup: stopAllPods");
    assert_eq!(of(Sequence::Shutdown), Some((shutdown, Then::End(Outcome::PowerOff))));
    let reset = stop("cleanup: stopAllPods; preReset: sendResetSignal");
    assert_eq!(of(Sequence::Reset), Some((reset, Then::End(Outcome::PowerOff))));
    assert_eq!(of(Sequence::Reboot), Some((stop("cleanup: stopAllPods"), Then::End(Outcome::Reboot))));
    assert_eq!(of(Sequence::Upgrade), None);
}

#[test]
fn a_machine_makes_its_own_kernel_ready_first() {
    let (phases, then) = outline(MachineKind::Machine, Sequence::Initialize).unwrap();
    let first = "systemRequirements: enforceKSPPRequirements setupSystemDirectory mountBPFFS mountCgroups \
                 mountPseudoFilesystems setRLimit; integrity: writeIMAPolicy; etc: loadModules CreateSystemCgroups \
                 createOSReleaseFile createEtcFiles";
    assert!(phases.starts_with(first), "{phases}");
    assert_eq!(then, Then::Follow(Sequence::Install));
    // The disk of this one has no system.
    assert_eq!(outline(MachineKind::Machine, Sequence::Install).unwrap().1, Then::End(Outcome::Reboot));
}

/// What stands between the end of all services and the reboot, as far as it is an upgrade's.
#[test]
fn each_way_to_upgrade_installs_beside_and_starts_on_trial() {
    let of = |sequence, preserve, staged| {
        let parameters = UpgradeParameters { preserve, ..UpgradeParameters::default() };
        let request = request(sequence, Parameters::Upgrade(parameters));
        let facts = Facts { installed: true, control_plane: true, wipe_asked: false, staged };
        let node = Life::new(MachineKind::Machine, Disk::configured(), Scripted::Nothing);
        let plan = node.planner.outline(&request, facts).unwrap().plan(node.planner.actions.get().unwrap(), &request);
        assert_eq!(plan.then(), Then::End(Outcome::Reboot));
        plan.outline().map(|(phase, _)| phase).collect::<Vec<_>>().join(" ")
    };
    let stop = "stopServices unmountUser unmountSystem";
    let installed = "upgrade wipe meta kexec";
    let upgrade = of(Sequence::Upgrade, false, None);
    assert_eq!(upgrade, format!("verify drain cleanup dbus leave {stop} forceCleanup {installed}"));
    assert_eq!(of(Sequence::StageUpgrade, false, None), format!("verify cleanup dbus leave meta {stop} kexec"));
    assert_eq!(of(Sequence::StageUpgrade, true, None), format!("verify cleanup dbus meta {stop} kexec"));
    let maintenance = of(Sequence::MaintenanceUpgrade, false, None);
    assert_eq!(maintenance, format!("stopServices unmountSystem forceCleanup {installed}"));
    assert_eq!(of(Sequence::Install, false, Some(Data::Wiped)), "unmountSystem upgrade wipe meta stopEverything kexec");
    assert_eq!(of(Sequence::Install, false, Some(Data::Preserved)), "unmountSystem upgrade meta stopEverything kexec");
}

/// The kubelet of a machine ends its pods by D-Bus.
#[test]
fn a_machine_has_dbus_from_before_its_services_until_its_pods_have_ended() {
    let of = |sequence| outline(MachineKind::Machine, sequence).unwrap().0;
    let boot = of(Sequence::Boot);
    assert!(boot.find("dbus: startDBus").unwrap() < boot.find("startEverything").unwrap(), "{boot}");
    let initialize = of(Sequence::Initialize);
    assert!(initialize.contains("earlyServices: startUdevd startMachined startSyslogd;"), "{initialize}");
    for sequence in [Sequence::Reboot, Sequence::Shutdown, Sequence::Reset, Sequence::Upgrade, Sequence::StageUpgrade] {
        let phases = of(sequence);
        assert!(phases.contains("Pods; dbus: stopDBus;"), "{sequence}: {phases}");
    }
}

/// The steps of a life from power-on, as they were done when nothing went wrong.
async fn journal(case: &Case, disk: Disk) -> Vec<(Sequence, Step)> {
    let life = Life::of(case, disk, Scripted::Nothing);
    life.run(case.end.as_ref()).await;
    life.node.journal()
}

fn request(sequence: Sequence, parameters: Parameters) -> Request {
    Request::new(sequence, ActorId::new("test")).with(parameters)
}

fn reset(graceful: bool, mode: WipeMode, labels: &[&str], user_disks: &[&str]) -> Request {
    let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let parameters = ResetParameters { graceful, mode, labels: strings(labels), user_disks: strings(user_disks) };
    request(Sequence::Reset, Parameters::Reset(parameters))
}

/// A life of each kind, over each sequence that ends it, with each parameter that makes for another plan.
fn cases() -> Vec<Case> {
    let of_each_kind = KINDS.into_iter().flat_map(|kind| {
        let case = move || Case::new(kind);
        let whole = |graceful| reset(graceful, WipeMode::All, &[], &[]);
        [
            case(),
            case().worker(),
            case().ending(request(Sequence::Reboot, Parameters::None)),
            case().ending(request(Sequence::Reboot, Parameters::Reboot(RebootMode::Powercycle))),
            case().ending(request(Sequence::Shutdown, Parameters::None)),
            case().ending(request(Sequence::Shutdown, Parameters::Shutdown(ShutdownParameters { force: true }))),
            case().ending(whole(true)),
            case().worker().ending(whole(true)),
            case().ending(whole(false)),
            case().ending(whole(true).ending_in(Outcome::Reboot)),
        ]
    });
    let machine = || Case::new(MachineKind::Machine);
    let disks = ["/dev/vdb"];
    let image = |preserve, reboot| {
        Parameters::Upgrade(UpgradeParameters { image: "v2".into(), preserve, reboot, ..UpgradeParameters::default() })
    };
    let upgrade = |preserve, reboot| request(Sequence::Upgrade, image(preserve, reboot));
    let staging = |preserve, reboot| request(Sequence::StageUpgrade, image(preserve, reboot));
    let of_machines = [
        machine().ending(upgrade(true, RebootMode::Default)),
        machine().ending(upgrade(false, RebootMode::Powercycle)),
        machine().worker().ending(upgrade(false, RebootMode::Default)),
        machine().ending(staging(true, RebootMode::Default)),
        machine().ending(staging(false, RebootMode::Powercycle)),
        machine().worker().ending(staging(false, RebootMode::Default)),
        machine().staged(Data::Preserved),
        machine().staged(Data::Wiped),
        Case::new_machine(),
        Case::new_machine().ending(request(Sequence::MaintenanceUpgrade, image(false, RebootMode::Default))),
        machine().wiping(&[]),
        machine().wiping(&["STATE"]),
        machine().wiping(&["EPHEMERAL", "META"]),
        machine().ending(reset(true, WipeMode::All, &["STATE", "EPHEMERAL"], &[])),
        machine().worker().ending(reset(true, WipeMode::All, &["EPHEMERAL"], &disks)),
        machine().ending(reset(false, WipeMode::SystemDisk, &["BOOT"], &[])),
        machine().ending(reset(true, WipeMode::SystemDisk, &[], &[])),
        machine().ending(reset(true, WipeMode::UserDisks, &[], &disks)),
        machine().with_volumes().ending(reset(false, WipeMode::UserDisks, &[], &disks)),
        machine().with_volumes().ending(reset(true, WipeMode::All, &[], &disks)),
    ];
    of_each_kind.chain(of_machines).collect()
}

/// How a life ends that nothing happens to.
fn outcome(case: &Case) -> Option<Outcome> {
    let Some(end) = &case.end else {
        // A machine whose disk was wiped installs itself, and a staged upgrade is performed.
        return (case.wipe == Some(&[]) || case.staged.is_some()).then_some(Outcome::Reboot);
    };
    let usual = match end.sequence {
        Sequence::Shutdown | Sequence::Reset => Outcome::PowerOff,
        _ => Outcome::Reboot,
    };
    Some(end.options.end.unwrap_or(usual))
}

#[test]
fn every_sequence_that_ends_a_machine_has_a_case() {
    for kind in KINDS {
        let is_supported = |sequence: &Sequence| sequence.stops_services() && outline(kind, *sequence).is_some();
        for sequence in Sequence::ALL.into_iter().filter(is_supported) {
            let ends_in =
                |case: &Case| case.kind == kind && case.end.as_ref().is_some_and(|end| end.sequence == sequence);
            assert!(cases().iter().any(ends_in), "{kind:?} {sequence}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_nothing_happens_to_runs_and_ends_as_it_was_asked() {
    for case in cases() {
        let life = Life::of(&case, case.before(), Scripted::Nothing);
        let ended = life.run(case.end.as_ref()).await;
        assert_eq!(life.node.refusals(), [""; 0], "{case:?}");
        assert_eq!(ended, outcome(&case), "{case:?}");
        assert_eq!(life.node.is_serving(), ended.is_none() && !case.is_new, "{case:?}");
        // A new machine waits in its first sequence.
        let last = life.lifecycle.status().borrow().last.clone().map(|last| last.result);
        let expected = if case.is_new && ended.is_none() { None } else { Some(LastResult::Done) };
        assert_eq!(last, expected, "{case:?}");
        assert_eq!(life.node.disk(), case.after(), "{case:?}");
    }
}

/// Nothing is lost that was not to be wiped.
fn assert_kept(case: &Case, disk: &Disk, place: &str) {
    let (before, after) = (case.before(), case.after());
    let is_wiped_at_start = case.wipe.is_some();
    let state_is_wiped = case.wipe.is_some_and(|labels| labels.is_empty() || labels.contains(&"STATE"));
    for (what, is_kept, was, may_go) in [
        ("the configuration", disk.has_config, before.has_config, !after.has_config || state_is_wiped),
        ("the system", disk.has_system, before.has_system, !after.has_system || case.wipe == Some(&[])),
        ("EPHEMERAL", disk.has_data, before.has_data, !after.has_data || is_wiped_at_start),
        ("another disk", disk.has_user_data, before.has_user_data, !after.has_user_data),
        ("the membership", disk.is_member, before.is_member, !after.is_member),
    ] {
        assert!(is_kept || !was || may_go, "{place}: {what} is gone");
    }
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_each_task_is_answered_by_its_policy() {
    for case in cases() {
        for (sequence, step) in journal(&case, case.before()).await {
            if (case.kind, sequence, step) == (MachineKind::Machine, Sequence::Initialize, Step::MountState) {
                // A plan's own policy, with a test of its own.
                continue;
            }
            let life = Life::of(&case, case.before(), Scripted::Fails(sequence, step));
            let ended = life.run(case.end.as_ref()).await;
            let place = format!("{case:?}: {sequence}, {step:?}");
            let last = life.lifecycle.status().borrow().last.clone();
            if case.is_new && last.is_none() {
                assert_eq!((ended, step.on_failure()), (None, OnFailure::Ignore), "{place}");
                continue;
            }
            let last = last.unwrap();
            match step.on_failure() {
                // What cannot be deleted is not performed, and stays for another start.
                OnFailure::Ignore if step == Step::TakeStagedUpgrade && case.staged.is_some() => {
                    assert_eq!((ended, last.result), (None, LastResult::Done), "{place}");
                    assert!(life.node.is_serving(), "{place}");
                    let disk = life.node.disk();
                    assert_eq!((disk.staged, disk.has_other), (case.staged, false), "{place}");
                }
                // A disk whose volumes stay active is not wiped.
                OnFailure::Ignore if step == Step::ReleaseDeviceGroups && case.has_volumes => {
                    assert_eq!((ended, last.sequence), (Some(Outcome::Reboot), sequence), "{place}");
                    assert!(matches!(last.result, LastResult::Failed(_)), "{place}: {last:?}");
                    assert!(life.node.disk().has_user_data, "{place}");
                }
                OnFailure::Abort | OnFailure::PauseForConfig { .. } => {
                    assert_eq!(ended, Some(Outcome::Reboot), "{place}");
                    assert_eq!(last.sequence, sequence, "{place}");
                    assert!(matches!(last.result, LastResult::Failed(_)), "{place}: {last:?}");
                }
                OnFailure::Refuse => {
                    assert_eq!((ended, last.sequence), (None, Sequence::Boot), "{place}");
                    assert!(life.node.is_serving(), "{place}: it does not run on");
                    assert_eq!(life.node.disk(), case.before(), "{place}: something was done");
                }
                OnFailure::Ignore => {
                    assert_eq!(last.result, LastResult::Done, "{place}");
                    assert_eq!(ended, outcome(&case), "{place}");
                }
            }
            assert_kept(&case, &life.node.disk(), &place);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_state_is_damaged_stays_up_and_waits() {
    let fails = Scripted::Fails(Sequence::Initialize, Step::MountState);
    let life = Life::new(MachineKind::Machine, Disk::configured(), fails);
    let day = Duration::from_secs(24 * 60 * 60);
    life.lifecycle.request(Request::new(Sequence::Initialize, ActorId::machine())).unwrap();
    assert!(tokio::time::timeout(day, life.lifecycle.outcome()).await.is_err(), "it ends");
    let current = life.lifecycle.status().borrow().current.clone();
    assert_eq!(current.map(|current| current.sequence), Some(Sequence::Initialize));
    assert!(!life.node.is_serving());
    assert!(life.node.journal().contains(&(Sequence::Initialize, Step::StartMachined)), "nobody can reach it");
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_after_each_task_leaves_a_machine_that_runs_again() {
    for case in cases() {
        for (sequence, step) in journal(&case, case.before()).await {
            let life = Life::of(&case, case.before(), Scripted::CutAfter(sequence, step));
            life.run(case.end.as_ref()).await;
            let disk = life.node.disk();
            let place = format!("{case:?}: {sequence}, {step:?}");
            assert_kept(&case, &disk, &place);
            let is_blank = case.kind == MachineKind::Machine && !disk.has_system;
            // Another boot has no argument for a wipe: it was chosen in the boot loader's menu.
            let next = Life::of(&Case { wipe: None, ..case.clone() }, disk, Scripted::Nothing);
            if is_blank {
                // It was wiped, and installs itself again.
                assert_eq!(next.run(None).await, Some(Outcome::Reboot), "{place}");
                continue;
            }
            let is_staged = next.node.disk().staged.is_some();
            let ended = next.run(None).await;
            assert_eq!(next.node.refusals(), [""; 0], "{place}");
            if is_staged {
                assert_eq!(ended, Some(Outcome::Reboot), "{place}");
                let disk = next.node.disk();
                assert!(disk.is_on_trial && disk.staged.is_none(), "{place}: the staged upgrade is not performed");
                let last = Life::of(&Case { wipe: None, ..case.clone() }, disk, Scripted::Nothing);
                assert_eq!(last.run(None).await, None, "{place}");
                assert!(last.node.is_serving(), "{place}: it does not run again");
                continue;
            }
            assert_eq!(ended, None, "{place}");
            assert!(next.node.is_serving() || case.is_new, "{place}: it does not run again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_waits_for_another_configuration() {
    let life =
        Life::new(MachineKind::Container, Disk::configured(), Scripted::Fails(Sequence::Boot, Step::WriteUserFiles));
    let begun = tokio::time::Instant::now();
    assert_eq!(life.run(None).await, Some(Outcome::Reboot));
    assert!(begun.elapsed() >= CONFIG_PAUSE, "{:?}", begun.elapsed());
    assert!(begun.elapsed() < CONFIG_PAUSE + Duration::from_secs(60));
}

/// Phases before the services stop.
#[test]
fn a_node_leaves_its_cluster_as_far_as_it_is_asked_to() {
    let departure = |kind, sequence, parameters: Parameters, control_plane: bool| {
        let request = Request::new(sequence, ActorId::machine()).with(parameters);
        let facts = Facts { installed: true, control_plane, wipe_asked: false, staged: None };
        let node = Life::new(kind, Disk::configured(), Scripted::Nothing);
        let actions = node.planner.actions.get().unwrap();
        let plan = node.planner.outline(&request, facts).unwrap().plan(actions, &request);
        let phases = plan.outline().map(|(phase, _)| phase);
        phases.take_while(|phase| !phase.starts_with("stop")).collect::<Vec<_>>().join(" ")
    };
    let shutdown = |force| Parameters::Shutdown(ShutdownParameters { force });
    let reset = |graceful| Parameters::Reset(ResetParameters { graceful, ..ResetParameters::default() });
    for kind in KINDS {
        // Disks of a container are its host's, and its kubelet is not told of its end.
        let (verify, cleanup) =
            if kind == MachineKind::Machine { ("verifyDisks ", "cleanup dbus") } else { ("", "cleanup") };
        assert_eq!(departure(kind, Sequence::Reboot, Parameters::None, true), cleanup);
        assert_eq!(departure(kind, Sequence::Shutdown, shutdown(false), true), format!("drain {cleanup}"));
        assert_eq!(departure(kind, Sequence::Shutdown, shutdown(true), true), cleanup);
        let reset_phases = |graceful, control_plane| departure(kind, Sequence::Reset, reset(graceful), control_plane);
        assert_eq!(reset_phases(true, true), format!("{verify}drain {cleanup} leave preReset"));
        assert_eq!(reset_phases(true, false), format!("{verify}drain {cleanup} preReset"));
        assert_eq!(reset_phases(false, true), format!("{verify}{cleanup} preReset"));
    }
}

#[test]
fn a_reset_wipes_what_it_is_asked_for() {
    let phases = |mode, labels: &[&str], user_disks: &[&str]| {
        let parameters = ResetParameters {
            graceful: false,
            mode,
            labels: labels.iter().map(ToString::to_string).collect(),
            user_disks: user_disks.iter().map(ToString::to_string).collect(),
        };
        let node = Life::new(MachineKind::Machine, Disk::configured(), Scripted::Nothing);
        let request = Request::new(Sequence::Reset, ActorId::machine()).with(Parameters::Reset(parameters));
        let plan = node.planner.plan(&request).unwrap();
        let names: Vec<&str> = plan.outline().map(|(phase, _)| phase).skip(7).collect();
        names.join(" ")
    };
    assert_eq!(phases(WipeMode::All, &[], &[]), "forceCleanup reset");
    assert_eq!(phases(WipeMode::All, &["STATE"], &["/dev/vdb"]), "kexec forceCleanup groups resetSpec resetUserDisks");
    assert_eq!(phases(WipeMode::SystemDisk, &["BOOT"], &[]), "forceCleanup resetSpec");
    assert_eq!(phases(WipeMode::UserDisks, &[], &["/dev/vdb"]), "forceCleanup groups resetUserDisks");
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_a_system_installs_it_and_runs_after_its_reboot() {
    let life = Life::new(MachineKind::Machine, Disk::blank(), Scripted::Nothing);
    assert_eq!(life.run(None).await, Some(Outcome::Reboot));
    assert_eq!(life.node.refusals(), [""; 0]);
    let disk = life.node.disk();
    assert!(disk.has_system && disk.has_config);
    let next = Life::new(MachineKind::Machine, disk, Scripted::Nothing);
    assert_eq!(next.run(None).await, None);
    assert!(next.node.is_serving());
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_during_an_installation_leaves_a_machine_that_installs_or_runs() {
    for (sequence, step) in journal(&Case::new(MachineKind::Machine), Disk::blank()).await {
        let life = Life::new(MachineKind::Machine, Disk::blank(), Scripted::CutAfter(sequence, step));
        life.run(None).await;
        let disk = life.node.disk();
        let place = format!("{sequence}, {step:?}");
        let expected = if disk.has_system { None } else { Some(Outcome::Reboot) };
        let next = Life::new(MachineKind::Machine, disk, Scripted::Nothing);
        assert_eq!(next.run(None).await, expected, "{place}");
        assert_eq!(next.node.refusals(), [""; 0], "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_installation_waits_for_another_configuration_before_the_machine_reboots() {
    let script = Scripted::Fails(Sequence::Install, Step::Install);
    let life = Life::new(MachineKind::Machine, Disk::blank(), script);
    let begun = tokio::time::Instant::now();
    assert_eq!(life.run(None).await, Some(Outcome::Reboot));
    assert!(begun.elapsed() >= CONFIG_PAUSE, "{:?}", begun.elapsed());
    assert!(!life.node.disk().has_system);
}
