//! The time of this node beside that of a time server. Looking changes nothing.

use ntp::{Answer, Target};
use prost_types::Timestamp;
use resources::network::TimeServerStatus;
use tonic::{Request, Response, Status};
use wire::time::time_service_server::TimeService;
use wire::time::{Time, TimeRequest, TimeResponse};

use crate::machine_service::Service;

/// The longest name of a server.
const MAX_NAME: usize = 253;

#[tonic::async_trait]
impl TimeService for Service {
    /// Beside the first of the servers in use.
    async fn time(&self, _: Request<()>) -> Result<Response<TimeResponse>, Status> {
        let status = self.machine.store.get_as::<TimeServerStatus>(TimeServerStatus::ID);
        let status = status.map_err(|error| Status::internal(error.to_string()))?;
        let first = status.and_then(|status| status.time_servers.first().cloned());
        let server = first.ok_or_else(|| Status::failed_precondition("this node has no time servers"))?;
        self.compare(server).await
    }

    async fn time_check(&self, request: Request<TimeRequest>) -> Result<Response<TimeResponse>, Status> {
        let server = request.into_inner().server;
        if server.is_empty() || server.len() > MAX_NAME {
            return Err(Status::invalid_argument("server: a name or address of at most 253 bytes is needed"));
        }
        self.compare(server).await
    }
}

impl Service {
    async fn compare(&self, server: String) -> Result<Response<TimeResponse>, Status> {
        let target = Target { server: server.clone(), address: None };
        let answer = self.machine.time_servers.ask(&target).await;
        let (answer, _) = answer.map_err(|error| Status::unavailable(stdx::error_chain(&error).to_string()))?;
        let sample = match answer {
            Answer::Sample(sample) => sample,
            Answer::KissOfDeath(code) => {
                let code = String::from_utf8_lossy(&code).into_owned();
                return Err(Status::unavailable(format!("time server {server} refuses to answer: {code}")));
            }
        };
        let now = self.machine.clock.now();
        let size = sample.offset.size();
        let remote = if sample.offset.nanos() < 0 { now.checked_sub(size) } else { now.checked_add(size) };
        let message = Time {
            metadata: None,
            server,
            localtime: Some(Timestamp::from(now)),
            remotetime: remote.map(Timestamp::from),
        };
        Ok(Response::new(TimeResponse { messages: vec![message] }))
    }
}
