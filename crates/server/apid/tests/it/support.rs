//! Nodes on loopback addresses: a real `apid` proxy with real certificates, and a small `machined` behind it.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use apid::{Backends, CallLimits, NodeState, Proxy};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use pki::{Algorithm, Authority, CaProfile, PemPair, Sans, Subject, Template, Usage, Validity};
use prost::Message;
use stdx::tasks::{CancellationToken, TaskSet};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use transport::{ClientAuth, Identity, Roots, Slot};

/// Payload of a large message; with its frame just within the limit.
pub(crate) const LARGE: usize = transport::MAX_MESSAGE - 1024;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

#[expect(clippy::disallowed_methods, reason = "certificates must be valid now")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) fn authority() -> Authority {
    Authority::generate(CaProfile::Os, now()).unwrap()
}

pub(crate) fn client_certificate(ca: &Authority, roles: &[&str], validity: Validity) -> PemPair {
    let subject = Subject { common_name: None, organizations: roles.iter().map(|r| (*r).to_owned()).collect() };
    let template = Template { subject, sans: Sans::default(), usage: Usage::Client, validity };
    ca.issue_pair(Algorithm::Ed25519, &template).unwrap()
}

pub(crate) fn server_certificate(ca: &Authority, ip: IpAddr) -> PemPair {
    let validity = Validity::starting(now(), HOUR);
    let sans = Sans { ips: vec![ip], dns: vec![] };
    let template = Template { subject: Subject::common_name("node"), sans, usage: Usage::Server, validity };
    ca.issue_pair(Algorithm::Ed25519, &template).unwrap()
}

pub(crate) fn identity(pair: &PemPair) -> Identity {
    Identity::from_pem(&pair.crt, &pair.key).unwrap()
}

/// A running node, with a runtime of its own, so that it can die with everything that it has open.
pub(crate) struct Node {
    pub(crate) ip: IpAddr,
    pub(crate) tls: Slot<rustls::ServerConfig>,
    pub(crate) state: Slot<NodeState>,
    /// A stream of its machined without end.
    pub(crate) endless: Endless,
    runtime: Option<Runtime>,
    _tasks: TaskSet,
    _directory: tempfile::TempDir,
}

impl Node {
    /// Starts a node on `ip`, whose machined says `tag` for its version.
    pub(crate) fn start(ca: &Authority, ip: &str, port: u16, state: NodeState, tag: &'static str) -> (Self, u16) {
        Self::start_with(ca, ip, port, state, tag, CallLimits::APID)
    }

    pub(crate) fn start_with(
        ca: &Authority,
        ip: &str,
        port: u16,
        state: NodeState,
        tag: &'static str,
        limits: CallLimits,
    ) -> (Self, u16) {
        let ip: IpAddr = ip.parse().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let tasks = TaskSet::new("test node");
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("machine.sock");
        let machine = UnixListener::bind(&socket).unwrap();
        let endless = Endless::default();
        let sends = endless.clone();
        tasks.spawn("machined", async move {
            let service = tower::service_fn(move |request| machined(request, tag, sends.clone()));
            transport::serve::unix(machine, service, CancellationToken::new()).await.unwrap();
        });

        let listener = std::net::TcpListener::bind(SocketAddr::new(ip, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let roots = Roots::from_pem([ca.certificate().to_pem()]).unwrap();
        let server =
            transport::server_config(identity(&server_certificate(ca, ip)), &ClientAuth::Required(roots.clone()));
        let node_client = client_certificate(ca, &["os:impersonator"], Validity::starting(now(), HOUR));
        let client = transport::client_config(Some(identity(&node_client)), &roots).unwrap();
        let state = Slot::new(NodeState { addresses: [ip].into(), ..state });
        let backends = Arc::new(Backends::new(transport::unix::channel(&socket), port, Slot::new(client)));
        let proxy = Proxy::new(backends, state.clone(), limits);
        let tls = Slot::new(server.unwrap());
        let served = apid::serve(listener, tls.clone(), proxy, CancellationToken::new());
        tasks.spawn("apid", async move { served.await.unwrap() });
        drop(entered);
        let node = Self { ip, tls, state, endless, runtime: Some(runtime), _tasks: tasks, _directory: directory };
        (node, port)
    }

    /// Kills the node: its connections break wherever they are.
    pub(crate) async fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10))).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Streams that send as much as their readers take: how many are open, and how many messages they have given.
#[derive(Debug, Clone)]
pub(crate) struct Endless {
    pub(crate) open: watch::Sender<usize>,
    pub(crate) given: watch::Sender<usize>,
}

impl Default for Endless {
    fn default() -> Self {
        Self { open: watch::Sender::new(0), given: watch::Sender::new(0) }
    }
}

/// An open stream of [`Endless`].
struct OpenStream(Endless);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Endless {
    fn respond(&self, tag: &str) -> Response<Body> {
        self.open.send_modify(|open| *open += 1);
        let line = wire::common::Data { bytes: tag.to_owned().repeat(16 << 10).into(), ..Default::default() };
        let message = framed(&line.encode_to_vec());
        let frames = futures::stream::unfold(OpenStream(self.clone()), move |stream| {
            let message = message.clone();
            async move {
                stream.0.given.send_modify(|given| *given += 1);
                // So that no reader is fed without others getting their turn.
                tokio::task::yield_now().await;
                Some((Ok::<_, Status>(Frame::data(message)), stream))
            }
        });
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response
    }
}

/// A client of the node at `address` with this certificate, trusting `ca`.
pub(crate) fn client(address: SocketAddr, ca: &Authority, certificate: Option<&PemPair>) -> Channel {
    let roots = Roots::from_pem([ca.certificate().to_pem()]).unwrap();
    let config = transport::client_config(certificate.map(identity), &roots).unwrap();
    transport::dial::channel(address, Slot::new(config))
}

pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap());
    out.put_slice(message);
    out.freeze()
}

fn respond(messages: Vec<Bytes>, trailers: HeaderMap) -> Response<Body> {
    let mut frames: Vec<Result<_, Status>> = messages.into_iter().map(|m| Ok(Frame::data(framed(&m)))).collect();
    frames.push(Ok(Frame::trailers(trailers)));
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers
}

/// The fake machined alone, on a socket in `directory`.
pub(crate) fn machined_on(directory: &std::path::Path, tasks: &TaskSet) -> std::path::PathBuf {
    let socket = directory.join("machine.sock");
    let machine = UnixListener::bind(&socket).unwrap();
    tasks.spawn("machined", async move {
        let service = tower::service_fn(move |request| machined(request, "maintenance", Endless::default()));
        transport::serve::unix(machine, service, CancellationToken::new()).await.unwrap();
    });
    socket
}

/// A machined of its own, which says `tag` for its version.
pub(crate) fn machined_of(
    tag: &'static str,
) -> impl tower::Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send {
    tower::service_fn(move |request| machined(request, tag, Endless::default()))
}

/// Speaks gRPC by hand, to send messages that a generated client would not.
async fn machined(request: Request<Body>, tag: &'static str, endless: Endless) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let heard: Vec<_> = ["talos-role", "proxyfrom", "node", "nodes", "custom", "grpc-timeout"]
        .iter()
        .flat_map(|key| parts.headers.get_all(*key).iter().map(move |v| format!("{key}={}", v.to_str().unwrap())))
        .collect();
    Ok(match parts.uri.path().rsplit('/').next().unwrap() {
        "Version" => {
            let caller = parts.headers.get("talos-caller").map_or("", |caller| caller.to_str().unwrap());
            let version = wire::machine::VersionInfo {
                tag: tag.into(),
                sha: heard.join(";"),
                built: caller.to_owned(),
                ..Default::default()
            };
            let message = wire::machine::Version { version: Some(version), ..Default::default() };
            let response = wire::machine::VersionResponse { messages: vec![message] };
            respond(vec![response.encode_to_vec().into()], trailers("0"))
        }
        "Logs" => {
            let line = |text: &str| wire::common::Data { bytes: format!("{tag} {text}").into(), ..Default::default() };
            let lines = ["one", "two"].map(|text| Bytes::from(line(text).encode_to_vec()));
            respond(lines.to_vec(), trailers("0"))
        }
        "Dmesg" => endless.respond(tag),
        "Hostname" => {
            let hostname = tag.repeat(LARGE / tag.len());
            let message = wire::machine::Hostname { hostname, ..Default::default() };
            let response = wire::machine::HostnameResponse { messages: vec![message] };
            respond(vec![response.encode_to_vec().into()], trailers("0"))
        }
        "Memory" => {
            let mut trailers = trailers("9");
            trailers.insert("grpc-message", "not now".parse().unwrap());
            trailers.insert("grpc-status-details-bin", "AQID".parse().unwrap());
            trailers.insert("x-custom", "kept".parse().unwrap());
            respond(vec![], trailers)
        }
        // Bytes are echoed unchanged: here a client stream of two messages.
        "EtcdRecover" | "ApplyConfiguration" => {
            let mut response = respond(vec![], trailers("0"));
            response.headers_mut().insert("x-length", body.len().into());
            response
        }
        _ => Status::unimplemented("test").into_http(),
    })
}
