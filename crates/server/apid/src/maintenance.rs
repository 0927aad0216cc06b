//! The API server of a node without a usable configuration: the same port, a certificate that nobody signed, and only the
//! methods that bring a configuration or look at the hardware.
//!
//! A machine that was never configured asks nobody for a certificate. One that belongs to a cluster answers only clients
//! with a certificate of its authority and role os:admin. Other callers are anonymous: they are counted by address, and only a few may send large requests at a time, each within a
//! deadline, because the process behind is PID 1.
//!
//! `machined` runs this in its own process, and stops it before `apid` starts.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use pki::{Role, RoleSet};
use rustls::ServerConfig;
use stdx::tasks::CancellationToken;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Layer, Service};
use transport::{AuditLayer, ClientAuth, Identity, IdentityError, Limits, PeerInfo, Roots, Slot};

use crate::authz::{self, Maintenance};
use crate::proxy::{OnBehalf, call, caller_of, certified_roles, is_privileged, local_request};
use crate::quota::{Account, CallLimits, CallQuota, Class};
use crate::request_limit;
use crate::serve::RunError;

/// The clients that maintenance mode answers.
#[derive(Debug, Clone)]
pub enum Clients {
    /// All; they read as `os:reader`.
    Anybody,
    /// Those with a certificate of one of these authorities and role os:admin.
    Administrators(Roots),
}

/// The TLS configuration for a server certificate and its key.
///
/// # Errors
/// They cannot be read or do not fit.
pub fn tls(certificate: &str, key: &str, clients: &Clients) -> Result<ServerConfig, IdentityError> {
    let auth = match clients {
        Clients::Anybody => ClientAuth::None,
        Clients::Administrators(roots) => ClientAuth::Required(roots.clone()),
    };
    transport::server_config(Identity::from_pem(certificate, key)?, &auth)
}

/// Serves on `listener` what the machine API on `machine_socket` may be asked without a configuration, until `stop`
/// fires. Callers read as `os:reader`.
///
/// # Errors
/// The server failed.
pub async fn serve(
    listener: TcpListener,
    tls: Slot<ServerConfig>,
    clients: Clients,
    machine_socket: &Path,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let proxy = MaintenanceProxy {
        machine: transport::unix::channel(machine_socket),
        quota: CallQuota::new(CallLimits::MAINTENANCE),
        uploads: Arc::new(Semaphore::new(UPLOADS)),
        clients: clients.clone(),
    };
    let limits = match clients {
        Clients::Anybody => Limits::ANYBODY,
        Clients::Administrators(_) => Limits { privileged: is_privileged, ..Limits::KNOWN },
    };
    let service = AuditLayer::new("maintenance", caller_of).layer(proxy);
    transport::serve::tls(listener, tls, limits, service, stop).await.map_err(RunError::Serve)
}

/// Large requests at a time: `machined` gathers each in memory.
const UPLOADS: usize = 4;
/// A large request must be answered within this time.
const UPLOAD: Duration = Duration::from_secs(60);

/// Carries calls to the local `machined`; cheap to clone.
#[derive(Debug, Clone)]
struct MaintenanceProxy {
    machine: Channel,
    quota: CallQuota,
    uploads: Arc<Semaphore>,
    clients: Clients,
}

impl MaintenanceProxy {
    /// The roles with which a call reaches the machine.
    fn roles(&self, request: &Request<Body>) -> Result<RoleSet, Status> {
        match &self.clients {
            Clients::Anybody => Ok(RoleSet::from([Role::Reader])),
            Clients::Administrators(_) => {
                let roles = request.extensions().get::<PeerInfo>().map(certified_roles).unwrap_or_default();
                if roles.contains(Role::Admin) {
                    return Ok(roles);
                }
                Err(Status::permission_denied("this node belongs to a cluster: maintenance mode needs role os:admin"))
            }
        }
    }

    async fn handle(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let roles = self.roles(&request)?;
        let method = authz::lookup(request.uri().path()).filter(|m| m.maintenance == Maintenance::Served);
        let Some(method) = method else {
            return Err(Status::unimplemented("API is not implemented in maintenance mode"));
        };
        let peer = request.extensions().get::<PeerInfo>().map(|peer| peer.address.ip().to_canonical());
        let class = if roles.contains(Role::Admin) { Class::Admin } else { Class::Ordinary };
        let account = Account { class, key: None, address: peer };
        let permit = self.quota.admit(account, method.shape, 1)?;
        let caller = caller_of(&request).and_then(|caller| HeaderValue::try_from(caller).ok());
        let on_behalf = OnBehalf { roles, caller };
        let (request, cut_off) = request_limit::limit(request, method.request.unwrap_or(transport::MAX_MESSAGE));
        let calling = call(self.machine.clone(), local_request(request, &on_behalf));
        let response = if method.is_large() {
            let _upload = self.uploads.try_acquire().map_err(|_| {
                Status::resource_exhausted(format!("more than {UPLOADS} large requests at a time: try again later"))
            })?;
            tokio::time::timeout(UPLOAD, calling).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!("the request took longer than {} s", UPLOAD.as_secs())))
            })
        } else {
            calling.await
        };
        Ok(permit.hold(response.map_err(|status| cut_off.explain(status))?))
    }
}

impl Service<Request<Body>> for MaintenanceProxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.handle(request).await.unwrap_or_else(Status::into_http)) })
    }
}
