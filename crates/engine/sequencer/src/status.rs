//! Status of the lifecycle, for controllers and operators.

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

/// A moment of the lifecycle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    pub current: Option<Current>,
    pub last: Option<Last>,
    /// How the machine ends, once that is decided.
    pub outcome: Option<Outcome>,
}
