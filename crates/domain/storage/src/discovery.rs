//! What devices hold, and which disk has the system.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::{BlockDevices, Device, Probed};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use machine::{gpt, layout};
use resources::block::{DiscoveredVolume, SystemDisk};
use resources::runtime::DevicesStatus;
use tokio::time::Instant;

use crate::devices::kind;

/// Disks that start slowly are waited for this long after all other devices are set up.
const SLOW_DISKS: Duration = Duration::from_secs(15);
/// How often it is looked whether they are there.
const LOOK: Duration = Duration::from_millis(500);

/// `block.DiscoveryController`: `DiscoveredVolume` for each device, and `SystemDisk`.
#[derive(Debug)]
pub struct DiscoveryController {
    devices: Arc<dyn BlockDevices>,
    /// What is known of each device, for the generation and size that it was found with.
    known: BTreeMap<String, (u64, u64, Probed)>,
    /// When the other devices were seen to be set up.
    ready: Option<Instant>,
    has_settled: bool,
}

impl DiscoveryController {
    /// Looks at `devices`.
    pub fn new(devices: Arc<dyn BlockDevices>) -> Self {
        Self { devices, known: BTreeMap::new(), ready: None, has_settled: false }
    }

    /// Probes devices that are new or changed; forgets those that are gone. One that cannot be read holds nothing.
    async fn look(&mut self, devices: &[Device]) {
        self.known.retain(|name, _| devices.iter().any(|device| device.name == *name));
        for device in devices.iter().filter(|device| device.size > 0) {
            let known = self.known.get(&device.name);
            if known.is_some_and(|(generation, size, _)| (*generation, *size) == (device.generation, device.size)) {
                continue;
            }
            let probed = self.devices.probe(device).await.unwrap_or_else(|error| {
                tracing::warn!(device = device.name, error = stdx::error_chain(&error), "device cannot be probed");
                Probed::default()
            });
            self.known.insert(device.name.clone(), (device.generation, device.size, probed));
        }
    }

    /// Whether the search for the system disk is over, or what it waits for.
    async fn settled(&mut self, ctx: &mut Ctx, are_ready: bool) -> Result<Result<(), String>, ReconcileError> {
        if self.has_settled {
            return Ok(Ok(()));
        }
        if !are_ready {
            return Ok(Err("devices of the machine are being set up".to_owned()));
        }
        let since = *self.ready.get_or_insert_with(Instant::now);
        let pending = self.devices.pending().await?;
        if !pending.is_empty() && since.elapsed() < SLOW_DISKS {
            ctx.requeue_after(LOOK);
            return Ok(Err(format!("disks are starting: {}", pending.join(", "))));
        }
        self.has_settled = true;
        Ok(Ok(()))
    }
}

#[async_trait]
impl Controller for DiscoveryController {
    fn name(&self) -> &'static str {
        "block.DiscoveryController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<DevicesStatus>().id(DevicesStatus::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<DiscoveredVolume>(), Output::exclusive::<SystemDisk>()]
    }

    fn resync(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("block devices", &self.devices.changes());
        // Asked before looking: what was set up until now is then seen.
        let are_ready = ctx.get::<DevicesStatus>(DevicesStatus::ID)?.is_some_and(|status| status.ready);
        let devices = self.devices.devices().await?;
        self.look(&devices).await;
        // Without a medium there is no volume: an empty drive, a loop device without a file.
        for device in devices.iter().filter(|device| device.size > 0) {
            let probed = self.known.get(&device.name).map(|(_, _, probed)| probed);
            let table = device.partition.as_ref().and_then(|of| self.known.get(&of.disk)?.2.table.as_ref());
            ctx.put(&device.name, volume(device, probed, table))?;
        }
        ctx.keep_touched::<DiscoveredVolume>()?;
        let tables: Vec<(&Device, &gpt::Table)> = devices
            .iter()
            .filter_map(|device| Some((device, self.known.get(&device.name)?.2.table.as_ref()?)))
            .collect();
        let mut system = system_disk(&tables);
        if system.installed {
            self.has_settled = true;
        }
        match self.settled(ctx, are_ready).await? {
            Ok(()) => system.settled = true,
            Err(waits_for) => system.reason = waits_for,
        }
        ctx.put(SystemDisk::ID, system)?;
        Ok(())
    }
}

fn volume(device: &Device, probed: Option<&Probed>, table: Option<&gpt::Table>) -> DiscoveredVolume {
    let content = probed.and_then(|probed| probed.content.clone()).unwrap_or_default();
    let mut volume = DiscoveredVolume {
        r#type: kind(device).to_owned(),
        device_path: device.path.display().to_string(),
        size: device.size,
        sector_size: device.sector_size.into(),
        io_size: device.io_size.into(),
        name: content.name.to_owned(),
        uuid: content.uuid,
        label: content.label,
        block_size: content.block_size,
        filesystem_block_size: content.filesystem_block_size,
        probed_size: content.size,
        ..DiscoveredVolume::default()
    };
    if let Some(of) = &device.partition {
        volume.parent.clone_from(&of.disk);
        volume.partition_index = of.number.into();
        volume.partition_label.clone_from(&of.name);
        if let Some(entry) = table.and_then(|table| table.partitions.iter().find(|entry| entry.number == of.number)) {
            volume.partition_uuid = entry.id.to_string().to_lowercase();
            volume.partition_type = entry.kind.to_string().to_lowercase();
            volume.partition_label = entry.name.chars().filter(|c| !c.is_control()).collect();
        }
    }
    volume
}

/// The first disk with the partitions of a system whose installation was finished.
fn system_disk(tables: &[(&Device, &gpt::Table)]) -> SystemDisk {
    let is_system = |table: &gpt::Table| {
        let needed = [layout::Label::Meta, layout::Label::State, layout::Label::Ephemeral];
        !layout::is_unfinished(table) && needed.iter().all(|label| table.by_name(label.name()).is_some())
    };
    let mut systems = tables.iter().filter(|(_, table)| is_system(table)).map(|(device, _)| *device);
    let Some(first) = systems.next() else {
        let unfinished = tables.iter().find(|(_, table)| layout::is_unfinished(table));
        let reason = match unfinished {
            Some((device, _)) => format!("the installation on {} was not finished", device.path.display()),
            None => "no disk has the system's partitions".to_owned(),
        };
        return SystemDisk { reason, ..SystemDisk::default() };
    };
    let others: Vec<String> = systems.map(|device| device.path.display().to_string()).collect();
    let reason = if others.is_empty() {
        "it has the system's partitions".to_owned()
    } else {
        format!("the first by name of those with the system's partitions; others: {}", others.join(", "))
    };
    SystemDisk {
        installed: true,
        settled: true,
        disk: first.name.clone(),
        device_path: first.path.display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests;
