//! Links, addresses, routes and address translation of a network namespace: reading, change notifications and changes.
//!
//! Four traits, [`Links`], [`Addresses`], [`Routes`] and [`Translation`]; [`KernelNetlink`] is all of them on rtnetlink
//! and nftables, for this namespace or another, `FakeNetlink` all of them in memory (feature `testing`). There is no
//! policy here, no DHCP and no firewall. Numbers of the kernel are converted to the types that resources use.

mod changes;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod hardware;
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
pub use model::{
    Address, Addresses, Link, LinkChange, LinkHardware, Links, Masquerade, Master, Route, Router, Routes, Translation,
};
pub use namespace::Namespace;
