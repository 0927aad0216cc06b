//! The machine API of a node, served on Unix sockets: what `apid` carries calls to, and the filtered state that `apid`
//! and `trustd` read.
//!
//! Authorization of methods is decided by `apid`; only read access to sensitive resources is checked here. What the
//! services need of the machine is gathered in [`Machine`]. Methods that do not work yet answer `UNIMPLEMENTED` and say
//! what they wait for.

mod access;
mod client_configuration;
mod cluster_service;
mod configuration;
mod generate;
mod inspect_service;
mod kubeconfig;
mod machine;
mod machine_service;
mod node_services;
mod serve;
mod state_service;
mod time_service;
mod volume_keys_service;

pub use access::Access;
pub use machine::{
    Away, BootstrapRefused, BootstrapSink, BoxError, ContainerList, EtcdMembers, Machine, MetaRefused, MetaValues,
    ResetRefused, ResetTargets, SequenceRequests, Versions, VersionsError, VolumeKeys, VolumeKeysRefused, VolumeSlots,
};
pub use serve::{BindError, serve, serve_state};
pub use state_service::{HISTORY_LOST, StateService};
