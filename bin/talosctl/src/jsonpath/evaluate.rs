//! Evaluates templates. The values looked at and the length of the output are bounded: `..*` multiplies them at each use.

use std::cmp::Ordering;

use serde_json::Value;

use super::template::{Comparison, Condition, Node, Operand, Path, Step};
use crate::output::json;

/// Values that one rendering may look at.
const MAX_VALUES: usize = 2_000_000;
/// The longest output of one rendering, in bytes.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;

/// Why a template has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvaluateError {
    #[error("{0} is not found")]
    NotFound(String),
    #[error("array index out of bounds: index {index}, length {length}")]
    OutOfBounds { index: i64, length: usize },
    #[error("there is no list to take {0} of")]
    NotAList(&'static str),
    #[error("the template looks at more than {MAX_VALUES} values")]
    TooManyValues,
    #[error("the result is longer than {MAX_OUTPUT} bytes")]
    TooLong,
}

/// A path that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    IsAnError,
    IsEmpty,
}

/// One rendering.
pub(super) struct Evaluation {
    missing: Missing,
    values_left: usize,
    output: String,
}

impl Evaluation {
    pub(super) fn new(missing: Missing) -> Self {
        Self { missing, values_left: MAX_VALUES, output: String::new() }
    }

    pub(super) fn render(mut self, nodes: &[Node], value: &Value) -> Result<String, EvaluateError> {
        self.nodes(nodes, value)?;
        Ok(self.output)
    }

    fn nodes(&mut self, nodes: &[Node], current: &Value) -> Result<(), EvaluateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.print(text)?,
                Node::Path(path) => {
                    for (at, found) in self.walk(path, current)?.into_iter().enumerate() {
                        self.print(if at > 0 { " " } else { "" })?;
                        let text = self.text_of(found);
                        self.print(&text)?;
                    }
                }
                Node::Range { over, body } => {
                    for item in self.walk(over, current)? {
                        self.count(1)?;
                        self.nodes(body, item)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<(), EvaluateError> {
        if self.output.len() + text.len() > MAX_OUTPUT {
            return Err(EvaluateError::TooLong);
        }
        self.output.push_str(text);
        Ok(())
    }

    fn text_of(&self, value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            Value::Null if self.missing == Missing::IsEmpty => String::new(),
            other => json::compact(other),
        }
    }

    fn count(&mut self, values: usize) -> Result<(), EvaluateError> {
        self.values_left = self.values_left.checked_sub(values).ok_or(EvaluateError::TooManyValues)?;
        Ok(())
    }

    fn walk<'v>(&mut self, path: &Path, value: &'v Value) -> Result<Vec<&'v Value>, EvaluateError> {
        path.iter().try_fold(vec![value], |found, step| self.step(step, &found))
    }

    /// The results for all values together. A step that fits none of them is an error; whether one is there that it fits
    /// and that is empty makes the difference for lists.
    fn step<'v>(&mut self, step: &Step, values: &[&'v Value]) -> Result<Vec<&'v Value>, EvaluateError> {
        let mut found = Vec::new();
        let mut fits = false;
        let mut error = None;
        for value in values {
            match self.apply(step, value, &mut found) {
                Ok(()) => fits = true,
                Err(limit @ (EvaluateError::TooManyValues | EvaluateError::TooLong)) => return Err(limit),
                Err(reason) => error = error.or(Some(reason)),
            }
            self.count(1)?;
        }
        match error {
            Some(reason) if !fits && self.missing == Missing::IsAnError => Err(reason),
            // No value is left to look into, as behind an empty list.
            None if values.is_empty() && self.missing == Missing::IsAnError => missing(step).map_or(Ok(found), Err),
            _ => Ok(found),
        }
    }

    fn apply<'v>(&mut self, step: &Step, value: &'v Value, found: &mut Vec<&'v Value>) -> Result<(), EvaluateError> {
        let before = found.len();
        match (step, value) {
            (Step::Field(name), _) => {
                let inner = value.as_object().and_then(|map| map.get(name));
                found.push(inner.ok_or_else(|| EvaluateError::NotFound(name.clone()))?);
            }
            (Step::Index(index), Value::Array(list)) => {
                let at = usize::try_from(from_start(*index, list.len())).ok();
                let length = list.len();
                let item = at.and_then(|at| list.get(at));
                found.push(item.ok_or(EvaluateError::OutOfBounds { index: *index, length })?);
            }
            (Step::Slice { from, to, step }, Value::Array(list)) => found.extend(slice(list, *from, *to, *step)),
            (Step::All, Value::Array(list)) => found.extend(list),
            (Step::All, Value::Object(map)) => found.extend(map.values()),
            (Step::Descend, _) => self.descend(value, found)?,
            (Step::Union(steps), _) => {
                for step in steps {
                    let inner = self.step(step, &[value])?;
                    found.extend(inner);
                }
            }
            (Step::Filter(condition), Value::Array(list)) => {
                for item in list {
                    self.count(1)?;
                    if self.holds(condition, item)? {
                        found.push(item);
                    }
                }
            }
            (step, _) => return Err(missing(step).unwrap_or(EvaluateError::NotAList("items"))),
        }
        self.count(found.len() - before)
    }

    /// The value and all below it, parents first.
    fn descend<'v>(&mut self, value: &'v Value, found: &mut Vec<&'v Value>) -> Result<(), EvaluateError> {
        let mut pending = vec![value];
        while let Some(next) = pending.pop() {
            self.count(1)?;
            found.push(next);
            match next {
                Value::Array(list) => pending.extend(list.iter().rev()),
                Value::Object(map) => pending.extend(map.values().rev()),
                _ => {}
            }
        }
        Ok(())
    }

    fn holds(&mut self, condition: &Condition, item: &Value) -> Result<bool, EvaluateError> {
        match condition {
            Condition::Any(all) => {
                for condition in all {
                    if self.holds(condition, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Condition::All(all) => {
                for condition in all {
                    if !self.holds(condition, item)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Condition::Exists(path) => Ok(!self.search(path, item)?.is_empty()),
            Condition::Compare(left, comparison, right) => {
                let (left, right) = (self.values(left, item)?, self.values(right, item)?);
                self.count(left.len().saturating_mul(right.len()))?;
                // A missing value equals nothing and differs from nothing.
                let pairs = left.iter().flat_map(|left| right.iter().map(move |right| (*left, *right)));
                Ok(match comparison {
                    Comparison::NotEqual => {
                        !left.is_empty()
                            && !right.is_empty()
                            && pairs.clone().all(|(left, right)| compares(left, *comparison, right))
                    }
                    _ => pairs.clone().any(|(left, right)| compares(left, *comparison, right)),
                })
            }
        }
    }

    fn values<'v>(&mut self, operand: &'v Operand, item: &'v Value) -> Result<Vec<&'v Value>, EvaluateError> {
        match operand {
            Operand::Literal(value) => Ok(vec![value]),
            Operand::Path(path) => self.search(path, item),
        }
    }

    /// As [`Self::walk`], but nothing is found where a path leads nowhere.
    fn search<'v>(&mut self, path: &Path, item: &'v Value) -> Result<Vec<&'v Value>, EvaluateError> {
        let missing = std::mem::replace(&mut self.missing, Missing::IsEmpty);
        let found = self.walk(path, item);
        self.missing = missing;
        found
    }
}

/// The error of a step that has nothing to look into; none for one that may well have no results.
fn missing(step: &Step) -> Option<EvaluateError> {
    match step {
        Step::Field(name) => Some(EvaluateError::NotFound(name.clone())),
        Step::Index(_) => Some(EvaluateError::NotAList("a position")),
        Step::Union(steps) => steps.iter().find_map(missing),
        Step::Slice { .. } | Step::All | Step::Filter(_) | Step::Descend => None,
    }
}

/// A position from the start, which may lie before it.
fn from_start(at: i64, length: usize) -> i64 {
    if at < 0 { at.saturating_add(i64::try_from(length).unwrap_or(i64::MAX)) } else { at }
}

fn slice(list: &[Value], from: Option<i64>, to: Option<i64>, step: usize) -> impl Iterator<Item = &Value> {
    let within = |at: i64| usize::try_from(from_start(at, list.len()).max(0)).unwrap_or(usize::MAX).min(list.len());
    let end = to.map_or(list.len(), within);
    let start = from.map_or(0, within).min(end);
    list[start..end].iter().step_by(step)
}

/// Values of different kinds are not equal, and neither is less than the other.
fn compares(left: &Value, comparison: Comparison, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64().zip(right.as_f64()).and_then(|(left, right)| left.partial_cmp(&right)),
        },
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ if left == right => Some(Ordering::Equal),
        _ => None,
    };
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}
