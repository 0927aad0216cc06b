//! Serves the API on Unix sockets.

use std::path::Path;

use state::Store;
use stdx::tasks::CancellationToken;
use tonic::service::Routes;
use tower::Layer;
pub use transport::unix::BindError;
use transport::{AuditLayer, MAX_MESSAGE};
use wire::cluster::cluster_service_server::ClusterServiceServer;
use wire::inspect::inspect_service_server::InspectServiceServer;
use wire::machine::machine_service_server::MachineServiceServer;
use wire::storage::storage_service_server::StorageServiceServer;
use wire::time::time_service_server::TimeServiceServer;
use wire::volumekeys::volume_keys_service_server::VolumeKeysServiceServer;

use crate::access::Access;
use crate::machine::Machine;
use crate::machine_service::Service;
use crate::state_service::StateService;

/// Serves all services of `machine` on `socket` until `stop` fires. Whoever may connect is trusted to say in metadata
/// with which roles it calls, so that must be `apid` alone: `mode` and `owner` (user and group) are the socket's.
///
/// The socket exists on return; the future inside serves.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(
    machine: Machine,
    socket: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send + use<>, BindError> {
    let listener = transport::unix::bind(socket, mode, owner)?;
    let state = StateService::new(machine.store.clone(), Access::ByRole).server();
    let service = Service::new(machine);
    let routes = Routes::new(
        MachineServiceServer::new(service.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
    )
    .add_service(state)
    .add_service(InspectServiceServer::new(service.clone()))
    .add_service(StorageServiceServer::new(service.clone()))
    .add_service(TimeServiceServer::new(service.clone()))
    .add_service(VolumeKeysServiceServer::new(service.clone()))
    .add_service(ClusterServiceServer::new(service));
    Ok(transport::serve::unix(
        listener,
        AuditLayer::new("machined", transport::audit::forwarded_caller).layer(routes.prepare()),
        stop,
    ))
}

/// Serves `types` of `store`, read only, on `socket` until `stop` fires: for one process that runs without rights.
///
/// The socket exists on return; the future inside serves.
///
/// # Errors
/// The socket cannot be made.
pub fn serve_state(
    store: Store,
    types: &'static [(&'static str, &'static str)],
    socket: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send + use<>, BindError> {
    let listener = transport::unix::bind(socket, mode, owner)?;
    let state = StateService::new(store, Access::Only(types)).server();
    Ok(transport::serve::unix(listener, AuditLayer::new("state", transport::audit::no_caller).layer(state), stop))
}
