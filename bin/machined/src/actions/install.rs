//! Installation of the system by the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use block::{BlockDevices as _, Device, KernelBlockDevices};
use config::v1alpha1::Install;
use machine::cmdline::{self, Cmdline};
use machine::disk::Disk;
use resources::block::{DiscoveredVolume, SystemDisk};
use resources::config::MachineConfig;
use resources::runtime::MountStatus;
use sequencer::{TaskContext, TaskError};
use services::installation::{Installation, Installer};
use state::{Kind, Store, WatchOptions};

use crate::components::Components;

/// The log of the installer.
const LOG: &str = "installer";
const CMDLINE: &str = "/proc/cmdline";
/// How long the partitions of a new system disk may take to appear.
const SEEN: Duration = Duration::from_secs(60);

/// Why nothing is installed; nothing has been touched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the configuration has no machine.install")]
    NoSection,
    #[error("machine.install has neither disk nor diskSelector")]
    NoDisk,
    #[error("there is no disk {disk} (machine.install.disk); disks of this machine: {}", known(disks))]
    Absent { disk: String, disks: Vec<String> },
    #[error("no disk matches machine.install.diskSelector; disks of this machine: {}", known(disks))]
    NoMatch { disks: Vec<String> },
    #[error("machine.install.diskSelector: {0}")]
    Selector(String),
    #[error("machine.install.extensions is not supported: build extensions into the installer image")]
    Extensions,
}

fn known(disks: &[String]) -> String {
    if disks.is_empty() { "none".to_owned() } else { disks.join(", ") }
}

/// Installs the system to the disk that the active configuration names.
///
/// # Errors
/// A configuration that names no disk of this machine, or what the installer says.
pub(crate) async fn install(
    components: &Components,
    installer: &dyn Installer,
    context: &TaskContext,
) -> Result<(), TaskError> {
    let active = components.store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let root = MachineConfig::root_of(active.as_deref())?;
    let section = root.and_then(|config| config.machine().install.clone()).ok_or(Refused::NoSection)?;
    let running = std::fs::read_to_string(CMDLINE)?;
    let devices = KernelBlockDevices::new()?.devices().await?;
    let disks: Vec<Disk> = devices.into_iter().filter(Device::is_disk).map(|device| device.disk).collect();
    let installation = installation(&section, &disks, &Cmdline::parse(&running), components.platform.name())?;
    let image = installation.image.clone();
    tracing::info!(image, "installing the system");
    let registries = domain_runtime::cri_config::pull_registries(active.as_deref());
    let sink = components.logs.sink(LOG);
    let output = Arc::new(move |bytes: &[u8]| {
        sink(bytes);
        // On the console too: an operator before the machine has nothing else.
        for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.is_empty()) {
            tracing::info!(line, "installer");
        }
    });
    installer.install(&installation, &registries, output, context.cancel.clone()).await?;
    seen(&components.store, context).await?;
    tracing::info!(image, "installed the system");
    Ok(())
}

/// Waits until the machine sees its new system disk: the steps after this mount volumes of it.
async fn seen(store: &Store, context: &TaskContext) -> Result<(), TaskError> {
    let deadline = tokio::time::Instant::now() + SEEN;
    loop {
        // The watch first: a change after the look is an event.
        let mut changes = store.watch_kind(&Kind::of::<DiscoveredVolume>(), WatchOptions::default())?;
        let disk = store.get_as::<SystemDisk>(SystemDisk::ID)?.filter(|disk| disk.installed);
        if let Some(disk) = disk
            && store.list_as::<DiscoveredVolume>()?.iter().any(|found| is_state(found, &disk.disk))
        {
            return Ok(());
        }
        // All arms are cancel-safe: a missed change is seen at the next look.
        tokio::select! {
            event = changes.next() => drop(event),
            () = context.cancel.cancelled() => return Err("canceled while waiting for the new system disk".into()),
            // The system disk is another kind of resource than its partitions.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = tokio::time::sleep_until(deadline) => {
                return Err("the disk was installed to, but its partitions have not appeared".into());
            }
        }
    }
}

fn is_state(found: &DiscoveredVolume, disk: &str) -> bool {
    found.parent == disk && found.partition_label == MountStatus::STATE
}

fn installation(section: &Install, disks: &[Disk], running: &Cmdline, platform: &str) -> Result<Installation, Refused> {
    if !section.extensions.is_empty() {
        return Err(Refused::Extensions);
    }
    let disk = choose(section, disks)?;
    let source = running.first(cmdline::CONFIG).filter(|value| !value.is_empty()).unwrap_or("none");
    let mut arguments = vec![
        "/bin/installer".to_owned(),
        "install".to_owned(),
        format!("--disk={}", disk.display()),
        format!("--platform={platform}"),
        format!("--config={source}"),
        "--upgrade=false".to_owned(),
        "--force=true".to_owned(),
        format!("--zero={}", section.wipe.unwrap_or_default()),
    ];
    for argument in &section.extra_kernel_args {
        arguments.extend(["--extra-kernel-arg".to_owned(), argument.clone()]);
    }
    let image = if section.image.is_empty() { config::images::installer() } else { section.image.clone() };
    Ok(Installation { image, arguments, environment: Vec::new() })
}

/// The disk of the configuration; the selector wins over the path, as in Talos 1.7.
fn choose(section: &Install, disks: &[Disk]) -> Result<PathBuf, Refused> {
    let names = || disks.iter().map(|disk| disk.device_path.clone()).collect();
    if let Some(selector) = &section.disk_selector {
        let selector = selector.selector().map_err(|error| Refused::Selector(error.to_string()))?;
        let disk = selector.select(disks).ok_or_else(|| Refused::NoMatch { disks: names() })?;
        return Ok(PathBuf::from(&disk.device_path));
    }
    if section.disk.is_empty() {
        return Err(Refused::NoDisk);
    }
    // A link below /dev/disk/by-id is as good; what it leads to is looked at by the installer.
    let path = Path::new(&section.disk);
    if disks.iter().any(|disk| disk.device_path == section.disk) || path.exists() {
        return Ok(path.to_owned());
    }
    Err(Refused::Absent { disk: section.disk.clone(), disks: names() })
}

#[cfg(test)]
mod tests {
    use config::v1alpha1::{InstallDiskSelector, InstallExtension};

    use super::*;

    fn disks() -> Vec<Disk> {
        let disk = |path: &str, size| Disk { device_path: path.into(), size, ..Disk::default() };
        vec![disk("/dev/vda", 8 << 30), disk("/dev/vdb", 64 << 30)]
    }

    fn arguments(section: &Install) -> Result<Vec<String>, Refused> {
        let running = Cmdline::parse("talos.config=http://10.0.2.2/c.yaml");
        installation(section, &disks(), &running, "metal").map(|installation| installation.arguments)
    }

    #[test]
    fn the_installer_is_told_disk_wipe_and_kernel_arguments() {
        let section = Install {
            disk: "/dev/vda".into(),
            wipe: Some(true),
            extra_kernel_args: vec!["-console".into(), "a=b".into()],
            ..Install::default()
        };
        let expected = [
            "/bin/installer",
            "install",
            "--disk=/dev/vda",
            "--platform=metal",
            "--config=http://10.0.2.2/c.yaml",
            "--upgrade=false",
            "--force=true",
            "--zero=true",
            "--extra-kernel-arg",
            "-console",
            "--extra-kernel-arg",
            "a=b",
        ];
        assert_eq!(arguments(&section).unwrap(), expected);
    }

    #[test]
    fn a_selector_chooses_the_disk() {
        let selector = |size: &str| InstallDiskSelector { size: size.into(), ..InstallDiskSelector::default() };
        let section = |size| Install { disk_selector: Some(selector(size)), ..Install::default() };
        assert!(arguments(&section(">= 50GiB")).unwrap().contains(&"--disk=/dev/vdb".to_owned()));
        let names = vec!["/dev/vda".to_owned(), "/dev/vdb".to_owned()];
        assert_eq!(arguments(&section(">= 50TiB")), Err(Refused::NoMatch { disks: names }));
    }

    #[test]
    fn what_cannot_be_installed_is_refused_with_the_disks_that_there_are() {
        let names = vec!["/dev/vda".to_owned(), "/dev/vdb".to_owned()];
        let absent = Install { disk: "/dev/no-such-disk".into(), ..Install::default() };
        assert_eq!(arguments(&absent), Err(Refused::Absent { disk: "/dev/no-such-disk".into(), disks: names }));
        assert_eq!(arguments(&Install::default()), Err(Refused::NoDisk));
        let extended = Install { extensions: vec![InstallExtension::default()], ..Install::default() };
        assert_eq!(arguments(&extended), Err(Refused::Extensions));
    }
}
