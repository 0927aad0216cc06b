//! The kernel that a reboot starts without the firmware: the one that the boot loader of the installed system would start.

use std::fs::File;
use std::path::Path;

use machine::grub::Menu;
use resources::config::MachineConfig;
use sequencer::TaskError;
use state::Store;
use sys::kernel_param::{KernelParam, Tree};
use sys::mounts::{self, MountFlags};

/// The partition with kernels, of the layout with GRUB. A machine without it reboots through its firmware (Talos 1.7).
const BOOT: &str = "BOOT";
const MOUNT: &str = "/run/kexec-boot";

/// Loads the kernel of the default entry. A machine that is not installed or not configured, or whose kernel may load no
/// other, reboots through its firmware.
pub(crate) async fn prepare(store: &Store) -> Result<(), TaskError> {
    if store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?.is_none() {
        tracing::info!("no kexec: the machine is not configured");
        return Ok(());
    }
    let disabled = KernelParam::new(Tree::Sysctl, "kernel.kexec_load_disabled").read();
    if disabled.is_ok_and(|value| value != "0") {
        tracing::info!("no kexec: kernel.kexec_load_disabled is set");
        return Ok(());
    }
    let Some(device) = sys::partitions::device_of(BOOT) else {
        tracing::info!("no kexec: no disk has the partition {BOOT}");
        return Ok(());
    };
    // Reading waits for a disk.
    tokio::task::spawn_blocking(move || load(&device)).await?
}

fn load(device: &Path) -> Result<(), TaskError> {
    let target = Path::new(MOUNT);
    sys::files::ensure_directory(target, 0o700)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mounts::mount(&device.display().to_string(), target, "xfs", flags, "")?;
    let loaded = load_default(target);
    mounts::detach(target)?;
    loaded
}

fn load_default(boot: &Path) -> Result<(), TaskError> {
    let menu = sys::files::read(&boot.join("grub/grub.cfg"))?.ok_or("the boot loader has no menu")?;
    let menu = Menu::parse(&String::from_utf8_lossy(&menu))?;
    let directory = boot.join(menu.default.slot.name());
    let open = |name: &str| File::open(directory.join(name)).map_err(|error| format!("opening {name}: {error}"));
    let (kernel, initramfs) = (open("vmlinuz")?, open("initramfs.xz")?);
    sys::power::load_kernel(&kernel, &initramfs, &menu.default.arguments)?;
    tracing::info!(slot = menu.default.slot.name(), version = menu.default.version, "kernel loaded for kexec");
    Ok(())
}
