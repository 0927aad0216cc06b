//! The network: what is configured in layers, what is merged from them, and what the kernel reports.

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

/// Where merged and observed resources are.
pub const NAMESPACE: &str = "network";
/// Where the layers are before they are merged; ids there are `LAYER/ID`.
pub const CONFIG_NAMESPACE: &str = "network-config";
