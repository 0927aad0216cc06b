//! Devices that the boot waits for, and the rules of the configuration for them.

use std::path::{Path, PathBuf};

use domain_runtime::kernel_module::{ImageModules, LoadModules as _};
use resources::block::SystemDisk;
use resources::config::MachineConfig;
use resources::runtime::DevicesStatus;
use sequencer::{TaskContext, TaskError};
use state::{Kind, Store, WatchOptions};
use sys::early::{EarlyError, EarlySystem};
use sys::files::{self, Access};
use sys::udev::Devices;

/// Rules of extensions, and of the configuration (Talos 1.7).
const RULES: &str = "/usr/etc/udev/rules.d";
/// Where udevd looks for them.
const RULES_OF_UDEVD: &str = "/etc/udev/rules.d";
/// Both in a directory that can be written to.
const RENDERED: &str = "/system/udev";
/// Rules of the configuration.
const RULES_FILE: &str = "99-talos.rules";
const READABLE: Access = Access { mode: 0o644, owner: None };

/// Waits until the devices that the machine started with are known.
pub(crate) async fn known(store: &Store, context: &TaskContext) -> Result<(), TaskError> {
    wait(store, context, || are_known(store)).await
}

/// Waits for the devices that the machine needs for its configuration: the system disk, or all, if none of them is one.
pub(crate) async fn system_disk_or_all(store: &Store, context: &TaskContext) -> Result<(), TaskError> {
    let is_enough = || {
        let disk = store.get_as::<SystemDisk>(SystemDisk::ID)?;
        Ok(disk.is_some_and(|disk| disk.installed) || are_known(store)?)
    };
    wait(store, context, is_enough).await
}

fn are_known(store: &Store) -> Result<bool, TaskError> {
    Ok(store.get_as::<DevicesStatus>(DevicesStatus::ID)?.is_some_and(|status| status.ready))
}

async fn wait(
    store: &Store,
    context: &TaskContext,
    is_over: impl Fn() -> Result<bool, TaskError>,
) -> Result<(), TaskError> {
    loop {
        // The watches first: a change after the look is an event.
        let mut devices = store.watch_kind(&Kind::of::<DevicesStatus>(), WatchOptions::default())?;
        let mut disks = store.watch_kind(&Kind::of::<SystemDisk>(), WatchOptions::default())?;
        if is_over()? {
            return Ok(());
        }
        // All arms are cancel-safe: a watch that missed something is begun anew, and the state looked at.
        tokio::select! {
            event = devices.next() => drop(event),
            event = disks.next() => drop(event),
            () = context.cancel.cancelled() => return Err("udevd has not handled all devices".into()),
        }
    }
}

/// Modules of no device, whose parameters are set at the start: bridged packets pass netfilter.
const MODULES: [&str; 1] = ["br_netfilter"];

/// Loads what no device asks for.
pub(crate) async fn load_modules() -> Result<(), TaskError> {
    let load = || MODULES.iter().try_for_each(|name| ImageModules.load(name, ""));
    // The kernel decompresses and checks them.
    Ok(tokio::task::spawn_blocking(load).await??)
}

/// Shows one directory of rules in both places: those of extensions, and room for those of the configuration.
pub(crate) fn prepare_rules(system: &dyn EarlySystem) -> Result<(), EarlyError> {
    for (name, rules) in system.files(Path::new(RULES))? {
        system.write_file(&Path::new(RENDERED).join(&name), &rules)?;
    }
    [RULES, RULES_OF_UDEVD].iter().try_for_each(|target| system.bind(Path::new(RENDERED), Path::new(target)))
}

/// The rules of the configuration, and devices as they make them.
pub(crate) async fn write_rules(store: &Store, devices: &dyn Devices) -> Result<(), TaskError> {
    let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let udev = MachineConfig::root_of(active.as_deref())?.and_then(|config| config.machine().udev.clone());
    let text = rules_text(udev.map(|udev| udev.rules).unwrap_or_default().as_slice());
    let path = PathBuf::from(RENDERED).join(RULES_FILE);
    if text.is_empty() && !path.exists() {
        return Ok(());
    }
    files::write_atomic(&path, text.as_bytes(), READABLE)?;
    devices.reload().await?;
    devices.trigger_all().await?;
    Ok(devices.settle().await?)
}

/// One rule a line.
fn rules_text(rules: &[String]) -> String {
    rules.iter().map(|rule| format!("{}\n", rule.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use sys::early::{Call, FakeEarlySystem, SystemMount};
    use sys::mounts::MountFlags;

    use super::*;

    #[test]
    fn rules_of_extensions_are_in_both_places_with_room_for_those_of_the_configuration() {
        let system = || {
            let system = FakeEarlySystem::new(&["/system", RULES, RULES_OF_UDEVD], &["tmpfs"], &[])
                .with_text("/usr/etc/udev/rules.d/90-nic.rules", "rule");
            let mount = SystemMount { kind: "tmpfs", target: "/system", flags: MountFlags::empty(), data: "" };
            system.mount(&mount).unwrap();
            system.directory(Path::new(RENDERED), 0o755).unwrap();
            system
        };
        let whole = system();
        let before = whole.calls().len();
        prepare_rules(&whole).unwrap();
        assert_eq!(whole.text("/system/udev/90-nic.rules").as_deref(), Some("rule"));
        let bind = |target: &str| Call::Bind(RENDERED.into(), target.into());
        assert_eq!(whole.calls()[before + 1..], [bind(RULES), bind(RULES_OF_UDEVD)]);
        for call in before..whole.calls().len() {
            let system = system();
            system.fail_at(call);
            let failure = prepare_rules(&system).expect_err("a call failed unseen");
            assert!(stdx::error_chain(&failure).ends_with("made to fail"), "{failure}");
        }
    }

    #[test]
    fn each_rule_is_a_line() {
        assert_eq!(rules_text(&["A==\"b\"".into(), "C==\"d\"\n".into()]), "A==\"b\"\nC==\"d\"\n");
        assert_eq!(rules_text(&[]), "");
    }
}
