//! The first program of a machine: mounts the root image that its initramfs carries, and starts machined.
//!
//! It says on the console what it does, with the time since it started. Where it cannot go on, it says why and reboots.

mod layers;
mod log;

use std::path::Path;
use std::process::ExitCode;

use machine::cmdline::Cmdline;
use sys::loop_device::LoopDevice;
use sys::mounts::{self, MountFlags};
use sys::{cpu, guard, modules, power, root};

use crate::layers::Layers;
use crate::log::Log;

/// The root image, in the initramfs.
const ROOT_IMAGE: &str = "/rootfs.sqsh";
/// Where the new root is put together.
const NEW_ROOT: &str = "/root";
/// Modules without which there is no root image, in this order.
const MODULES: &str = "/modules";
/// After how many seconds a kernel that panics reboots, where its arguments do not say.
const KERNEL_PANIC: &str = "/proc/sys/kernel/panic";
const PANIC_SECONDS: &str = "10";
/// The system's process 1.
const MACHINED: &str = "/sbin/init";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        if std::env::args().nth(1).as_deref() == Some(guard::ARGUMENT) {
            guard::run();
        }
        // Nothing of this is meant for a running system.
        return ExitCode::FAILURE;
    }
    let log = Log::start();
    let mounted = mount_kernel_filesystems();
    log.open();
    log.step("mounts");
    let panic = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let panic = Cmdline::parse(&panic).last("panic").map(str::to_owned);
    if panic.is_none()
        && let Err(error) = std::fs::write(KERNEL_PANIC, PANIC_SECONDS)
    {
        log.error(&format!("a machine whose kernel panics will not reboot: writing {KERNEL_PANIC}: {error}"));
    }
    let Err(error) = mounted.and_then(|()| boot(&log)) else { return ExitCode::FAILURE };
    let wait = match panic.as_deref() {
        Some("0") => "waiting, as panic=0 asks",
        _ => "rebooting shortly",
    };
    log.error(&format!("the machine cannot start: {}; {wait}", stdx::error_chain(error.as_ref())));
    power::reboot_after_failure(panic.as_deref())
}

/// Filesystems of the kernel that all else needs.
fn mount_kernel_filesystems() -> Result<(), Failure> {
    let strict = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, target, flags, data) in [
        ("proc", "/proc", strict, ""),
        ("sysfs", "/sys", strict, ""),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0755"),
    ] {
        std::fs::create_dir_all(target)?;
        mounts::mount(kind, Path::new(target), kind, flags, data)?;
    }
    Ok(())
}

/// Brings the system to its root. Returns only with an error.
fn boot(log: &Log) -> Result<(), Failure> {
    log.info(&format!("booting Talos {}", stdx::version::TAG));
    cpu::supports_x86_64_v2()?;
    load_modules()?;
    log.step("modules");
    log.info("mounting the rootfs");
    mount_root(log)?;
    // It is a program of the initramfs, and so started before that goes.
    let guard = guard::start().inspect_err(|error| {
        log.error(&format!("a machine whose machined hangs will not reboot: {error}"));
    });
    for mount in ["/proc", "/sys", "/dev"] {
        root::move_mount(Path::new(mount), &Path::new(NEW_ROOT).join(&mount[1..]))?;
    }
    log.step("rootfs");
    log.info("entering the rootfs");
    root::switch(Path::new(NEW_ROOT))?;
    log.step("switch");
    let environment = [
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        // For the times of machined's own lines.
        (root::INIT_STARTED, log.started_at().as_millis().to_string()),
        (root::INIT_STEPS, log.steps().to_string()),
        (guard::VARIABLE, guard.map(|pid| pid.to_string()).unwrap_or_default()),
    ];
    Err(Box::new(Exec(root::exec(Path::new(MACHINED), &environment))))
}

#[derive(Debug, thiserror::Error)]
#[error("starting {MACHINED}")]
struct Exec(#[source] std::io::Error);

/// Loads the modules of the initramfs, in the order that it says.
fn load_modules() -> Result<(), Failure> {
    let order = std::fs::read_to_string(Path::new(MODULES).join("order")).unwrap_or_default();
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        modules::load_file(&Path::new(MODULES).join(name), "")?;
    }
    Ok(())
}

/// The new root: the image with the layers of extensions over it, and empty filesystems in memory where the system writes.
fn mount_root(log: &Log) -> Result<(), Failure> {
    let layers = Layers::find(Path::new("/"))?;
    layers.mount(log, Path::new(ROOT_IMAGE), Path::new(NEW_ROOT))?;
    let own = MountFlags::NOSUID | MountFlags::NODEV;
    for (target, flags, data) in [
        ("run", own, "mode=0755"),
        ("system", own, "mode=0755"),
        ("tmp", own | MountFlags::NOEXEC, "mode=1777,size=64m"),
    ] {
        mounts::mount("tmpfs", &Path::new(NEW_ROOT).join(target), "tmpfs", flags, data)?;
    }
    Ok(())
}

/// Mounts a squashfs file.
fn mount_squashfs(file: &Path, target: &Path) -> Result<(), Failure> {
    let device = LoopDevice::attach_read_only(file)?;
    std::fs::create_dir_all(target)?;
    let source = device.path().display().to_string();
    Ok(mounts::mount(&source, target, "squashfs", MountFlags::RDONLY | MountFlags::NODEV, "")?)
}
