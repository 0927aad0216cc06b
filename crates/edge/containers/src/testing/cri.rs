//! Asks containerd for images and pods as a kubelet does.

use std::path::Path;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullImageResponse {
    #[prost(string, tag = "1")]
    image_ref: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Namespaces {
    /// 2 is the node's.
    #[prost(int32, tag = "1")]
    network: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxSecurity {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<Namespaces>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxSandbox {
    #[prost(message, optional, tag = "2")]
    security: Option<SandboxSecurity>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

/// Of a pod and of a container.
#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(string, tag = "11")]
    log_path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

/// Pulls an image for a pod that has no credentials of its own; returns the image's id.
///
/// # Errors
/// The responses of containerd.
pub async fn pull_for_pods(socket: &Path, image: &str) -> Result<String, Status> {
    let request = PullImageRequest { image: Some(ImageSpec { image: image.to_owned() }) };
    let answer: PullImageResponse = call(socket, "/runtime.v1.ImageService/PullImage", request).await?;
    Ok(answer.image_ref)
}

/// Runs a pod with the node's network, in namespace `default`, and one container in it; returns the pod's id.
///
/// # Errors
/// The responses of containerd.
pub async fn run_pod(socket: &Path, name: &str, image: &str, command: &[&str]) -> Result<String, Status> {
    let metadata = Metadata { name: name.to_owned(), uid: format!("uid-of-{name}"), namespace: "default".to_owned() };
    let security = SandboxSecurity { namespaces: Some(Namespaces { network: 2 }) };
    let sandbox_config = Some(SandboxConfig {
        metadata: Some(metadata),
        log_directory: "/run".to_owned(),
        linux: Some(LinuxSandbox { security: Some(security) }),
    });
    let request = RunPodSandboxRequest { config: sandbox_config.clone() };
    let sandbox: Id = call(socket, "/runtime.v1.RuntimeService/RunPodSandbox", request).await?;
    let image = pull_for_pods(socket, image).await?;
    let config = Some(ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".to_owned() }),
        image: Some(ImageSpec { image }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
    });
    let request = CreateContainerRequest { sandbox: sandbox.id.clone(), config, sandbox_config };
    let container: Id = call(socket, "/runtime.v1.RuntimeService/CreateContainer", request).await?;
    let Empty {} = call(socket, "/runtime.v1.RuntimeService/StartContainer", container).await?;
    Ok(sandbox.id)
}

async fn call<Q, A>(socket: &Path, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = Grpc::new(transport::unix::channel(socket));
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    client.unary(Request::new(request), PathAndQuery::from_static(path), codec).await.map(tonic::Response::into_inner)
}
