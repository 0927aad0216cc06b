//! Sequences of a machine (boot, shutdown, later upgrade and reset) as plans of phases and tasks, and the bus on which
//! everything that happens to the machine is announced.
//!
//! A plan says what happens in which order; what a task does is a function that the plan's maker passes in.

pub mod events;
mod plan;

pub use events::{Event, EventBus, Payload};
pub use plan::{Phase, Plan, PlanError, Sequencer, SequencerError, Task, TaskError};
