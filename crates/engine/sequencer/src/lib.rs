//! The lifecycle of a machine: which sequence runs, for whom, and how the machine ends; and the bus on which everything
//! that happens to the machine is announced.
//!
//! [`Arbiter`] decides precedence, without I/O; [`Lifecycle`] runs the plans that a [`Planner`] makes. What a task does is a
//! function that the planner passes in: this crate knows no task by name.

mod arbiter;
pub mod events;
mod lifecycle;
mod plan;
mod run;
mod sequence;
mod status;

pub use arbiter::{Arbiter, Effect, Finish, GRACE_OF_TAKEOVER, Locked, REBOOT_AFTER_FAILURE};
pub use events::{Event, EventBus, Payload};
pub use lifecycle::{Lifecycle, Planner, Refused};
pub use plan::{CONFIG_PAUSE, OnFailure, Phase, Plan, Task, TaskContext, TaskError, Then};
pub use run::PlanError;
pub use sequence::{
    ActorId, Options, Outcome, Parameters, RebootMode, Request, ResetParameters, Sequence, SequenceId,
    ShutdownParameters, Takeover, UpgradeParameters, WipeMode,
};
pub use status::{Current, Last, LastResult, PhaseTime, Status};
