//! The services of the machine, and an operator's start, stop and restart of them: written as overrides, which a controller
//! carries out.

use std::time::{Duration, SystemTime};

use resources::lifecycle::{ServiceOverride, ServiceSpec};
use supervisor::{ServiceState, ServiceStatus};
use tonic::Status;
use wire::machine as api;

use crate::machine::Machine;

/// How long a stop may take: longer than the supervisor waits for a service.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Permitted operations by service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Start,
    Stop,
    Restart,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    /// As in Talos 1.7: extension services, and restarts of the kubelet.
    fn is_allowed(self, id: &str) -> bool {
        id.starts_with("ext-") || (id == "kubelet" && self != Self::Stop)
    }
}

/// All services, by id: those of the supervisor, and those that a condition has kept from it so far.
pub(super) fn list(machine: &Machine) -> Result<Vec<api::ServiceInfo>, Status> {
    let mut services: Vec<api::ServiceInfo> = machine.supervisor.list().into_iter().map(service_info).collect();
    let specs = machine.store.list_as::<ServiceSpec>();
    for spec in specs.map_err(|error| Status::internal(stdx::error_chain(&error)))? {
        if !spec.waits_for.is_empty() && services.iter().all(|service| service.id != spec.id()) {
            services.push(waiting(spec.id(), &spec.waits_for, spec.metadata.updated));
        }
    }
    services.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(services)
}

fn waiting(id: &str, waits_for: &str, since: SystemTime) -> api::ServiceInfo {
    let state = ServiceState::Waiting.to_string();
    let since = prost_types::Timestamp::from(since);
    let event = api::ServiceEvent { msg: format!("Waiting for {waits_for}"), state: state.clone(), ts: Some(since) };
    let health =
        api::ServiceHealth { unknown: true, healthy: false, last_message: String::new(), last_change: Some(since) };
    let events = Some(api::ServiceEvents { events: vec![event] });
    api::ServiceInfo { id: id.to_owned(), state, events, health: Some(health) }
}

fn service_info(status: ServiceStatus) -> api::ServiceInfo {
    let events = status.events.into_iter().map(|event| api::ServiceEvent {
        msg: event.message,
        state: event.state.to_string(),
        ts: Some(timestamp(event.at)),
    });
    let health = api::ServiceHealth {
        unknown: status.health.unknown,
        healthy: status.health.healthy,
        last_message: status.health.last_message,
        last_change: Some(timestamp(status.health.last_change)),
    };
    api::ServiceInfo {
        id: status.id,
        state: status.state.to_string(),
        events: Some(api::ServiceEvents { events: events.collect() }),
        health: Some(health),
    }
}

fn timestamp(at: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

/// Refuses disallowed operations, then writes the override.
fn apply(
    machine: &Machine,
    operation: Operation,
    id: &str,
    change: impl FnOnce(ServiceOverride) -> ServiceOverride,
) -> Result<(), Status> {
    let internal = |error: state::StateError| Status::internal(stdx::error_chain(&error));
    if machine.store.get_as::<ServiceSpec>(id).map_err(internal)?.is_none() {
        return Err(Status::not_found(format!("service {id:?} not defined")));
    }
    if !operation.is_allowed(id) {
        let name = operation.name();
        return Err(Status::failed_precondition(format!("service {id:?} doesn't support {name} operation via API")));
    }
    tracing::info!(service = id, operation = operation.name(), "service operation by the API");
    let namespace = <ServiceOverride as resources::Spec>::DEFINITION.namespace;
    let write = |known: Option<&ServiceOverride>| change(known.cloned().unwrap_or_default());
    machine.store.modify_in(namespace, id, ServiceOverride::OWNER, write).map(drop).map_err(internal)
}

pub(super) fn start(machine: &Machine, id: &str) -> Result<String, Status> {
    apply(machine, Operation::Start, id, |known| ServiceOverride { stopped: false, ..known })?;
    Ok(format!("Service {id:?} started"))
}

pub(super) fn restart(machine: &Machine, id: &str) -> Result<String, Status> {
    apply(machine, Operation::Restart, id, |known| ServiceOverride { stopped: false, restarts: known.restarts + 1 })?;
    Ok(format!("Service {id:?} restarted"))
}

/// Answers when the service has ended.
pub(super) async fn stop(machine: &Machine, id: &str) -> Result<String, Status> {
    apply(machine, Operation::Stop, id, |known| ServiceOverride { stopped: true, ..known })?;
    let mut revision = machine.supervisor.revision();
    let ended = async {
        loop {
            revision.borrow_and_update();
            let status = machine.supervisor.get(id);
            if status.is_none_or(|status| status.state == ServiceState::Finished) || revision.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
        let waited = stdx::duration::format(STOP_PATIENCE);
        return Err(Status::deadline_exceeded(format!("service {id:?} has not ended within {waited}")));
    }
    Ok(format!("Service {id:?} stopped"))
}
