//! Links, addresses, routes and translation of addresses of a network namespace: what there is, when it changes, and
//! changes to it.
//!
//! Four traits, [`Links`], [`Addresses`], [`Routes`] and [`Translation`]; [`KernelNetlink`] is all of them on rtnetlink
//! and nftables, for this namespace or another, `FakeNetlink` all of them in memory (feature `testing`). It decides
//! nothing, and knows neither DHCP nor what may pass. Numbers of the kernel come as the types that resources use for
//! them.

mod changes;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod kernel;
mod message;
mod model;
mod namespace;
mod nft;

pub use changes::{ChangeSender, Changes};
pub use error::NetlinkError;
#[cfg(any(test, feature = "testing"))]
pub use fake::FakeNetlink;
pub use kernel::KernelNetlink;
pub use model::{Address, Addresses, Link, LinkChange, Links, Masquerade, Master, Route, Router, Routes, Translation};
pub use namespace::Namespace;
