//! Asks containerd for an image as a kubelet does.

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

/// Pulls an image for a pod that has no credentials of its own; returns the image's id.
///
/// # Errors
/// The responses of containerd.
pub async fn pull_for_pods(socket: &Path, image: &str) -> Result<String, Status> {
    let mut client = Grpc::new(transport::unix::channel(socket));
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/runtime.v1.ImageService/PullImage");
    let request = PullImageRequest { image: Some(ImageSpec { image: image.to_owned() }) };
    let codec = ProstCodec::<PullImageRequest, PullImageResponse>::default();
    client.unary(Request::new(request), path, codec).await.map(|response| response.into_inner().image_ref)
}
