//! A server that answers a few calls like a node, its certificates, and a runner for the program.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use client::talosconfig::SecretText;
use client::{ConfigContext, TalosConfig};
use pki::{Algorithm, Authority, CaProfile, Certificate, PrivateKey, Sans, Subject, Template, Usage, Validity};
use stdx::tasks::CancellationToken;
use stdx::{Clock as _, SystemClock};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;
use transport::{ClientAuth, Identity, Limits, Roots, Slot};
use wire::common::Metadata;
use wire::cosi::resource as pb;
use wire::machine;

/// An unreachable node behind the server.
pub(crate) const DEAD_NODE: &str = "10.9.9.9";

/// A cluster of one server; stops on drop.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) authority: Authority,
    pub(crate) certificate: Certificate,
    stop: CancellationToken,
    server: Option<std::thread::JoinHandle<()>>,
}

/// Output and exit code of the program.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Requires a certificate of the cluster.
    Cluster,
    /// Requires no certificate.
    Maintenance,
    /// In maintenance mode, of a node that belongs to the cluster: requires one of its certificates.
    GuardedMaintenance,
}

impl Bench {
    pub(crate) fn start(mode: Mode) -> Self {
        let now = SystemClock.now();
        let authority = Authority::generate(CaProfile::Os, now).unwrap();
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let template = Template {
            subject: Subject::common_name("node"),
            sans: match mode {
                Mode::GuardedMaintenance => Sans::parse([pki::MAINTENANCE_NAME]),
                Mode::Cluster | Mode::Maintenance => Sans::parse(["127.0.0.1"]),
            },
            usage: Usage::Server,
            validity: Validity::starting(now, Duration::from_secs(3600)),
        };
        let certificate = authority.issue(&key, &template).unwrap();
        let identity = Identity::from_pem(&certificate.to_pem(), &key.to_pem()).unwrap();
        let clients = match mode {
            Mode::Cluster | Mode::GuardedMaintenance => {
                ClientAuth::Required(Roots::from_pem([authority.certificate().to_pem()]).unwrap())
            }
            Mode::Maintenance => ClientAuth::None,
        };
        let config = transport::server_config(identity, &clients).unwrap();
        let stop = CancellationToken::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap().port()).unwrap();
                transport::serve::tls(listener, Slot::new(config), Limits::KNOWN, Node::default(), stopped)
                    .await
                    .unwrap();
            });
        });
        let port = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        let bench =
            Self { dir: tempfile::tempdir().unwrap(), port, authority, certificate, stop, server: Some(server) };
        bench.write_talosconfig(&bench.authority, now, Duration::from_secs(3600));
        bench
    }

    /// A talosconfig with a client certificate signed by `authority`; the server is trusted through the bench's own
    /// authority.
    pub(crate) fn write_talosconfig(&self, authority: &Authority, now: SystemTime, lifetime: Duration) {
        use base64::Engine as _;
        let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let template = Template {
            subject: Subject::organization("os:admin"),
            sans: Sans::default(),
            usage: Usage::Client,
            validity: Validity::starting(now, lifetime),
        };
        let pair = authority.issue_pair(Algorithm::Ed25519, &template).unwrap();
        let context = ConfigContext {
            endpoints: vec![format!("127.0.0.1:{}", self.port)],
            nodes: vec!["127.0.0.1".to_owned()],
            ca: encode(self.authority.certificate().to_pem()),
            crt: encode(pair.crt.clone()),
            key: SecretText(encode(pair.key.clone())),
            ..ConfigContext::default()
        };
        let contexts = [("test".to_owned(), context)].into_iter().collect();
        TalosConfig { context: "test".to_owned(), contexts }.save(&self.dir.path().join("talosconfig")).unwrap();
    }

    /// Runs the program with the bench's talosconfig.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        run_in(self.dir.path(), arguments)
    }

    /// As [`Self::run`], with an editor.
    pub(crate) fn run_with_editor(&self, editor: &str, arguments: &[&str]) -> Outcome {
        run_with(self.dir.path(), arguments, &[("EDITOR", editor), ("PATH", "/usr/bin:/bin")])
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            server.join().ok();
        }
    }
}

pub(crate) fn run_in(directory: &Path, arguments: &[&str]) -> Outcome {
    run_with(directory, arguments, &[])
}

#[expect(clippy::disallowed_methods, reason = "tests run on a host, not under the node's reaper")]
fn run_with(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_talosctl"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .env("TALOSCONFIG", directory.join("talosconfig"))
        .env("TMPDIR", directory)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    Outcome {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap_or(-1),
    }
}

/// The service: a few methods, all others unimplemented.
#[derive(Debug, Clone, Default)]
struct Node {
    /// How often it was rebooted.
    boots: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl tower::Service<http::Request<Body>> for Node {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let power = crate::power::Power { boots: self.boots.clone() };
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/machine.MachineService/Reboot" => {
                    let reboot = service_fn(move |request| power.clone().reboot(request));
                    Grpc::new(ProstCodec::default()).unary(reboot, request).await
                }
                "/machine.MachineService/Shutdown" => {
                    let shutdown = service_fn(move |request| power.clone().shutdown(request));
                    Grpc::new(ProstCodec::default()).unary(shutdown, request).await
                }
                "/machine.MachineService/Read" => {
                    let read = service_fn(move |request| power.clone().read(request));
                    Grpc::new(ProstCodec::default()).server_streaming(read, request).await
                }
                "/machine.MachineService/Version" => {
                    Grpc::new(ProstCodec::default()).unary(service_fn(version), request).await
                }
                "/machine.MachineService/ServiceList" => {
                    Grpc::new(ProstCodec::default()).unary(service_fn(services), request).await
                }
                "/machine.MachineService/Mounts" => {
                    Grpc::new(ProstCodec::default()).unary(service_fn(mounts), request).await
                }
                "/machine.MachineService/ApplyConfiguration" => {
                    Grpc::new(ProstCodec::default()).unary(service_fn(apply), request).await
                }
                "/machine.MachineService/GenerateClientConfiguration" => {
                    Grpc::new(ProstCodec::default()).unary(service_fn(talosconfig), request).await
                }
                "/machine.MachineService/Kubeconfig" => {
                    Grpc::new(ProstCodec::default()).server_streaming(service_fn(kubeconfig), request).await
                }
                "/machine.MachineService/Events" => {
                    let events = service_fn(move |request| {
                        let power = power.clone();
                        async move { if power.follows(&request) { power.events(request) } else { events(request).await } }
                    });
                    Grpc::new(ProstCodec::default()).server_streaming(events, request).await
                }
                "/inspect.InspectService/ControllerRuntimeDependencies" => {
                    Grpc::new(ProstCodec::default()).unary(service_fn(dependencies), request).await
                }
                "/machine.MachineService/Logs" => {
                    Grpc::new(ProstCodec::default()).server_streaming(service_fn(logs), request).await
                }
                "/cosi.resource.State/Get" => Grpc::new(ProstCodec::default()).unary(service_fn(get), request).await,
                "/cosi.resource.State/List" => {
                    Grpc::new(ProstCodec::default()).server_streaming(service_fn(list), request).await
                }
                "/cosi.resource.State/Watch" => {
                    Grpc::new(ProstCodec::default()).server_streaming(service_fn(watch), request).await
                }
                path => Status::unimplemented(format!("{path} is not implemented here")).into_http(),
            })
        })
    }
}

/// One answer per requested node, with an error for the unreachable one.
pub(crate) fn for_nodes<T>(metadata: &MetadataMap, answer: impl Fn(Option<Metadata>, bool) -> T) -> Vec<T> {
    let nodes: Vec<String> = metadata.get_all("nodes").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    if nodes.is_empty() {
        return vec![answer(None, true)];
    }
    nodes
        .into_iter()
        .map(|node| {
            let alive = node != DEAD_NODE;
            let status = wire::google::rpc::Status { code: 14, message: "no route to host".into(), details: vec![] };
            let metadata = Metadata {
                hostname: node,
                error: if alive { String::new() } else { "no route to host".to_owned() },
                status: (!alive).then_some(status),
            };
            answer(Some(metadata), alive)
        })
        .collect()
}

async fn version(request: Request<()>) -> Result<Response<machine::VersionResponse>, Status> {
    let messages = for_nodes(request.metadata(), |metadata, alive| machine::Version {
        metadata,
        version: alive.then(|| machine::VersionInfo {
            tag: "v1.7.0".into(),
            os: "linux".into(),
            arch: "amd64".into(),
            ..Default::default()
        }),
        platform: alive.then(|| machine::PlatformInfo { name: "container".into(), mode: "container".into() }),
        features: alive.then_some(machine::FeaturesInfo { rbac: true }),
    });
    Ok(Response::new(machine::VersionResponse { messages }))
}

async fn services(request: Request<()>) -> Result<Response<machine::ServiceListResponse>, Status> {
    let service = |id: &str, healthy| machine::ServiceInfo {
        id: id.into(),
        state: "Running".into(),
        events: None,
        health: Some(machine::ServiceHealth { healthy, ..Default::default() }),
    };
    let messages = for_nodes(request.metadata(), |metadata, alive| machine::ServiceList {
        metadata,
        services: if alive { vec![service("apid", true), service("kubelet", false)] } else { Vec::new() },
    });
    Ok(Response::new(machine::ServiceListResponse { messages }))
}

async fn mounts(request: Request<()>) -> Result<Response<machine::MountsResponse>, Status> {
    let mount = |filesystem: &str, size, available, target: &str| machine::MountStat {
        filesystem: filesystem.into(),
        size,
        available,
        mounted_on: target.into(),
    };
    let messages = for_nodes(request.metadata(), |metadata, alive| machine::Mounts {
        metadata,
        stats: if alive {
            vec![mount("proc", 0, 0, "/proc"), mount("/dev/sda6", 8_000_000_000, 7_012_800_000, "/var")]
        } else {
            Vec::new()
        },
    });
    Ok(Response::new(machine::MountsResponse { messages }))
}

async fn apply(
    request: Request<machine::ApplyConfigurationRequest>,
) -> Result<Response<machine::ApplyConfigurationResponse>, Status> {
    let said = request.get_ref();
    if String::from_utf8_lossy(&said.data).contains("hostname: refused") {
        return Err(Status::invalid_argument("no node is called refused"));
    }
    let details = format!("dry run: {}, {} bytes", said.dry_run, said.data.len());
    let message = machine::ApplyConfiguration {
        warnings: vec!["the sky is blue".into()],
        mode: said.mode,
        mode_details: details,
        metadata: None,
    };
    Ok(Response::new(machine::ApplyConfigurationResponse { messages: vec![message] }))
}

/// Returns the requested roles and lifetime in place of certificates.
async fn talosconfig(
    request: Request<machine::GenerateClientConfigurationRequest>,
) -> Result<Response<machine::GenerateClientConfigurationResponse>, Status> {
    let seconds = request.get_ref().crt_ttl.map(|ttl| ttl.seconds).unwrap_or_default();
    let roles = request.get_ref().roles.join("+");
    if roles == "os:nothing" {
        return Err(Status::invalid_argument("no such role: os:nothing"));
    }
    let text = format!("context: demo\ncontexts:\n    demo:\n        endpoints: []\n        crt: {roles}:{seconds}\n");
    let messages = for_nodes(request.metadata(), |metadata, _| machine::GenerateClientConfiguration {
        metadata,
        talosconfig: text.clone().into(),
        ..Default::default()
    });
    Ok(Response::new(machine::GenerateClientConfigurationResponse { messages }))
}

/// The parts of an administrator's credentials.
async fn kubeconfig(_: Request<()>) -> Result<Response<Stream<wire::common::Data>>, Status> {
    let text = "apiVersion: v1\nkind: Config\nclusters:\n    - name: demo\n      cluster:\n          server: \
                https://10.5.0.2:6443\nusers:\n    - name: admin@demo\n      user:\n          token: abc\ncontexts:\n    - \
                name: admin@demo\n      context:\n          cluster: demo\n          user: admin@demo\ncurrent-context: \
                admin@demo\n";
    let parts = text.as_bytes().chunks(50).map(|part| {
        let metadata = Metadata { hostname: "127.0.0.1".into(), ..Default::default() };
        Ok(wire::common::Data { metadata: Some(metadata), bytes: part.to_vec().into() })
    });
    Ok(Response::new(tokio_stream::iter(parts.collect::<Vec<_>>())))
}

async fn events(request: Request<machine::EventsRequest>) -> Result<Response<Stream<machine::Event>>, Status> {
    let message = machine::AddressEvent { hostname: "cp-1".into(), addresses: vec!["10.5.0.2".into()] };
    let value = prost::Message::encode_to_vec(&message);
    let data = prost_types::Any { type_url: "talos/runtime/machine.AddressEvent".into(), value };
    let events = for_nodes(request.metadata(), |metadata, alive| {
        Ok(machine::Event { metadata, data: alive.then(|| data.clone()), id: "01".into(), actor_id: String::new() })
    });
    Ok(Response::new(tokio_stream::iter(events)))
}

async fn dependencies(
    request: Request<()>,
) -> Result<Response<wire::inspect::ControllerRuntimeDependenciesResponse>, Status> {
    use wire::inspect::{ControllerDependencyEdge, ControllerRuntimeDependency, DependencyEdgeType};
    let edge = |kind: DependencyEdgeType, namespace: &str, resource_type: &str| ControllerDependencyEdge {
        controller_name: "cluster.MemberController".into(),
        edge_type: kind.into(),
        resource_namespace: namespace.into(),
        resource_type: resource_type.into(),
        resource_id: String::new(),
    };
    let edges = vec![
        edge(DependencyEdgeType::OutputExclusive, "", "Members.cluster.talos.dev"),
        edge(DependencyEdgeType::InputWeak, "secrets", "RootSecrets.secrets.talos.dev"),
    ];
    let messages =
        for_nodes(request.metadata(), |metadata, _| ControllerRuntimeDependency { metadata, edges: edges.clone() });
    Ok(Response::new(wire::inspect::ControllerRuntimeDependenciesResponse { messages }))
}

pub(crate) type Stream<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

async fn logs(request: Request<machine::LogsRequest>) -> Result<Response<Stream<wire::common::Data>>, Status> {
    let id = request.get_ref().id.clone();
    if id == "nothing" {
        return Err(Status::not_found("there is no log \"nothing\""));
    }
    let part = |text: &'static str| {
        let metadata = Metadata { hostname: "10.5.0.2".into(), ..Default::default() };
        Ok(wire::common::Data { metadata: Some(metadata), bytes: text.into() })
    };
    Ok(Response::new(tokio_stream::iter(vec![part("first li"), part("ne\nsecond line")])))
}

fn resource(namespace: &str, resource_type: &str, id: &str, yaml: &str) -> pb::Resource {
    pb::Resource {
        metadata: Some(pb::Metadata {
            namespace: namespace.into(),
            r#type: resource_type.into(),
            id: id.into(),
            version: "1".into(),
            phase: "running".into(),
            ..Default::default()
        }),
        spec: Some(pb::Spec { yaml_spec: yaml.into(), ..Default::default() }),
    }
}

fn member(id: &str, hostname: &str) -> pb::Resource {
    let yaml = format!("hostname: {hostname}\nmachineType: worker\naddresses:\n    - 10.5.0.3\n");
    resource("cluster", "Members.cluster.talos.dev", id, &yaml)
}

/// What [`configuration`] holds.
pub(crate) const CONFIGURATION: &str =
    "# of the node\nversion: v1alpha1\nmachine:\n    type: worker\n    network:\n        hostname: old\n";

/// As nodes send it: the text in a message, and the document as YAML.
fn configuration() -> pb::Resource {
    let mut resource = resource("config", "MachineConfigs.config.talos.dev", "v1alpha1", CONFIGURATION);
    if let Some(spec) = &mut resource.spec {
        // Field 1, length-delimited.
        let length = u8::try_from(CONFIGURATION.len()).unwrap();
        spec.proto_spec = [&[0x0a, length][..], CONFIGURATION.as_bytes()].concat().into();
    }
    resource
}

/// State belongs to one node: `nodes` is refused, as by a real server.
fn one_node(metadata: &MetadataMap) -> Result<(), Status> {
    match metadata.get("node").map(|node| node.to_str().unwrap_or_default()) {
        _ if metadata.contains_key("nodes") => Err(Status::invalid_argument("one node at a time")),
        Some(DEAD_NODE) => Err(Status::unavailable("no route to host")),
        _ => Ok(()),
    }
}

async fn get(request: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
    one_node(request.metadata())?;
    match request.get_ref().id.as_str() {
        "v1alpha1" => Ok(Response::new(pb::GetResponse { resource: Some(configuration()) })),
        "w1" => Ok(Response::new(pb::GetResponse { resource: Some(member("w1", "worker-1")) })),
        other => Err(Status::not_found(format!("there is no member {other:?}"))),
    }
}

async fn list(request: Request<pb::ListRequest>) -> Result<Response<Stream<pb::ListResponse>>, Status> {
    one_node(request.metadata())?;
    let definition = "type: Members.cluster.talos.dev\ndisplayType: Member\naliases: [members]\n\
                      allAliases: [member, members]\nprintColumns:\n    - name: Hostname\n      jsonPath: '{.hostname}'\n    \
                      - name: Addresses\n      jsonPath: '{.addresses}'\ndefaultNamespace: cluster\nsensitivity: ''\n";
    let resources = match (request.get_ref().namespace.as_str(), request.get_ref().r#type.as_str()) {
        ("meta", "ResourceDefinitions.meta.cosi.dev") => {
            let config = "type: MachineConfigs.config.talos.dev\ndisplayType: MachineConfig\naliases: [mc]\nallAliases: \
                          [machineconfig, mc]\nprintColumns: []\ndefaultNamespace: config\nsensitivity: sensitive\n";
            let defined = |id: &str, yaml: &str| resource("meta", "ResourceDefinitions.meta.cosi.dev", id, yaml);
            vec![defined("members.cluster.talos.dev", definition), defined("machineconfigs.config.talos.dev", config)]
        }
        ("cluster", "Members.cluster.talos.dev") => vec![member("w1", "worker-1"), member("w2", "worker-2")],
        ("secrets", _) => return Err(Status::permission_denied("it is sensitive and needs role os:admin")),
        ("", _) => return Err(Status::invalid_argument("a request needs a namespace and a type")),
        _ => Vec::new(),
    };
    let responses: Vec<_> =
        resources.into_iter().map(|resource| Ok(pb::ListResponse { resource: Some(resource) })).collect();
    Ok(Response::new(tokio_stream::iter(responses)))
}

async fn watch(request: Request<pb::WatchRequest>) -> Result<Response<Stream<pb::WatchResponse>>, Status> {
    one_node(request.metadata())?;
    let event = |kind: pb::EventType, resource| pb::Event { event_type: kind.into(), resource, ..Default::default() };
    let events = vec![
        event(pb::EventType::Created, Some(member("w1", "worker-1"))),
        event(pb::EventType::Bootstrapped, None),
        event(pb::EventType::Updated, Some(member("w1", "worker-1b"))),
        event(pb::EventType::Destroyed, Some(member("w1", "worker-1b"))),
    ];
    // A watch of all begins with an empty message, as those of nodes do; that of one resource is an older server's.
    let begun = request.get_ref().id.is_none().then(|| Ok(pb::WatchResponse::default()));
    let events = events.into_iter().map(|event| Ok(pb::WatchResponse { event: vec![event] }));
    let responses: Vec<_> = begun.into_iter().chain(events).collect();
    Ok(Response::new(tokio_stream::iter(responses)))
}
