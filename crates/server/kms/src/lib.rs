//! A key service: it seals keys of disks with a key of its own, for the node that asks. It keeps nothing.
//!
//! A node is known by the UUID that it tells, as in Talos 1.7: the service protects a disk that was taken away, and a network
//! that only machines reach protects the service.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::ServerConfig;
use stdx::Secret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use transport::{Limits, Slot};
use wire::sidero::kms;
use wire::sidero::kms::kms_service_server::{KmsService, KmsServiceServer};

/// The longest request.
const LONGEST_REQUEST: usize = 16 << 10;
/// The longest key.
const LONGEST_KEY: usize = 4 << 10;
/// The longest UUID.
const LONGEST_UUID: usize = 64;

/// The service cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    #[error("the key of the service cannot be used")]
    Key,
    #[error("serving")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves on a listener until `stop`; with TLS where it has a configuration.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    key: &Secret<[u8; 32]>,
    stop: CancellationToken,
) -> Result<(), KmsError> {
    let sealer = RandomizedNonceKey::new(&AES_256_GCM, key.expose()).map_err(|_| KmsError::Key)?;
    let server = KmsServiceServer::new(Service(Arc::new(sealer))).max_decoding_message_size(LONGEST_REQUEST);
    match tls {
        Some(config) => transport::serve::tls(listener, Slot::new(config), Limits::CLUSTERS, server, stop).await?,
        None => transport::serve::plain(listener, Limits::CLUSTERS, server, stop).await?,
    }
    Ok(())
}

#[derive(Debug)]
struct Service(Arc<RandomizedNonceKey>);

fn check(request: &kms::Request) -> Result<(), Status> {
    let uuid = &request.node_uuid;
    if uuid.is_empty() || uuid.len() > LONGEST_UUID || !uuid.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Status::invalid_argument("node_uuid is no UUID"));
    }
    if request.data.is_empty() {
        return Err(Status::invalid_argument("there is no data"));
    }
    Ok(())
}

#[tonic::async_trait]
impl KmsService for Service {
    async fn seal(&self, request: Request<kms::Request>) -> Result<Response<kms::Response>, Status> {
        let request = request.into_inner();
        check(&request)?;
        if request.data.len() > LONGEST_KEY {
            return Err(Status::invalid_argument(format!("a key has {LONGEST_KEY} bytes at most")));
        }
        let mut body = request.data.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(request.node_uuid.as_bytes()), &mut body);
        let nonce = nonce.map_err(|_| Status::internal("the key cannot be sealed"))?;
        tracing::info!(node = request.node_uuid, "key sealed");
        Ok(Response::new(kms::Response { data: [nonce.as_ref().as_slice(), &body].concat().into() }))
    }

    async fn unseal(&self, request: Request<kms::Request>) -> Result<Response<kms::Response>, Status> {
        let request = request.into_inner();
        check(&request)?;
        let refused = || Status::permission_denied("it was not sealed by this service for this node");
        let (nonce, body) = request.data.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut body = body.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(request.node_uuid.as_bytes()), &mut body);
        let Ok(opened) = opened else {
            tracing::warn!(node = request.node_uuid, "unsealing refused");
            return Err(refused());
        };
        tracing::info!(node = request.node_uuid, "key unsealed");
        Ok(Response::new(kms::Response { data: opened.to_vec().into() }))
    }
}

#[cfg(test)]
mod tests {
    use kms_client::{GrpcKeyService, KeyService as _, KmsError};

    use super::*;

    const NODE: &str = "44c1b8c9-7e2b-4c3a-9d2e-0123456789ab";

    async fn start(key: [u8; 32]) -> (String, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("grpc://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = async move { serve(listener, None, &Secret::new(key), stopped).await };
        stdx::tasks::spawn("kms", serving).detach();
        (endpoint, stop)
    }

    #[tokio::test]
    async fn a_key_is_unsealed_for_its_node_by_the_service_that_sealed_it() {
        let (endpoint, _stop) = start([1; 32]).await;
        let client = GrpcKeyService::new("/no/authorities");
        let key = Secret::new(vec![7; 32]);
        let sealed = client.seal(&endpoint, NODE, &key).await.unwrap();
        assert!(!sealed.windows(8).any(|part| part == [7; 8]), "it is not sealed");
        assert_ne!(client.seal(&endpoint, NODE, &key).await.unwrap(), sealed);
        assert_eq!(client.unseal(&endpoint, NODE, &sealed).await.unwrap(), key);
        // After a restart, too: it keeps nothing.
        let (again, _stop) = start([1; 32]).await;
        assert_eq!(client.unseal(&again, NODE, &sealed).await.unwrap(), key);
        let (another, _stop) = start([2; 32]).await;
        let mut altered = sealed.clone();
        altered[20] ^= 1;
        for (endpoint, node, sealed) in [
            (&endpoint, "44c1b8c9-7e2b-4c3a-9d2e-0123456789ac", &sealed),
            (&another, NODE, &sealed),
            (&endpoint, NODE, &altered),
            (&endpoint, NODE, &b"short".to_vec()),
            (&endpoint, "", &sealed),
        ] {
            let refused = client.unseal(endpoint, node, sealed).await.unwrap_err();
            assert!(matches!(refused, KmsError::Refused { .. }) && !refused.is_away(), "{refused}");
        }
        let long = Secret::new(vec![1; LONGEST_KEY + 1]);
        let refused = client.seal(&endpoint, NODE, &long).await.unwrap_err();
        assert!(!refused.is_away(), "{refused}");
    }
}
