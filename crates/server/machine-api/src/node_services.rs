//! Small services of a node with minimal content: disks and time.

use tonic::{Request, Response, Status};
use wire::storage::DisksResponse;
use wire::storage::storage_service_server::StorageService;
use wire::time::time_service_server::TimeService;
use wire::time::{TimeRequest, TimeResponse};

use crate::machine_service::{Service, later};

#[tonic::async_trait]
impl StorageService for Service {
    async fn disks(&self, _: Request<()>) -> Result<Response<DisksResponse>, Status> {
        later("Disks", "machines that have disks of their own")
    }
}

#[tonic::async_trait]
impl TimeService for Service {
    async fn time(&self, _: Request<()>) -> Result<Response<TimeResponse>, Status> {
        later("Time", "the client of time servers")
    }

    async fn time_check(&self, _: Request<TimeRequest>) -> Result<Response<TimeResponse>, Status> {
        later("TimeCheck", "the client of time servers")
    }
}
