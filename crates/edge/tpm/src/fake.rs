//! A TPM in memory. It gives back what it has sealed itself, in the state of its firmware at that time, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use machine::encryption::TpmSealed;
use parking_lot::Mutex;
use stdx::Secret;

use crate::{Tpm, TpmError};

/// The fake; clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeTpm(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_absent: bool,
    /// Counts how often it was cleared.
    owner: u8,
    firmware: u8,
    /// What it has sealed, by the private part.
    sealed: BTreeMap<Vec<u8>, (TpmSealed, Secret<Vec<u8>>)>,
}

impl FakeTpm {
    /// Taken out of the machine, or back.
    pub fn set_absent(&self, is_absent: bool) {
        self.0.lock().is_absent = is_absent;
    }

    /// All that it has sealed is lost.
    pub fn clear(&self) {
        self.0.lock().owner += 1;
    }

    /// Settings of the firmware change.
    pub fn change_firmware(&self) {
        self.0.lock().firmware += 1;
    }
}

#[async_trait]
impl Tpm for FakeTpm {
    async fn seal(&self, key: &Secret<Vec<u8>>) -> Result<TpmSealed, TpmError> {
        let mut state = self.0.lock();
        if state.is_absent {
            return Err(TpmError::Absent("/dev/tpmrm0".into()));
        }
        let private = format!("private {}", state.sealed.len()).into_bytes();
        let sealed = TpmSealed {
            private: private.clone(),
            public: b"public".to_vec(),
            pcrs: vec![7],
            policy: vec![state.firmware; 32],
            key_name: vec![state.owner; 34],
        };
        state.sealed.insert(private, (sealed.clone(), key.clone()));
        Ok(sealed)
    }

    async fn unseal(&self, sealed: &TpmSealed) -> Result<Secret<Vec<u8>>, TpmError> {
        let state = self.0.lock();
        if state.is_absent {
            return Err(TpmError::Absent("/dev/tpmrm0".into()));
        }
        let (own, key) = state.sealed.get(&sealed.private).ok_or(TpmError::Token)?;
        if own != sealed {
            return Err(TpmError::Token);
        }
        if sealed.key_name != [state.owner; 34] {
            return Err(TpmError::OtherTpm);
        }
        if sealed.policy != [state.firmware; 32] {
            return Err(TpmError::Measurements(7));
        }
        Ok(key.clone())
    }
}
