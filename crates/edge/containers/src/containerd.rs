//! A connection to containerd.

use std::path::{Path, PathBuf};

use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::generated::containerd::services::{
    containers::v1::ListContainersRequest, containers::v1::containers_client::ContainersClient,
    content::v1::content_client::ContentClient, images::v1::images_client::ImagesClient,
    leases::v1::leases_client::LeasesClient, snapshots::v1::snapshots_client::SnapshotsClient,
    tasks::v1::ListTasksRequest, tasks::v1::tasks_client::TasksClient, version::v1::version_client::VersionClient,
};
use crate::generated::containerd::v1::types::Status as TaskStatus;

/// Larger than any message that containerd sends (its own limit).
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// A containerd namespace of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// The node's own containers.
    System,
    /// Those of Kubernetes pods.
    Kubernetes,
}

impl Namespace {
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Kubernetes => "k8s.io",
        }
    }
}

/// Failure of a containerd call.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    #[error("connecting to containerd at {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{operation} {subject}")]
    Call {
        operation: &'static str,
        subject: String,
        #[source]
        source: Box<Status>,
    },
    #[error("{operation} {subject}: {reason}")]
    Unexpected { operation: &'static str, subject: String, reason: String },
}

impl ContainerdError {
    pub(crate) fn call(operation: &'static str, subject: impl Into<String>) -> impl FnOnce(Status) -> Self {
        let subject = subject.into();
        move |status| Self::Call { operation, subject, source: Box::new(status) }
    }

    /// Whether containerd reported the subject as not found.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.code() == tonic::Code::NotFound)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Headers {
    namespace: &'static str,
    lease: Option<MetadataValue<tonic::metadata::Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", MetadataValue::from_static(self.namespace));
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Headers>;

/// A connection to containerd for one namespace. Cheap to clone; reconnects automatically.
#[derive(Debug, Clone)]
pub struct Containerd {
    channel: Channel,
    headers: Headers,
}

/// A container as `talosctl containers` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    pub id: String,
    pub image: String,
    pub labels: std::collections::BTreeMap<String, String>,
    /// 0 when it has no task.
    pub pid: u32,
    /// `RUNNING`, `STOPPED`, …; `NO TASK` when nothing was started.
    pub status: String,
}

impl Containerd {
    /// A connection to the socket; it is made when the first call needs it.
    pub fn new(socket: &Path, namespace: Namespace) -> Self {
        Self {
            channel: transport::unix::channel(socket),
            headers: Headers { namespace: namespace.name(), lease: None },
        }
    }

    /// The same connection for another namespace.
    #[must_use]
    pub fn namespace(&self, namespace: Namespace) -> Self {
        Self { channel: self.channel.clone(), headers: Headers { namespace: namespace.name(), lease: None } }
    }

    pub(crate) fn with_lease(&self, lease: &str) -> Self {
        let headers = Headers { namespace: self.headers.namespace, lease: lease.parse().ok() };
        Self { channel: self.channel.clone(), headers }
    }

    /// Whether containerd answers.
    ///
    /// # Errors
    /// `Call` with its or the connection's reason.
    pub async fn version(&self) -> Result<String, ContainerdError> {
        let mut client = VersionClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let answer =
            client.version(()).await.map_err(ContainerdError::call("asking for the version of", "containerd"))?;
        Ok(answer.into_inner().version)
    }

    /// The containers of this namespace with their tasks.
    ///
    /// # Errors
    /// `Call`.
    pub async fn containers(&self) -> Result<Vec<ContainerInfo>, ContainerdError> {
        let namespace = self.headers.namespace;
        let failed = |operation| ContainerdError::call(operation, namespace);
        let list = self.containers_client().list(ListContainersRequest::default()).await;
        let containers = list.map_err(failed("listing containers of"))?.into_inner();
        let list = self.tasks_client().list(ListTasksRequest::default()).await;
        let tasks = list.map_err(failed("listing tasks of"))?.into_inner().tasks;
        let info = containers.containers.into_iter().map(|container| {
            // A task is listed by its id, which for the first process of a container is the container's.
            let task = tasks.iter().find(|task| task.id == container.id || task.container_id == container.id);
            ContainerInfo {
                pid: task.map_or(0, |task| task.pid),
                status: task.map_or("NO TASK", |task| status_name(task.status())).to_owned(),
                id: container.id,
                image: container.image,
                labels: container.labels.into_iter().collect(),
            }
        });
        Ok(info.collect())
    }

    pub(crate) fn content(&self) -> ContentClient<Service> {
        ContentClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn images(&self) -> ImagesClient<Service> {
        ImagesClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    pub(crate) fn leases(&self) -> LeasesClient<Service> {
        LeasesClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    pub(crate) fn snapshots(&self) -> SnapshotsClient<Service> {
        SnapshotsClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    pub(crate) fn containers_client(&self) -> ContainersClient<Service> {
        ContainersClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn tasks_client(&self) -> TasksClient<Service> {
        TasksClient::with_interceptor(self.channel.clone(), self.headers.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

fn status_name(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Unknown => "UNKNOWN",
        TaskStatus::Created => "CREATED",
        TaskStatus::Running => "RUNNING",
        TaskStatus::Stopped => "STOPPED",
        TaskStatus::Paused => "PAUSED",
        TaskStatus::Pausing => "PAUSING",
    }
}
