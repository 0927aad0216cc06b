//! Templates of JSONPath in the dialect of Kubernetes' tools: text around braces, paths, `{range}` and `{end}`.
//!
//! Paths: `.a.b`, `['a.b']`, `..a`, `.*`, `[*]`, `[n]`, `[from:to:step]`, `[1,3]`, `['a','b']`, and filters `[?(@.a=="x")]`
//! with `==`, `!=`, `<`, `<=`, `>`, `>=`, `&&`, `||` and parentheses. `@` and `$` are both the current item, which is the
//! resource outside of a range. There are no functions, no regular expressions and no arithmetic.
//!
//! Unlike those tools, a filter takes an item without the field as one that does not match instead of as an error.
//!
//! The length and depth of templates, the values looked at and the length of the output are bounded.

use serde_json::Value;

mod evaluate;
mod parse;
mod template;

pub(crate) use evaluate::EvaluateError;
pub(crate) use parse::TemplateError;

use evaluate::{Evaluation, Missing};
use template::Node;

#[cfg(test)]
mod tests;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// A template without braces is one path.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { nodes: parse::template(text)? })
    }

    /// Renders the template; several results of one path are separated by spaces.
    ///
    /// # Errors
    /// [`EvaluateError::NotFound`] for a path that leads nowhere, and the limits.
    pub(crate) fn render(&self, value: &Value) -> Result<String, EvaluateError> {
        Evaluation::new(Missing::IsAnError).render(&self.nodes, value)
    }

    /// Renders a cell of a table: a path that leads nowhere is empty.
    pub(crate) fn cell(&self, value: &Value) -> Result<String, EvaluateError> {
        Evaluation::new(Missing::IsEmpty).render(&self.nodes, value)
    }
}
