//! The configuration that the boot waits for.

use std::time::Duration;

use domain_runtime::configuration::MAINTENANCE_ID;
use resources::config::MachineType;
use resources::revision::MachineConfigRevision;
use resources::runtime::MaintenanceServiceRequest;
use resources::v1alpha1::AcquireConfigSpec;
use sequencer::{TaskContext, TaskError};
use state::{Key, Kind, StateError, Store, WatchOptions};
use tokio::time::Instant;

use super::SEQUENCER;

/// How long the platform may be asked for the configuration before the machine tries itself anew by a reboot (Talos 1.7).
const PLATFORM: Duration = Duration::from_secs(3 * 60 * 60);

/// Has the configuration acquired and waits for the type of the machine, which it gives; meanwhile the machine may be in
/// maintenance mode, where it waits without a limit.
///
/// # Errors
/// The platform has given no configuration within three hours.
pub(crate) async fn load(store: &Store, context: &TaskContext) -> Result<(), TaskError> {
    store.put(AcquireConfigSpec::ID, AcquireConfigSpec {}, SEQUENCER)?;
    let mut asked_since = Instant::now();
    loop {
        // The watches first: a change after the look is an event.
        let mut types = store.watch_kind(&Kind::of::<MachineType>(), WatchOptions::default())?;
        let mut modes = store.watch_kind(&Kind::of::<MaintenanceServiceRequest>(), WatchOptions::default())?;
        if store.get_as::<MachineType>(MachineType::ID)?.is_some_and(|kind| *kind != MachineType::Unknown) {
            return Ok(end_acquisition(store)?);
        }
        let waits_for_operator = store.get_as::<MaintenanceServiceRequest>(MAINTENANCE_ID)?.is_some();
        let limit = async {
            if waits_for_operator {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep_until(asked_since + PLATFORM).await;
        };
        // All arms are cancel-safe: a watch that missed something is begun anew, and the state looked at.
        tokio::select! {
            event = types.next() => drop(event),
            event = modes.next() => drop(event),
            () = limit => {
                let hours = PLATFORM.as_secs() / 3600;
                return Err(format!("the platform has given no configuration within {hours} h").into());
            }
            () = context.cancel.cancelled() => return Err("no configuration came".into()),
        }
        if waits_for_operator {
            asked_since = Instant::now();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use platform::Container;
    use sequencer::ActorId;
    use stdx::tasks::CancellationToken;
    use supervisor::LogStore;

    use super::*;
    use crate::components::Components;

    #[tokio::test(start_paused = true)]
    async fn an_operator_may_take_any_time_and_a_platform_three_hours() {
        let store = Components::new(Arc::new(Container::new(None, None)), LogStore::default()).store;
        let context = TaskContext { cancel: CancellationToken::new(), actor: ActorId::machine() };
        let begun = Instant::now();
        let operator = async {
            tokio::time::sleep(PLATFORM / 2).await;
            store.put(MAINTENANCE_ID, MaintenanceServiceRequest {}, "").unwrap();
            tokio::time::sleep(PLATFORM * 10).await;
            store.destroy(&Key::of::<MaintenanceServiceRequest>(MAINTENANCE_ID), "").unwrap();
        };
        let (loaded, ()) = tokio::join!(load(&store, &context), operator);
        assert_eq!(loaded.unwrap_err().to_string(), "the platform has given no configuration within 3 h");
        assert_eq!(begun.elapsed(), PLATFORM / 2 + PLATFORM * 10 + PLATFORM);
        store.put(MachineType::ID, MachineType::Worker, "").unwrap();
        load(&store, &context).await.unwrap();
    }
}
