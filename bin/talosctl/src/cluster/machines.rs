//! Flags of `cluster create` about virtual machines. Where nodes are containers, those that were given are without effect, and
//! said to be.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use config::scalar::DiskSize;
use provision::machines::{
    Accelerator, BootScript, DhcpSettings, DiskBus, ExtraDisk, Firmware, Impairment, MachineClock, MachineSettings,
    Media, SystemDisk, UserDisk, UserPartition,
};
use provision::up::Acceleration;

use super::encryption::{self, Machines};
use crate::arguments;
use crate::command_error::CommandError;

/// In paths.
const ARCHITECTURE: (&str, &str) = ("${ARCH}", "amd64");
/// Kernel and initramfs, where the original looks for them, and where `cargo xtask image` writes them.
const USUAL: BootFiles<&str> = BootFiles { kernel: "_out/vmlinuz-${ARCH}", initramfs: "_out/initramfs-${ARCH}.xz" };
const BUILT: BootFiles<&str> = BootFiles { kernel: "_out/vmlinuz", initramfs: "_out/initramfs.xz" };
/// The value of `--ipxe-boot-script` for a script of ours.
const LOCAL_SCRIPT: &str = "local";

/// The most disks by `--user-disk`.
const USER_DISKS: usize = 16;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// What runs virtual machines: kvm, tcg (an emulator), or auto, which takes KVM if a tiny guest shows that it works
    #[arg(long, value_name = "string", default_value = "auto")]
    accel: String,
    /// Starts virtual machines with a wrong clock
    #[arg(long)]
    bad_rtc: bool,
    /// Gives virtual machines no host names by DHCP
    #[arg(long)]
    disable_dhcp_hostname: bool,
    /// Size of the system's disk of each virtual machine in MiB
    #[arg(long, value_name = "int", default_value_t = 6144)]
    disk: u64,
    /// Kind of a key of encrypted volumes; may be repeated: uuid, tpm (needs --with-tpm2), or kms (the cluster runs one)
    #[arg(long, value_name = "stringArray", default_value = encryption::UUID)]
    disk_encryption_key_types: Vec<String>,
    /// Disk image that virtual machines begin with
    #[arg(long, value_name = "string", conflicts_with_all = ["iso_path", "ipxe_boot_script"])]
    disk_image_path: Option<PathBuf>,
    /// Allocates all blocks of the system's disk
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    disk_preallocate: bool,
    /// Encrypts the volume EPHEMERAL of virtual machines
    #[arg(long)]
    encrypt_ephemeral: bool,
    /// Encrypts the volume STATE of virtual machines
    #[arg(long)]
    encrypt_state: bool,
    /// More kernel arguments of virtual machines, while they boot from their medium and when they are installed
    #[arg(long, value_name = "string")]
    extra_boot_kernel_args: Option<String>,
    /// Number of extra disks of each virtual machine
    #[arg(long, value_name = "int", default_value_t = 0, hide_default_value = true)]
    extra_disks: usize,
    /// Size of each extra disk in MiB
    #[arg(long, value_name = "int", default_value_t = 5120)]
    extra_disks_size: u64,
    /// Bus of each extra disk, the last one for the rest: ide, nvme, scsi, usb or virtio (default: ide)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    extra_disks_drivers: Vec<String>,
    /// Folders where UEFI firmware (OVMF) is looked for first
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    extra_uefi_search_paths: Vec<PathBuf>,
    /// Initramfs of virtual machines; without this flag, _out/initramfs.xz is taken as well
    #[arg(long, value_name = "string", default_value = USUAL.initramfs)]
    initrd_path: String,
    /// OCI layout with the installer's image, served to virtual machines (default: the bundle's, or its registry's)
    #[arg(long, value_name = "string")]
    installer: Option<PathBuf>,
    /// Boots virtual machines from the network: the URL of an iPXE script, or `local` for one that loads --vmlinuz-path and --initrd-path
    #[arg(long, value_name = "string", conflicts_with = "iso_path")]
    ipxe_boot_script: Option<String>,
    /// ISO that virtual machines boot from while their disk is empty
    #[arg(long, value_name = "string")]
    iso_path: Option<PathBuf>,
    /// A disk of each virtual machine with partitions that it mounts: /var/PATH:SIZE, which may follow again behind a colon; may
    /// be repeated
    #[arg(long, value_name = "strings", value_delimiter = ',', value_parser = user_disk)]
    user_disk: Vec<UserDisk>,
    /// Kernel of virtual machines; without this flag, _out/vmlinuz is taken as well
    #[arg(long, value_name = "string", default_value = USUAL.kernel)]
    vmlinuz_path: String,
    /// Boots virtual machines from their disk when they are installed; otherwise always from their medium
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_bootloader: bool,
    /// Bandwidth of each virtual machine's network in kbit/s; excludes the other impairments
    #[arg(long, value_name = "int")]
    with_network_bandwidth: Option<u64>,
    /// Allows the impairments of virtual machines' network
    #[arg(long)]
    with_network_chaos: bool,
    /// Variation of the latency
    #[arg(long, value_name = "duration", value_parser = arguments::duration)]
    with_network_jitter: Option<Duration>,
    /// Latency of packets to each virtual machine
    #[arg(long, value_name = "duration", value_parser = arguments::duration)]
    with_network_latency: Option<Duration>,
    /// Share of packets that are damaged, from 0 to 1
    #[arg(long, value_name = "float", value_parser = share)]
    with_network_packet_corrupt: Option<u32>,
    /// Share of packets that are lost, from 0 to 1
    #[arg(long, value_name = "float", value_parser = share)]
    with_network_packet_loss: Option<u32>,
    /// Share of packets that overtake others, from 0 to 1
    #[arg(long, value_name = "float", value_parser = share)]
    with_network_packet_reorder: Option<u32>,
    /// Gives each virtual machine a TPM 2.0 (needs swtpm)
    #[arg(long)]
    with_tpm2: bool,
    /// Starts virtual machines with UEFI firmware; otherwise with BIOS
    #[arg(long, value_name = "bool", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    with_uefi: bool,
}

/// The files that a machine boots without firmware of its own medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BootFiles<T> {
    kernel: T,
    initramfs: T,
}

impl BootFiles<&str> {
    /// As paths, below `folder` unless they are absolute.
    fn below(self, folder: &Path) -> BootFiles<PathBuf> {
        let (variable, architecture) = ARCHITECTURE;
        let path = |text: &str| folder.join(text.replace(variable, architecture));
        BootFiles { kernel: path(self.kernel), initramfs: path(self.initramfs) }
    }
}

impl BootFiles<PathBuf> {
    fn exist(&self) -> bool {
        self.kernel.exists() && self.initramfs.exists()
    }

    /// The given files of `folder`; where both are the defaults and not both there, those that were built.
    fn find(given: BootFiles<&str>, folder: &Path) -> Self {
        let (named, built) = (given.below(folder), BUILT.below(folder));
        if given == USUAL {
            return if !named.exist() && built.exist() { built } else { named };
        }
        // One that was given has no built one beside it.
        let one = |given: &str, usual: &str, named: PathBuf, built: PathBuf| {
            if given == usual && !named.exists() && built.exists() { built } else { named }
        };
        Self {
            kernel: one(given.kernel, USUAL.kernel, named.kernel, built.kernel),
            initramfs: one(given.initramfs, USUAL.initramfs, named.initramfs, built.initramfs),
        }
    }
}

/// What other flags of the command say about machines.
#[derive(Debug, Clone)]
pub(super) struct Shared<'a> {
    pub(super) nameservers: &'a [String],
    pub(super) api_port: u16,
}

/// The flags, and the names of those that were given.
#[derive(Debug)]
pub(super) struct MachineFlags {
    flags: Flags,
    given: Vec<String>,
}

impl MachineFlags {
    pub(super) fn given(&self) -> impl Iterator<Item = &str> {
        self.given.iter().map(String::as_str)
    }

    /// The settings of all machines.
    pub(super) fn settings(&self, shared: &Shared<'_>) -> Result<(MachineSettings, Acceleration), CommandError> {
        self.flags.settings(shared)
    }

    /// The encryption that the flags ask for, as a patch; `endpoint` is that of the cluster's key service.
    pub(super) fn encryption(&self, endpoint: &str) -> Result<Option<config::Patch>, CommandError> {
        let machines = if self.flags.with_tpm2 { Machines::WithTpm } else { Machines::WithoutTpm };
        self.encryption_flags().patch(machines, endpoint)
    }

    /// Whether the flags ask for keys of a key service.
    pub(super) fn need_key_service(&self) -> bool {
        self.encryption_flags().need_key_service()
    }

    fn encryption_flags(&self) -> encryption::Flags<'_> {
        let flags = &self.flags;
        encryption::Flags {
            state: flags.encrypt_state,
            ephemeral: flags.encrypt_ephemeral,
            kinds: &flags.disk_encryption_key_types,
        }
    }

    /// Refuses defaults of kernel and initramfs that are not there; the driver reports files that were named.
    pub(super) fn check_boot_files(&self, settings: &MachineSettings) -> Result<(), CommandError> {
        let (Media::Kernel { kernel, initramfs } | Media::Network(BootScript::Files { kernel, initramfs })) =
            &settings.media
        else {
            return Ok(());
        };
        let found = BootFiles { kernel: kernel.clone(), initramfs: initramfs.clone() };
        if self.flags.boot_files() != USUAL || found.exist() {
            return Ok(());
        }
        let usual = USUAL.below(Path::new(""));
        let text = format!(
            "virtual machines have no kernel and initramfs: neither {} and {} nor {} and {} are there",
            usual.kernel.display(),
            usual.initramfs.display(),
            BUILT.kernel,
            BUILT.initramfs
        );
        let hint = "`cargo xtask image` makes the latter in a checkout; --vmlinuz-path and --initrd-path name others";
        Err(CommandError::usage(text).hint(hint))
    }
}

impl FromArgMatches for MachineFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let all = Flags::augment_args(Command::new("flags"));
        let is_given = |argument: &&Arg| {
            matches.value_source(argument.get_id().as_str()) == Some(clap::parser::ValueSource::CommandLine)
        };
        let given = all.get_arguments().filter(is_given).filter_map(Arg::get_long).map(str::to_owned).collect();
        Ok(Self { flags: Flags::from_arg_matches(matches)?, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for MachineFlags {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

impl Flags {
    /// The settings of all machines.
    fn settings(&self, shared: &Shared<'_>) -> Result<(MachineSettings, Acceleration), CommandError> {
        let (accelerator, acceleration) = match self.accel.as_str() {
            "auto" => (Accelerator::Tcg, Acceleration::Probed),
            "kvm" => (Accelerator::Kvm, Acceleration::Given),
            "tcg" => (Accelerator::Tcg, Acceleration::Given),
            other => return Err(CommandError::usage(format!("--accel {other:?} is not auto, kvm or tcg"))),
        };
        let size = |flag: &str, mebibytes: u64| -> Result<u64, CommandError> {
            let bytes = mebibytes.checked_mul(1 << 20).filter(|bytes| *bytes > 0 && *bytes < 1 << 50);
            bytes.ok_or_else(|| CommandError::usage(format!("--{flag} {mebibytes} is not a size of a disk in MiB")))
        };
        let firmware = if self.with_uefi {
            Firmware::Uefi { folders: self.extra_uefi_search_paths.clone() }
        } else {
            Firmware::Bios
        };
        let settings = MachineSettings {
            accelerator,
            firmware,
            media: self.media()?,
            kernel_arguments: words(self.extra_boot_kernel_args.as_deref().unwrap_or_default()),
            boots_from_disk: self.with_bootloader,
            disk: SystemDisk { size: size("disk", self.disk)?, preallocate: self.disk_preallocate },
            user_disks: self.user_disks()?,
            extra_disks: self.extra_disks(size("extra-disks-size", self.extra_disks_size)?)?,
            tpm: self.with_tpm2,
            clock: if self.bad_rtc { MachineClock::Wrong } else { MachineClock::Right },
            dhcp: DhcpSettings {
                hostnames: !self.disable_dhcp_hostname,
                resolvers: shared.nameservers.iter().filter_map(|address| address.parse::<Ipv4Addr>().ok()).collect(),
            },
            api_port: shared.api_port,
            impairment: self.impairment()?,
            installer: self.installer.as_deref().map(absolute).transpose()?,
        };
        Ok((settings, acceleration))
    }

    fn boot_files(&self) -> BootFiles<&str> {
        BootFiles { kernel: &self.vmlinuz_path, initramfs: &self.initrd_path }
    }

    fn media(&self) -> Result<Media, CommandError> {
        if let Some(path) = &self.iso_path {
            return Ok(Media::Iso(absolute(path)?));
        }
        if let Some(path) = &self.disk_image_path {
            return Ok(Media::DiskImage(absolute(path)?));
        }
        let script = self.ipxe_boot_script.as_deref();
        if let Some(url) = script.filter(|script| *script != LOCAL_SCRIPT) {
            // DHCP has no room for more.
            let known = ["http://", "https://", "tftp://"].iter().any(|scheme| url.starts_with(scheme));
            if !known || url.len() > 255 || url.contains(char::is_whitespace) {
                let hint = "give the URL of a script, or `local` for one that loads --vmlinuz-path and --initrd-path";
                return Err(CommandError::usage(format!("--ipxe-boot-script {url:?} is not a URL")).hint(hint));
            }
            return Ok(Media::Network(BootScript::Url(url.to_owned())));
        }
        let BootFiles { kernel, initramfs } = BootFiles::find(self.boot_files(), Path::new(""));
        let (kernel, initramfs) = (absolute(&kernel)?, absolute(&initramfs)?);
        Ok(match script {
            Some(_) => Media::Network(BootScript::Files { kernel, initramfs }),
            None => Media::Kernel { kernel, initramfs },
        })
    }

    fn user_disks(&self) -> Result<Vec<UserDisk>, CommandError> {
        match self.user_disk.len() {
            // Their devices have a letter after that of the system's.
            0..=USER_DISKS => Ok(self.user_disk.clone()),
            more => Err(CommandError::usage(format!("{more} disks by --user-disk are more than {USER_DISKS}"))),
        }
    }

    fn extra_disks(&self, size: u64) -> Result<Vec<ExtraDisk>, CommandError> {
        let bus = |name: &String| {
            let unknown = || format!("--extra-disks-drivers {name:?} is not ide, nvme, scsi, usb or virtio");
            DiskBus::parse(name).ok_or_else(|| CommandError::usage(unknown()))
        };
        let buses = self.extra_disks_drivers.iter().map(bus).collect::<Result<Vec<_>, _>>()?;
        let count = self.extra_disks;
        if count > 64 {
            return Err(CommandError::usage(format!("--extra-disks {count} is more than 64")));
        }
        let last = buses.last().copied().unwrap_or(DiskBus::Ide);
        let buses = buses.into_iter().chain(std::iter::repeat(last));
        Ok(buses.take(count).map(|bus| ExtraDisk { size, bus }).collect())
    }

    fn impairment(&self) -> Result<Option<Impairment>, CommandError> {
        let others = [
            self.with_network_jitter.is_some(),
            self.with_network_latency.is_some(),
            self.with_network_packet_corrupt.is_some(),
            self.with_network_packet_loss.is_some(),
            self.with_network_packet_reorder.is_some(),
        ];
        let others = others.contains(&true);
        let refuse = |text: &str, hint: &str| Err(CommandError::usage(text).hint(hint));
        match (self.with_network_chaos, self.with_network_bandwidth, others) {
            (false, None, false) => Ok(None),
            (false, ..) => refuse("impairments of the network need --with-network-chaos", "add that flag"),
            (true, Some(_), true) => {
                refuse("--with-network-bandwidth excludes the other impairments", "leave out one or the other")
            }
            (true, Some(0), false) => refuse("--with-network-bandwidth 0 lets nothing through", "give kbit/s"),
            (true, Some(kilobits), false) => Ok(Some(Impairment::Bandwidth(kilobits))),
            (true, None, _) => {
                let delays = self.with_network_latency.is_some_and(|latency| !latency.is_zero());
                if !delays && (self.with_network_jitter.is_some() || self.with_network_packet_reorder.is_some()) {
                    let hint = "add --with-network-latency: packets that wait can vary and overtake";
                    return refuse("jitter and reordering need a latency", hint);
                }
                Ok(Some(Impairment::Packets {
                    latency: self.with_network_latency.unwrap_or_default(),
                    jitter: self.with_network_jitter.unwrap_or_default(),
                    loss: self.with_network_packet_loss.unwrap_or_default(),
                    reorder: self.with_network_packet_reorder.unwrap_or_default(),
                    corrupt: self.with_network_packet_corrupt.unwrap_or_default(),
                }))
            }
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(CommandError::wrap("reading a path"))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `/var/mnt/a:1GB:/var/mnt/b:500MB` as a disk of two partitions.
fn user_disk(text: &str) -> Result<UserDisk, String> {
    let invalid = || "not MOUNTPOINT:SIZE like /var/mnt/data:1GB".to_owned();
    let parts: Vec<&str> = text.split(':').collect();
    let (pairs, []) = parts.as_chunks::<2>() else { return Err(invalid()) };
    let partition = |[mountpoint, size]: &[&str; 2]| {
        if !mountpoint.starts_with("/var/") {
            return Err(format!("{mountpoint:?} is not below /var, where disks can be mounted"));
        }
        let size = size.parse::<DiskSize>().map_err(|error| format!("{size:?} is not a size: {error}"))?;
        match size.0 {
            0 => Err(invalid()),
            size if size >= 1 << 50 => Err(format!("{size} bytes are too much for a disk")),
            size => Ok(UserPartition { mountpoint: (*mountpoint).to_owned(), size }),
        }
    };
    Ok(UserDisk { partitions: pairs.iter().map(partition).collect::<Result<_, _>>()? })
}

/// A share from 0 to 1 in millionths.
fn share(text: &str) -> Result<u32, String> {
    let invalid = || "not a share from 0 to 1, like 0.05".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return Err(invalid());
    }
    let millionths = format!("{whole}{fraction:0<6}").parse::<u32>().map_err(|_| invalid())?;
    if millionths > 1_000_000 { Err(invalid()) } else { Ok(millionths) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: MachineFlags,
    }

    fn parse(line: &str) -> MachineFlags {
        Line::try_parse_from(["x"].into_iter().chain(line.split_whitespace())).unwrap().flags
    }

    fn settings(line: &str) -> Result<(MachineSettings, Acceleration), String> {
        let nameservers = ["8.8.8.8".to_owned(), "2001:4860:4860::8888".to_owned()];
        let shared = Shared { nameservers: &nameservers, api_port: 6443 };
        parse(line).settings(&shared).map_err(|error| error.error.to_string())
    }

    #[test]
    fn the_usual_machine_is_that_of_the_original() {
        let (settings, acceleration) = settings("").unwrap();
        assert_eq!(acceleration, Acceleration::Probed);
        assert_eq!(settings.disk, SystemDisk { size: 6144 << 20, preallocate: true });
        assert_eq!(settings.firmware, Firmware::Uefi { folders: vec![] });
        assert_eq!(settings.dhcp.resolvers, [Ipv4Addr::new(8, 8, 8, 8)]);
        assert!(matches!(&settings.media, Media::Kernel { kernel, initramfs }
            if kernel.ends_with("_out/vmlinuz-amd64") && initramfs.ends_with("_out/initramfs-amd64.xz")));
        assert!(settings.extra_disks.is_empty() && settings.boots_from_disk && !settings.tpm);
        assert_eq!(parse("").given, [""; 0]);
    }

    #[test]
    fn what_a_checkout_has_built_is_found_and_otherwise_both_places_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join("_out").join(name);
        let make = |name: &str| std::fs::write(path(name), "").unwrap();
        std::fs::create_dir(folder.path().join("_out")).unwrap();
        let found = |given| {
            let BootFiles { kernel, initramfs } = BootFiles::find(given, folder.path());
            [kernel, initramfs]
        };
        let usual = ["vmlinuz-amd64", "initramfs-amd64.xz"].map(path);
        let built = ["vmlinuz", "initramfs.xz"].map(path);
        assert_eq!(found(USUAL), usual);
        // Half of either is none.
        make("vmlinuz-amd64");
        make("vmlinuz");
        assert_eq!(found(USUAL), usual);
        make("initramfs.xz");
        assert_eq!(found(USUAL), built);
        let own = BootFiles { kernel: "/own", ..USUAL };
        assert_eq!(found(own), ["/own".into(), path("initramfs.xz")]);
        make("initramfs-amd64.xz");
        assert_eq!(found(USUAL), usual);

        let (settings, _) = settings("").unwrap();
        let refused = parse("").check_boot_files(&settings).unwrap_err();
        let text = format!("{} {:?}", refused.error, refused.hints);
        for part in ["_out/vmlinuz-amd64", "_out/initramfs-amd64.xz", "_out/vmlinuz and", "cargo xtask image"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let (iso, _) = super::tests::settings("--iso-path /a.iso").unwrap();
        parse("--iso-path /a.iso").check_boot_files(&iso).unwrap();
        let (named, _) = super::tests::settings("--vmlinuz-path /k").unwrap();
        parse("--vmlinuz-path /k").check_boot_files(&named).unwrap();
    }

    #[test]
    fn each_flag_is_known_to_be_given() {
        let line = "--accel tcg --bad-rtc --disable-dhcp-hostname --disk 1 --disk-preallocate=false --extra-boot-kernel-args a \
                    --extra-disks 1 --extra-disks-size 1 --extra-disks-drivers ide --extra-uefi-search-paths /a --initrd-path a \
                    --installer a --iso-path a --user-disk /var/a:1GB --vmlinuz-path a --with-bootloader=false --with-network-bandwidth 1 \
                    --with-network-chaos --with-network-jitter 1s --with-network-latency 1s --with-network-packet-corrupt 0.1 \
                    --with-network-packet-loss 0.1 --with-network-packet-reorder 0.1 --with-tpm2 --with-uefi=false";
        let wanted: Vec<&str> = line
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("--"))
            .map(|w| w.split('=').next().unwrap())
            .collect();
        let mut given = parse(line).given;
        given.sort_unstable();
        let mut wanted = wanted;
        wanted.sort_unstable();
        assert_eq!(given, wanted);
        assert_eq!(parse("--disk-image-path a").given, ["disk-image-path"]);
        assert_eq!(parse("--ipxe-boot-script a").given, ["ipxe-boot-script"]);
    }

    #[test]
    fn the_medium_follows_from_the_flags() {
        let media = |line: &str| settings(line).map(|(settings, _)| settings.media);
        assert_eq!(media("--iso-path /a.iso"), Ok(Media::Iso("/a.iso".into())));
        assert_eq!(media("--disk-image-path /a.raw"), Ok(Media::DiskImage("/a.raw".into())));
        let url = "http://10.5.0.1/a.ipxe".to_owned();
        assert_eq!(media(&format!("--ipxe-boot-script {url}")), Ok(Media::Network(BootScript::Url(url))));
        let local = Media::Network(BootScript::Files { kernel: "/k".into(), initramfs: "/i".into() });
        assert_eq!(media("--ipxe-boot-script local --vmlinuz-path /k --initrd-path /i"), Ok(local));
        assert!(media("--ipxe-boot-script script.ipxe").unwrap_err().contains("is not a URL"));
    }

    #[test]
    fn the_last_bus_is_that_of_the_remaining_disks() {
        let disks = |line: &str| settings(line).map(|(settings, _)| settings.extra_disks);
        let disk = |bus| ExtraDisk { size: 5120 << 20, bus };
        let wanted = vec![disk(DiskBus::Nvme), disk(DiskBus::Scsi), disk(DiskBus::Scsi)];
        assert_eq!(disks("--extra-disks 3 --extra-disks-drivers nvme,scsi"), Ok(wanted));
        assert_eq!(disks("--extra-disks 1"), Ok(vec![disk(DiskBus::Ide)]));
        assert!(disks("--extra-disks 1 --extra-disks-drivers tape").unwrap_err().contains("tape"));
        assert!(disks("--extra-disks 65").unwrap_err().contains("64"));
    }

    #[test]
    fn a_user_disk_has_a_partition_for_each_mountpoint() {
        let partition = |mountpoint: &str, size| UserPartition { mountpoint: mountpoint.to_owned(), size };
        let (settings, _) = settings("--user-disk /var/mnt/a:1GiB:/var/b:512MiB --user-disk /var/c:1000").unwrap();
        let first = UserDisk { partitions: vec![partition("/var/mnt/a", 1 << 30), partition("/var/b", 512 << 20)] };
        assert_eq!(settings.user_disks, [first, UserDisk { partitions: vec![partition("/var/c", 1000)] }]);
        for text in ["", "/var/a", "/var/a:1GB:/var/b", "/mnt/a:1GB", "/var/a:much", "/var/a:0", ":1GB"] {
            assert!(user_disk(text).is_err_and(|error| error.contains("not ")), "{text}");
        }
        let many = "--user-disk /var/a:1GB ".repeat(17);
        assert!(super::tests::settings(&many).unwrap_err().contains("more than 16"));
    }

    #[test]
    fn impairments_need_leave_and_exclude_each_other() {
        let impairment = |line: &str| settings(line).map(|(settings, _)| settings.impairment);
        assert_eq!(
            impairment("--with-network-chaos --with-network-bandwidth 500"),
            Ok(Some(Impairment::Bandwidth(500)))
        );
        let packets =
            impairment("--with-network-chaos --with-network-latency 50ms --with-network-packet-loss 0.05").unwrap();
        let wanted = Impairment::Packets {
            latency: Duration::from_millis(50),
            jitter: Duration::ZERO,
            loss: 50_000,
            reorder: 0,
            corrupt: 0,
        };
        assert_eq!(packets, Some(wanted));
        for (line, part) in [
            ("--with-network-latency 50ms", "--with-network-chaos"),
            ("--with-network-chaos --with-network-bandwidth 5 --with-network-latency 50ms", "excludes"),
            ("--with-network-chaos --with-network-bandwidth 0", "nothing"),
            ("--with-network-chaos --with-network-jitter 5ms", "latency"),
        ] {
            assert!(impairment(line).unwrap_err().contains(part), "{line}");
        }
    }

    #[test]
    fn shares_are_read_to_the_millionth() {
        for (text, millionths) in [("0", 0), ("1", 1_000_000), ("0.05", 50_000), ("0.000001", 1), ("1.0", 1_000_000)] {
            assert_eq!(share(text), Ok(millionths), "{text}");
        }
        for text in ["", "1.1", "2", "-0.1", "0.0000001", "50%", ".5", "1e-3"] {
            assert!(share(text).is_err_and(|error| error.contains("from 0 to 1")), "{text}");
        }
    }
}
