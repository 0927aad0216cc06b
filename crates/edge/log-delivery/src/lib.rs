//! Delivery of logs over the network: lines of services and records of the kernel, as JSON objects, by TCP or UDP.
//!
//! A receiver that is away or slow delays nobody: lines wait in the rings that they are read from, which services and the
//! kernel overwrite. Neither a receiver is authenticated nor are lines encrypted.

mod connection;
mod console;
mod deliver;
mod endpoint;
mod kernel;
mod line;
mod lines;
mod services;

pub use console::{Console, show_service_logs};
pub use endpoint::{Endpoint, EndpointError, Protocol};
pub use kernel::deliver_kernel_log;
pub use services::{ServiceLogs, deliver_service_logs};
