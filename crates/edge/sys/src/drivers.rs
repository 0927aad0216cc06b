//! Drivers of the devices that disks and links are found by: loaded by the aliases of devices, side by side, before the device
//! manager is asked for anything. What it would do for each device in processes of its own, one after another, is done here in
//! a moment. All other drivers are left to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::modules::{ModuleError, Modules};

/// Directories of the kernel's tree with drivers of buses, disks and links.
const DIRECTORIES: [&str; 13] = [
    "kernel/drivers/ata/",
    "kernel/drivers/block/",
    "kernel/drivers/hv/",
    "kernel/drivers/message/",
    "kernel/drivers/mmc/",
    "kernel/drivers/net/",
    "kernel/drivers/nvme/",
    "kernel/drivers/pci/",
    "kernel/drivers/scsi/",
    "kernel/drivers/usb/host/",
    "kernel/drivers/usb/storage/",
    "kernel/drivers/virtio/",
    "kernel/drivers/xen/",
];
/// Modules that are loaded at once. Most of the time of each is the work of the processor.
const AT_ONCE: usize = 4;
/// Buses behind buses, as a bound: a disk behind a controller behind a bridge takes three rounds.
const MAX_ROUNDS: usize = 16;
/// Where the kernel shows its devices.
const SYS: &str = "/sys";

/// Loads modules by name.
trait Load: Sync {
    fn for_devices(&self, aliases: &[String]) -> Vec<String>;
    fn file(&self, name: &str) -> Option<&str>;
    fn load(&self, name: &str) -> Result<(), ModuleError>;
}

impl Load for Modules {
    fn for_devices(&self, aliases: &[String]) -> Vec<String> {
        self.for_devices(aliases)
    }

    fn file(&self, name: &str) -> Option<&str> {
        self.file(name)
    }

    fn load(&self, name: &str) -> Result<(), ModuleError> {
        self.load(name, "")
    }
}

/// The drivers of this machine while they are loaded. Clones are one.
#[derive(Debug, Clone)]
pub struct Drivers(watch::Receiver<bool>);

impl Drivers {
    /// Starts to load them, in a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (done, loaded) = watch::channel(false);
        std::thread::Builder::new().name("drivers".into()).spawn(move || {
            let started = Instant::now();
            match Modules::of_running_kernel() {
                Ok(modules) => {
                    let loaded = load(Path::new(SYS), &modules);
                    tracing::info!(drivers = loaded.join(" "), duration = ?started.elapsed(), "drivers loaded");
                }
                // The other end sees that nobody will tell it more.
                Err(error) => return tracing::error!(error = stdx::error_chain(&error), "no drivers are loaded"),
            }
            done.send_replace(true);
        })?;
        Ok(Self(loaded))
    }

    /// Returns when the drivers of all devices are loaded, and with them the devices that those found; false where they cannot
    /// be loaded.
    pub async fn loaded(&self) -> bool {
        self.0.clone().wait_for(|is_done| *is_done).await.is_ok()
    }
}

/// Loads drivers until they find no more devices. Returns their names in the order of loading; failures are logged.
///
/// The kernel returns from loading a driver when it has looked for the driver's devices, also for those that it finds side by
/// side.
fn load(sys: &Path, modules: &impl Load) -> Vec<String> {
    let (mut known, mut asked, mut loaded) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for _ in 0..MAX_ROUNDS {
        let aliases: Vec<String> = aliases(sys).into_iter().filter(|alias| known.insert(alias.clone())).collect();
        let names = modules.for_devices(&aliases).into_iter();
        let names = names.filter(|name| is_early(modules.file(name)) && asked.insert(name.clone()));
        let names: Vec<String> = names.collect();
        if names.is_empty() {
            break;
        }
        loaded.extend(load_all(names, modules));
    }
    loaded
}

fn is_early(file: Option<&str>) -> bool {
    file.is_some_and(|file| DIRECTORIES.iter().any(|directory| file.starts_with(directory)))
}

/// Aliases of all devices that have no driver yet.
fn aliases(sys: &Path) -> BTreeSet<String> {
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let devices = entries(&sys.join("bus")).flat_map(|bus| entries(&bus.join("devices")).collect::<Vec<_>>());
    // Not every device has an alias.
    let aliases = devices.filter(|device| !device.join("driver").exists()).filter_map(|device| {
        let alias = fs::read_to_string(device.join("modalias")).ok()?;
        Some(alias.trim().to_owned()).filter(|alias| !alias.is_empty())
    });
    aliases.collect()
}

/// Loads some side by side; returns those that were loaded.
fn load_all(names: Vec<String>, modules: &impl Load) -> Vec<String> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(AT_ONCE).min(names.len());
    let (queue, loaded) = (Mutex::new(names.into_iter()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(name) = next(&queue) {
            match modules.load(&name) {
                Ok(()) => loaded.lock().push(name),
                // Several modules may say that they drive a device, and only one of them does.
                Err(error) => tracing::warn!(module = name, error = stdx::error_chain(&error), "driver not loaded"),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    loaded.into_inner()
}

/// Holds the lock only while it takes one.
fn next(queue: &Mutex<std::vec::IntoIter<String>>) -> Option<String> {
    queue.lock().next()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine whose devices appear as their drivers are loaded.
    struct Machine {
        sys: tempfile::TempDir,
        loaded: Mutex<Vec<String>>,
    }

    impl Machine {
        fn new() -> Self {
            let machine = Self { sys: tempfile::tempdir().unwrap(), loaded: Mutex::default() };
            machine.device("pci", "0000:00:1f.2", "pci:ahci\n");
            machine.device("pci", "0000:00:1f.0", "pci:lpc\n");
            machine.device("pci", "0000:00:02.0", "pci:broken\n");
            machine.device("acpi", "nothing", "\n");
            machine.device("pci", "bound", "pci:bound\n");
            let driver = machine.sys.path().join("bus/pci/devices/bound/driver");
            symlink(machine.sys.path(), driver).unwrap();
            machine
        }

        fn device(&self, bus: &str, name: &str, alias: &str) {
            let directory = self.sys.path().join("bus").join(bus).join("devices").join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("modalias"), alias).unwrap();
        }
    }

    impl Load for Machine {
        fn for_devices(&self, aliases: &[String]) -> Vec<String> {
            aliases.iter().filter_map(|alias| alias.split_once(':')).map(|(_, name)| name.to_owned()).collect()
        }

        fn file(&self, name: &str) -> Option<&str> {
            match name {
                "ahci" | "bound" => Some("kernel/drivers/ata/x.ko"),
                "lpc" => Some("kernel/drivers/mfd/lpc.ko"),
                "broken" => Some("kernel/drivers/net/broken.ko"),
                "sd_mod" => Some("kernel/drivers/scsi/sd_mod.ko"),
                _ => None,
            }
        }

        fn load(&self, name: &str) -> Result<(), ModuleError> {
            self.loaded.lock().push(name.to_owned());
            match name {
                "ahci" => (0..3).for_each(|disk| self.device("scsi", &format!("{disk}:0:0:0"), "scsi:sd_mod")),
                "broken" => return Err(ModuleError::Unknown(name.to_owned())),
                _ => {}
            }
            Ok(())
        }
    }

    #[test]
    fn disks_behind_controllers_are_found_and_other_devices_are_left() {
        let machine = Machine::new();
        assert_eq!(load(machine.sys.path(), &machine), ["ahci", "sd_mod"]);
        let mut asked = machine.loaded.lock().clone();
        asked.sort();
        assert_eq!(asked, ["ahci", "broken", "sd_mod"], "each is loaded once, and one that fails keeps no other back");
    }

    #[test]
    fn a_machine_without_devices_has_no_drivers() {
        let machine = Machine { sys: tempfile::tempdir().unwrap(), loaded: Mutex::default() };
        assert_eq!(load(machine.sys.path(), &machine), [""; 0]);
    }
}
