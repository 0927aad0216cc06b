//! The machine service: one short method per call, the work in the modules below.

use futures::stream::{self, BoxStream, StreamExt};
use resources::machine::PlatformMode;
use resources::revision::ConfigCaller;
use resources::runtime::PlatformMetadata;
use tonic::{Request, Response, Status, Streaming};
use wire::common::Data;
use wire::machine as api;
use wire::machine::machine_service_server::MachineService;

use crate::access::is_admin;
use crate::machine::{BootstrapRefused, Machine};
use crate::{client_configuration, configuration, generate, kubeconfig};

mod containers;
mod events;
mod files;
mod logs;
mod meta;
mod sequences;
mod services;
mod stats;
mod upgrade;

/// Serves one machine.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) machine: Machine,
}

impl Service {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine }
    }

    /// Refuses operations that a container leaves to its host.
    pub(crate) fn not_in_container(&self) -> Result<(), Status> {
        match self.machine.capabilities()?.mode {
            PlatformMode::Container => Err(Status::failed_precondition("method is not supported in container mode")),
            PlatformMode::Metal | PlatformMode::Cloud => Ok(()),
        }
    }
}

/// The answer of a method that does not work yet.
pub(crate) fn later<T>(method: &str, waits_for: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{method} is not implemented yet: it waits for {waits_for}")))
}

const DAY_2: &str = "day-2 operations of the machine";
const ETCD: &str = "maintenance of etcd through the API";
const IMAGES: &str = "images through the API";

/// A unary answer of this node: a response with one message.
macro_rules! one {
    ($response:ident, $message:expr) => {
        Ok(Response::new(api::$response { messages: vec![$message] }))
    };
}

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl MachineService for Service {
    async fn version(&self, _: Request<()>) -> Reply<api::VersionResponse> {
        let version = api::VersionInfo {
            tag: stdx::version::TAG.to_owned(),
            sha: build_info::COMMIT.to_owned(),
            built: build_info::DATE.to_owned(),
            // The field for the compiler; clients print what is in it.
            go_version: build_info::COMPILER.to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: sys::host::architecture().to_owned(),
        };
        let mode = self.machine.capabilities()?.mode.to_string();
        let metadata = self.machine.store.get_as::<PlatformMetadata>(PlatformMetadata::ID).ok().flatten();
        let name = metadata.map(|metadata| metadata.platform.clone()).unwrap_or_default();
        let platform = api::PlatformInfo { name, mode };
        let features = api::FeaturesInfo { rbac: true };
        let message =
            api::Version { metadata: None, version: Some(version), platform: Some(platform), features: Some(features) };
        one!(VersionResponse, message)
    }

    async fn hostname(&self, _: Request<()>) -> Reply<api::HostnameResponse> {
        one!(HostnameResponse, api::Hostname { metadata: None, hostname: sys::host::hostname() })
    }

    async fn apply_configuration(
        &self,
        request: Request<api::ApplyConfigurationRequest>,
    ) -> Reply<api::ApplyConfigurationResponse> {
        let is_admin = is_admin(request.metadata());
        let caller = if is_admin { ConfigCaller::Administrator } else { ConfigCaller::Anonymous };
        one!(ApplyConfigurationResponse, configuration::apply(&self.machine, caller, request.into_inner()).await?)
    }

    async fn bootstrap(&self, request: Request<api::BootstrapRequest>) -> Reply<api::BootstrapResponse> {
        if request.get_ref().recover_etcd {
            return later("Bootstrap from a snapshot", ETCD);
        }
        self.machine.bootstrap.bootstrap().await.map_err(|refused| match refused {
            BootstrapRefused::AlreadyDone(why) => Status::already_exists(why),
            BootstrapRefused::NotPossible(why) => Status::failed_precondition(why),
        })?;
        one!(BootstrapResponse, api::Bootstrap { metadata: None })
    }

    type KubeconfigStream = Streamed<Data>;
    async fn kubeconfig(&self, _: Request<()>) -> Reply<Self::KubeconfigStream> {
        self.machine.only_on_control_planes("kubeconfig")?;
        let archive = kubeconfig::archive(&self.machine)?;
        Ok(Response::new(stream::iter([Ok(logs::data(archive))]).boxed()))
    }

    async fn service_list(&self, _: Request<()>) -> Reply<api::ServiceListResponse> {
        let services = services::list(&self.machine)?;
        one!(ServiceListResponse, api::ServiceList { metadata: None, services })
    }

    type LogsStream = Streamed<Data>;
    async fn logs(&self, request: Request<api::LogsRequest>) -> Reply<Self::LogsStream> {
        Ok(Response::new(logs::logs(&self.machine, request.into_inner()).await?))
    }

    async fn logs_containers(&self, _: Request<()>) -> Reply<api::LogsContainersResponse> {
        one!(LogsContainersResponse, api::LogsContainer { metadata: None, ids: self.machine.logs.ids() })
    }

    type DmesgStream = Streamed<Data>;
    async fn dmesg(&self, request: Request<api::DmesgRequest>) -> Reply<Self::DmesgStream> {
        Ok(Response::new(logs::dmesg(&self.machine, request.into_inner())?))
    }

    type EventsStream = Streamed<api::Event>;
    async fn events(&self, request: Request<api::EventsRequest>) -> Reply<Self::EventsStream> {
        Ok(Response::new(events::events(&self.machine, request.get_ref())?))
    }

    async fn containers(&self, request: Request<api::ContainersRequest>) -> Reply<api::ContainersResponse> {
        one!(ContainersResponse, containers::containers(&self.machine, request.into_inner()).await?)
    }

    async fn processes(&self, _: Request<()>) -> Reply<api::ProcessesResponse> {
        one!(ProcessesResponse, on_thread(stats::processes).await?)
    }

    async fn memory(&self, _: Request<()>) -> Reply<api::MemoryResponse> {
        one!(MemoryResponse, stats::memory()?)
    }

    async fn load_avg(&self, _: Request<()>) -> Reply<api::LoadAvgResponse> {
        one!(LoadAvgResponse, stats::load_average()?)
    }

    async fn mounts(&self, _: Request<()>) -> Reply<api::MountsResponse> {
        one!(MountsResponse, on_thread(stats::mounts).await?)
    }

    async fn system_stat(&self, _: Request<()>) -> Reply<api::SystemStatResponse> {
        one!(SystemStatResponse, stats::system()?)
    }

    async fn cpu_info(&self, _: Request<()>) -> Reply<api::CpuInfoResponse> {
        one!(CpuInfoResponse, stats::processors()?)
    }

    async fn disk_stats(&self, _: Request<()>) -> Reply<api::DiskStatsResponse> {
        one!(DiskStatsResponse, stats::disks()?)
    }

    async fn network_device_stats(&self, _: Request<()>) -> Reply<api::NetworkDeviceStatsResponse> {
        one!(NetworkDeviceStatsResponse, stats::network_devices()?)
    }

    type ListStream = Streamed<api::FileInfo>;
    async fn list(&self, request: Request<api::ListRequest>) -> Reply<Self::ListStream> {
        Ok(Response::new(files::list(request.into_inner()).await?))
    }

    type ReadStream = Streamed<Data>;
    async fn read(&self, request: Request<api::ReadRequest>) -> Reply<Self::ReadStream> {
        Ok(Response::new(files::read(&request.get_ref().path).await?))
    }

    async fn etcd_member_list(&self, _: Request<api::EtcdMemberListRequest>) -> Reply<api::EtcdMemberListResponse> {
        self.machine.only_on_control_planes("member list")?;
        let members = self.machine.etcd.members().await;
        let members = members
            .map_err(|error| Status::unavailable(format!("etcd: {}", stdx::error_chain(error.as_ref()))))?
            .into_iter()
            .map(|member| api::EtcdMember {
                id: member.id.0,
                hostname: member.name,
                peer_urls: member.peer_urls,
                client_urls: member.client_urls,
                is_learner: member.is_learner,
            })
            .collect();
        one!(EtcdMemberListResponse, api::EtcdMembers { metadata: None, legacy_members: Vec::new(), members })
    }

    type CopyStream = Streamed<Data>;
    async fn copy(&self, _: Request<api::CopyRequest>) -> Reply<Self::CopyStream> {
        later("Copy", DAY_2)
    }
    async fn etcd_remove_member_by_id(
        &self,
        _: Request<api::EtcdRemoveMemberByIdRequest>,
    ) -> Reply<api::EtcdRemoveMemberByIdResponse> {
        later("EtcdRemoveMemberByID", ETCD)
    }
    async fn etcd_leave_cluster(
        &self,
        _: Request<api::EtcdLeaveClusterRequest>,
    ) -> Reply<api::EtcdLeaveClusterResponse> {
        later("EtcdLeaveCluster", ETCD)
    }
    async fn etcd_forfeit_leadership(
        &self,
        _: Request<api::EtcdForfeitLeadershipRequest>,
    ) -> Reply<api::EtcdForfeitLeadershipResponse> {
        later("EtcdForfeitLeadership", ETCD)
    }
    async fn etcd_recover(&self, _: Request<Streaming<Data>>) -> Reply<api::EtcdRecoverResponse> {
        later("EtcdRecover", ETCD)
    }
    type EtcdSnapshotStream = Streamed<Data>;
    async fn etcd_snapshot(&self, _: Request<api::EtcdSnapshotRequest>) -> Reply<Self::EtcdSnapshotStream> {
        later("EtcdSnapshot", ETCD)
    }
    async fn etcd_alarm_list(&self, _: Request<()>) -> Reply<api::EtcdAlarmListResponse> {
        later("EtcdAlarmList", ETCD)
    }
    async fn etcd_alarm_disarm(&self, _: Request<()>) -> Reply<api::EtcdAlarmDisarmResponse> {
        later("EtcdAlarmDisarm", ETCD)
    }
    async fn etcd_defragment(&self, _: Request<()>) -> Reply<api::EtcdDefragmentResponse> {
        later("EtcdDefragment", ETCD)
    }
    async fn etcd_status(&self, _: Request<()>) -> Reply<api::EtcdStatusResponse> {
        later("EtcdStatus", ETCD)
    }
    async fn generate_configuration(
        &self,
        request: Request<api::GenerateConfigurationRequest>,
    ) -> Reply<api::GenerateConfigurationResponse> {
        one!(GenerateConfigurationResponse, generate::generate(&self.machine, request.into_inner()).await?)
    }
    type DiskUsageStream = Streamed<api::DiskUsageInfo>;
    async fn disk_usage(&self, _: Request<api::DiskUsageRequest>) -> Reply<Self::DiskUsageStream> {
        later("DiskUsage", DAY_2)
    }
    async fn reboot(&self, request: Request<api::RebootRequest>) -> Reply<api::RebootResponse> {
        self.not_in_container()?;
        one!(RebootResponse, sequences::reboot(&self.machine, request.get_ref())?)
    }
    async fn restart(&self, _: Request<api::RestartRequest>) -> Reply<api::RestartResponse> {
        later("Restart", DAY_2)
    }
    async fn rollback(&self, request: Request<api::RollbackRequest>) -> Reply<api::RollbackResponse> {
        self.not_in_container()?;
        Machine::only_for_administrators(request.metadata())?;
        one!(RollbackResponse, upgrade::rollback(&self.machine).await?)
    }
    async fn reset(&self, request: Request<api::ResetRequest>) -> Reply<api::ResetResponse> {
        self.machine.only_for_administrators_of_state(request.metadata())?;
        one!(ResetResponse, sequences::reset(&self.machine, request.get_ref()).await?)
    }
    async fn service_restart(
        &self,
        request: Request<api::ServiceRestartRequest>,
    ) -> Reply<api::ServiceRestartResponse> {
        let resp = services::restart(&self.machine, &request.get_ref().id)?;
        one!(ServiceRestartResponse, api::ServiceRestart { metadata: None, resp })
    }
    async fn service_start(&self, request: Request<api::ServiceStartRequest>) -> Reply<api::ServiceStartResponse> {
        let resp = services::start(&self.machine, &request.get_ref().id)?;
        one!(ServiceStartResponse, api::ServiceStart { metadata: None, resp })
    }
    async fn service_stop(&self, request: Request<api::ServiceStopRequest>) -> Reply<api::ServiceStopResponse> {
        let resp = services::stop(&self.machine, &request.get_ref().id).await?;
        one!(ServiceStopResponse, api::ServiceStop { metadata: None, resp })
    }
    async fn shutdown(&self, request: Request<api::ShutdownRequest>) -> Reply<api::ShutdownResponse> {
        self.not_in_container()?;
        one!(ShutdownResponse, sequences::shutdown(&self.machine, request.get_ref())?)
    }
    async fn stats(&self, _: Request<api::StatsRequest>) -> Reply<api::StatsResponse> {
        later("Stats", "metrics of containerd")
    }
    async fn upgrade(&self, request: Request<api::UpgradeRequest>) -> Reply<api::UpgradeResponse> {
        self.not_in_container()?;
        self.machine.only_for_administrators_of_state(request.metadata())?;
        one!(UpgradeResponse, upgrade::upgrade(&self.machine, request.get_ref()).await?)
    }
    async fn generate_client_configuration(
        &self,
        request: Request<api::GenerateClientConfigurationRequest>,
    ) -> Reply<api::GenerateClientConfigurationResponse> {
        one!(GenerateClientConfigurationResponse, client_configuration::generate(&self.machine, request.get_ref())?)
    }
    type PacketCaptureStream = Streamed<Data>;
    async fn packet_capture(&self, _: Request<api::PacketCaptureRequest>) -> Reply<Self::PacketCaptureStream> {
        later("PacketCapture", DAY_2)
    }
    async fn netstat(&self, _: Request<api::NetstatRequest>) -> Reply<api::NetstatResponse> {
        later("Netstat", DAY_2)
    }
    async fn meta_write(&self, request: Request<api::MetaWriteRequest>) -> Reply<api::MetaWriteResponse> {
        meta::check_caller(self, request.metadata())?;
        one!(MetaWriteResponse, meta::write(&self.machine, request.into_inner()).await?)
    }
    async fn meta_delete(&self, request: Request<api::MetaDeleteRequest>) -> Reply<api::MetaDeleteResponse> {
        meta::check_caller(self, request.metadata())?;
        one!(MetaDeleteResponse, meta::delete(&self.machine, request.into_inner()).await?)
    }
    type ImageListStream = Streamed<api::ImageListResponse>;
    async fn image_list(&self, _: Request<api::ImageListRequest>) -> Reply<Self::ImageListStream> {
        later("ImageList", IMAGES)
    }
    async fn image_pull(&self, _: Request<api::ImagePullRequest>) -> Reply<api::ImagePullResponse> {
        later("ImagePull", IMAGES)
    }
}

/// Runs blocking work, such as access to an unresponsive network file system, on a thread of its own: the few workers
/// of PID 1 must not stand still.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    let failed = |error| Err(Status::internal(format!("answering failed: {error}")));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
}
