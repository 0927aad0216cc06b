//! The proxy service: authorizes a call, routes it and forwards it byte for byte.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use pki::{Role, RoleSet};
use rustls::ClientConfig;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};
use transport::audit::{CALLER, caller_text, forwarded_caller};
use transport::{PeerInfo, Slot};

use crate::authz;
use crate::fanout;
use crate::node::NodeState;
use crate::quota::{Account, CallLimits, CallQuota, Class};
use crate::request_limit;
use crate::route::{Caller, NODE, NODES, PROXY_FROM, ROLE, Route, route};

/// Idle timeout of connections to other nodes.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Connections to other nodes at a time: a client may name any address. Beyond that the one that was used longest ago
/// goes.
const MAX_REMOTE: usize = 1024;
/// Timeout of resolving a node's name.
const LOOKUP: Duration = Duration::from_secs(5);

/// How much of a path that is no method is quoted.
const QUOTED: usize = 128;

/// Where calls go.
#[derive(Debug)]
pub struct Backends {
    local: Channel,
    port: u16,
    tls: Slot<ClientConfig>,
    remote: Mutex<HashMap<SocketAddr, (Channel, Instant)>>,
}

impl Backends {
    /// Calls for this node go to `local`, calls for others to their `apid` on `port` with the certificate in `tls`.
    #[must_use]
    pub fn new(local: Channel, port: u16, tls: Slot<ClientConfig>) -> Self {
        Self { local, port, tls, remote: Mutex::new(HashMap::new()) }
    }

    /// Forgets the connections to other nodes, so that the next call uses the certificates of now.
    pub fn forget(&self) {
        self.remote.lock().clear();
    }

    fn remote(&self, address: IpAddr) -> Channel {
        let address = SocketAddr::new(address, self.port);
        let now = Instant::now();
        let mut remote = self.remote.lock();
        if let Some((channel, used)) = remote.get_mut(&address) {
            *used = now;
            return channel.clone();
        }
        remote.retain(|_, (_, used)| now.saturating_duration_since(*used) < IDLE);
        if remote.len() >= MAX_REMOTE
            && let Some(oldest) = remote.iter().min_by_key(|(_, (_, used))| *used).map(|(address, _)| *address)
        {
            remote.remove(&oldest);
        }
        let channel = transport::dial::channel(address, self.tls.clone());
        remote.insert(address, (channel.clone(), now));
        channel
    }

    async fn resolve(&self, node: &NodeState, target: &str) -> Result<IpAddr, Status> {
        if let Ok(address) = target.parse::<IpAddr>() {
            // Certificates are for addresses in their plain form.
            return Ok(address.to_canonical());
        }
        if let Some(address) = node.members.get(target).and_then(|addresses| addresses.first()) {
            return Ok(*address);
        }
        let unknown = |why: String| Status::unavailable(format!("no address for node {target}: {why}"));
        let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((target, self.port)))
            .await
            .map_err(|_| unknown(format!("no answer within {} s", LOOKUP.as_secs())))?
            .map_err(|error| unknown(error.to_string()))?
            .next();
        found.map(|address| address.ip()).ok_or_else(|| unknown("it is no member and has no entry in DNS".into()))
    }
}

/// The service on the port; cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy {
    backends: Arc<Backends>,
    node: Slot<NodeState>,
    quota: CallQuota,
}

impl Proxy {
    /// A proxy that routes by `node` as it is at each call, and has as many calls open as `limits` say.
    #[must_use]
    pub fn new(backends: Arc<Backends>, node: Slot<NodeState>, limits: CallLimits) -> Self {
        Self { backends, node, quota: CallQuota::new(limits) }
    }

    async fn handle(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let Some(method) = authz::lookup(request.uri().path()) else {
            let path: String = request.uri().path().chars().take(QUOTED).collect();
            return Err(Status::unimplemented(format!("unknown method {path}")));
        };
        let certified = request.extensions().get::<PeerInfo>().map(certified_roles).unwrap_or_default();
        let caller = Caller::new(certified, request.headers());
        let node = self.node.get();
        let route = route(method, &caller, request.headers(), &node)?;
        let text = caller_of(&request);
        let account = account(&caller, request.extensions().get::<PeerInfo>(), text.as_deref());
        let calls = if let Route::Nodes(targets) = &route { targets.len() } else { 1 };
        let permit = self.quota.admit(account, method.shape, calls)?;
        let on_behalf =
            OnBehalf { roles: caller.roles, caller: text.and_then(|text| HeaderValue::try_from(text).ok()) };
        let Some(most) = method.request else {
            return Ok(permit.hold(self.carry(route, method, &node, &on_behalf, request).await?));
        };
        let (request, cut_off) = request_limit::limit(request, most);
        let response = self.carry(route, method, &node, &on_behalf, request).await;
        Ok(permit.hold(response.map_err(|status| cut_off.explain(status))?))
    }

    async fn carry(
        &self,
        route: Route,
        method: &authz::Method,
        node: &Arc<NodeState>,
        on_behalf: &OnBehalf,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        match route {
            Route::Local => call(self.backends.local.clone(), local_request(request, on_behalf)).await,
            Route::Node(target) => {
                let address = self.backends.resolve(node, &target).await?;
                call(self.backends.remote(address), remote_request(request, on_behalf, node)).await
            }
            Route::Nodes(targets) => {
                let deadline = fanout::deadline(request.headers());
                let (parts, body) = request.into_parts();
                let body = crate::frame::collect(body).await?;
                let calls = targets.into_iter().map(|target| {
                    let this = self.clone();
                    let (node, on_behalf, body) = (Arc::clone(node), on_behalf.clone(), body.clone());
                    let mut single = Request::new(Body::new(http_body_util::Full::new(body)));
                    *single.method_mut() = parts.method.clone();
                    *single.uri_mut() = parts.uri.clone();
                    *single.headers_mut() = parts.headers.clone();
                    // The name of the node is put into responses, which must not be compressed for that.
                    single.headers_mut().remove("grpc-accept-encoding");
                    fanout::NodeCall {
                        name: target.clone(),
                        call: Box::pin(async move { this.single(&node, &target, single, &on_behalf).await }),
                    }
                });
                Ok(fanout::gather(method.shape, calls.collect(), deadline).await)
            }
        }
    }

    async fn single(
        &self,
        node: &NodeState,
        target: &str,
        request: Request<Body>,
        on_behalf: &OnBehalf,
    ) -> Result<Response<Body>, Status> {
        if node.is_local(target) {
            return call(self.backends.local.clone(), local_request(request, on_behalf)).await;
        }
        let address = self.backends.resolve(node, target).await?;
        call(self.backends.remote(address), remote_request(request, on_behalf, node)).await
    }
}

/// Metadata about the caller for the next server.
#[derive(Debug, Clone)]
pub(crate) struct OnBehalf {
    pub(crate) roles: RoleSet,
    /// As in [`CALLER`].
    pub(crate) caller: Option<HeaderValue>,
}

/// The caller of a request to `apid`: what a node tells of the one whose call it forwards, else who has connected.
pub(crate) fn caller_of(request: &Request<Body>) -> Option<String> {
    let peer = request.extensions().get::<PeerInfo>()?;
    let is_node = certified_roles(peer).contains(Role::Impersonator);
    // A node that tells nothing is the caller itself.
    is_node.then(|| forwarded_caller(request)).flatten().or_else(|| Some(caller_text(peer)))
}

/// What a call of `caller` counts against. A forwarded one counts by the key that its node tells.
fn account(caller: &Caller, peer: Option<&PeerInfo>, text: Option<&str>) -> Account {
    let class = if caller.roles.contains(Role::Admin) { Class::Admin } else { Class::Ordinary };
    if caller.forwarded {
        let key = text.and_then(|text| text.split(' ').next()).map(Arc::from);
        return Account { class, key, address: None };
    }
    let key = peer.and_then(|peer| peer.identity.as_ref()).map(|own| Arc::clone(&own.fingerprint));
    Account { class, key, address: peer.map(|peer| peer.address.ip().to_canonical()) }
}

impl Service<Request<Body>> for Proxy {
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

/// The roles in the organizations of the certificate that the TLS layer has verified. A certificate that does not say
/// that it is for clients has none: the TLS layer lets one pass that says nothing about its use.
pub(crate) fn certified_roles(peer: &PeerInfo) -> RoleSet {
    let leaf = peer.identity.as_ref().map(|own| &own.certificate);
    leaf.filter(|leaf| leaf.allows_client()).map(pki::Certificate::roles).unwrap_or_default()
}

/// Whether connections of `peer` come out of the part that is kept for administrators, and for nodes, which carry their
/// calls.
pub(crate) fn is_privileged(peer: &PeerInfo) -> bool {
    certified_roles(peer).intersects(&[Role::Admin, Role::Impersonator])
}

/// Forwards a call to a backend; the response is streamed.
pub(crate) async fn call(backend: Channel, request: Request<Body>) -> Result<Response<Body>, Status> {
    backend.oneshot(request).await.map_err(|error| transport_status(&error))
}

fn transport_status(error: &tonic::transport::Error) -> Status {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if current.is::<tonic::TimeoutExpired>() {
            return Status::deadline_exceeded("the deadline of the call has passed");
        }
        cause = current.source();
    }
    Status::unavailable(format!("node is not reachable: {}", stdx::error_chain(error)))
}

/// A request for `machined`, which trusts `apid`'s metadata about roles.
pub(crate) fn local_request(request: Request<Body>, on_behalf: &OnBehalf) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    parts.extensions = http::Extensions::new();
    clean(&mut parts.headers, on_behalf);
    Request::from_parts(parts, body)
}

fn remote_request(request: Request<Body>, on_behalf: &OnBehalf, node: &NodeState) -> Request<Body> {
    let mut request = local_request(request, on_behalf);
    let from = node.addresses.first().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    if let Ok(from) = HeaderValue::try_from(from) {
        request.headers_mut().insert(PROXY_FROM, from);
    }
    request
}

/// Removes the metadata that only this node may set, and sets roles and caller.
fn clean(headers: &mut HeaderMap, on_behalf: &OnBehalf) {
    for key in [NODE, NODES, PROXY_FROM, ROLE, CALLER, "host"] {
        headers.remove(key);
    }
    for role in on_behalf.roles.iter() {
        headers.append(ROLE, HeaderValue::from_static(role.as_str()));
    }
    if let Some(caller) = &on_behalf.caller {
        headers.insert(CALLER, caller.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pki::{Algorithm, Authority, CaProfile, Certificate, Role, Sans, Subject, Template, Usage, Validity};

    use super::*;

    fn peer(usage: Usage) -> PeerInfo {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let subject = Subject { common_name: None, organizations: vec!["os:admin".to_owned()] };
        let validity = Validity::starting(now, Duration::from_secs(3600));
        let template = Template { subject, sans: Sans::default(), usage, validity };
        let pair = Authority::generate(CaProfile::Os, now).unwrap().issue_pair(Algorithm::Ed25519, &template).unwrap();
        let identity = transport::PeerIdentity::new(Certificate::from_pem(&pair.crt).unwrap());
        PeerInfo { address: SocketAddr::from(([127, 0, 0, 1], 1)), identity: Some(Arc::new(identity)) }
    }

    #[test]
    fn only_a_certificate_for_clients_has_roles() {
        assert_eq!(certified_roles(&peer(Usage::Client)), RoleSet::from([Role::Admin]));
        assert_eq!(certified_roles(&peer(Usage::Server)), RoleSet::default());
        let nobody = PeerInfo { identity: None, ..peer(Usage::Client) };
        assert_eq!(certified_roles(&nobody), RoleSet::default());
    }
}
