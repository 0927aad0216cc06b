//! The configuration that the boot waits for.

use resources::config::MachineType;
use resources::revision::MachineConfigRevision;
use resources::v1alpha1::AcquireConfigSpec;
use sequencer::{TaskContext, TaskError};
use state::{Key, Kind, StateError, Store, WatchOptions};

use super::SEQUENCER;

/// Has the configuration acquired and waits for the type of the machine, which it gives; meanwhile the machine may be in
/// maintenance mode.
pub(crate) async fn load(store: &Store, context: &TaskContext) -> Result<(), TaskError> {
    store.put(AcquireConfigSpec::ID, AcquireConfigSpec {}, SEQUENCER)?;
    loop {
        // The watch first: a change after the look is an event.
        let mut changes = store.watch_kind(&Kind::of::<MachineType>(), WatchOptions::default())?;
        if store.get_as::<MachineType>(MachineType::ID)?.is_some_and(|kind| *kind != MachineType::Unknown) {
            return Ok(end_acquisition(store)?);
        }
        // Both arms are cancel-safe: a watch that missed something is begun anew, and the state looked at.
        tokio::select! {
            event = changes.next() => drop(event),
            () = context.cancel.cancelled() => return Err("no configuration came".into()),
        }
    }
}

/// Waits until the configuration in force is on its volume.
pub(crate) async fn saved(store: &Store, context: &TaskContext) -> Result<(), TaskError> {
    loop {
        let mut changes = store.watch_kind(&Kind::of::<MachineConfigRevision>(), WatchOptions::default())?;
        if store.get_as::<MachineConfigRevision>(MachineConfigRevision::PERSISTENT)?.is_some() {
            return Ok(());
        }
        // Both arms are cancel-safe: a watch that missed something is begun anew, and the state looked at.
        tokio::select! {
            event = changes.next() => drop(event),
            () = context.cancel.cancelled() => return Err("the configuration is not written to STATE".into()),
        }
    }
}

/// The configuration exists.
fn end_acquisition(store: &Store) -> Result<(), StateError> {
    match store.destroy(&Key::of::<AcquireConfigSpec>(AcquireConfigSpec::ID), SEQUENCER) {
        Err(StateError::NotFound(_)) => Ok(()),
        ended => ended,
    }
}
