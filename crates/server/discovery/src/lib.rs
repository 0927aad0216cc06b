//! The discovery service: nodes of a cluster leave sealed descriptions of themselves here and watch those of the
//! others.
//!
//! `registry` is the state machine (no I/O, time is passed in), `rate` the per-address limit, `service` the gRPC edge
//! and `serve` the server. The service never holds a key: it cannot read what it stores. It keeps nothing on disk;
//! clients publish again when they reconnect.

mod rate;
mod registry;
mod serve;
mod service;

pub use rate::{RateLimit, RateLimiter};
pub use registry::{AffiliateView, Change, Limits, RefusedError, Registry, Update};
pub use serve::{ServeError, serve};
pub use service::{Options, Service};
