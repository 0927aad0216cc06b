//! Outlines of all plans; and every plan through the failure of each task, and through a power cut after each task.

mod fake;

use std::time::Duration;

use sequencer::{
    ActorId, CONFIG_PAUSE, LastResult, OnFailure, Outcome, Parameters, ResetParameters, Sequence, ShutdownParameters,
    Then, WipeMode,
};

use super::*;
use fake::{Disk, Life, Scripted};

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

/// The steps of a life from power-on over `end`, as they were done when nothing went wrong.
async fn journal(kind: MachineKind, disk: Disk, end: Option<Sequence>) -> Vec<(Sequence, Step)> {
    let life = Life::new(kind, disk, Scripted::Nothing);
    life.run(end).await;
    life.node.journal()
}

/// Every sequence of each kind that ends a machine, and none.
fn ends(kind: MachineKind) -> Vec<Option<Sequence>> {
    let supported = Sequence::ALL.into_iter().filter(|sequence| sequence.stops_services());
    let supported = supported.filter(|sequence| outline(kind, *sequence).is_some());
    std::iter::once(None).chain(supported.map(Some)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_nothing_happens_to_runs_and_ends_as_it_was_asked() {
    for kind in KINDS {
        for end in ends(kind) {
            let life = Life::new(kind, Disk::configured(), Scripted::Nothing);
            let outcome = life.run(end).await;
            assert_eq!(life.node.refusals(), [""; 0], "{kind:?} {end:?}");
            match end {
                None => assert_eq!((outcome, life.node.is_serving()), (None, true), "{kind:?}"),
                Some(Sequence::Reboot) => assert_eq!(outcome, Some(Outcome::Reboot)),
                Some(_) => assert_eq!(outcome, Some(Outcome::PowerOff)),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_each_task_is_answered_by_its_policy() {
    for kind in KINDS {
        for end in ends(kind) {
            for (sequence, step) in journal(kind, Disk::configured(), end).await {
                if (kind, sequence, step) == (MachineKind::Machine, Sequence::Initialize, Step::MountState) {
                    // A plan's own policy, with a test of its own.
                    continue;
                }
                let life = Life::new(kind, Disk::configured(), Scripted::Fails(sequence, step));
                let outcome = life.run(end).await;
                let place = format!("{kind:?} {end:?}: {sequence}, {step:?}");
                let last = life.lifecycle.status().borrow().last.clone().unwrap();
                match step.on_failure() {
                    OnFailure::Abort | OnFailure::PauseForConfig { .. } => {
                        assert_eq!(outcome, Some(Outcome::Reboot), "{place}");
                        assert_eq!(last.sequence, sequence, "{place}");
                        assert!(matches!(last.result, LastResult::Failed(_)), "{place}: {last:?}");
                    }
                    OnFailure::Ignore => assert_eq!(last.result, LastResult::Done, "{place}"),
                }
                // A reset wipes it before its last steps.
                let is_kept = life.node.disk().has_config || end == Some(Sequence::Reset);
                assert!(is_kept, "{place}: the configuration is gone");
            }
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
    for kind in KINDS {
        for end in ends(kind) {
            for (sequence, step) in journal(kind, Disk::configured(), end).await {
                let life = Life::new(kind, Disk::configured(), Scripted::CutAfter(sequence, step));
                life.run(end).await;
                let disk = life.node.disk();
                let place = format!("{kind:?} {end:?}: {sequence}, {step:?}");
                let is_blank = kind == MachineKind::Machine && !disk.has_system;
                let next = Life::new(kind, disk, Scripted::Nothing);
                if is_blank {
                    // It was reset, and installs itself again.
                    assert_eq!(next.run(None).await, Some(Outcome::Reboot), "{place}");
                    continue;
                }
                assert_eq!(next.run(None).await, None, "{place}");
                assert_eq!(next.node.refusals(), [""; 0], "{place}");
                assert!(next.node.is_serving(), "{place}: it does not run again");
            }
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
        let facts = Facts { installed: true, control_plane, wipe_asked: false };
        let node = Life::new(kind, Disk::configured(), Scripted::Nothing);
        let actions = node.planner.actions.get().unwrap();
        let plan = node.planner.outline(&request, facts).unwrap().plan(actions, &request);
        let phases = plan.outline().map(|(phase, _)| phase);
        phases.take_while(|phase| !phase.starts_with("stop")).collect::<Vec<_>>().join(" ")
    };
    let shutdown = |force| Parameters::Shutdown(ShutdownParameters { force });
    let reset = |graceful| Parameters::Reset(ResetParameters { graceful, ..ResetParameters::default() });
    for kind in KINDS {
        assert_eq!(departure(kind, Sequence::Reboot, Parameters::None, true), "cleanup");
        assert_eq!(departure(kind, Sequence::Shutdown, shutdown(false), true), "drain cleanup");
        assert_eq!(departure(kind, Sequence::Shutdown, shutdown(true), true), "cleanup");
        assert_eq!(departure(kind, Sequence::Reset, reset(true), true), "drain cleanup leave preReset");
        assert_eq!(departure(kind, Sequence::Reset, reset(true), false), "drain cleanup preReset");
        assert_eq!(departure(kind, Sequence::Reset, reset(false), true), "cleanup preReset");
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
        let names: Vec<&str> = plan.outline().map(|(phase, _)| phase).skip(5).collect();
        names.join(" ")
    };
    assert_eq!(phases(WipeMode::All, &[], &[]), "forceCleanup reset");
    assert_eq!(phases(WipeMode::All, &["STATE"], &["/dev/vdb"]), "kexec forceCleanup resetSpec resetUserDisks");
    assert_eq!(phases(WipeMode::SystemDisk, &["BOOT"], &[]), "forceCleanup resetSpec");
    assert_eq!(phases(WipeMode::UserDisks, &[], &["/dev/vdb"]), "forceCleanup resetUserDisks");
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
    for (sequence, step) in journal(MachineKind::Machine, Disk::blank(), None).await {
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
