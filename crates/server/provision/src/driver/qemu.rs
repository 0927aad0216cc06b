//! Nodes as virtual machines of QEMU, each with a tap on every bridge of the cluster.
//!
//! A machine's process ends whenever the machine is reset or powers off, and its monitor starts none again: whoever keeps the
//! nodes (the agent, or the command that brings the cluster up) asks how it ended and powers it on again after a reset. So a
//! reset makes a new process, which decides anew where to boot from. The agent gives machines what their hardware expects of a
//! network: addresses, boot files, configurations (see `agent`).

mod arguments;
mod disks;
mod firmware;
mod image;
mod link;
mod machine;
pub(super) mod monitor;
mod qmp;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand;

use super::launched::{self, Launched, exit_of};
use super::{Ended, Exit, NodeDriver, NodeStatus, Seed};
use crate::agent_record::AgentRecord;
use crate::boot::{self, files};
use crate::command::{self, NEEDED_BY_MACHINES, QEMU_IMG, SWTPM, TC, Tool, UNSHARE};
use crate::error::{DriverError, HostError, Problem};
use crate::folder::{self, Folder, make_folder, write_private};
use crate::machines::{self, DiskBus, Firmware, MachineSettings, Media};
use crate::network;
use crate::plan::{Network, Plan, PlannedNode};
use crate::process::Identity;
use crate::program::Launcher;
use crate::spec::{ClusterSpec, Limits};

use self::machine::{Card, Machine};

pub(super) use self::machine::exists as is_machine;

/// How long the emulator may take to end.
const GRACE: Duration = Duration::from_secs(5);
/// A machine with less does not unpack its initramfs.
const LEAST_MEMORY: u64 = 512 << 20;
/// Of a machine that was given none.
const USUAL_MEMORY: u64 = 2 << 30;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct QemuDriver {
    folder: Folder,
    cluster: String,
    launcher: Launcher,
    settings: MachineSettings,
}

#[async_trait]
impl NodeDriver for QemuDriver {
    fn problems(&self, spec: &ClusterSpec) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !rustix::process::geteuid().is_root() {
            let what = "virtual machines need a bridge and taps, which only root can make";
            problems.push(Problem::new(what, "run the command by sudo"));
        }
        let Some(settings) = spec.driver.machines() else { return problems };
        let mut tools = NEEDED_BY_MACHINES.to_vec();
        tools.extend(matches!(settings.media, Media::DiskImage(_)).then_some(QEMU_IMG));
        tools.extend(settings.tpm.then_some(SWTPM));
        tools.extend(settings.impairment.iter().flat_map(|_| [TC, UNSHARE]));
        let missing = command::missing(&tools);
        if missing.is_empty() {
            problems.extend(settings.impairment.and_then(link::problem));
        }
        problems.extend(missing);
        problems.extend(firmware::find(&settings.firmware).err());
        problems.extend(missing_files(settings));
        problems.extend(disks::too_little_room(self.folder.path(), settings, spec.plan.nodes.len()));
        if !Path::new("/dev/net/tun").exists() {
            problems.push(Problem::new("this machine has no /dev/net/tun, which taps need", "modprobe tun"));
        }
        let ide = settings.extra_disks.iter().filter(|disk| disk.bus == DiskBus::Ide).count();
        if ide > arguments::IDE_DISKS {
            let what = format!("{ide} extra disks on SATA, which has room for {}", arguments::IDE_DISKS);
            problems.push(Problem::new(what, "choose other buses by --extra-disks-drivers"));
        }
        problems
    }

    fn notices(&self, plan: &Plan) -> Vec<String> {
        network::host_firewall::notices(plan)
    }

    async fn prepare(&self, spec: &ClusterSpec) -> Result<(), DriverError> {
        let spec = spec.clone();
        self.blocking(move |driver| {
            network::create(&spec)?;
            Ok(disks::unpack_image(&driver.settings, &driver.folder.disk_image())?)
        })
        .await
    }

    async fn open_port(&self, plan: &Plan, port: u16) -> Result<(), DriverError> {
        let plan = plan.clone();
        self.blocking(move |_| Ok(network::open_port(&plan, port)?)).await
    }

    async fn seed(&self, plan: &Plan, node: &PlannedNode, seed: Seed<'_>) -> Result<(), DriverError> {
        let (plan, node) = (plan.clone(), node.clone());
        let (user_data, limits) = (seed.user_data.map(<[u8]>::to_vec), seed.limits);
        self.blocking(move |driver| driver.make(&plan, &node, user_data.as_deref(), limits)).await
    }

    async fn start(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        let (plan, node) = (plan.clone(), node.clone());
        self.blocking(move |driver| driver.power_on(&plan, &node)).await
    }

    async fn has_ended(&self, node: &PlannedNode) -> Result<Option<Ended>, DriverError> {
        Ok(self.ended(&node.name))
    }

    async fn power_cycle(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        let (plan, node) = (plan.clone(), node.clone());
        self.blocking(move |driver| {
            driver.power_off(&node.name)?;
            link::detach(&plan, &node)?;
            driver.power_on(&plan, &node)
        })
        .await
    }

    async fn remove(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        let (plan, node) = (plan.clone(), node.clone());
        self.blocking(move |driver| {
            driver.power_off(&node.name)?;
            link::detach(&plan, &node)?;
            driver.withdraw(&node.name)?;
            let data = driver.folder.node(&node.name);
            let removed = std::fs::remove_dir_all(&data);
            if data.exists() { Ok(removed.map_err(HostError::io("removing", &data))?) } else { Ok(()) }
        })
        .await
    }

    async fn report(&self, node: &PlannedNode) -> Result<NodeStatus, DriverError> {
        let Some(launched) = Launched::read(&self.folder, &node.name) else { return Ok(NodeStatus::Absent) };
        Ok(match self.ended(&node.name) {
            Some(ended) => NodeStatus::Ended(ended),
            None => NodeStatus::Running { pid: launched.init.pid.unsigned_abs() },
        })
    }

    async fn remove_all(&self) -> Vec<DriverError> {
        let removed = self.blocking(|driver| Ok(driver.remove_everything())).await;
        removed.unwrap_or_else(|error| vec![error])
    }

    fn has_traces(&self) -> bool {
        !network::links(&self.cluster).is_empty()
            || network::has_table(&self.cluster)
            || !emulators(&self.cluster).is_empty()
            || !monitors(&self.cluster).is_empty()
    }
}

impl QemuDriver {
    pub(super) fn new(folder: Folder, cluster: &str, launcher: Launcher, settings: MachineSettings) -> Self {
        Self { folder, cluster: cluster.to_owned(), launcher, settings }
    }

    /// Runs a step that waits for tools of the host.
    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Self) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let driver = self.clone();
        tokio::task::spawn_blocking(move || step(&driver)).await.map_err(DriverError::Panicked)?
    }

    fn make(
        &self,
        plan: &Plan,
        node: &PlannedNode,
        user_data: Option<&[u8]>,
        limits: Limits,
    ) -> Result<(), DriverError> {
        let unusable = |reason: String| DriverError::Unusable { subject: format!("node {}", node.name), reason };
        let milli = limits.milli_cpus.unwrap_or_else(|| machines::usual_cpus(self.settings.accelerator));
        let memory = limits.memory.unwrap_or(USUAL_MEMORY);
        if memory < LEAST_MEMORY {
            return Err(unusable(format!("a machine needs {} MiB of memory", LEAST_MEMORY >> 20)));
        }
        let firmware = firmware::find(&self.settings.firmware).map_err(|problem| unusable(problem.to_string()))?;
        let own = self.folder.node(&node.name);
        let image = disks::image_of(&self.settings, &self.folder.disk_image());
        disks::make(&own, &self.settings, firmware.as_ref(), image.as_deref())?;
        self.withdraw(&node.name)?;
        let configuration = user_data.map(|data| self.publish(plan, &node.name, data)).transpose()?;
        let card = |network: &Network| {
            let mac = machines::mac(plan, node, network).map(|byte| format!("{byte:02x}"));
            Card { mac: mac.join(":"), link: plan.link(node, network) }
        };
        let machine = Machine {
            cluster: plan.name.clone(),
            node: node.name.clone(),
            uuid: uuid(random()?),
            cards: plan.networks().iter().map(card).collect(),
            cpus: milli.div_ceil(1000).max(1),
            memory,
            settings: self.settings.clone(),
            firmware: firmware.map(|found| found.code),
            configuration,
        };
        Ok(machine.write(&self.folder)?)
    }

    /// Lets the agent serve a configuration at an address that only its machine is told.
    fn publish(&self, plan: &Plan, node: &str, configuration: &[u8]) -> Result<String, DriverError> {
        let none = || DriverError::Unusable {
            subject: format!("configuration of node {node}"),
            reason: "the cluster's agent, which serves it, does not run".to_owned(),
        };
        let port = AgentRecord::read(&self.folder).ok_or_else(none)?.registry_port;
        let secret = stdx::hex(&random()?);
        let folder = self.folder.configurations();
        make_folder(&folder)?;
        write_private(&folder.join(&secret), configuration)?;
        Ok(files::configuration_url(plan.gateway, port, &secret))
    }

    /// Takes back what [`Self::publish`] did.
    fn withdraw(&self, node: &str) -> Result<(), HostError> {
        let Ok(machine) = Machine::read(&self.folder, node) else { return Ok(()) };
        let Some(secret) = machine.configuration.as_deref().and_then(files::secret_of) else { return Ok(()) };
        let path = self.folder.configurations().join(secret);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(HostError::io("removing", &path)(error)),
            _ => Ok(()),
        }
    }

    /// How the machine of the last start ended; none while it runs, or while its monitor is about to say.
    fn ended(&self, node: &str) -> Option<Ended> {
        let launched = Launched::read(&self.folder, node).filter(|launched| !launched.init.is_alive())?;
        if let Some(ended) = qmp::end(&machine::events(&self.folder, node)) {
            return Some(ended);
        }
        match exit_of(&self.folder, node, &launched.init) {
            Some(exit) => Some(Ended::Crashed(exit)),
            None if launched.monitor.is_some_and(|monitor| monitor.is_alive()) => None,
            None => Some(Ended::Crashed(Exit::Unknown)),
        }
    }

    fn power_on(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        link::attach(plan, node, self.settings.impairment)?;
        make_folder(&self.folder.logs())?;
        launched::start_monitor(&self.launcher, &self.folder, &node.name)
    }

    /// Ends the processes of a machine, however far its start came.
    fn power_off(&self, node: &str) -> Result<(), HostError> {
        let emulator = Launched::read(&self.folder, node).map(|launched| launched.init);
        let tpm = Identity::read(&machine::tpm(&self.folder, node));
        for process in emulator.into_iter().chain(tpm) {
            end(&process, &format!("node {node}"))?;
        }
        launched::end_monitor(&self.folder, node)
    }

    /// Also machines that the plan does not name, and such whose folder is gone.
    fn remove_everything(&self) -> Vec<DriverError> {
        let mut errors = Vec::new();
        let owner = format!("cluster {}", self.cluster);
        // First those that start the others, and may be about to.
        for process in monitors(&self.cluster) {
            errors.extend(end(&process, &owner).err());
        }
        for node in folder::names(&self.folder.nodes()) {
            errors.extend(self.power_off(&node).err());
        }
        for process in emulators(&self.cluster).into_iter().chain(residents(&self.folder)) {
            errors.extend(end(&process, &owner).err());
        }
        network::remove(&self.cluster, &mut errors);
        errors.into_iter().map(DriverError::from).collect()
    }
}

fn missing_files(settings: &MachineSettings) -> Vec<Problem> {
    let mut settings = settings.clone();
    let missing = settings.files_mut().into_iter().filter(|path| !path.exists());
    let remedy = "`cargo xtask up --provisioner qemu` builds the system's files; flags name others";
    let mut problems: Vec<Problem> =
        missing.map(|path| Problem::new(format!("{} does not exist", path.display()), remedy)).collect();
    let needed = match (&settings.media, &settings.firmware) {
        (Media::Network(_), Firmware::Bios) => Some(boot::IPXE_BIOS.1),
        (Media::Network(_), Firmware::Uefi { .. }) => Some(boot::IPXE_UEFI.1),
        _ => None,
    };
    if let Some(path) = needed.filter(|path| !Path::new(path).exists()) {
        problems
            .push(Problem::new(format!("{path} does not exist"), format!("apt-get install {}", boot::IPXE_PACKAGE)));
    }
    problems
}

fn end(process: &Identity, owner: &str) -> Result<(), HostError> {
    if process.end(GRACE) {
        return Ok(());
    }
    Err(HostError::StillRunning { owner: owner.to_owned(), processes: vec![process.pid.unsigned_abs()] })
}

/// Where a machine fetches its configuration, if it was given one.
pub(crate) fn configuration_url(folder: &Folder, node: &str) -> Option<String> {
    Machine::read(folder, node).ok()?.configuration
}

/// The emulators of a cluster, by the name that each has among its arguments.
fn emulators(cluster: &str) -> Vec<Identity> {
    let prefix = machine::process_prefix(cluster);
    let is_named = |line: &[u8]| named(line).is_some_and(|name| name.starts_with(prefix.as_bytes()));
    processes(|pid| is_named(&arguments_of(pid)))
}

/// The monitors of a cluster, also those that have not said yet what they started: whoever waited for them may be gone.
fn monitors(cluster: &str) -> Vec<Identity> {
    processes(|pid| monitors_in(&arguments_of(pid), cluster))
}

/// Emulators and TPMs that run in the folder of a machine of the cluster, whatever else does.
fn residents(folder: &Folder) -> Vec<Identity> {
    let nodes = folder.nodes();
    let is_in = |pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place.starts_with(&nodes));
    processes(|pid| is_in(pid) && [command::QEMU, SWTPM].iter().any(|tool| runs(&arguments_of(pid), *tool)))
}

fn processes(wanted: impl Fn(i32) -> bool) -> Vec<Identity> {
    let all = folder::names(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<i32>().ok());
    all.filter(|pid| wanted(*pid)).filter_map(Identity::of).collect()
}

/// Each followed by a zero; nothing of a process that is gone.
fn arguments_of(pid: i32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// The name in the arguments of an emulator.
fn named(line: &[u8]) -> Option<&[u8]> {
    runs(line, command::QEMU).then_some(())?;
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.find(|argument| argument == b"-name")?;
    arguments.next()
}

/// Whether these are the arguments of a tool of the host.
fn runs(line: &[u8], tool: Tool) -> bool {
    line.split(|byte| *byte == 0).next().is_some_and(|program| program.ends_with(tool.program.as_bytes()))
}

/// Whether these are the arguments of a monitor of the cluster.
fn monitors_in(line: &[u8], cluster: &str) -> bool {
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.windows(3).any(|three| three == [b"--name".as_slice(), cluster.as_bytes(), b"--monitor"])
}

fn random() -> Result<[u8; 16], DriverError> {
    let mut bytes = [0; 16];
    let none = |_| DriverError::Unusable { subject: "this host".to_owned(), reason: "it has no randomness".to_owned() };
    rand::fill(&mut bytes).map_err(none)?;
    Ok(bytes)
}

/// A random UUID (version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = stdx::hex(&bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn an_emulator_is_known_by_its_name_among_its_arguments() {
        let line = b"/usr/bin/qemu-system-x86_64\0-nodefaults\0-name\0talos:one:one-worker-1\0-m\0".as_slice();
        assert_eq!(named(line), Some(b"talos:one:one-worker-1".as_slice()));
        assert_eq!(named(b"vi\0-name\0talos:one:one-worker-1\0"), None);
        assert_eq!(named(b"/usr/bin/qemu-system-x86_64\0-m\0"), None);
        let line = b"/bin/talosctl\0cluster\0agent\0--state\0/c\0--name\0one\0--monitor\0one-worker-1\0";
        assert!(monitors_in(line, "one") && !monitors_in(line, "on"));
        assert!(!monitors_in(b"/bin/talosctl\0cluster\0agent\0--state\0/c\0--name\0one\0--guard\0", "one"));
    }
}
