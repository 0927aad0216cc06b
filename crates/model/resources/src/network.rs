//! The network: layered configuration, the merged result, and the state reported by the kernel.

mod addresses;
mod devices;
mod firewall;
mod links;
mod operators;
mod routes;
mod settings;

pub use addresses::*;
pub use devices::*;
pub use firewall::*;
pub use links::*;
pub use operators::*;
pub use routes::*;
pub use settings::*;

/// Namespace of merged and observed resources.
pub const NAMESPACE: &str = "network";
/// Namespace of the unmerged layers; ids there are `LAYER/ID`.
pub const CONFIG_NAMESPACE: &str = "network-config";
