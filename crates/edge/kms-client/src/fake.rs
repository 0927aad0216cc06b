//! A key service in memory. It refuses what it has not sealed for the same node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use stdx::Secret;
use tonic::Status;

use crate::{KeyService, KmsError};

/// The fake; clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeKeyService {
    is_away: Arc<AtomicBool>,
}

impl FakeKeyService {
    /// Nobody answers, or somebody again.
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    fn check(&self, endpoint: &str) -> Result<(), KmsError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(KmsError::Silent { endpoint: endpoint.to_owned() });
        }
        Ok(())
    }
}

#[async_trait]
impl KeyService for FakeKeyService {
    async fn seal(&self, endpoint: &str, node: &str, key: &Secret<Vec<u8>>) -> Result<Vec<u8>, KmsError> {
        self.check(endpoint)?;
        Ok([format!("{endpoint} {node} ").as_bytes(), key.expose().as_slice()].concat())
    }

    async fn unseal(&self, endpoint: &str, node: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, KmsError> {
        self.check(endpoint)?;
        let key = sealed.strip_prefix(format!("{endpoint} {node} ").as_bytes());
        let refused = || KmsError::Refused {
            endpoint: endpoint.to_owned(),
            status: Status::permission_denied("it was not sealed here for this node"),
        };
        key.map(|key| Secret::new(key.to_vec())).ok_or_else(refused)
    }
}
