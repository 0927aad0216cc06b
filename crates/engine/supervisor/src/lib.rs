//! Services of a node: dependencies, conditions, start, health, restart and logs.
//!
//! A [`Service`] knows how to run itself once; the [`Supervisor`] decides when, and how often. It knows nothing of
//! processes or containers, nor of the store: a controller mirrors its list into resources.

mod condition;
mod health;
pub mod logs;
mod run;
mod service;
mod shared;
mod status;
mod supervisor;

pub use condition::{Condition, FnCondition};
pub use health::{HealthCheck, HealthSettings};
pub use logs::LogStore;
pub use service::{Restart, RunContext, Service, ServiceError};
pub use status::{Health, ServiceEvent, ServiceState, ServiceStatus, StateChange};
pub use supervisor::{Stopped, Supervisor, SupervisorError};
