//! A connection to the API, and where its requests are routed.

use std::time::Duration;

use ::tls::Fingerprint;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;

use crate::credentials::Credentials;
use crate::dial::Dialer;
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::talosconfig::ConfigContext;
use crate::tls::{ServerTrust, client_config};

/// Largest accepted message; as large as nodes send.
pub const MAX_MESSAGE_SIZE: usize = 32 << 20;

/// Deadline of a unary call when the caller sets none.
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A channel that adds routing metadata to each request.
pub type Channel = InterceptedService<tonic::transport::Channel, RouteInterceptor>;

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    pub endpoints: Vec<Endpoint>,
    pub trust: ServerTrust,
    /// Time for each endpoint to accept TCP and finish the TLS handshake.
    pub dial_timeout: Duration,
}

/// A connection to the API. Clones share it.
#[derive(Clone)]
pub struct Client {
    channel: tonic::transport::Channel,
    dialer: Dialer,
    route: RouteInterceptor,
    call_timeout: Duration,
}

/// Adds `node` or `nodes` to the metadata of requests.
#[derive(Debug, Clone, Default)]
pub struct RouteInterceptor {
    key: &'static str,
    nodes: Vec<MetadataValue<Ascii>>,
    /// A node that cannot be named in metadata: without it the request would go to the server that was dialled.
    unnameable: Option<String>,
}

impl ConnectOptions {
    const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

    /// With mutual TLS.
    pub fn new(endpoints: Vec<Endpoint>, credentials: Credentials) -> Self {
        Self { endpoints, trust: ServerTrust::Authority(credentials), dial_timeout: Self::DIAL_TIMEOUT }
    }

    /// To nodes in maintenance mode, which have no authority; empty `fingerprints` accept any server. The certificate of
    /// `credentials` is shown to those that ask for one, as nodes do that belong to a cluster.
    pub fn insecure(
        endpoints: Vec<Endpoint>,
        fingerprints: Vec<Fingerprint>,
        credentials: Option<Credentials>,
    ) -> Self {
        let trust = ServerTrust::Fingerprints { accepted: fingerprints, credentials };
        Self { endpoints, trust, dial_timeout: Self::DIAL_TIMEOUT }
    }

    /// From a context of a talosconfig.
    pub fn from_context(context: &ConfigContext) -> Result<Self, ConnectError> {
        let parsed: Result<Vec<_>, _> = context.endpoints.iter().map(|text| text.parse()).collect();
        let endpoints: Vec<Endpoint> = parsed.map_err(ConnectError::Endpoint)?;
        if endpoints.is_empty() {
            return Err(ConnectError::NoEndpoints);
        }
        Ok(Self::new(endpoints, context.credentials().map_err(ConnectError::Credentials)?))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.dialer.last_good()).field("route", &self.route).finish()
    }
}

impl Client {
    /// Connects to the first endpoint that answers; later reconnects try all of them again.
    ///
    /// Errors: [`ConnectError::Dial`] with one attempt for each endpoint when none answers, or when the client's
    /// certificate is refused.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        let (endpoint, dialer) = prepare(options)?;
        match endpoint.connect_with_connector(dialer.clone()).await {
            Ok(channel) => Ok(Self::assemble(channel, dialer)),
            Err(error) => Err(dial_error(error)),
        }
    }

    /// Connects on the first call.
    pub fn connect_lazy(options: ConnectOptions) -> Result<Self, ConnectError> {
        let (endpoint, dialer) = prepare(options)?;
        Ok(Self::assemble(endpoint.connect_with_connector_lazy(dialer.clone()), dialer))
    }

    fn assemble(channel: tonic::transport::Channel, dialer: Dialer) -> Self {
        Self { channel, dialer, route: RouteInterceptor::default(), call_timeout: DEFAULT_CALL_TIMEOUT }
    }

    /// The same connection; requests are routed to one node, which answers as if it were dialled directly.
    pub fn to_node(&self, node: &str) -> Self {
        self.routed("node", [node])
    }

    /// The same connection; requests go to all these nodes, and replies are aggregated.
    pub fn to_nodes<'a>(&self, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        self.routed("nodes", nodes)
    }

    fn routed<'a>(&self, key: &'static str, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        Self { route: RouteInterceptor::new(key, nodes), ..self.clone() }
    }

    /// The same connection with another deadline for unary calls.
    pub fn with_call_timeout(&self, call_timeout: Duration) -> Self {
        Self { call_timeout, ..self.clone() }
    }

    /// The endpoint that answered last.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.dialer.last_good()
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// The channel for generated clients, with this client's routing.
    pub fn channel(&self) -> Channel {
        InterceptedService::new(self.channel.clone(), self.route.clone())
    }
}

impl RouteInterceptor {
    fn new<'a>(key: &'static str, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        let mut route = Self { key, ..Self::default() };
        for node in nodes {
            match MetadataValue::try_from(node) {
                Ok(value) if value.to_str().is_ok_and(|name| !name.trim().is_empty()) => route.nodes.push(value),
                _ => route.unnameable = Some(node.to_owned()),
            }
        }
        route
    }
}

impl Interceptor for RouteInterceptor {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(node) = &self.unnameable {
            return Err(tonic::Status::invalid_argument(format!("{node:?} cannot be the name of a node")));
        }
        for node in &self.nodes {
            request.metadata_mut().append(self.key, node.clone());
        }
        Ok(request)
    }
}

fn prepare(options: ConnectOptions) -> Result<(tonic::transport::Endpoint, Dialer), ConnectError> {
    let first = options.endpoints.first().ok_or(ConnectError::NoEndpoints)?;
    let authority = first.to_string();
    let config = client_config(&options.trust)?;
    // The connector does TLS itself, so that each endpoint is verified by its own name; to tonic the URI is opaque.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{authority}"))
        .map_err(ConnectError::Transport)?
        .user_agent(concat!("talosctl/", env!("CARGO_PKG_VERSION")))
        .map_err(ConnectError::Transport)?
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let tls = TlsConnector::from(std::sync::Arc::new(config));
    let dialer = Dialer::new(options.endpoints, tls, options.dial_timeout);
    Ok((endpoint, dialer))
}

/// tonic wraps the connector's error two layers deep and owns it; callers get a copy.
fn dial_error(error: tonic::transport::Error) -> ConnectError {
    use std::error::Error as _;
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(dial) = cause.downcast_ref::<crate::dial::DialError>() {
            return ConnectError::Dial(dial.clone());
        }
        next = cause.source();
    }
    ConnectError::Transport(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(nodes: &[&str]) -> Result<Vec<String>, tonic::Status> {
        let request = RouteInterceptor::new("nodes", nodes.iter().copied()).call(tonic::Request::new(()))?;
        let names = request.metadata().get_all("nodes");
        Ok(names.iter().map(|name| name.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn a_request_for_a_node_that_cannot_be_named_is_not_sent_to_another() {
        assert_eq!(sent(&["10.5.0.2", "fd00::2"]).unwrap(), ["10.5.0.2", "fd00::2"]);
        for nodes in [&["10.5.0.2", "kn\u{f6}ten"][..], &["a\nb"], &[""]] {
            assert_eq!(sent(nodes).unwrap_err().code(), tonic::Code::InvalidArgument, "{nodes:?}");
        }
    }
}
