//! Links, addresses and routes of a network namespace: what there is, when it changes, and changes to it.
//!
//! Three traits, [`Links`], [`Addresses`] and [`Routes`]; [`KernelNetlink`] is all three on rtnetlink, for this namespace
//! or another, `FakeNetlink` all three in memory (feature `testing`). It decides nothing, and knows neither DHCP nor
//! packet filters. Numbers of the kernel come as the types that resources use for them.

mod changes;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod kernel;
mod message;
mod model;
mod namespace;

pub use changes::{ChangeSender, Changes};
pub use error::NetlinkError;
#[cfg(any(test, feature = "testing"))]
pub use fake::FakeNetlink;
pub use kernel::KernelNetlink;
pub use model::{Address, Addresses, Link, LinkChange, Links, Master, Route, Routes};
pub use namespace::Namespace;
