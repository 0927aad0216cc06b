//! The kernel that a reboot starts without the firmware: the one that the boot loader of the installed system would start.

use std::path::Path;
use std::sync::Arc;

use machine::grub::{self, Entry, Environment};
use resources::config::MachineConfig;
use sequencer::TaskError;
use state::Store;
use sys::kernel_param::{KernelParam, Tree};
use sys::late::LateSystem;

use crate::system_disk;

/// The partition with kernels, of the layout with GRUB. A machine without it reboots through its firmware (Talos 1.7).
const BOOT: &str = "BOOT";
const MOUNT: &str = "/run/kexec-boot";

/// Loads the kernel of the default entry. A machine that is not installed or not configured, or whose kernel may load no
/// other, reboots through its firmware.
pub(crate) async fn prepare(store: &Store, system: Arc<dyn LateSystem>) -> Result<(), TaskError> {
    if store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?.is_none() {
        tracing::info!("no kexec: the machine is not configured");
        return Ok(());
    }
    let Some(disk) = system_disk::device(store)? else {
        tracing::info!("no kexec: no disk has the system");
        return Ok(());
    };
    // Reading waits for a disk.
    tokio::task::spawn_blocking(move || load(system.as_ref(), &disk)).await?
}

fn load(system: &dyn LateSystem, disk: &Path) -> Result<(), TaskError> {
    let disabled = system.param(&KernelParam::new(Tree::Sysctl, "kernel.kexec_load_disabled"));
    if disabled.is_ok_and(|value| value != "0") {
        tracing::info!("no kexec: kernel.kexec_load_disabled is set");
        return Ok(());
    }
    let Some(device) = system.partition(disk, BOOT) else {
        tracing::info!(disk = %disk.display(), "no kexec: the system disk has no partition {BOOT}");
        return Ok(());
    };
    let target = Path::new(MOUNT);
    system.mount_kernels(&device, target)?;
    let loaded = load_default(system, target);
    system.detach(target)?;
    loaded
}

fn load_default(system: &dyn LateSystem, boot: &Path) -> Result<(), TaskError> {
    let environment = system.read(&boot.join(grub::ENVIRONMENT_PATH))?.ok_or("the boot loader has no environment")?;
    let environment = Environment::parse(&environment)?;
    let slot = environment.next.unwrap_or(environment.default);
    let directory = boot.join(slot.name());
    let entry = system.read(&directory.join(grub::ENTRY))?.ok_or("the slot has no entry in the boot loader's menu")?;
    let entry = Entry::parse(slot, &String::from_utf8_lossy(&entry))?;
    let (kernel, initramfs) = (directory.join(grub::KERNEL), directory.join(grub::INITRAMFS));
    // As GRUB does: the system knows the slot that it was started from.
    let arguments = format!("{} {}", grub::boot_image(slot), entry.arguments);
    system.load_kernel(&kernel, &initramfs, &arguments)?;
    tracing::info!(slot = slot.name(), version = entry.version, "kernel loaded for kexec");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use machine::grub::{ENVIRONMENT_PATH, Slot};
    use resources::block::SystemDisk;
    use sys::late::{Call, FakeLateSystem};
    use sys::power::KexecError;

    use super::*;

    const DISK: &str = "/dev/vda";

    /// A machine that was installed to both slots.
    fn installed(next: Option<Slot>) -> FakeLateSystem {
        let entry =
            |slot, arguments: &str| Entry { slot, version: "v1.7.0".into(), arguments: arguments.into() }.render();
        FakeLateSystem::default()
            .with_param("kernel.kexec_load_disabled", "0")
            .with_partition(DISK, BOOT, "/dev/vda3")
            .with_kernel_file(ENVIRONMENT_PATH, &Environment { default: Slot::B, next }.encode())
            .with_kernel_file("A/entry.cfg", entry(Slot::A, "c=d").as_bytes())
            .with_kernel_file("A/vmlinuz", b"kernel")
            .with_kernel_file("A/initramfs.xz", b"initramfs")
            .with_kernel_file("B/entry.cfg", entry(Slot::B, "a=b pti=on").as_bytes())
            .with_kernel_file("B/vmlinuz", b"kernel")
            .with_kernel_file("B/initramfs.xz", b"initramfs")
    }

    #[test]
    fn the_kernel_that_the_boot_loader_would_start_is_loaded() {
        for (next, path, arguments) in [
            (None, "B/vmlinuz", "BOOT_IMAGE=/B/vmlinuz a=b pti=on"),
            (Some(Slot::A), "A/vmlinuz", "BOOT_IMAGE=/A/vmlinuz c=d"),
        ] {
            let system = installed(next);
            load(&system, Path::new(DISK)).unwrap();
            assert!(system.is_kernel_loaded());
            let at = PathBuf::from(MOUNT);
            let loaded = Call::LoadKernel(at.join(path), arguments.into());
            assert_eq!(system.calls(), [Call::MountKernels("/dev/vda3".into(), at.clone()), loaded, Call::Detach(at)]);
        }
    }

    fn store() -> Store {
        let store = Store::default();
        store.put(MachineConfig::ACTIVE_ID, MachineConfig::new("version: v1alpha1\n"), "test").unwrap();
        store
    }

    /// A reboot once started the kernel of an old installation on another disk.
    #[tokio::test]
    async fn the_kernel_of_the_system_disk_is_loaded_whatever_other_disks_have() {
        let store = store();
        let system = Arc::new(installed(None).with_partition("/dev/sda", BOOT, "/dev/sda3"));
        prepare(&store, Arc::clone(&system) as _).await.unwrap();
        assert_eq!((system.calls(), system.is_kernel_loaded()), (vec![], false), "no disk has the system");
        let disk = SystemDisk { installed: true, settled: true, device_path: DISK.into(), ..SystemDisk::default() };
        store.put(SystemDisk::ID, disk, "test").unwrap();
        prepare(&store, Arc::clone(&system) as _).await.unwrap();
        let mounted = Call::MountKernels("/dev/vda3".into(), MOUNT.into());
        assert_eq!((system.calls().first(), system.is_kernel_loaded()), (Some(&mounted), true));
    }

    #[test]
    fn a_machine_without_another_kernel_reboots_through_its_firmware() {
        let forbidden = installed(None).with_param("kernel.kexec_load_disabled", "1");
        let uki = FakeLateSystem::default();
        for system in [forbidden, uki] {
            load(&system, Path::new(DISK)).unwrap();
            assert_eq!((system.calls(), system.is_kernel_loaded()), (vec![], false));
        }
    }

    #[test]
    fn whatever_fails_the_filesystem_with_kernels_is_detached() {
        let environment = Environment { default: Slot::B, next: None }.encode();
        let entry = Entry { slot: Slot::B, version: "v1.7.0".into(), arguments: String::new() }.render();
        let without_entry = FakeLateSystem::default()
            .with_partition(DISK, BOOT, "/dev/vda3")
            .with_kernel_file(ENVIRONMENT_PATH, &environment);
        let error = load(&without_entry, Path::new(DISK)).unwrap_err();
        assert_eq!(error.to_string(), "the slot has no entry in the boot loader's menu");
        let without_kernel = FakeLateSystem::default()
            .with_partition(DISK, BOOT, "/dev/vda3")
            .with_kernel_file(ENVIRONMENT_PATH, &environment)
            .with_kernel_file("B/entry.cfg", entry.as_bytes());
        let error = load(&without_kernel, Path::new(DISK)).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(KexecError::Read { path, .. }) if path.ends_with("B/vmlinuz")),
            "{error}"
        );
        let without_menu = FakeLateSystem::default().with_partition(DISK, BOOT, "/dev/vda3");
        let error = load(&without_menu, Path::new(DISK)).unwrap_err();
        assert_eq!(error.to_string(), "the boot loader has no environment");
        let refused = installed(None);
        refused.fail_at(1);
        let error = load(&refused, Path::new(DISK)).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(KexecError::Load(_))), "{error}");
        for system in [without_entry, without_kernel, without_menu, refused] {
            assert_eq!(system.calls().last(), Some(&Call::Detach(MOUNT.into())));
            assert!(!system.is_kernel_loaded());
        }
    }
}
