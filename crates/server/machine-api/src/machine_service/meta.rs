//! Values of META.

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use wire::machine as api;

use super::Service;
use crate::machine::{Machine, MetaRefused};

/// Refuses callers without rights, and machines whose disks are their host's.
///
/// # Errors
/// As [`Machine::only_for_administrators_of_state`].
pub(super) fn check_caller(service: &Service, metadata: &MetadataMap) -> Result<(), Status> {
    service.not_in_container()?;
    service.machine.only_for_administrators_of_state(metadata)
}

pub(super) async fn write(machine: &Machine, request: api::MetaWriteRequest) -> Result<api::MetaWrite, Status> {
    machine.meta.set(key(request.key)?, request.value.to_vec()).await.map_err(|error| status(&error))?;
    Ok(api::MetaWrite { metadata: None })
}

pub(super) async fn delete(machine: &Machine, request: api::MetaDeleteRequest) -> Result<api::MetaDelete, Status> {
    machine.meta.delete(key(request.key)?).await.map_err(|error| status(&error))?;
    Ok(api::MetaDelete { metadata: None })
}

fn key(key: u32) -> Result<u8, Status> {
    u8::try_from(key).map_err(|_| Status::invalid_argument(format!("key {key} is not a number from 1 to 255")))
}

fn status(error: &MetaRefused) -> Status {
    let code = match error {
        MetaRefused::Invalid(_) => Code::InvalidArgument,
        MetaRefused::Full(_) => Code::ResourceExhausted,
        MetaRefused::Absent(_) => Code::NotFound,
        MetaRefused::Unavailable(_) => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}
