//! Block devices as the kernel has them, and the disks among them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::{BlockDevices, Device};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::block::{BlockDevice, Disk, SystemDisk};

/// `block.DevicesController`: `BlockDevice` for each device, `Disk` for each disk.
#[derive(Debug)]
pub struct DevicesController {
    devices: Arc<dyn BlockDevices>,
}

impl DevicesController {
    /// Lists `devices`.
    pub fn new(devices: Arc<dyn BlockDevices>) -> Self {
        Self { devices }
    }
}

#[async_trait]
impl Controller for DevicesController {
    fn name(&self) -> &'static str {
        "block.DevicesController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<SystemDisk>().id(SystemDisk::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<BlockDevice>(), Output::exclusive::<Disk>()]
    }

    fn resync(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("block devices", &self.devices.changes());
        let system = ctx.get::<SystemDisk>(SystemDisk::ID)?.map(|system| system.disk.clone()).unwrap_or_default();
        for device in self.devices.devices().await? {
            ctx.put(&device.name, block_device(&device))?;
            if device.is_disk() {
                ctx.put(&device.name, disk(&device, &system))?;
            }
        }
        ctx.keep_touched::<BlockDevice>()?;
        ctx.keep_touched::<Disk>()
    }
}

fn block_device(device: &Device) -> BlockDevice {
    let partition = device.partition.clone();
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    BlockDevice {
        r#type: kind(device).to_owned(),
        major: device.major.into(),
        minor: device.minor.into(),
        partition_name: partition.as_ref().map(|of| of.name.clone()).unwrap_or_default(),
        partition_number: partition.as_ref().map(|of| of.number.into()).unwrap_or_default(),
        device_path: device.path.display().to_string(),
        generation: number(device.generation),
        parent: partition.map(|of| of.disk).unwrap_or_default(),
    }
}

/// `disk` or `partition`.
pub(crate) fn kind(device: &Device) -> &'static str {
    if device.partition.is_some() { "partition" } else { "disk" }
}

fn disk(device: &Device, system: &str) -> Disk {
    let of = device.disk.clone();
    Disk {
        device_path: of.device_path,
        size: of.size,
        model: of.model,
        serial: of.serial,
        modalias: of.modalias,
        uuid: of.uuid,
        wwid: of.wwid,
        name: of.name,
        r#type: of.kind.as_str().to_owned(),
        bus_path: of.bus_path,
        subsystem: of.subsystem,
        readonly: of.is_read_only,
        system_disk: device.name == system,
    }
}

#[cfg(test)]
mod tests {
    use block::FakeBlock;
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn devices_come_and_go_and_only_disks_are_shown_as_disks() {
        let fake = FakeBlock::default();
        fake.add_disk("sda", 10 << 30);
        fake.add_disk("sr0", 1 << 30);
        fake.partition("sda", &[("META", 1 << 20)]).unwrap();
        let harness = Harness::with(DevicesController::new(Arc::new(fake.clone())));
        harness.put(SystemDisk::ID, SystemDisk { installed: true, disk: "sda".into(), ..SystemDisk::default() });
        harness.settle().await;
        assert_eq!(harness.ids::<BlockDevice>(), ["sda", "sda1", "sr0"]);
        assert_eq!(harness.ids::<Disk>(), ["sda"]);
        let partition = harness.get::<BlockDevice>("sda1").unwrap();
        assert_eq!((partition.r#type.as_str(), partition.parent.as_str()), ("partition", "sda"));
        assert_eq!((partition.partition_name.as_str(), partition.partition_number), ("META", 1));
        let disk = harness.get::<Disk>("sda").unwrap();
        assert_eq!((disk.device_path.as_str(), disk.size, disk.r#type.as_str()), ("/dev/sda", 10 << 30, "ssd"));
        assert!(disk.system_disk);

        fake.remove_disk("sda");
        fake.add_disk("nvme0n1", 1 << 30);
        harness.settle().await;
        assert_eq!(harness.ids::<BlockDevice>(), ["nvme0n1", "sr0"]);
        assert!(!harness.get::<Disk>("nvme0n1").unwrap().system_disk);
    }
}
