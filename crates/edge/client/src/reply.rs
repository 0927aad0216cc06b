//! Replies of several nodes in one message: every part carries metadata with the node's name and, when that node
//! failed, its error.

use wire::common::Metadata;

/// The reply of one node.
#[derive(Debug)]
pub struct NodeReply<T> {
    /// Name or address of the node; empty when the server that was dialled answered for itself.
    pub node: String,
    pub result: Result<T, NodeError>,
}

/// A node's own error inside an aggregated reply.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct NodeError {
    pub code: tonic::Code,
    pub message: String,
}

impl NodeError {
    pub fn from_status(status: &tonic::Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

/// A message that may name its node.
pub trait WithMetadata {
    fn metadata(&self) -> Option<&Metadata>;
}

/// Splits off the node's name and its error.
pub(crate) fn of_message<T: WithMetadata>(message: T) -> NodeReply<T> {
    let node = message.metadata().map(|m| m.hostname.clone()).unwrap_or_default();
    match message.metadata().and_then(error_of) {
        Some(error) => NodeReply { node, result: Err(error) },
        None => NodeReply { node, result: Ok(message) },
    }
}

fn error_of(metadata: &Metadata) -> Option<NodeError> {
    let status = metadata.status.as_ref().filter(|status| status.code != 0);
    if metadata.error.is_empty() && status.is_none() {
        return None;
    }
    let code = status.map_or(tonic::Code::Unknown, |status| tonic::Code::from_i32(status.code));
    let message = match status {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        _ => metadata.error.clone(),
    };
    Some(NodeError { code, message })
}

macro_rules! with_metadata {
    ($($message:ty),* $(,)?) => {
        $(impl WithMetadata for $message {
            fn metadata(&self) -> Option<&Metadata> {
                self.metadata.as_ref()
            }
        })*
    };
}

with_metadata!(
    wire::common::Data,
    wire::common::Empty,
    wire::machine::ApplyConfiguration,
    wire::machine::Bootstrap,
    wire::machine::Container,
    wire::machine::EtcdMembers,
    wire::machine::Event,
    wire::machine::FileInfo,
    wire::machine::Hostname,
    wire::machine::LogsContainer,
    wire::machine::Memory,
    wire::machine::MetaDelete,
    wire::machine::MetaWrite,
    wire::machine::Mounts,
    wire::time::Time,
    wire::machine::Process,
    wire::machine::Reboot,
    wire::machine::Reset,
    wire::machine::Rollback,
    wire::machine::Upgrade,
    wire::machine::GenerateClientConfiguration,
    wire::machine::ServiceList,
    wire::machine::ServiceRestart,
    wire::machine::ServiceStart,
    wire::machine::ServiceStop,
    wire::machine::Shutdown,
    wire::machine::Version,
    wire::inspect::ControllerRuntimeDependency,
    wire::cluster::HealthCheckProgress,
    wire::storage::Disks,
    wire::volumekeys::Rebound,
    wire::volumekeys::RecoveryKey,
    wire::volumekeys::Slots,
    wire::volumekeys::Unlocked,
);

#[cfg(test)]
mod tests {
    use super::*;
    use wire::google::rpc::Status;

    fn version(metadata: Option<Metadata>) -> wire::machine::Version {
        wire::machine::Version { metadata, ..Default::default() }
    }

    #[test]
    fn an_error_in_the_metadata_is_the_nodes_error() {
        let metadata = Metadata {
            hostname: "10.5.0.3".to_owned(),
            error: "rpc error: unavailable".to_owned(),
            status: Some(Status { code: 14, message: "no route".to_owned(), details: Vec::new() }),
        };
        let reply = of_message(version(Some(metadata)));
        assert_eq!(reply.node, "10.5.0.3");
        let expected = NodeError { code: tonic::Code::Unavailable, message: "no route".to_owned() };
        assert_eq!(reply.result.unwrap_err(), expected);
    }

    #[test]
    fn no_metadata_is_an_answer_of_the_server_itself() {
        let reply = of_message(version(None));
        assert_eq!(reply.node, "");
        assert_eq!(reply.result, Ok(version(None)));
    }
}
