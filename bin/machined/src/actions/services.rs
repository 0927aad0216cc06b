//! Services: their start, and the wait for all that a configured machine runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain_runtime::cri_parts::{ContainerdFile, ContainerdLimits};
use resources::lifecycle::ServiceSpec;
use sequencer::{TaskContext, TaskError};
use services::MachinedService;
use state::{Kind, Store, WatchOptions};
use stdx::tasks::CancellationToken;
use supervisor::Supervisor;
use sys::capabilities::{CAP_SYS_RESOURCE, bounding};
use sys::early::EarlySystem;

use crate::api;
use crate::components::Machine;
use crate::paths::{ETC, MACHINE_SOCKET, RENDERED_ETC};

/// How often it is said which services have not started.
const REMIND: Duration = Duration::from_secs(30);

/// Starts the controllers and the machine API.
pub(crate) fn start_machined(machine: &Machine) -> Result<(), TaskError> {
    machine.components.controllers.start();
    // They serve until the process ends: while services stop, and as long as operators may ask for the reason.
    api::serve(machine, &CancellationToken::new())?;
    machine.components.supervisor.ensure(Arc::new(MachinedService::new(MACHINE_SOCKET)));
    Ok(())
}

/// containerd's first configuration, in place of the image's directory.
pub(crate) fn etc(system: &dyn EarlySystem) -> Result<(), TaskError> {
    containerd_file().write_first()?;
    Ok(system.bind(&Path::new(RENDERED_ETC).join("cri"), &Path::new(ETC).join("cri"))?)
}

/// containerd's configuration file.
pub(crate) fn containerd_file() -> ContainerdFile {
    let limits = ContainerdLimits { restrict_oom_score: !bounding().contains(&CAP_SYS_RESOURCE) };
    ContainerdFile { rendered: RENDERED_ETC.into(), limits }
}

/// Waits until a service is started; its own state shows its unmet condition.
pub(crate) async fn is_started(
    supervisor: &Supervisor,
    id: &'static str,
    context: &TaskContext,
) -> Result<(), TaskError> {
    let mut revision = supervisor.revision();
    loop {
        revision.borrow_and_update();
        if supervisor.get(id).is_some() {
            return Ok(());
        }
        // Both arms are cancel-safe.
        tokio::select! {
            changed = revision.changed() => changed?,
            () = context.cancel.cancelled() => return Err(format!("{id} is not started").into()),
        }
    }
}

/// Waits until every service that a spec requires is up.
///
/// Specs of required services are written before what they describe may start, so that a machine whose known services are all
/// up has no other that it needs; see `runtime.ServiceSpecController`.
pub(crate) async fn all_up(store: &Store, supervisor: &Supervisor, context: &TaskContext) -> Result<(), TaskError> {
    let mut revision = supervisor.revision();
    let mut remind = tokio::time::interval(REMIND);
    remind.tick().await;
    loop {
        revision.borrow_and_update();
        let mut changes = store.watch_kind(&Kind::of::<ServiceSpec>(), WatchOptions::default())?;
        let missing = missing(store, supervisor)?;
        if missing.is_empty() {
            return Ok(());
        }
        // All arms are cancel-safe: a missed change is seen at the next check.
        tokio::select! {
            changed = revision.changed() => changed?,
            event = changes.next() => drop(event),
            _ = remind.tick() => tracing::info!(services = missing.join(", "), "services still starting; waiting"),
            () = context.cancel.cancelled() => return Err(missing.join(", ").into()),
        }
    }
}

/// Required services that are not up, each with its reason.
fn missing(store: &Store, supervisor: &Supervisor) -> Result<Vec<String>, TaskError> {
    let specs = store.list_as::<ServiceSpec>()?;
    if specs.is_empty() {
        return Ok(vec!["no service is known".to_owned()]);
    }
    let required = specs.iter().filter(|spec| spec.required);
    Ok(required
        .filter_map(|spec| {
            let id = spec.id();
            match supervisor.get(id) {
                Some(status) if status.is_up() => None,
                Some(status) => Some(format!("{id} ({})", status.reason())),
                None => Some(format!("{id} (waiting for {})", spec.waits_for)),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use platform::Container;
    use sequencer::ActorId;
    use supervisor::LogStore;

    use super::*;
    use crate::components::Components;

    #[tokio::test(start_paused = true)]
    async fn the_boot_waits_for_required_services_alone_and_says_for_which() {
        let components = Components::new(Arc::new(Container::new(None, None)), LogStore::default());
        let (store, supervisor) = (&components.store, &components.supervisor);
        assert_eq!(missing(store, supervisor).unwrap(), ["no service is known"]);
        let spec =
            |required, waits_for: &str| ServiceSpec { required, waits_for: waits_for.into(), ..ServiceSpec::default() };
        store.put("extra", spec(false, "nothing"), "").unwrap();
        assert_eq!(missing(store, supervisor).unwrap(), [""; 0]);
        store.put("kubelet", spec(true, "time sync"), "").unwrap();
        assert_eq!(missing(store, supervisor).unwrap(), ["kubelet (waiting for time sync)"]);
        let context = TaskContext { cancel: CancellationToken::new(), actor: ActorId::machine() };
        context.cancel.cancel();
        let error = all_up(store, supervisor, &context).await.unwrap_err();
        assert_eq!(error.to_string(), "kubelet (waiting for time sync)");
    }
}
