//! Disks and what is on them: block devices, discovered content, the system disk, its volumes, and META.

mod devices;
mod discovery;
mod meta;
pub mod user_disks;
mod volumes;

pub use devices::DevicesController;
pub use discovery::DiscoveryController;
pub use meta::{MetaController, MetaError, MetaHandle};
pub use volumes::{OVERLAYS, Places, VolumeController, VolumeEdges, VolumeError};
