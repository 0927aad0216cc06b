//! Installation of the system by the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use block::{BlockDevices, Device};
use config::v1alpha1::Install;
use indexmap::IndexMap;
use machine::cmdline::{self, Cmdline};
use machine::disk::Disk;
use resources::block::{DiscoveredVolume, SystemDisk};
use resources::config::MachineConfig;
use resources::runtime::{MetaKey, MountStatus};
use sequencer::{TaskContext, TaskError};
use services::installation::{Installation, Installer, InstallerOutput};
use state::{Kind, StateError, Store, WatchOptions};
use sys::early::EarlySystem;

use crate::components::Components;

/// The log of the installer.
const LOG: &str = "installer";
pub(super) const CMDLINE: &str = "/proc/cmdline";
/// Longest value of META that is an argument: the kernel takes 128 KiB.
const LONGEST_VALUE: usize = 64 << 10;
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
    system: &dyn EarlySystem,
    devices: &dyn BlockDevices,
    installer: &dyn Installer,
    context: &TaskContext,
) -> Result<(), TaskError> {
    let active = components.store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let root = MachineConfig::root_of(active.as_deref())?;
    let section = root.and_then(|config| config.machine().install.clone()).ok_or(Refused::NoSection)?;
    let running = Cmdline::parse(&system.read(Path::new(CMDLINE))?);
    let disks: Vec<Disk> =
        devices.devices().await?.into_iter().filter(Device::is_disk).map(|device| device.disk).collect();
    let values = meta_values(&components.store)?;
    let arguments = arguments(&section, &disks, &running, components.platform.name(), &values)?;
    let environment = environment(&running, root.map(|config| &config.machine().env));
    let image = if section.image.is_empty() { config::images::installer() } else { section.image };
    let configuration = active.as_ref().map(|active| Arc::from(active.text.as_bytes())).unwrap_or_default();
    let installation = Installation { image, arguments, environment, configuration };
    let image = installation.image.clone();
    tracing::info!(image, "installing the system");
    let registries = domain_runtime::cri_config::pull_registries(active.as_deref());
    installer.install(&installation, &registries, output(components), context.cancel.clone()).await?;
    seen(&components.store, context).await?;
    tracing::info!(image, "installed the system");
    Ok(())
}

/// Where an installer's output goes.
pub(super) fn output(components: &Components) -> InstallerOutput {
    let sink = components.logs.sink(LOG);
    Arc::new(move |bytes: &[u8]| {
        sink(bytes);
        // On the console too: an operator before the machine has nothing else.
        for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.is_empty()) {
            tracing::info!(line, "installer");
        }
    })
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

/// Values of META that the machine has in memory, by their ids. One that is no text, or too long for an argument, stays there,
/// and is written to META when that appears.
fn meta_values(store: &Store) -> Result<Vec<(String, String)>, StateError> {
    let fits = |value: &str| value.len() <= LONGEST_VALUE && !value.contains(['\0', char::REPLACEMENT_CHARACTER]);
    let keys = store.list_as::<MetaKey>()?;
    let known = keys.iter().map(|key| (key.id().to_owned(), key.value.clone()));
    Ok(known.filter(|(_, value)| fits(value)).collect())
}

/// The environment of the installer: what the kernel command line has for it, and over that the configuration's.
pub(super) fn environment(running: &Cmdline, configured: Option<&IndexMap<String, String>>) -> Vec<String> {
    let of_kernel = running.values(cmdline::ENVIRONMENT).filter(|variable| variable.contains('=')).map(str::to_owned);
    let configured = configured.into_iter().flatten().map(|(name, value)| format!("{name}={value}"));
    of_kernel.chain(configured).collect()
}

fn arguments(
    section: &Install,
    disks: &[Disk],
    running: &Cmdline,
    platform: &str,
    values: &[(String, String)],
) -> Result<Vec<String>, Refused> {
    if !section.extensions.is_empty() {
        return Err(Refused::Extensions);
    }
    let disk = choose(section, disks)?;
    let source = running.config_source().unwrap_or("none");
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
    for (key, value) in values {
        arguments.extend(["--meta".to_owned(), format!("{key}={value}")]);
    }
    Ok(arguments)
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
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use async_trait::async_trait;
    use block::FakeBlock;
    use config::v1alpha1::{InstallDiskSelector, InstallExtension};
    use containers::Registries;
    use parking_lot::Mutex;
    use sequencer::ActorId;
    use services::installation::InstallationError;
    use stdx::tasks::CancellationToken;
    use supervisor::LogStore;
    use sys::early::FakeEarlySystem;

    use super::*;

    fn disks() -> Vec<Disk> {
        let disk = |path: &str, size| Disk { device_path: path.into(), size, ..Disk::default() };
        vec![disk("/dev/vda", 8 << 30), disk("/dev/vdb", 64 << 30)]
    }

    fn arguments(section: &Install) -> Result<Vec<String>, Refused> {
        let running = Cmdline::parse("talos.config=http://10.0.2.2/c.yaml");
        super::arguments(section, &disks(), &running, "metal", &[])
    }

    fn machine() -> Components {
        Components::new(Arc::new(platform::Container::new(None, None)), LogStore::default())
    }

    /// Makes the disk a system disk, unless it fails.
    #[derive(Debug)]
    struct FakeInstaller {
        store: Store,
        fails: bool,
        installed: Mutex<Vec<Installation>>,
    }

    #[async_trait]
    impl Installer for FakeInstaller {
        async fn install(
            &self,
            installation: &Installation,
            _: &Registries,
            output: InstallerOutput,
            _: CancellationToken,
        ) -> Result<(), InstallationError> {
            self.installed.lock().push(installation.clone());
            output(b"a line\n");
            if self.fails {
                return Err(InstallationError::Failed { status: ExitStatus::from_raw(256), output: "no room".into() });
            }
            let disk = SystemDisk { disk: "vda".into(), installed: true, settled: true, ..SystemDisk::default() };
            self.store.put(SystemDisk::ID, disk, "").unwrap();
            let volume = DiscoveredVolume {
                parent: "vda".into(),
                partition_label: MountStatus::STATE.into(),
                ..DiscoveredVolume::default()
            };
            self.store.put("vda5", volume, "").unwrap();
            Ok(())
        }

        async fn fetch(&self, _: &str, _: &Registries, _: CancellationToken) -> Result<(), InstallationError> {
            unreachable!("an installation pulls its image itself")
        }

        fn forget(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn the_installer_gets_the_configuration_and_the_machine_waits_for_its_disk() {
        const TEXT: &str = "version: v1alpha1\nmachine:\n  env: {A: b}\n  install:\n    disk: /dev/vda\n    image: x:1\n    \
                            legacyBIOSSupport: true\n";
        let components = machine();
        let store = &components.store;
        let devices = FakeBlock::default();
        devices.add_disk("vda", 8 << 30);
        let kernel = FakeEarlySystem::default().with_text(CMDLINE, "talos.config=none");
        let context = TaskContext { cancel: CancellationToken::new(), actor: ActorId::machine() };
        let installer = |fails| FakeInstaller { store: store.clone(), fails, installed: Mutex::default() };
        let refused = install(&components, &kernel, &devices, &installer(false), &context).await.unwrap_err();
        assert_eq!(refused.downcast_ref(), Some(&Refused::NoSection));
        store.put(MachineConfig::ACTIVE_ID, MachineConfig::new(TEXT), "").unwrap();
        let failed = install(&components, &kernel, &devices, &installer(true), &context).await.unwrap_err();
        let Some(InstallationError::Failed { status, .. }) = failed.downcast_ref() else { panic!("{failed}") };
        assert_eq!(status.code(), Some(1));
        let good = installer(false);
        install(&components, &kernel, &devices, &good, &context).await.unwrap();
        let installed = good.installed.lock().pop().unwrap();
        assert_eq!((installed.image.as_str(), &*installed.configuration), ("x:1", TEXT.as_bytes()));
        assert_eq!(installed.environment, ["A=b"]);
        assert!(installed.arguments.contains(&"--disk=/dev/vda".to_owned()), "{:?}", installed.arguments);
    }

    #[tokio::test]
    async fn values_of_meta_that_the_machine_has_are_arguments() {
        let store = machine().store;
        for (key, value) in
            [("0x0a", "a=b\nc"), ("0x0b", "not \u{fffd} text"), ("0x0c", &*"x".repeat(LONGEST_VALUE + 1))]
        {
            store.put(key, MetaKey { value: value.into() }, "").unwrap();
        }
        let values = meta_values(&store).unwrap();
        let section = Install { disk: "/dev/vda".into(), ..Install::default() };
        let arguments = super::arguments(&section, &disks(), &Cmdline::default(), "metal", &values).unwrap();
        assert_eq!(arguments[8..], ["--meta", "0x0a=a=b\nc"]);
    }

    #[test]
    fn the_environment_is_the_kernel_argument_s_and_over_it_the_configuration_s() {
        let running = Cmdline::parse(
            "talos.environment=A=1 quiet talos.environment=INSTALLER_META_BASE64=MHhhPWI= talos.environment=bad",
        );
        let configured = IndexMap::from([("A".to_owned(), "2".to_owned())]);
        assert_eq!(environment(&running, Some(&configured)), ["A=1", "INSTALLER_META_BASE64=MHhhPWI=", "A=2"]);
        assert_eq!(environment(&Cmdline::default(), None), [""; 0]);
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
    fn the_installed_system_gets_its_configuration_from_where_this_one_has_it() {
        let section = Install { disk: "/dev/vda".into(), ..Install::default() };
        let source = |running: &str| {
            let arguments = super::arguments(&section, &disks(), &Cmdline::parse(running), "metal", &[]).unwrap();
            arguments.into_iter().find(|argument| argument.starts_with("--config=")).unwrap()
        };
        // The last one, as the platform takes it.
        assert_eq!(source("talos.config=none talos.config=http://a talos.config=http://b"), "--config=http://b");
        assert_eq!(source("talos.config=http://a talos.config=none"), "--config=none");
        assert_eq!(source("quiet"), "--config=none");
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
