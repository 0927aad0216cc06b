//! The versions of the system on this machine: its boot loader, the installer image that waits to be run, and the way back.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use block::KernelFileSystems;
use block::efivar::{self, EfiVariables};
use block::slots::{BootLoader, KernelBootLoader, SlotsError};
use domain_storage::Leave;
use machine::cmdline::Cmdline;
use machine::grub::{self, Slot};
use machine::meta::{self, tag};
use machine::trial::{Phase, Record, SlotId, Slots};
use machine_api::{Versions, VersionsError};
use resources::config::MachineConfig;
use resources::runtime::MetaKey;
use sequencer::events::{ErrorCode, SequenceAction, SequenceError};
use sequencer::{ActorId, EventBus, Lifecycle, Parameters, Payload, RebootMode, Request, Sequence};
use services::installation::{Installer, MemoryInstaller};
use state::Store;
use stdx::error_chain;
use stdx::tasks::CancellationToken;

use crate::system_disk;

/// The actor of the reboot that leaves a version.
const TRIAL: &str = "upgrade trial";

/// The boot loader of the system disk, whichever that is now.
#[derive(Debug, Clone)]
pub(crate) struct NodeBootLoader(pub(crate) Store);

impl NodeBootLoader {
    fn now(&self) -> Result<KernelBootLoader, SlotsError> {
        let disk = system_disk::device(&self.0).ok().flatten().ok_or(SlotsError::NotInstalled)?;
        let filesystems = Arc::new(KernelFileSystems);
        if efivar::is_uefi(Path::new("/sys")) {
            return Ok(KernelBootLoader::unified(disk, EfiVariables::new(efivar::DIRECTORY), filesystems));
        }
        let line = Cmdline::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
        let booted = line.last(grub::BOOT_IMAGE).and_then(Slot::of_boot_image);
        Ok(KernelBootLoader::grub(disk, booted, filesystems))
    }
}

#[async_trait]
impl BootLoader for NodeBootLoader {
    async fn slots(&self) -> Result<Slots, SlotsError> {
        self.now()?.slots().await
    }

    async fn start_next(&self, slot: Option<&SlotId>) -> Result<(), SlotsError> {
        self.now()?.start_next(slot).await
    }

    async fn make_default(&self, slot: &SlotId) -> Result<(), SlotsError> {
        self.now()?.make_default(slot).await
    }
}

/// Leaves a version by a reboot that takes over from whatever runs.
#[derive(Debug)]
pub(crate) struct LeaveByReboot {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) events: EventBus,
}

impl Leave for LeaveByReboot {
    fn leave(&self, reason: &str) {
        tracing::error!(reason, "this version is left");
        let reboot = Request::new(Sequence::Reboot, ActorId::new(TRIAL)).taking_over();
        // A refusal means that the machine ends already.
        self.lifecycle.request(reboot.with(Parameters::Reboot(RebootMode::Powercycle))).ok();
    }

    /// As the end of the sequence `upgrade`: Talos 1.7 has no event of its own for it.
    fn tell(&self, version: &str, reason: &str) {
        let message = format!("{version} has lost its slot: {reason}");
        self.events.publish(Payload::Sequence {
            sequence: Sequence::Upgrade.name().to_owned(),
            action: SequenceAction::Stop,
            error: Some(SequenceError { code: ErrorCode::Fatal, message }),
        });
    }
}

/// The record of the last trial; none where there is none that can be read.
pub(crate) fn record(store: &Store) -> Option<Record> {
    let value = store.get_as::<MetaKey>(&meta::resource_id(tag::TRIAL)).ok().flatten()?;
    Record::parse(value.value.as_bytes()).ok()
}

/// Versions for the API.
#[derive(Debug)]
pub(crate) struct NodeVersions {
    store: Store,
    loader: NodeBootLoader,
    installer: MemoryInstaller,
}

impl NodeVersions {
    pub(crate) fn new(store: Store) -> Self {
        Self { loader: NodeBootLoader(store.clone()), store, installer: MemoryInstaller::default() }
    }
}

#[async_trait]
impl Versions for NodeVersions {
    async fn fetch(&self, image: &str) -> Result<(), VersionsError> {
        let not_possible = |error: &(dyn std::error::Error + 'static)| VersionsError::NotPossible(error_chain(error));
        if let Some(trial) = record(&self.store).filter(Record::is_open) {
            // Its way back is the slot that an upgrade would overwrite.
            return Err(VersionsError::NotPossible(format!("{} is on trial: wait until that is over", trial.version)));
        }
        // What cannot be read now cannot be changed either.
        self.loader.slots().await.map_err(|error| not_possible(&error))?;
        let active = self.store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID);
        let active = active.map_err(|error| not_possible(&error))?;
        let registries = domain_runtime::cri_config::pull_registries(active.as_deref());
        let fetched = self.installer.fetch(image, &registries, CancellationToken::new()).await;
        fetched.map_err(|error| VersionsError::Image(error_chain(&error)))
    }

    fn forget(&self) {
        self.installer.forget();
    }

    async fn roll_back(&self) -> Result<String, VersionsError> {
        let failed = |error: SlotsError| VersionsError::NotPossible(error_chain(&error));
        let slots = self.loader.slots().await.map_err(failed)?;
        let other = to_roll_back_to(&slots, record(&self.store).as_ref())?;
        self.loader.make_default(&other.0).await.map_err(failed)?;
        Ok(other.1)
    }
}

/// The version beside the running one, with its name.
fn to_roll_back_to(slots: &Slots, record: Option<&Record>) -> Result<(SlotId, String), VersionsError> {
    let none = || VersionsError::NotPossible("this machine has no other version".to_owned());
    let other = slots.other().ok_or_else(none)?;
    match record {
        Some(record) if record.is_open() => Err(VersionsError::NotPossible(format!(
            "{} is on trial: it goes back by itself if it does not show itself good",
            record.version
        ))),
        Some(record) if record.phase == Phase::Failed && record.slot == other.slot => Err(VersionsError::NotPossible(
            format!("the other version, {}, has failed its trial: {}", other.version, record.reason),
        )),
        _ => Ok((other.slot.clone(), other.version.clone())),
    }
}

#[cfg(test)]
mod tests {
    use machine::trial::Installed;

    use super::*;

    #[test]
    fn the_way_back_leads_to_the_other_version_unless_that_failed() {
        let installed = |slot: &str, version: &str| Installed {
            slot: SlotId::new(slot),
            version: version.into(),
            tries_left: None,
        };
        let (old, new) = (installed("A", "v1"), installed("B", "v2"));
        let booted = Some(new.slot.clone());
        let slots = Slots { default: booted.clone(), next: None, booted, installed: vec![old.clone(), new.clone()] };
        let back = to_roll_back_to(&slots, None).unwrap();
        assert_eq!(back, (old.slot.clone(), "v1".to_owned()));
        let mut record = Record::prepared(&old, &new, Vec::new(), 60);
        let error = to_roll_back_to(&slots, Some(&record)).unwrap_err();
        assert!(error.to_string().starts_with("v1 is on trial"), "{error}");
        (record.phase, record.reason) = (Phase::Failed, "no API".into());
        let error = to_roll_back_to(&slots, Some(&record)).unwrap_err();
        assert_eq!(error.to_string(), "the other version, v1, has failed its trial: no API");
        record.phase = Phase::Good;
        to_roll_back_to(&slots, Some(&record)).unwrap();
        let alone = Slots { installed: vec![new], ..slots };
        let error = to_roll_back_to(&alone, None).unwrap_err();
        assert_eq!(error.to_string(), "this machine has no other version");
    }
}
