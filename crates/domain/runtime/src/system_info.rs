//! `hardware.SystemInfoController`: the machine as its firmware describes it.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use machine::smbios;
use resources::hardware::{MemoryModule, Processor, SystemInformation};
use resources::machine::{Ownership, PlatformCapabilities};
use resources::runtime::MetaKey;

/// Where the kernel shows the firmware's table.
pub const TABLES: &str = "/sys/firmware/dmi/tables";
/// A UUID that an operator gave instead of the firmware's (Talos 1.7).
const UUID_OVERRIDE: &str = "0x0f";

/// Reads the firmware's table.
#[derive(Debug)]
pub struct SystemInfoController {
    /// Directory of the kernel's files `smbios_entry_point` and `DMI`.
    pub tables: PathBuf,
}

#[async_trait]
impl Controller for SystemInfoController {
    fn name(&self) -> &'static str {
        "hardware.SystemInfoController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID),
            Input::weak::<MetaKey>().id(UUID_OVERRIDE),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::exclusive::<SystemInformation>(),
            Output::exclusive::<Processor>(),
            Output::exclusive::<MemoryModule>(),
        ]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(capabilities) = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)? else { return Ok(()) };
        if capabilities.kernel == Ownership::Machine {
            // A machine without such a table has nothing to show.
            let machine = read(&self.tables).unwrap_or_default();
            let mut system = system(machine.system.unwrap_or_default());
            if let Some(uuid) = ctx.get::<MetaKey>(UUID_OVERRIDE)? {
                system.uuid.clone_from(&uuid.value);
            }
            ctx.put(SystemInformation::ID, system)?;
            for (index, found) in machine.processors.into_iter().enumerate() {
                ctx.put(&format!("CPU-{index}"), processor(found))?;
            }
            for (index, found) in machine.memory.into_iter().enumerate() {
                ctx.put(&format!("MEMORY-{index}"), module(found))?;
            }
        }
        ctx.keep_touched::<SystemInformation>()?;
        ctx.keep_touched::<Processor>()?;
        ctx.keep_touched::<MemoryModule>()
    }
}

fn read(tables: &Path) -> Option<smbios::Machine> {
    let version = smbios::version(&std::fs::read(tables.join("smbios_entry_point")).ok()?)?;
    Some(smbios::read(&std::fs::read(tables.join("DMI")).ok()?, version))
}

fn system(found: smbios::System) -> SystemInformation {
    SystemInformation {
        manufacturer: found.manufacturer,
        product_name: found.product,
        version: found.version,
        serialnumber: found.serial,
        uuid: found.uuid,
        wake_up_type: found.wake_up.to_owned(),
        sku_number: found.sku,
    }
}

fn processor(found: smbios::Processor) -> Processor {
    Processor {
        socket: found.socket,
        manufacturer: found.manufacturer,
        product_name: found.product,
        max_speed_mhz: found.max_speed.into(),
        boot_speed_mhz: found.boot_speed.into(),
        status: found.status.into(),
        serial_number: found.serial,
        asset_tag: found.asset_tag,
        part_number: found.part,
        core_count: found.cores.into(),
        core_enabled: found.enabled_cores.into(),
        thread_count: found.threads.into(),
    }
}

fn module(found: smbios::Memory) -> MemoryModule {
    MemoryModule {
        size_mib: found.size_mib,
        device_locator: found.locator,
        bank_locator: found.bank,
        speed: found.speed.into(),
        manufacturer: found.manufacturer,
        serial_number: found.serial,
        asset_tag: found.asset_tag,
        product_name: found.product,
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::machine::PlatformMode;

    use super::*;

    /// One structure of type 1: manufacturer, no other text, a UUID.
    const TABLE: &[u8] =
        b"\x01\x1b\0\0\x01\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x06\0\0QEMU\0\0";

    #[tokio::test(start_paused = true)]
    async fn a_machine_shows_what_its_firmware_says_and_meta_may_give_it_another_uuid() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("smbios_entry_point"), b"_SM_\0\x1f\x02\x08\0").unwrap();
        std::fs::write(directory.path().join("DMI"), TABLE).unwrap();
        let harness = Harness::with(SystemInfoController { tables: directory.path().to_owned() });
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.settle().await;
        assert_eq!(harness.ids::<SystemInformation>(), [""; 0], "it is the host's");
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        let system = || harness.get::<SystemInformation>(SystemInformation::ID).unwrap();
        assert_eq!((system().manufacturer.as_str(), system().wake_up_type.as_str()), ("QEMU", "Power Switch"));
        assert_eq!(system().uuid, "04030201-0605-0807-090a-0b0c0d0e0f10");
        harness.put(UUID_OVERRIDE, MetaKey { value: "ours".into() });
        harness.settle().await;
        assert_eq!(system().uuid, "ours");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_a_table_has_an_empty_description() {
        let harness = Harness::with(SystemInfoController { tables: PathBuf::from("/no/tables") });
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        let system = harness.get::<SystemInformation>(SystemInformation::ID).unwrap();
        assert_eq!(*system.spec, SystemInformation::default());
    }
}
