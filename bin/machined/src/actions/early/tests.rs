use sys::early::{Call, FakeEarlySystem};

use super::*;

const ARGUMENTS: &str = "console=ttyS0 slab_nomerge pti=on talos.platform=metal";
const ROOT: [&str; 15] = [
    "/",
    "/dev",
    "/run",
    "/system",
    "/tmp",
    "/etc",
    "/sys",
    "/sys/fs",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/fs/pstore",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/kernel/debug",
    "/sys/firmware/efi/efivars",
];
const KINDS: [&str; 11] = [
    "tmpfs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "securityfs",
    "tracefs",
    "debugfs",
    "pstore",
    "bpf",
    "cgroup2",
    "efivarfs",
];

/// A machine as init leaves it.
fn machine_with(arguments: &str, kinds: &[&'static str], params: &[(&str, &str)]) -> FakeEarlySystem {
    let mut kinds = kinds.to_vec();
    kinds.extend(["tmpfs", "devtmpfs"]);
    let system = FakeEarlySystem::new(&ROOT, &kinds, params)
        .with_text("/proc/cmdline", arguments)
        .with_text("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
    for target in ["/dev", "/run", "/system", "/tmp"] {
        let kind = if target == "/dev" { "devtmpfs" } else { "tmpfs" };
        system.mount(&SystemMount { kind, target, flags: STRICT, data: "" }).unwrap();
    }
    system
}

fn params() -> Vec<(&'static str, &'static str)> {
    KSPP_PARAMETERS.iter().map(|(name, _)| (*name, "0")).collect()
}

fn machine() -> FakeEarlySystem {
    machine_with(ARGUMENTS, &KINDS, &params())
}

#[test]
fn a_machine_without_the_arguments_is_told_which_ones() {
    for (arguments, expected) in [
        ("quiet", vec!["slab_nomerge", "pti=on"]),
        ("slab_nomerge pti=off", vec!["pti=on"]),
        ("pti=on", vec!["slab_nomerge"]),
    ] {
        let error = kspp(&machine_with(arguments, &KINDS, &params())).unwrap_err();
        assert!(matches!(&error, KsppError::Arguments { missing } if *missing == expected), "{error}");
    }
}

#[test]
fn arguments_that_turn_protections_off_are_named_and_accepted() {
    let line = format!("{ARGUMENTS} nopti mitigations=off mitigations=auto spectre_v2=off init_on_alloc=1");
    assert_eq!(weakening(&Cmdline::parse(&line)), ["nopti", "mitigations=off", "spectre_v2=off"]);
    assert_eq!(weakening(&Cmdline::parse(&format!("{ARGUMENTS} {}", cmdline::DEFAULTS))), [""; 0]);
    kspp(&machine_with(&line, &KINDS, &params())).unwrap();
}

#[test]
fn arguments_without_an_effect_are_named_once() {
    let line = "talos.events.sink=10.0.0.1:1 talos.events.sink=10.0.0.2:1 talos.unified_cgroup_hierarchy=1 talos.new=1 \
                talos.config.oauth.client_id=x talos.dashboard.disabled quiet";
    let named: Vec<String> = ignored(&Cmdline::parse(line)).into_iter().map(|(key, _)| key).collect();
    assert_eq!(named, ["talos.events.sink", "talos.new", "talos.dashboard.disabled"]);
    assert_eq!(ignored(&Cmdline::parse("talos.unified_cgroup_hierarchy=0")).len(), 1);
    assert_eq!(ignored(&Cmdline::parse(&format!("{ARGUMENTS} {} talos.hostname=a", cmdline::DEFAULTS))), []);
    for (key, _) in WITHOUT_EFFECT {
        assert!(!WITH_EFFECT.contains(&key), "{key}");
    }
}

#[test]
fn parameters_are_set_and_one_that_does_not_change_is_named() {
    let system = machine();
    kspp(&system).unwrap();
    let set = system.calls().into_iter().filter(|call| matches!(call, Call::Param(..))).count();
    assert_eq!(set, KSPP_PARAMETERS.len());
    let mut fixed = params();
    fixed[4].1 = "!7";
    let error = kspp(&machine_with(ARGUMENTS, &KINDS, &fixed)).unwrap_err();
    assert!(matches!(&error, KsppError::Parameter { value, wanted: "0", .. } if value == "7"), "{error}");
    let error = kspp(&machine_with(ARGUMENTS, &KINDS, &fixed[..3])).unwrap_err();
    assert!(matches!(error, KsppError::Unknown(EarlyError::Param(_))), "{error}");
}

#[test]
fn filesystems_that_the_kernel_lacks_are_left_out_but_control_groups_are_required() {
    let system = machine_with(ARGUMENTS, &["devpts", "tracefs"], &[]);
    pseudo_filesystems(&system).unwrap();
    assert_eq!((system.mounted("/dev/pts"), system.mounted("/sys/kernel/tracing")), (Some("devpts"), Some("tracefs")));
    assert_eq!(system.mounted("/dev/mqueue"), None);
    assert_eq!(system.mounted("/sys/firmware/efi/efivars"), None, "not started by UEFI");
    let error = cgroup_filesystem(&system).unwrap_err();
    assert!(error.is_unknown_filesystem(), "{error}");
    let uefi = machine().with_text("/sys/firmware/efi/fw_platform_size", "64\n");
    pseudo_filesystems(&uefi).unwrap();
    assert_eq!(uefi.mounted("/sys/firmware/efi/efivars"), Some("efivarfs"));
}

#[test]
fn groups_delegate_all_controllers_and_machined_has_its_own() {
    let system = machine();
    cgroup_filesystem(&system).unwrap();
    cgroups(&system).unwrap();
    let text = |path: &str| system.text(&format!("/sys/fs/cgroup/{path}"));
    assert_eq!(text("init/cgroup.procs").as_deref(), Some("0"));
    for group in ["", "system/", "podruntime/"] {
        let control = text(&format!("{group}cgroup.subtree_control"));
        assert_eq!(control.as_deref(), Some("+cpuset +cpu +io +memory +pids"), "{group}");
    }
    assert_eq!(text("system/runtime/cgroup.subtree_control"), None);
}

#[test]
fn a_container_has_no_directories_for_disks_and_devices() {
    let made = |kind| {
        let system = machine();
        let before = system.calls().len();
        directories(&system, kind).unwrap();
        system.calls().len() - before
    };
    assert_eq!((made(MachineKind::Container), made(MachineKind::Machine)), (8, 13));
}

#[test]
fn a_kernel_is_told_what_to_measure_if_it_can_measure() {
    let system = machine().with_text(IMA_POLICY, "");
    ima_policy(&system).unwrap();
    let rules = system.text(IMA_POLICY).unwrap();
    assert_eq!(rules.lines().count(), IMA_RULES.len());
    let is_rule = |line: &str| line.starts_with("measure func=") || line.starts_with("dont_measure fsmagic=0x");
    assert!(rules.lines().all(is_rule) && rules.len() < 4096, "{rules}");
    let without = machine();
    ima_policy(&without).unwrap();
    assert_eq!(without.text(IMA_POLICY), None);
    let refusing = machine().with_text(IMA_POLICY, "");
    refusing.fail_at(refusing.calls().len());
    assert!(matches!(ima_policy(&refusing), Err(EarlyError::Write { .. })));
}

type Early = fn(&dyn EarlySystem) -> Result<(), EarlyFailure>;

/// Of any of the steps.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum EarlyFailure {
    Kspp(#[from] KsppError),
    Early(#[from] EarlyError),
}

impl EarlyFailure {
    /// Whether it is the one that the test made.
    fn was_made(&self) -> bool {
        stdx::error_chain(self).ends_with("made to fail")
    }
}

/// In the order of the plan; a failure ends the boot at that step and never passes for success.
#[test]
fn each_call_that_fails_is_the_failure_of_its_step() {
    let steps: [Early; 7] = [
        |system| Ok(kspp(system)?),
        |system| Ok(directories(system, MachineKind::Machine)?),
        |system| Ok(cgroup_filesystem(system)?),
        |system| Ok(pseudo_filesystems(system)?),
        |system| Ok(limits(system)?),
        |system| Ok(cgroups(system)?),
        |system| Ok(os_release(system)?),
    ];
    let run = |system: &FakeEarlySystem| steps.iter().try_for_each(|step| step(system));
    let whole = machine();
    let before = whole.calls().len();
    run(&whole).unwrap();
    let calls = whole.calls().len();
    assert!(calls - before > 40, "{calls}");
    for call in before..calls {
        let system = machine();
        system.fail_at(call);
        let failure = run(&system).expect_err("a call failed unseen");
        assert!(failure.was_made(), "call {call}: {failure}");
        assert_eq!(system.calls().len(), call + 1, "it went on after a failure");
    }
}
