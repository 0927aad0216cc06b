//! The subset of JSONPath that tables and `-o jsonpath` need: `{.a.b}`, `{@}`, `[*]`, `[n]`, `[a:b]`, `['key']`,
//! `[?(@.x=="y")]` and text around the braces. No recursion (`..`), no arithmetic.

use serde_json::Value;

#[cfg(test)]
mod tests;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    Text(String),
    Path(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Filter { path: Vec<Self>, operator: Operator, operand: Value },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Exists,
}

/// A template that cannot be parsed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TemplateError {
    #[error("jsonpath template {0:?}: unclosed brace")]
    OpenBrace(String),
    #[error("jsonpath template: cannot parse {rest:?}")]
    Syntax { rest: String },
}

impl Template {
    /// A template without braces is one path.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        if !text.contains('{') {
            return Ok(Self { parts: vec![Segment::Path(path(text)?)] });
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Segment::Text(unescape(&rest[..open])));
            }
            let close = close_of(&rest[open..]).ok_or_else(|| TemplateError::OpenBrace(text.to_owned()))?;
            let inner = rest[open + 1..open + close].trim();
            parts.push(match quoted(inner) {
                Some(literal) => Segment::Text(unescape(literal)),
                None => Segment::Path(path(inner)?),
            });
            rest = &rest[open + close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Segment::Text(unescape(rest)));
        }
        Ok(Self { parts })
    }

    /// Renders the template for a value: missing values are empty, several results are separated by spaces.
    pub(crate) fn render(&self, value: &Value) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Segment::Text(literal) => text.push_str(literal),
                Segment::Path(steps) => {
                    let found: Vec<String> = walk(steps, value).iter().map(|value| shown(value)).collect();
                    text.push_str(&found.join(" "));
                }
            }
        }
        text
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Position of the closing brace; quoted braces do not count.
fn close_of(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (None, '}') => return Some(at),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains(quote)).then_some(inner)
    })
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

fn path(text: &str) -> Result<Vec<Step>, TemplateError> {
    let mut rest = text.trim();
    rest = rest.strip_prefix('$').or_else(|| rest.strip_prefix('@')).unwrap_or(rest);
    let mut steps = Vec::new();
    // A path may start with a name, as in `metadata.id`.
    if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        rest = field(rest, &mut steps);
    }
    while !rest.is_empty() {
        rest = if let Some(after) = rest.strip_prefix('.') {
            if let Some(after) = after.strip_prefix('*') {
                steps.push(Step::All);
                after
            } else if after.is_empty() && steps.is_empty() {
                after
            } else if after.starts_with(['.', '[']) || after.is_empty() {
                return Err(TemplateError::Syntax { rest: rest.to_owned() });
            } else {
                field(after, &mut steps)
            }
        } else if let Some(after) = rest.strip_prefix('[') {
            let close = bracket_end(after).ok_or_else(|| TemplateError::Syntax { rest: rest.to_owned() })?;
            steps.push(bracket(&after[..close])?);
            &after[close + 1..]
        } else {
            return Err(TemplateError::Syntax { rest: rest.to_owned() });
        };
    }
    Ok(steps)
}

/// Parses a name; a backslash escapes the next character, so that names may contain dots.
fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> &'a str {
    let mut name = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' => {
                steps.push(Step::Field(name));
                return &text[at..];
            }
            _ => name.push(c),
        }
    }
    steps.push(Step::Field(name));
    ""
}

/// Position of the bracket that closes the one before the text.
fn bracket_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Result<Step, TemplateError> {
    let syntax = || TemplateError::Syntax { rest: format!("[{inner}]") };
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| syntax()),
    };
    let inner = inner.trim();
    if inner == "*" {
        Ok(Step::All)
    } else if let Some(name) = quoted(inner) {
        Ok(Step::Field(name.to_owned()))
    } else if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        filter(condition)
    } else if let Some((from, to)) = inner.split_once(':') {
        Ok(Step::Slice(number(from)?, number(to)?))
    } else {
        number(inner)?.map(Step::Index).ok_or_else(syntax)
    }
}

fn filter(condition: &str) -> Result<Step, TemplateError> {
    for (symbol, operator) in [("==", Operator::Equal), ("!=", Operator::NotEqual)] {
        if let Some((left, right)) = condition.split_once(symbol) {
            let right = right.trim();
            let operand = match quoted(right) {
                Some(text) => Value::String(text.to_owned()),
                None => serde_json::from_str(right).map_err(|_| TemplateError::Syntax { rest: right.to_owned() })?,
            };
            return Ok(Step::Filter { path: path(left)?, operator, operand });
        }
    }
    Ok(Step::Filter { path: path(condition)?, operator: Operator::Exists, operand: Value::Null })
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| take(step, value)).collect();
    }
    found
}

fn take<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::All, Value::Array(list)) => list.iter().collect(),
        (Step::Index(at), Value::Array(list)) => list.get(position(*at, list.len())).into_iter().collect(),
        (Step::Slice(from, to), Value::Array(list)) => {
            let end = to.map_or(list.len(), |to| position(to, list.len())).min(list.len());
            let start = from.map_or(0, |from| position(from, list.len())).min(end);
            list[start..end].iter().collect()
        }
        (Step::Filter { path, operator, operand }, Value::Array(list)) => {
            list.iter().filter(|item| holds(path, *operator, operand, item)).collect()
        }
        _ => Vec::new(),
    }
}

/// Negative positions count from the end; a position before the start is out of range.
fn position(at: i64, length: usize) -> usize {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let at = if at < 0 { at + length } else { at };
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn holds(path: &[Step], operator: Operator, operand: &Value, item: &Value) -> bool {
    let found = walk(path, item);
    match operator {
        Operator::Exists => !found.is_empty(),
        Operator::Equal => found.contains(&operand),
        Operator::NotEqual => !found.is_empty() && found.iter().all(|value| *value != operand),
    }
}
