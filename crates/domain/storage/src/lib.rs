//! Disks and what is on them: block devices, discovered content, the system disk, its volumes, and META.

pub mod arrays;
mod devices;
mod discovery;
mod machine_token;
mod meta;
mod requests;
mod trial;
mod user_disks;
mod volumes;

pub use devices::DevicesController;
pub use discovery::DiscoveryController;
pub use machine_token::UniqueMachineTokenController;
pub use meta::{MetaController, MetaError, MetaHandle};
pub use trial::{Evidence, Leave, TrialEdges, TrialError, TrialWatchdogs, UpgradeTrialController};
pub use user_disks::{UserDiskController, UserDiskError, UserDisks, UserTableError};
pub use volumes::{
    KeyError, OVERLAYS, Places, RecoveryKey, SealEdges, SealError, VolumeController, VolumeEdges, VolumeError,
    VolumeKeys, VolumeKeysError, VolumeSlots,
};
