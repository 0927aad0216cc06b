//! Typed calls of the machine, cluster and inspect services: replies split by node, streams with the node's name, and
//! a deadline on every unary call. Calls that are not wrapped here go through [`Client::machine`].

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use wire::cluster::cluster_service_client::ClusterServiceClient;
use wire::common::{ContainerDriver, Data};
use wire::inspect::inspect_service_client::InspectServiceClient;
use wire::machine::machine_service_client::MachineServiceClient;
use wire::storage::storage_service_client::StorageServiceClient;
use wire::time::time_service_client::TimeServiceClient;
use wire::volumekeys::volume_keys_service_client::VolumeKeysServiceClient;
use wire::{cluster, inspect, machine, storage, volumekeys};

use crate::connection::{Channel, Client, MAX_MESSAGE_SIZE};
use crate::error::CallError;
use crate::kubeconfig;
use crate::reply::{self, NodeReply, WithMetadata};

/// Messages of a stream with the node they come from; ends after the first error of the stream itself.
pub type NodeStream<T> = Pin<Box<dyn Stream<Item = StreamItem<T>> + Send>>;

/// One message, or the end of the stream for a reason.
pub type StreamItem<T> = Result<NodeReply<T>, CallError>;

/// A node pulls the image before it answers.
const UPGRADE: Duration = Duration::from_secs(30 * 60);

impl Client {
    /// The generated client of the machine service, routed as this client is.
    pub fn machine(&self) -> MachineServiceClient<Channel> {
        MachineServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    pub fn inspect(&self) -> InspectServiceClient<Channel> {
        InspectServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    pub(crate) fn unary<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.call_timeout());
        request
    }

    pub async fn version(&self) -> Result<Vec<NodeReply<machine::Version>>, CallError> {
        let reply = self.machine().version(self.unary(())).await;
        split("Version", reply, |reply| reply.messages)
    }

    pub async fn apply_configuration(
        &self,
        request: machine::ApplyConfigurationRequest,
    ) -> Result<Vec<NodeReply<machine::ApplyConfiguration>>, CallError> {
        let reply = self.machine().apply_configuration(self.unary(request)).await;
        split("ApplyConfiguration", reply, |reply| reply.messages)
    }

    /// A talosconfig with a certificate that the node signs.
    pub async fn generate_client_configuration(
        &self,
        request: machine::GenerateClientConfigurationRequest,
    ) -> Result<Vec<NodeReply<machine::GenerateClientConfiguration>>, CallError> {
        let reply = self.machine().generate_client_configuration(self.unary(request)).await;
        split("GenerateClientConfiguration", reply, |reply| reply.messages)
    }

    pub async fn bootstrap(
        &self,
        request: machine::BootstrapRequest,
    ) -> Result<Vec<NodeReply<machine::Bootstrap>>, CallError> {
        let reply = self.machine().bootstrap(self.unary(request)).await;
        split("Bootstrap", reply, |reply| reply.messages)
    }

    /// The administrator's kubeconfig of the cluster.
    ///
    /// Errors: code `DATA_LOSS` when the node sent something else than a kubeconfig.
    pub async fn kubeconfig(&self) -> Result<String, CallError> {
        let failed = |status| CallError::new("Kubeconfig", status);
        let whole = async {
            let stream = self.machine().kubeconfig(self.unary(())).await.map_err(failed)?.into_inner();
            collect("Kubeconfig", stream).await
        };
        let bytes = self.within_deadline("Kubeconfig", whole).await?;
        kubeconfig::text_of(&bytes).map_err(|error| failed(Status::data_loss(format!("unpacking the answer: {error}"))))
    }

    /// The contents of one file of one node.
    pub async fn read(&self, path: &str) -> Result<NodeStream<Data>, CallError> {
        let request = machine::ReadRequest { path: path.to_owned() };
        self.stream("Read", self.machine().read(Request::new(request))).await
    }

    pub async fn services(&self) -> Result<Vec<NodeReply<machine::ServiceList>>, CallError> {
        let reply = self.machine().service_list(self.unary(())).await;
        split("ServiceList", reply, |reply| reply.messages)
    }

    pub async fn service_start(&self, id: &str) -> Result<Vec<NodeReply<machine::ServiceStart>>, CallError> {
        let request = machine::ServiceStartRequest { id: id.to_owned() };
        let reply = self.machine().service_start(self.unary(request)).await;
        split("ServiceStart", reply, |reply| reply.messages)
    }

    pub async fn service_stop(&self, id: &str) -> Result<Vec<NodeReply<machine::ServiceStop>>, CallError> {
        let request = machine::ServiceStopRequest { id: id.to_owned() };
        let reply = self.machine().service_stop(self.unary(request)).await;
        split("ServiceStop", reply, |reply| reply.messages)
    }

    pub async fn service_restart(&self, id: &str) -> Result<Vec<NodeReply<machine::ServiceRestart>>, CallError> {
        let request = machine::ServiceRestartRequest { id: id.to_owned() };
        let reply = self.machine().service_restart(self.unary(request)).await;
        split("ServiceRestart", reply, |reply| reply.messages)
    }

    pub async fn reboot(&self, request: machine::RebootRequest) -> Result<Vec<NodeReply<machine::Reboot>>, CallError> {
        let reply = self.machine().reboot(self.unary(request)).await;
        split("Reboot", reply, |reply| reply.messages)
    }

    pub async fn shutdown(
        &self,
        request: machine::ShutdownRequest,
    ) -> Result<Vec<NodeReply<machine::Shutdown>>, CallError> {
        let reply = self.machine().shutdown(self.unary(request)).await;
        split("Shutdown", reply, |reply| reply.messages)
    }

    pub async fn reset(&self, request: machine::ResetRequest) -> Result<Vec<NodeReply<machine::Reset>>, CallError> {
        let reply = self.machine().reset(self.unary(request)).await;
        split("Reset", reply, |reply| reply.messages)
    }

    pub async fn upgrade(
        &self,
        request: machine::UpgradeRequest,
    ) -> Result<Vec<NodeReply<machine::Upgrade>>, CallError> {
        let mut request = Request::new(request);
        request.set_timeout(UPGRADE);
        let reply = self.machine().upgrade(request).await;
        split("Upgrade", reply, |reply| reply.messages)
    }

    pub async fn rollback(&self) -> Result<Vec<NodeReply<machine::Rollback>>, CallError> {
        let reply = self.machine().rollback(self.unary(machine::RollbackRequest {})).await;
        split("Rollback", reply, |reply| reply.messages)
    }

    pub async fn logs(&self, request: machine::LogsRequest) -> Result<NodeStream<Data>, CallError> {
        self.stream("Logs", self.machine().logs(Request::new(request))).await
    }

    /// Names of the logs that nodes keep.
    pub async fn log_ids(&self) -> Result<Vec<NodeReply<machine::LogsContainer>>, CallError> {
        let reply = self.machine().logs_containers(self.unary(())).await;
        split("LogsContainers", reply, |reply| reply.messages)
    }

    pub async fn dmesg(&self, request: machine::DmesgRequest) -> Result<NodeStream<Data>, CallError> {
        self.stream("Dmesg", self.machine().dmesg(Request::new(request))).await
    }

    pub async fn events(&self, request: machine::EventsRequest) -> Result<NodeStream<machine::Event>, CallError> {
        self.stream("Events", self.machine().events(Request::new(request))).await
    }

    pub async fn list(&self, request: machine::ListRequest) -> Result<NodeStream<machine::FileInfo>, CallError> {
        self.stream("List", self.machine().list(Request::new(request))).await
    }

    pub async fn containers(
        &self,
        namespace: &str,
        driver: ContainerDriver,
    ) -> Result<Vec<NodeReply<machine::Container>>, CallError> {
        let request = machine::ContainersRequest { namespace: namespace.to_owned(), driver: driver.into() };
        let reply = self.machine().containers(self.unary(request)).await;
        split("Containers", reply, |reply| reply.messages)
    }

    pub async fn processes(&self) -> Result<Vec<NodeReply<machine::Process>>, CallError> {
        let reply = self.machine().processes(self.unary(())).await;
        split("Processes", reply, |reply| reply.messages)
    }

    pub async fn memory(&self) -> Result<Vec<NodeReply<machine::Memory>>, CallError> {
        let reply = self.machine().memory(self.unary(())).await;
        split("Memory", reply, |reply| reply.messages)
    }

    pub async fn mounts(&self) -> Result<Vec<NodeReply<machine::Mounts>>, CallError> {
        let reply = self.machine().mounts(self.unary(())).await;
        split("Mounts", reply, |reply| reply.messages)
    }

    pub async fn disks(&self) -> Result<Vec<NodeReply<storage::Disks>>, CallError> {
        let mut service = StorageServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE);
        let reply = service.disks(self.unary(())).await;
        split("Disks", reply, |reply| reply.messages)
    }

    pub async fn meta_write(&self, key: u8, value: Vec<u8>) -> Result<Vec<NodeReply<machine::MetaWrite>>, CallError> {
        let request = machine::MetaWriteRequest { key: key.into(), value: value.into() };
        let reply = self.machine().meta_write(self.unary(request)).await;
        split("MetaWrite", reply, |reply| reply.messages)
    }

    pub async fn meta_delete(&self, key: u8) -> Result<Vec<NodeReply<machine::MetaDelete>>, CallError> {
        let request = machine::MetaDeleteRequest { key: key.into() };
        let reply = self.machine().meta_delete(self.unary(request)).await;
        split("MetaDelete", reply, |reply| reply.messages)
    }

    /// The slots of an encrypted volume.
    pub async fn volume_slots(&self, volume: String) -> Result<Vec<NodeReply<volumekeys::Slots>>, CallError> {
        let request = volumekeys::SlotsRequest { volume };
        let reply = self.volume_keys().slots(self.unary(request)).await;
        split("Slots", reply, |reply| reply.messages)
    }

    /// Adds a recovery key to an encrypted volume, whose only copy is in the answer.
    pub async fn add_recovery_key(&self, volume: String) -> Result<Vec<NodeReply<volumekeys::RecoveryKey>>, CallError> {
        let request = volumekeys::AddRecoveryKeyRequest { volume };
        let reply = self.volume_keys().add_recovery_key(self.unary(request)).await;
        split("AddRecoveryKey", reply, |reply| reply.messages)
    }

    /// Opens an encrypted volume that does not open by itself.
    pub async fn unlock_volume(
        &self,
        volume: String,
        key: String,
    ) -> Result<Vec<NodeReply<volumekeys::Unlocked>>, CallError> {
        let request = volumekeys::UnlockRequest { volume, key };
        let reply = self.volume_keys().unlock(self.unary(request)).await;
        split("Unlock", reply, |reply| reply.messages)
    }

    /// Seals the TPM's keys of an encrypted volume anew.
    pub async fn rebind_volume(&self, volume: String) -> Result<Vec<NodeReply<volumekeys::Rebound>>, CallError> {
        let request = volumekeys::RebindRequest { volume };
        let reply = self.volume_keys().rebind(self.unary(request)).await;
        split("Rebind", reply, |reply| reply.messages)
    }

    fn volume_keys(&self) -> VolumeKeysServiceClient<Channel> {
        VolumeKeysServiceClient::new(self.channel())
    }

    /// The time of nodes beside that of a server, or of the one that each uses.
    pub async fn time(&self, server: Option<String>) -> Result<Vec<NodeReply<wire::time::Time>>, CallError> {
        let mut client = TimeServiceClient::new(self.channel());
        match server {
            Some(server) => {
                let reply = client.time_check(self.unary(wire::time::TimeRequest { server })).await;
                split("TimeCheck", reply, |reply| reply.messages)
            }
            None => split("Time", client.time(self.unary(())).await, |reply| reply.messages),
        }
    }

    pub async fn etcd_members(&self, query_local: bool) -> Result<Vec<NodeReply<machine::EtcdMembers>>, CallError> {
        let request = machine::EtcdMemberListRequest { query_local };
        let reply = self.machine().etcd_member_list(self.unary(request)).await;
        split("EtcdMemberList", reply, |reply| reply.messages)
    }

    pub async fn dependencies(&self) -> Result<Vec<NodeReply<inspect::ControllerRuntimeDependency>>, CallError> {
        let reply = self.inspect().controller_runtime_dependencies(self.unary(())).await;
        split("ControllerRuntimeDependencies", reply, |reply| reply.messages)
    }

    /// The server's own checks of the cluster, as they proceed; ends when all are done, or with an error.
    pub async fn health_check(
        &self,
        info: Option<cluster::ClusterInfo>,
        wait_timeout: Duration,
    ) -> Result<NodeStream<cluster::HealthCheckProgress>, CallError> {
        let wait_timeout = prost_types::Duration::try_from(wait_timeout).ok();
        let request = cluster::HealthCheckRequest { wait_timeout, cluster_info: info };
        self.stream("HealthCheck", self.cluster().health_check(Request::new(request))).await
    }

    /// A finite call with a streamed response: tonic's own deadline only covers the first part.
    pub(crate) async fn within_deadline<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(self.call_timeout(), call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::new(method, late(self.call_timeout()))),
        }
    }

    /// A stream that must begin by the deadline; its duration is not limited.
    async fn stream<M: WithMetadata + Send + 'static>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<Response<Streaming<M>>, Status>>,
    ) -> Result<NodeStream<M>, CallError> {
        let begun = async { call.await.map_err(|status| CallError::new(method, status)) };
        let stream = self.within_deadline(method, begun).await?.into_inner();
        Ok(Box::pin(stream.map(move |part| match part {
            Ok(message) => Ok(reply::of_message(message)),
            Err(status) => Err(CallError::new(method, status)),
        })))
    }
}

fn late(timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {}", stdx::duration::format(timeout)))
}

async fn collect(method: &'static str, mut stream: Streaming<Data>) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await.map_err(|status| CallError::new(method, status))? {
        let part = reply::of_message(part).result;
        let part = part.map_err(|error| CallError::new(method, Status::new(error.code, error.message)))?;
        bytes.extend_from_slice(&part.bytes);
    }
    Ok(bytes)
}

fn split<R, M: WithMetadata>(
    method: &'static str,
    reply: Result<Response<R>, Status>,
    messages: impl FnOnce(R) -> Vec<M>,
) -> Result<Vec<NodeReply<M>>, CallError> {
    let reply = reply.map_err(|status| CallError::new(method, status))?;
    Ok(messages(reply.into_inner()).into_iter().map(reply::of_message).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectOptions, Failure};

    #[tokio::test]
    async fn an_answer_that_does_not_end_is_cut_off_at_the_deadline() {
        let options = ConnectOptions::insecure(vec!["127.0.0.1:1".parse().unwrap()], Vec::new(), None);
        let client = Client::connect_lazy(options).unwrap().with_call_timeout(Duration::from_millis(10));
        let never = std::future::pending::<Result<(), CallError>>();
        let error = client.within_deadline("List", never).await.unwrap_err();
        assert_eq!(error.to_string(), "calling List: no answer within 10ms");
        assert_eq!(error.failure(), Failure::DeadlineExceeded);
    }
}
