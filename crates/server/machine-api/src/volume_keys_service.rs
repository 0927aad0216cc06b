//! Keys of encrypted volumes, for administrators: slots, recovery keys, and the keys of the TPM. Ours.

use stdx::Secret;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use wire::volumekeys as api;
use wire::volumekeys::volume_keys_service_server::VolumeKeysService;

use crate::machine::{Machine, VolumeKeysRefused};
use crate::machine_service::Service;

/// Of a passphrase (LUKS2 takes 512 from a terminal; recovery keys have 44).
const LONGEST_KEY: usize = 512;

#[tonic::async_trait]
impl VolumeKeysService for Service {
    async fn slots(&self, request: Request<api::SlotsRequest>) -> Result<Response<api::SlotsResponse>, Status> {
        self.only_administrators_of_disks(request.metadata())?;
        let found = self.machine.volume_keys.slots(&request.get_ref().volume).await.map_err(|error| status(&error))?;
        let slots = found.slots.into_iter().map(|(slot, kind)| api::Slot { slot, kind }).collect();
        let message = api::Slots { metadata: None, slots, open: found.is_open, reason: found.reason };
        Ok(Response::new(api::SlotsResponse { messages: vec![message] }))
    }

    async fn add_recovery_key(
        &self,
        request: Request<api::AddRecoveryKeyRequest>,
    ) -> Result<Response<api::AddRecoveryKeyResponse>, Status> {
        self.only_administrators_of_disks(request.metadata())?;
        let added = self.machine.volume_keys.add_recovery_key(&request.get_ref().volume).await;
        let (slot, key) = added.map_err(|error| status(&error))?;
        let message = api::RecoveryKey { metadata: None, slot, key: key.into_exposed() };
        Ok(Response::new(api::AddRecoveryKeyResponse { messages: vec![message] }))
    }

    async fn unlock(&self, request: Request<api::UnlockRequest>) -> Result<Response<api::UnlockResponse>, Status> {
        self.only_administrators_of_disks(request.metadata())?;
        let api::UnlockRequest { volume, key } = request.into_inner();
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(Status::invalid_argument(format!("key: 1 to {LONGEST_KEY} bytes are needed")));
        }
        let unlocked = self.machine.volume_keys.unlock(&volume, Secret::new(key)).await;
        unlocked.map_err(|error| status(&error))?;
        Ok(Response::new(api::UnlockResponse { messages: vec![api::Unlocked { metadata: None }] }))
    }

    async fn rebind(&self, request: Request<api::RebindRequest>) -> Result<Response<api::RebindResponse>, Status> {
        self.only_administrators_of_disks(request.metadata())?;
        let slots = self.machine.volume_keys.rebind(&request.get_ref().volume).await.map_err(|error| status(&error))?;
        Ok(Response::new(api::RebindResponse { messages: vec![api::Rebound { metadata: None, slots }] }))
    }
}

impl Service {
    fn only_administrators_of_disks(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.not_in_container()?;
        Machine::only_for_administrators(metadata)
    }
}

fn status(error: &VolumeKeysRefused) -> Status {
    let code = match error {
        VolumeKeysRefused::Absent(_) => Code::NotFound,
        VolumeKeysRefused::NotPossible(_) => Code::FailedPrecondition,
        VolumeKeysRefused::Unavailable(_) => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}
