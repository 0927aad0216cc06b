//! The client side of the discovery service: what is said is sealed, so that the service cannot read it.
//!
//! `seal` and `message` are pure: bytes in, bytes out. `client` holds the conversation, `connect` the transport.

pub mod client;
pub mod connect;
pub mod message;
pub mod seal;
