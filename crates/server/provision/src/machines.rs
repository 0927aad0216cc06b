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

use crate::plan::{Plan, PlannedNode};

pub use accelerator::Accelerator;

/// The disk that the system is installed on.
pub const INSTALL_DISK: &str = "/dev/vda";

/// Arguments of a machine of ours, beside those of every machine: one console, and resets that the emulator sees.
///
/// The original adds `talos.shutdown=halt`, because its launcher starts every machine again that ends. Here the monitor
/// knows a power-off from a reset, so a machine that is shut down really ends.
const KERNEL_ARGUMENTS: [&str; 4] = ["console=ttyS0", "reboot=k", "panic=1", "talos.platform=metal"];

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

    /// The kernel's arguments while a machine boots from its medium, without the address of the configuration.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        DEFAULTS.split_whitespace().map(str::to_owned).chain(self.installed_arguments()).collect()
    }

    /// Arguments for the installed system, which has the defaults by itself.
    #[must_use]
    pub fn installed_arguments(&self) -> Vec<String> {
        KERNEL_ARGUMENTS.into_iter().map(str::to_owned).chain(self.kernel_arguments.iter().cloned()).collect()
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

/// The hardware address of a machine, which follows from the cluster's name and the node's slot.
pub(crate) fn mac(plan: &Plan, node: &PlannedNode) -> [u8; 6] {
    let digest = digest::digest(&digest::SHA256, format!("{}/{}", plan.name, node.slot).as_bytes());
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
        let plans = ["one", "two"].map(|name| Plan::new(name, "10.5.0.0/24", 1500, &nodes).unwrap());
        let all: Vec<[u8; 6]> =
            plans.iter().flat_map(|plan| plan.nodes.iter().map(|node| mac(plan, node)).collect::<Vec<_>>()).collect();
        assert!(all.iter().all(|mac| mac[0] & 3 == 2), "{all:?}");
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn the_operators_kernel_arguments_come_last_and_win() {
        let arguments = settings().arguments();
        assert!(arguments.iter().any(|argument| argument == "slab_nomerge"), "{arguments:?}");
        assert_eq!(settings().installed_arguments().first().map(String::as_str), Some("console=ttyS0"));
        assert_eq!(arguments.last().map(String::as_str), Some("talos.debug"));
        assert!(arguments.iter().all(|argument| !argument.starts_with("talos.config=")));
    }
}
