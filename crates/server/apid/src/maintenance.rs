//! The door of a node that has no configuration yet: the same port, a certificate that nobody signed, no client
//! certificates, and only the methods that bring a configuration or look at the hardware.
//!
//! `machined` runs this in its own process, and stops it before `apid` starts.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use pki::{Role, RoleSet};
use rustls::ServerConfig;
use stdx::tasks::CancellationToken;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Layer, Service};
use transport::{AuditLayer, ClientAuth, Identity, IdentityError, Limits, Slot};

use crate::authz::{self, Maintenance};
use crate::proxy::{call, local_request};
use crate::serve::RunError;

/// The TLS configuration for a server certificate and its key.
///
/// # Errors
/// They cannot be read or do not fit.
pub fn tls(certificate: &str, key: &str) -> Result<ServerConfig, IdentityError> {
    transport::server_config(Identity::from_pem(certificate, key)?, &ClientAuth::None)
}

/// Serves on `listener` what the machine API on `machine_socket` may be asked without a configuration, until `stop`
/// fires. Callers read as `os:reader`.
///
/// # Errors
/// The server failed.
pub async fn serve(
    listener: TcpListener,
    tls: Slot<ServerConfig>,
    machine_socket: &Path,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let door = Door { machine: transport::unix::channel(machine_socket) };
    let service = AuditLayer::new("maintenance").layer(door);
    transport::serve::tls(listener, tls, Limits::ANYBODY, service, stop).await.map_err(RunError::Serve)
}

#[derive(Debug, Clone)]
struct Door {
    machine: Channel,
}

impl Service<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let machine = self.machine.clone();
        Box::pin(async move {
            let served = authz::lookup(request.uri().path()).is_some_and(|m| m.maintenance == Maintenance::Served);
            if !served {
                return Ok(Status::unimplemented("API is not implemented in maintenance mode").into_http());
            }
            let request = local_request(request, &RoleSet::from([Role::Reader]));
            Ok(call(machine, request).await.unwrap_or_else(Status::into_http))
        })
    }
}
