//! On parameters in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use controller::testing::Harness;
use parking_lot::Mutex;

use super::*;

/// Names and values; those that are read-only; every write that was tried.
#[derive(Debug, Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<String, String>,
    read_only: BTreeSet<String>,
    writes: Vec<String>,
}

impl Parameters for Fake {
    fn read(&self, param: &KernelParam) -> Result<String, KernelParamError> {
        let absent = || KernelParamError::Read { param: param.clone(), source: io::ErrorKind::NotFound.into() };
        self.value(name_of(param)).ok_or_else(absent)
    }

    fn write(&self, param: &KernelParam, value: &str) -> Result<(), KernelParamError> {
        let name = name_of(param);
        let mut state = self.0.lock();
        state.writes.push(name.clone());
        if state.read_only.contains(&name) || !state.values.contains_key(&name) {
            let source = io::ErrorKind::ReadOnlyFilesystem.into();
            return Err(KernelParamError::Write { param: param.clone(), value: value.to_owned(), source });
        }
        state.values.insert(name, value.to_owned());
        Ok(())
    }
}

/// A parameter of `/proc/sys` by its name, one of `/sys` by its id.
fn name_of(param: &KernelParam) -> String {
    match param.tree() {
        Tree::Sysctl => param.name().to_owned(),
        Tree::Sysfs => param.to_string(),
    }
}

fn id_of(name: &str) -> String {
    if name.starts_with("sys.") { name.to_owned() } else { id(Tree::Sysctl, name) }
}

impl Fake {
    fn value(&self, name: impl AsRef<str>) -> Option<String> {
        self.0.lock().values.get(name.as_ref()).cloned()
    }

    fn new(values: &[(&str, &str)]) -> Self {
        let fake = Self::default();
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        fake.0.lock().values = values.collect();
        fake
    }

    fn protect(&self, name: &str) {
        self.0.lock().read_only.insert(name.to_owned());
    }

    fn writes(&self) -> Vec<String> {
        self.0.lock().writes.clone()
    }
}

fn start(kernel: Ownership, parameters: &Fake) -> Harness {
    let harness = Harness::with(KernelParamSpecController::new(Box::new(parameters.clone())));
    harness.put(PlatformCapabilities::ID, PlatformCapabilities { kernel, ..Default::default() });
    harness
}

fn want(harness: &Harness, name: &str, value: &str, ignore_errors: bool) {
    harness.put(&id_of(name), KernelParamSpec { value: value.into(), ignore_errors });
}

fn status(harness: &Harness, name: &str) -> KernelParamStatus {
    KernelParamStatus::clone(&harness.get::<KernelParamStatus>(&id_of(name)).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_container_sets_what_is_its_own_and_never_the_hosts() {
    let parameters = Fake::new(&[("net.ipv4.ip_forward", "0"), ("kernel.panic", "1"), ("kernel.shmmni", "1")]);
    let harness = start(Ownership::Host, &parameters);
    want(&harness, "net.ipv4.ip_forward", "1", true);
    want(&harness, "kernel.shmmni", "2", false);
    want(&harness, "kernel.panic", "10", true);
    want(&harness, "kernel/panic", "10", false);
    harness.settle().await;
    let forward = status(&harness, "net.ipv4.ip_forward");
    assert_eq!((forward.current.as_str(), forward.default.as_str(), forward.unsupported), ("1", "0", false));
    let panic = status(&harness, "kernel.panic");
    assert_eq!((panic.current.as_str(), panic.default.as_str(), panic.unsupported), ("1", "1", true));
    assert_eq!(parameters.writes(), ["kernel.shmmni", "net.ipv4.ip_forward"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_container_may_not_set_is_tried_once_and_is_no_failure() {
    let parameters = Fake::new(&[("net.ipv4.tcp_keepalive_time", "7200")]);
    parameters.protect("net.ipv4.tcp_keepalive_time");
    let harness = start(Ownership::Host, &parameters);
    want(&harness, "net.ipv4.tcp_keepalive_time", "600", false);
    want(&harness, "net.core.absent", "1", false);
    harness.settle().await;
    harness.advance(Duration::from_secs(600)).await;
    assert_eq!(parameters.writes(), ["net.ipv4.tcp_keepalive_time"]);
    assert!(status(&harness, "net.ipv4.tcp_keepalive_time").unsupported);
    assert!(status(&harness, "net.core.absent").unsupported);
    assert_eq!(harness.status("runtime.KernelParamSpecController").failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_its_own_insists_on_what_the_configuration_says() {
    let parameters = Fake::new(&[("kernel.panic", "1")]);
    parameters.protect("kernel.panic");
    let harness = start(Ownership::Machine, &parameters);
    want(&harness, "kernel.panic", "10", false);
    harness.settle().await;
    assert!(harness.status("runtime.KernelParamSpecController").failures > 0);
    parameters.0.lock().read_only.clear();
    harness.advance(Duration::from_secs(30)).await;
    assert_eq!(status(&harness, "kernel.panic").current, "10");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_any_more_is_set_back() {
    let parameters = Fake::new(&[("net.ipv4.ip_forward", "0")]);
    let harness = start(Ownership::Host, &parameters);
    want(&harness, "net.ipv4.ip_forward", "1", false);
    harness.settle().await;
    harness.destroy::<KernelParamSpec>(&id_of("net.ipv4.ip_forward"));
    harness.settle().await;
    assert_eq!(parameters.value("net.ipv4.ip_forward").unwrap(), "0");
    assert!(harness.ids::<KernelParamStatus>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_set_before_it_is_known_whose_the_kernel_is() {
    let parameters = Fake::new(&[("net.ipv4.ip_forward", "0")]);
    let harness = Harness::with(KernelParamSpecController::new(Box::new(parameters.clone())));
    harness.run(KernelParamDefaultsController);
    harness.settle().await;
    assert_eq!((parameters.writes().len(), harness.ids::<KernelParamDefaultSpec>().len()), (0, 0));
    harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
    harness.settle().await;
    assert_eq!(parameters.writes(), ["net.ipv4.ip_forward"]);
    let specs = harness.ids::<KernelParamDefaultSpec>();
    assert!(specs.iter().any(|id| id == "proc.sys.fs.aio-max-nr"), "{specs:?}");
    assert!(!specs.iter().any(|id| id.contains("bridge-nf")), "{specs:?}");
}

fn configure(harness: &Harness, machine: &str) {
    let text = format!("version: v1alpha1\nmachine:\n  type: worker\n{machine}");
    harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
}

#[tokio::test(start_paused = true)]
async fn both_spellings_of_a_parameter_are_one() {
    let parameters = Fake::new(&[("net.core.somaxconn", "1")]);
    let harness = start(Ownership::Host, &parameters);
    harness.run(KernelParamConfigController);
    configure(&harness, "  sysctls: {net.core.somaxconn: \"10\", net/core/somaxconn: \"20\"}\n");
    harness.settle().await;
    assert_eq!(harness.ids::<KernelParamSpec>(), ["proc.sys.net.core.somaxconn"]);
    harness.advance(Duration::from_secs(600)).await;
    assert_eq!(parameters.writes().len(), 1, "they do not fight: {:?}", parameters.writes());
    assert_eq!(status(&harness, "net.core.somaxconn").current, "20");
    configure(&harness, "");
    harness.settle().await;
    assert_eq!(parameters.value("net.core.somaxconn").unwrap(), "1", "the value from before both");
}

const GOVERNOR: &str = "sys.devices.system.cpu.cpu0.cpufreq.scaling_governor";

#[tokio::test(start_paused = true)]
async fn the_configuration_comes_before_the_defaults_and_goes_back_to_them() {
    let parameters = Fake::new(&[("kernel.panic", "1"), ("kernel.kptr_restrict", "0"), (GOVERNOR, "powersave")]);
    let harness = start(Ownership::Machine, &parameters);
    harness.run(KernelParamDefaultsController);
    harness.run(KernelParamConfigController);
    configure(
        &harness,
        "  sysctls: {kernel.panic: \"30\"}\n  sysfs: {devices.system.cpu.cpu0.cpufreq.scaling_governor: performance}\n",
    );
    harness.settle().await;
    let spec = |id: &str| KernelParamSpec::clone(&harness.get::<KernelParamSpec>(id).unwrap());
    assert_eq!(harness.ids::<KernelParamSpec>(), ["proc.sys.kernel.panic", GOVERNOR]);
    assert_eq!(spec("proc.sys.kernel.panic"), KernelParamSpec { value: "30".into(), ignore_errors: false });
    assert_eq!(spec(GOVERNOR), KernelParamSpec { value: "performance".into(), ignore_errors: false });
    let default = harness.get::<KernelParamDefaultSpec>("proc.sys.kernel.panic").unwrap();
    assert_eq!(*default.spec, KernelParamDefaultSpec { value: "10".into(), ignore_errors: true });
    for name in ["net.bridge.bridge-nf-call-iptables", "kernel.panic_on_oops"] {
        assert!(harness.get::<KernelParamDefaultSpec>(&format!("proc.sys.{name}")).is_some(), "{name}");
    }
    let values = || ["kernel.panic", "kernel.kptr_restrict", GOVERNOR].map(|name| parameters.value(name).unwrap());
    assert_eq!(values(), ["30", "1", "performance"]);
    let governor = status(&harness, GOVERNOR);
    assert_eq!((governor.current.as_str(), governor.default.as_str()), ("performance", "powersave"));
    configure(&harness, "");
    harness.settle().await;
    assert_eq!(values(), ["10", "1", "powersave"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_leaves_all_of_sysfs_to_the_host() {
    let parameters = Fake::new(&[(GOVERNOR, "powersave"), ("sys.net.x", "1")]);
    let harness = start(Ownership::Host, &parameters);
    want(&harness, GOVERNOR, "performance", false);
    want(&harness, "sys.net.x", "2", false);
    want(&harness, "sys.absent", "1", false);
    harness.settle().await;
    assert_eq!(parameters.writes(), Vec::<String>::new());
    let governor = status(&harness, GOVERNOR);
    assert_eq!((governor.current.as_str(), governor.unsupported), ("powersave", true));
    assert!(status(&harness, "sys.absent").unsupported);
    assert_eq!(harness.status("runtime.KernelParamSpecController").failures, 0);
}

#[test]
fn a_machine_of_its_own_has_no_host_to_speak_of() {
    assert!(refusal(Ownership::Host).contains("host"));
    assert!(!refusal(Ownership::Machine).contains("host"));
}
