//! Controllers: their contract, and the runtime that enforces it.
//!
//! A controller reads declared inputs, writes declared outputs, and is run again when an input changed. The runtime
//! owns waking, retries, panics, timers and access; it knows no domain. The contract is in `docs/controllers.md`.

mod access;
mod ctx;
mod error;
mod graph;
mod hold;
mod index;
mod io;
mod projection;
mod run;
mod runtime;
mod signal;
#[cfg(feature = "testing")]
pub mod testing;

use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument as _;

pub use access::AccessError;
pub use ctx::{Ctx, Destroyed, TaskHandle};
pub use error::ReconcileError;
pub use graph::{Edge, EdgeKind, GraphError};
pub use hold::Held;
pub use io::{Input, Output, OutputMode, Strength};
pub use projection::Projection;
pub use runtime::{Runtime, Status};
pub use signal::Waker;

/// The name of the span that passes and tasks of controllers are in: log routing tells their lines by it.
pub const SPAN: &str = "controller";

/// Runs a pass or a task in that span, below the span of its own task. It is enabled at every level, so that routing does
/// not depend on the filter of lines.
pub(crate) async fn in_span<F: Future>(future: F) -> F::Output {
    // Made here, not by the caller: its parent is the span that is entered when this is polled.
    future.instrument(tracing::error_span!(SPAN)).await
}

/// How long a pass may take unless its controller says otherwise.
pub const PASS_DEADLINE: Duration = Duration::from_secs(120);

/// Reconciles outputs with inputs.
///
/// Guarantees: one pass at a time; a first pass at the start; another after any change of an input, also one that
/// comes while a pass runs; changes that come together give one pass. A pass that errs or panics is counted, logged
/// and retried with backoff. Assumptions: a pass is idempotent, takes what it needs from `ctx`, and may be dropped at
/// an await point: at the end of the process, and when it takes longer than [`Controller::pass_deadline`].
#[async_trait]
pub trait Controller: Send + 'static {
    /// The runtime name, `network.AddressStatusController`; also the owner of its outputs and its finalizer.
    fn name(&self) -> &'static str;

    /// Inputs. [`Ctx::set_inputs`] can replace them later.
    fn inputs(&self) -> Vec<Input>;

    /// Outputs.
    fn outputs(&self) -> Vec<Output>;

    /// Interval of additional passes after the last one.
    fn resync(&self) -> Option<Duration> {
        None
    }

    /// How long a pass may take. A pass waits for answers, each with a deadline of its own; this one ends passes in which
    /// something was forgotten.
    fn pass_deadline(&self) -> Duration {
        PASS_DEADLINE
    }

    /// One pass.
    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError>;
}

/// Compiles and runs the example of the contract's page.
#[cfg(doctest)]
#[doc = include_str!("../../../../docs/controllers.md")]
mod contract {}
