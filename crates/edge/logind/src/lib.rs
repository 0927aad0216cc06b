//! As much of D-Bus and of logind as the kubelet needs to end pods gracefully: a bus with one name on it,
//! `org.freedesktop.login1`, whose manager gives out locks that delay the end of the machine.
//!
//! Clients reach the bus and this name, and never each other. The wire (`message`) and the handshake (`auth`) are pure.

mod auth;
mod bus;
mod connection;
mod driver;
mod lock;
mod manager;
mod message;
mod reply;
mod rule;

pub use bus::{Bus, BusError};
pub use lock::{HeldError, LONGEST_DELAY, Logind};
