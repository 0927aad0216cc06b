//! The parts of a template.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Path(Path),
    /// The body once for each result of a path.
    Range {
        over: Path,
        body: Vec<Self>,
    },
}

/// Steps from the current item to the results.
pub(super) type Path = Vec<Step>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Field(String),
    /// Negative positions count from the end.
    Index(i64),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        step: usize,
    },
    /// All items of a list, all values of a map.
    All,
    /// The value itself and everything below it.
    Descend,
    /// The results of all these, in their order.
    Union(Vec<Self>),
    Filter(Condition),
}

/// The condition of a filter, about one item.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    Any(Vec<Self>),
    All(Vec<Self>),
    Exists(Path),
    Compare(Operand, Comparison, Operand),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}
