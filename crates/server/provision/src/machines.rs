//! Settings of a cluster's virtual machines: what they are made of, where they boot from, and how well their network works.
//!
//! They are decided before a cluster is made and kept in its state. Nothing here touches the host, but for the question
//! whether hardware virtualization works ([`accelerator`]).

pub mod accelerator;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ::machine::cmdline::DEFAULTS;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::plan::{Network, Plan, PlannedNode};

pub use accelerator::Accelerator;

/// The disk that the system is installed on.
pub const INSTALL_DISK: &str = "/dev/vda";

/// Arguments of a machine of ours, beside those of every machine: one console, and resets that the emulator sees.
///
/// The original adds `talos.shutdown=halt`, because its launcher starts every machine again that ends. Here the monitor
/// knows a power-off from a reset, so a machine that is shut down really ends.
const KERNEL_ARGUMENTS: [&str; 4] = ["console=ttyS0", "reboot=k", "panic=1", "talos.platform=metal"];

/// Kernel arguments where the processor is emulated: it speculates on nothing that page tables of its own would hide from user space, and every
/// change of them costs it its translations. It keeps those of memory that held programs of the system before a kexec, and
/// looks through them at each write to it, until they are gone: starting through the firmware, in an emulator of its own, is
/// faster. What an operator sets, like `pti=on`, comes later and wins.
pub const EMULATED: [&str; 2] = ["nopti", "sysctl.kernel.kexec_load_disabled=1"];

/// CPUs of a machine where nobody asked for another number, in thousandths. One where the processor is emulated: guests with several
/// crash now and then (QEMU 7.2).
pub(crate) fn usual_cpus(accelerator: Accelerator) -> u64 {
    match accelerator {
        Accelerator::Kvm => 2000,
        Accelerator::Tcg => 1000,
    }
}

/// Settings of all machines of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSettings {
    pub accelerator: Accelerator,
    pub firmware: Firmware,
    pub media: Media,
    /// Added to the kernel's arguments, after ours.
    pub kernel_arguments: Vec<String>,
    /// Whether a machine boots from its disk once something is on it; otherwise always from its media.
    pub boots_from_disk: bool,
    pub disk: SystemDisk,
    /// Disks that the configurations partition and mount.
    #[serde(default)]
    pub user_disks: Vec<UserDisk>,
    pub extra_disks: Vec<ExtraDisk>,
    /// A TPM 2.0 for each machine, by `swtpm`.
    pub tpm: bool,
    pub clock: MachineClock,
    pub dhcp: DhcpSettings,
    /// Port of the Kubernetes API, of control planes and of their load balancer on the gateway.
    pub api_port: u16,
    pub impairment: Option<Impairment>,
    /// The OCI layout that has the installer, which the cluster's registry serves beside its bundle.
    pub installer: Option<PathBuf>,
}

/// The program that a machine starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Firmware {
    Bios,
    /// OVMF, looked for in these folders before the usual ones.
    Uefi {
        folders: Vec<PathBuf>,
    },
}

/// Where a machine boots from while its disk is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Media {
    /// These files, loaded by the emulator itself, with our kernel arguments.
    Kernel {
        kernel: PathBuf,
        initramfs: PathBuf,
    },
    Iso(PathBuf),
    /// Nothing: the disk begins with this image.
    DiskImage(PathBuf),
    /// The network: iPXE with this script.
    Network(BootScript),
}

/// What iPXE is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BootScript {
    /// To go on with the script at this address.
    Url(String),
    /// To load these files with our kernel arguments, from the cluster's agent.
    Files { kernel: PathBuf, initramfs: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemDisk {
    /// In bytes.
    pub size: u64,
    /// Whether its blocks are allocated when it is made.
    pub preallocate: bool,
}

/// A disk with one partition after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserDisk {
    pub partitions: Vec<UserPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserPartition {
    /// Where a machine mounts it, below `/var`.
    pub mountpoint: String,
    /// In bytes.
    pub size: u64,
}

impl UserDisk {
    /// Room for the tables at both ends, and for partitions that begin at whole mebibytes.
    const MARGIN: u64 = 1 << 20;

    /// In bytes.
    fn size(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.size.next_multiple_of(Self::MARGIN)).sum::<u64>()
            + 2 * Self::MARGIN
    }
}

/// The device of a user disk in machines, by its number from 0. The first disk is the system's.
pub(crate) fn user_device(number: usize) -> String {
    let letter = u8::try_from(number).ok().and_then(|number| b'b'.checked_add(number)).unwrap_or(b'z');
    format!("/dev/vd{}", char::from(letter))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtraDisk {
    /// In bytes.
    pub size: u64,
    pub bus: DiskBus,
}

/// How an extra disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    /// SATA, which `ide` means on this kind of machine.
    Ide,
    Nvme,
    Scsi,
    Usb,
    Virtio,
}

impl DiskBus {
    /// The bus of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ide" | "ahci" => Self::Ide,
            "nvme" => Self::Nvme,
            "scsi" => Self::Scsi,
            "usb" => Self::Usb,
            "virtio" => Self::Virtio,
            _ => return None,
        })
    }
}

/// A machine's clock at power-on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MachineClock {
    Right,
    /// Years behind.
    Wrong,
}

/// What the DHCP server gives beside addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DhcpSettings {
    pub hostnames: bool,
    pub resolvers: Vec<Ipv4Addr>,
}

/// How bad the network of each machine is. A limited bandwidth excludes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Impairment {
    /// In kilobits a second.
    Bandwidth(u64),
    /// Of packets to a machine; shares in millionths of all.
    Packets { latency: Duration, jitter: Duration, loss: u32, reorder: u32, corrupt: u32 },
}

impl MachineSettings {
    /// Files of the operator that machines use.
    pub(crate) fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut files: Vec<&mut PathBuf> = self.installer.iter_mut().collect();
        match &mut self.media {
            Media::Kernel { kernel, initramfs } | Media::Network(BootScript::Files { kernel, initramfs }) => {
                files.extend([kernel, initramfs]);
            }
            Media::Iso(path) | Media::DiskImage(path) => files.push(path),
            Media::Network(BootScript::Url(_)) => {}
        }
        files
    }

    /// All disks after the system's, in the order in which a machine has them.
    pub(crate) fn more_disks(&self) -> Vec<ExtraDisk> {
        let user = self.user_disks.iter().map(|disk| ExtraDisk { size: disk.size(), bus: DiskBus::Virtio });
        user.chain(self.extra_disks.iter().copied()).collect()
    }

    /// The kernel's arguments while a machine boots from its medium, without the address of the configuration.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        DEFAULTS.split_whitespace().map(str::to_owned).chain(self.installed_arguments()).collect()
    }

    /// Arguments for the installed system, which has the defaults by itself.
    #[must_use]
    pub fn installed_arguments(&self) -> Vec<String> {
        let emulated: &[&str] = if self.accelerator == Accelerator::Tcg { &EMULATED } else { &[] };
        let ours = KERNEL_ARGUMENTS.iter().chain(emulated).copied().map(str::to_owned);
        ours.chain(self.kernel_arguments.iter().cloned()).collect()
    }

    /// Where the operator's kernel arguments have less effect than one could think.
    pub(crate) fn arguments_without_effect(&self) -> Option<&'static str> {
        if self.kernel_arguments.is_empty() || self.injects_configurations() {
            return None;
        }
        Some(match self.media {
            Media::DiskImage(_) => {
                "extra kernel arguments have no effect: those of a disk image are in it, `imager` makes images with others"
            }
            _ => "extra kernel arguments are those of the installed system; the medium has its own",
        })
    }

    /// Whether machines learn the address of their configuration from kernel arguments of ours.
    #[must_use]
    pub fn injects_configurations(&self) -> bool {
        matches!(self.media, Media::Kernel { .. } | Media::Network(BootScript::Files { .. }))
    }
}

impl Default for MachineSettings {
    /// An emulated machine with UEFI and no extras.
    fn default() -> Self {
        Self {
            accelerator: Accelerator::Tcg,
            firmware: Firmware::Uefi { folders: Vec::new() },
            media: Media::Kernel { kernel: PathBuf::new(), initramfs: PathBuf::new() },
            kernel_arguments: Vec::new(),
            boots_from_disk: true,
            disk: SystemDisk { size: 6144 << 20, preallocate: true },
            user_disks: Vec::new(),
            extra_disks: Vec::new(),
            tpm: false,
            clock: MachineClock::Right,
            dhcp: DhcpSettings { hostnames: true, resolvers: Vec::new() },
            api_port: 6443,
            impairment: None,
            installer: None,
        }
    }
}

/// The hardware address of a machine in a network, which follows from the cluster's name and the node's slot.
pub(crate) fn mac(plan: &Plan, node: &PlannedNode, network: &Network) -> [u8; 6] {
    let side = if network.number == 0 { String::new() } else { format!("/{}", network.number) };
    let digest = digest::digest(&digest::SHA256, format!("{}/{}{side}", plan.name, node.slot).as_bytes());
    let digest = digest.as_ref();
    // Administered locally, for one station.
    [digest[0] & 0xfc | 0x02, digest[1], digest[2], digest[3], digest[4], digest[5]]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::NodeSpec;

    /// Settings with something in each field.
    pub(crate) fn settings() -> MachineSettings {
        MachineSettings {
            kernel_arguments: vec!["talos.debug".to_owned()],
            media: Media::Kernel { kernel: "/assets/vmlinuz".into(), initramfs: "/assets/initramfs.xz".into() },
            extra_disks: vec![ExtraDisk { size: 1 << 30, bus: DiskBus::Ide }],
            tpm: true,
            dhcp: DhcpSettings { hostnames: true, resolvers: vec![[8, 8, 8, 8].into()] },
            impairment: Some(Impairment::Bandwidth(1000)),
            ..MachineSettings::default()
        }
    }

    #[test]
    fn hardware_addresses_are_local_ones_of_one_station_and_differ() {
        let nodes = NodeSpec { controlplanes: 1, workers: 50 };
        let plans = ["one", "two"].map(|name| {
            let mut plan = Plan::new(name, "10.5.0.0/24", 1500, &nodes).unwrap();
            plan.add_network("10.6.0.0/24").unwrap();
            plan
        });
        let of = |plan: &Plan| -> Vec<[u8; 6]> {
            let networks = plan.networks();
            networks.iter().flat_map(|network| plan.nodes.iter().map(move |node| mac(plan, node, network))).collect()
        };
        let all: Vec<[u8; 6]> = plans.iter().flat_map(of).collect();
        assert!(all.iter().all(|mac| mac[0] & 3 == 2), "{all:?}");
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn user_disks_come_before_extra_disks_with_room_for_their_tables() {
        let partition = |size| UserPartition { mountpoint: "/var/mnt/a".to_owned(), size };
        let user_disks = vec![UserDisk { partitions: vec![partition(1), partition(5 << 20)] }];
        let settings = MachineSettings { user_disks, ..settings() };
        let extra = ExtraDisk { size: 1 << 30, bus: DiskBus::Ide };
        assert_eq!(settings.more_disks(), [ExtraDisk { size: 8 << 20, bus: DiskBus::Virtio }, extra]);
        assert_eq!((user_device(0).as_str(), user_device(2).as_str()), ("/dev/vdb", "/dev/vdd"));
    }

    #[test]
    fn media_with_kernel_arguments_of_their_own_are_told_of() {
        let of = |media| MachineSettings { media, ..settings() }.arguments_without_effect();
        assert_eq!(of(settings().media), None);
        assert!(of(Media::Iso("/a".into())).is_some_and(|notice| notice.contains("installed system")));
        assert!(of(Media::DiskImage("/a".into())).is_some_and(|notice| notice.contains("no effect")));
        let none = MachineSettings { media: Media::Iso("/a".into()), kernel_arguments: vec![], ..settings() };
        assert_eq!(none.arguments_without_effect(), None);
    }

    #[test]
    fn the_operators_kernel_arguments_come_last_and_win() {
        let arguments = settings().arguments();
        assert!(arguments.iter().any(|argument| argument == "slab_nomerge"), "{arguments:?}");
        assert_eq!(settings().installed_arguments().first().map(String::as_str), Some("console=ttyS0"));
        assert_eq!(arguments.last().map(String::as_str), Some("talos.debug"));
        let emulated = |accelerator| {
            let settings = MachineSettings { accelerator, ..settings() };
            let arguments = settings.installed_arguments();
            EMULATED.iter().all(|argument| arguments.iter().any(|other| other == argument))
        };
        assert!(emulated(Accelerator::Tcg) && !emulated(Accelerator::Kvm));
        assert!(arguments.iter().all(|argument| !argument.starts_with("talos.config=")));
    }
}
