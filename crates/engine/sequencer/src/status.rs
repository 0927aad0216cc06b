//! Status of the lifecycle, for controllers and operators.

use std::time::Duration;

use tokio::time::Instant;

use crate::sequence::{ActorId, Outcome, Sequence, SequenceId};

/// The sequence that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    pub id: SequenceId,
    pub sequence: Sequence,
    pub actor: ActorId,
    /// Name, number from 1, and how many there are; none before the first.
    pub phase: Option<(&'static str, usize, usize)>,
    /// Tasks that have not ended, sorted.
    pub tasks: Vec<&'static str>,
    /// It was told to end.
    pub canceled: bool,
}

/// How a sequence ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastResult {
    Done,
    Failed(String),
    Canceled,
}

/// The sequence that ended last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    pub id: SequenceId,
    pub sequence: Sequence,
    pub actor: ActorId,
    pub result: LastResult,
}

/// One phase of a sequence, and the time that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseTime {
    pub sequence: Sequence,
    pub phase: &'static str,
    pub started: Instant,
    /// None as long as it runs; with its failed tasks otherwise.
    pub took: Option<Duration>,
}

/// How many phases are kept with their times: those of a boot are half as many, later ones are of no boot.
pub(crate) const PHASES_KEPT: usize = 64;

/// A moment of the lifecycle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    pub current: Option<Current>,
    pub last: Option<Last>,
    /// How the machine ends, once that is decided.
    pub outcome: Option<Outcome>,
    /// The first 64 phases since the machine started, in their order.
    pub phases: Vec<PhaseTime>,
}
