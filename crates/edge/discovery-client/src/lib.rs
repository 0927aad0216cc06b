//! The client of the discovery service: everything that is said is sealed, so that the service cannot read it.
//!
//! `seal` and `message` are pure: bytes in, bytes out. [`Client`] holds the session, [`Dial`] is the way to the service.
//! What the service sends is checked before it is believed: each affiliate has to be sealed with the cluster's secret and
//! to be about the node that the service names.

mod client;
mod connect;
mod message;
mod seal;

pub use client::{Client, KnownAffiliates, Options, RetireError, retire};
pub use connect::{ConnectError, Dial, TcpDial};
pub use message::{MessageError, open_affiliate, seal_affiliate};
pub use seal::{SealError, Sealer};
