//! What this machine knows of itself, for the request for its configuration: read from its resources.

use async_trait::async_trait;
use machine::config_url::Variable;
use platform::{Filesystem, Inventory};
use resources::Spec;
use resources::block::{DiscoveredVolume, SystemDisk};
use resources::hardware::SystemInformation;
use resources::network::{HardwareAddress, HostnameStatus};
use resources::runtime::{DevicesStatus, MetaKey};
use state::{Kind, Resource, Store, WatchOptions};

/// The word in META that [`Variable::Code`] stands for (Talos 1.7).
const CODE: &str = "0x0b";

/// Reads resources as they come.
#[derive(Debug)]
pub(crate) struct StoreInventory {
    pub(crate) store: Store,
}

impl StoreInventory {
    /// The first value that a resource gives. A store that cannot be read gives none.
    async fn value<S: Spec, T>(&self, id: &str, value: impl Fn(&Resource<S>) -> Option<T>) -> T {
        loop {
            // The watch first: a change after the look is an event.
            let changes = self.store.watch_kind(&Kind::of::<S>(), WatchOptions::default());
            let found = self.store.get_as::<S>(id).ok().flatten();
            if let Some(value) = found.as_ref().and_then(&value) {
                return value;
            }
            match changes {
                Ok(mut changes) => drop(changes.next().await),
                Err(error) => {
                    tracing::error!(error = stdx::error_chain(&error), id, "the resource is not seen");
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl StoreInventory {
    fn labelled(&self, label: &str) -> Option<Filesystem> {
        let volumes = self.store.list_as::<DiscoveredVolume>().unwrap_or_default();
        let found = volumes.iter().find(|volume| volume.label == label)?;
        Some(Filesystem { device: found.device_path.clone().into(), kind: found.name.clone() })
    }

    /// Whether udevd has handled all devices, and the search for the system disk is over. Of an installed machine it is over
    /// when that disk was found: others may still appear.
    fn has_seen_all_disks(&self) -> bool {
        let devices = self.store.get_as::<DevicesStatus>(DevicesStatus::ID).ok().flatten();
        let disk = self.store.get_as::<SystemDisk>(SystemDisk::ID).ok().flatten();
        devices.is_some_and(|status| status.ready) && disk.is_some_and(|disk| disk.settled)
    }
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[async_trait]
impl Inventory for StoreInventory {
    async fn variable(&self, variable: Variable) -> String {
        match variable {
            Variable::Uuid => {
                self.value::<SystemInformation, _>(SystemInformation::ID, |system| known(&system.uuid)).await
            }
            Variable::Serial => {
                self.value::<SystemInformation, _>(SystemInformation::ID, |system| known(&system.serialnumber)).await
            }
            Variable::Mac => {
                self.value::<HardwareAddress, _>(HardwareAddress::ID, |address| {
                    known(&address.hardware_addr.to_string())
                })
                .await
            }
            Variable::Hostname => {
                self.value::<HostnameStatus, _>(HostnameStatus::ID, |status| known(&status.hostname)).await
            }
            Variable::Code => self.value::<MetaKey, _>(CODE, |key| known(&key.value)).await,
        }
    }

    async fn filesystem(&self, label: &str) -> Option<Filesystem> {
        loop {
            // The watches first: a change after the look is an event.
            let watch = |kind: Kind| self.store.watch_kind(&kind, WatchOptions::default());
            let volumes = watch(Kind::of::<DiscoveredVolume>());
            let devices = watch(Kind::of::<DevicesStatus>());
            let disks = watch(Kind::of::<SystemDisk>());
            if let Some(found) = self.labelled(label) {
                return Some(found);
            }
            if self.has_seen_all_disks() {
                return None;
            }
            let (mut volumes, mut devices, mut disks) = match (volumes, devices, disks) {
                (Ok(volumes), Ok(devices), Ok(disks)) => (volumes, devices, disks),
                (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => {
                    tracing::error!(error = stdx::error_chain(&error), label, "volumes are not seen");
                    return None;
                }
            };
            // All arms are cancel-safe: a watch that missed something is begun anew, and the state looked at.
            tokio::select! {
                event = volumes.next() => drop(event),
                event = devices.next() => drop(event),
                event = disks.next() => drop(event),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> StoreInventory {
        let store = Store::new();
        for definition in resources::definitions() {
            store.register(definition);
        }
        for namespace in resources::NAMESPACES {
            store.register_namespace(namespace);
        }
        StoreInventory { store }
    }

    #[tokio::test(start_paused = true)]
    async fn a_variable_is_waited_for_until_it_has_a_value() {
        let inventory = inventory();
        let put = |serial: &str| {
            let system = SystemInformation { serialnumber: serial.into(), ..SystemInformation::default() };
            inventory.store.put(SystemInformation::ID, system, "test").unwrap();
        };
        put("");
        let asked = inventory.variable(Variable::Serial);
        tokio::pin!(asked);
        let nine_seconds = tokio::time::sleep(std::time::Duration::from_secs(9));
        // Both arms are cancel-safe: the question is pinned outside, and time is nobody's.
        let early = tokio::select! {
            value = &mut asked => Some(value),
            () = nine_seconds => None,
        };
        assert_eq!(early, None);
        put("S-1");
        assert_eq!(asked.await, "S-1");
    }

    fn medium() -> DiscoveredVolume {
        DiscoveredVolume {
            label: "metal-iso".into(),
            name: "iso9660".into(),
            device_path: "/dev/sr0".into(),
            ..DiscoveredVolume::default()
        }
    }

    fn disk(installed: bool, settled: bool) -> SystemDisk {
        SystemDisk { installed, settled, ..SystemDisk::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_filesystem_is_found_by_its_label_once_devices_are_known() {
        let inventory = inventory();
        inventory.store.put(DevicesStatus::ID, DevicesStatus { ready: true }, "test").unwrap();
        inventory.store.put(SystemDisk::ID, disk(false, true), "test").unwrap();
        assert_eq!(inventory.filesystem("metal-iso").await, None);
        inventory.store.put("sr0", medium(), "test").unwrap();
        let found = inventory.filesystem("metal-iso").await.unwrap();
        assert_eq!((found.device.to_str(), found.kind.as_str()), (Some("/dev/sr0"), "iso9660"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_filesystem_on_a_disk_that_is_still_starting_is_waited_for() {
        let inventory = inventory();
        inventory.store.put(DevicesStatus::ID, DevicesStatus { ready: true }, "test").unwrap();
        inventory.store.put(SystemDisk::ID, disk(false, false), "test").unwrap();
        let asked = inventory.filesystem("metal-iso");
        tokio::pin!(asked);
        let early = tokio::time::timeout(std::time::Duration::from_secs(9), &mut asked).await;
        assert!(early.is_err(), "disks are starting, and it said {early:?}");
        inventory.store.put("sr0", medium(), "test").unwrap();
        let found = asked.await.expect("the disk is there");
        assert_eq!(found.device.to_str(), Some("/dev/sr0"), "it is not waited for other disks");
    }
}
