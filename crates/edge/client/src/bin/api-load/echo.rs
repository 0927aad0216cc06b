//! The reference for calls: a gRPC server with mutual TLS that answers `Version` with a constant, in a process of its own, as
//! apid is. It has neither limits, authorization, an audit log nor a second hop, so its times are those of TLS, HTTP/2 and
//! the scheduler of this machine.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use client::talosconfig::SecretText;
use client::{ConfigContext, ConnectOptions};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use pki::{Algorithm, Authority, CaProfile, Sans, Subject, Template, Usage, Validity};
use stdx::{Clock, SystemClock};
use tls::{ClientAuth, Identity, Roots};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use wire::machine::{Version, VersionInfo, VersionResponse};

use crate::Failure;

/// The argument that makes this program the server.
pub(crate) const FLAG: &str = "--echo";

/// How long its certificates are good for: longer than any measurement.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The server: it ends with this.
#[derive(Debug)]
pub(crate) struct Echo {
    child: Child,
    context: ConfigContext,
}

impl Echo {
    /// Starts this program as the server.
    #[expect(clippy::disallowed_methods, reason = "a tool on a host, not on a node: there is no reaper to disturb")]
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(FLAG).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output of the echo server")?).read_line(&mut line)?;
        Ok(Self { child, context: serde_json::from_str(&line)? })
    }

    /// How to connect to it.
    pub(crate) fn options(&self) -> Result<ConnectOptions, Failure> {
        Ok(ConnectOptions::from_context(&self.context)?)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints a context of a talosconfig for itself as a line of JSON and serves until standard input ends, as it does with the
/// parent.
pub(crate) async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let now = SystemClock.now();
    let authority = Authority::generate(CaProfile::Os, now)?;
    let issue = |usage| {
        let (subject, sans) = (Subject::common_name("echo"), Sans::parse([address.ip().to_string()]));
        let validity = Validity::starting(now, LIFETIME);
        authority.issue_pair(Algorithm::Ed25519, &Template { subject, sans, usage, validity })
    };
    let (server, user) = (issue(Usage::Server)?, issue(Usage::Client)?);
    let ca = authority.certificate().to_pem();
    let clients = ClientAuth::Required(Roots::from_pem([&ca])?);
    let config = tls::server_config(Identity::from_pem(&server.crt, &server.key)?, &clients)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let context = ConfigContext {
        endpoints: vec![address.to_string()],
        ca: encode(&ca),
        crt: encode(&user.crt),
        key: SecretText(encode(&user.key)),
        ..ConfigContext::default()
    };
    println!("{}", serde_json::to_string(&context)?);
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await?;
            stdx::tasks::spawn("connection", connection(acceptor.clone(), stream)).detach();
        }
    };
    tokio::select! {
        served = serving => served,
        _ = parent => Ok(()),
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let answer = tower::service_fn(|request| async move {
        let codec = ProstCodec::<VersionResponse, ()>::default();
        Ok::<_, Infallible>(Grpc::new(codec).unary(Answer, request).await)
    });
    // A client that goes away is no failure of the server.
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(answer))
        .await;
}

/// The constant answer, as large as a node's.
struct Answer;

impl UnaryService<()> for Answer {
    type Response = VersionResponse;
    type Future = Ready<Result<Response<VersionResponse>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let version = VersionInfo {
            tag: "v1.7.0".to_owned(),
            sha: "0123456789ab".to_owned(),
            built: "2024-04-19T12:00:00Z".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            ..VersionInfo::default()
        };
        ready(Ok(Response::new(VersionResponse {
            messages: vec![Version { version: Some(version), ..Version::default() }],
        })))
    }
}
