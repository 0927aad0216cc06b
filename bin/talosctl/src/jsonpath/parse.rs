//! Parses templates: a recursive descent whose depth is bounded.

use serde_json::Value;

use super::template::{Comparison, Condition, Node, Operand, Path, Step};

/// The longest template, in bytes.
const MAX_LENGTH: usize = 64 * 1024;
/// The deepest nesting of ranges, filters and parentheses together.
const MAX_DEPTH: usize = 32;

/// A template that cannot be parsed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TemplateError {
    #[error("jsonpath template: unclosed brace at {rest:?}")]
    OpenBrace { rest: String },
    #[error("jsonpath template: cannot parse {rest:?}")]
    Syntax { rest: String },
    #[error("jsonpath template: {{range}} without {{end}}")]
    OpenRange,
    #[error("jsonpath template: {{end}} without {{range}}")]
    EndWithoutRange,
    #[error("jsonpath template is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("jsonpath template is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Parses a whole template.
pub(super) fn template(text: &str) -> Result<Vec<Node>, TemplateError> {
    if text.len() > MAX_LENGTH {
        return Err(TemplateError::TooLong);
    }
    if !text.contains('{') {
        let mut parser = Parser { rest: text.trim(), depth: 0 };
        let path = parser.path()?;
        return if parser.rest.is_empty() { Ok(vec![Node::Path(path)]) } else { Err(parser.syntax()) };
    }
    // The innermost range that is open stands last; below it the nodes of the template itself.
    let mut open: Vec<(Path, Vec<Node>)> = vec![(Path::new(), Vec::new())];
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        put(&mut open, (at > 0).then(|| Node::Text(rest[..at].to_owned())));
        let mut parser = Parser { rest: &rest[at + 1..], depth: open.len() };
        match parser.action()? {
            Action::Nodes(nodes) => nodes.into_iter().for_each(|node| put(&mut open, Some(node))),
            Action::Range(_) if open.len() >= MAX_DEPTH => return Err(TemplateError::TooDeep),
            Action::Range(over) => open.push((over, Vec::new())),
            Action::End => match open.pop() {
                Some((over, body)) if !open.is_empty() => put(&mut open, Some(Node::Range { over, body })),
                _ => return Err(TemplateError::EndWithoutRange),
            },
        }
        rest = parser.rest;
    }
    put(&mut open, (!rest.is_empty()).then(|| Node::Text(rest.to_owned())));
    match (open.pop(), open.is_empty()) {
        (Some((_, nodes)), true) => Ok(nodes),
        _ => Err(TemplateError::OpenRange),
    }
}

fn put(open: &mut [(Path, Vec<Node>)], node: Option<Node>) {
    if let (Some((_, nodes)), Some(node)) = (open.last_mut(), node) {
        nodes.push(node);
    }
}

/// The content of a pair of braces.
enum Action {
    Nodes(Vec<Node>),
    Range(Path),
    End,
}

/// The unread text, and how deep it is nested.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn syntax(&self) -> TemplateError {
        TemplateError::Syntax { rest: excerpt(self.rest) }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Reads a token if it comes next.
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Reads a word if it comes next and ends there.
    fn word(&mut self, word: &str) -> bool {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || "_.[".contains(c));
        let found = self.rest.strip_prefix(word).is_some_and(ends);
        found && self.take(word)
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, TemplateError>) -> Result<T, TemplateError> {
        if self.depth >= MAX_DEPTH {
            return Err(TemplateError::TooDeep);
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// Up to and including the closing brace; paths and literals may follow each other.
    fn action(&mut self) -> Result<Action, TemplateError> {
        let whole = self.rest;
        self.space();
        let action = if self.word("range") {
            self.space();
            Action::Range(self.path()?)
        } else if self.word("end") {
            Action::End
        } else {
            let mut nodes = Vec::new();
            while !self.rest.is_empty() && !self.rest.starts_with('}') {
                nodes.push(match self.literal()? {
                    Some(Value::String(text)) => Node::Text(text),
                    Some(other) => Node::Text(other.to_string()),
                    None => Node::Path(self.path()?),
                });
                self.space();
            }
            Action::Nodes(nodes)
        };
        self.space();
        match (self.take("}"), self.rest.is_empty()) {
            (true, _) => Ok(action),
            (false, true) => Err(TemplateError::OpenBrace { rest: excerpt(whole) }),
            (false, false) => Err(self.syntax()),
        }
    }

    /// A path from the current item; at least one character long.
    fn path(&mut self) -> Result<Path, TemplateError> {
        let began = self.rest;
        let rooted = self.take("$") || self.take("@");
        let mut steps = Vec::new();
        // A path may begin with a name, as in `metadata.id`.
        if !rooted && self.rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            steps.push(self.field()?);
        }
        loop {
            if self.take("..") {
                steps.push(Step::Descend);
                if self.take("*") {
                    steps.push(Step::All);
                } else if self.rest.starts_with(is_name) {
                    steps.push(self.field()?);
                }
            } else if self.take(".") {
                if self.take("*") {
                    steps.push(Step::All);
                } else if self.rest.starts_with(is_name) {
                    steps.push(self.field()?);
                } else if !self.rest.starts_with('[') && !steps.is_empty() {
                    return Err(self.syntax());
                }
            } else if self.take("[") {
                steps.push(self.deeper(Self::bracket)?);
            } else if self.rest.len() < began.len() {
                return Ok(steps);
            } else {
                return Err(self.syntax());
            }
        }
    }

    /// A name; a backslash escapes the next character, so that names may contain dots.
    fn field(&mut self) -> Result<Step, TemplateError> {
        let mut name = String::new();
        let mut escaped = false;
        let mut end = self.rest.len();
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => {
                    name.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                _ if is_name(c) => name.push(c),
                _ => {
                    end = at;
                    break;
                }
            }
        }
        if escaped || name.is_empty() {
            return Err(self.syntax());
        }
        self.rest = &self.rest[end..];
        Ok(Step::Field(name))
    }

    /// Behind an opening bracket, up to and including the closing one.
    fn bracket(&mut self) -> Result<Step, TemplateError> {
        self.space();
        let step = if self.take("?(") {
            let condition = self.condition()?;
            self.space();
            if !self.take(")") {
                return Err(self.syntax());
            }
            Step::Filter(condition)
        } else {
            let mut steps = vec![self.selector()?];
            while self.take(",") {
                self.space();
                steps.push(self.selector()?);
            }
            match steps.pop() {
                Some(only) if steps.is_empty() => only,
                last => Step::Union(steps.into_iter().chain(last).collect()),
            }
        };
        self.space();
        if self.take("]") { Ok(step) } else { Err(self.syntax()) }
    }

    /// One member of a bracket: `*`, a quoted name, a position or a slice.
    fn selector(&mut self) -> Result<Step, TemplateError> {
        let step = if self.take("*") {
            Step::All
        } else if let Some(name) = self.quoted()? {
            Step::Field(name)
        } else {
            let from = self.number()?;
            match (from, self.take(":")) {
                (Some(at), false) => Step::Index(at),
                (None, false) => return Err(self.syntax()),
                (from, true) => {
                    let to = self.number()?;
                    let step = if self.take(":") { self.number()? } else { None };
                    let step = usize::try_from(step.unwrap_or(1)).ok().filter(|step| *step > 0);
                    Step::Slice { from, to, step: step.ok_or_else(|| self.syntax())? }
                }
            }
        };
        self.space();
        Ok(step)
    }

    fn number(&mut self) -> Result<Option<i64>, TemplateError> {
        self.space();
        let sign = usize::from(self.rest.starts_with('-'));
        let digits = self.rest[sign..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return if sign == 0 { Ok(None) } else { Err(self.syntax()) };
        }
        let number = self.rest[..sign + digits].parse().map_err(|_| self.syntax())?;
        self.rest = &self.rest[sign + digits..];
        self.space();
        Ok(Some(number))
    }

    /// A text in quotes of either kind, with the escapes of Go.
    fn quoted(&mut self) -> Result<Option<String>, TemplateError> {
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return Ok(None) };
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Ok(Some(text));
                }
                '\\' => {
                    let escaped = chars.next().ok_or_else(|| self.syntax())?.1;
                    match escape(escaped) {
                        Escape::Char(c) => text.push(c),
                        Escape::Code(digits) => {
                            let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                            let code = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                            text.push(code.ok_or_else(|| self.syntax())?);
                        }
                    }
                }
                _ => text.push(c),
            }
        }
        Err(self.syntax())
    }

    /// A text in quotes, a number or a boolean, if one comes next.
    fn literal(&mut self) -> Result<Option<Value>, TemplateError> {
        if let Some(text) = self.quoted()? {
            return Ok(Some(Value::String(text)));
        }
        for (word, value) in [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)] {
            if self.word(word) {
                return Ok(Some(value));
            }
        }
        let part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
        if !self.rest.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c)) {
            return Ok(None);
        }
        let end = self.rest.find(|c: char| !part(c)).unwrap_or(self.rest.len());
        let text = self.rest[..end].trim_start_matches('+');
        let number = serde_json::from_str::<serde_json::Number>(text).map_err(|_| self.syntax())?;
        self.rest = &self.rest[end..];
        Ok(Some(Value::Number(number)))
    }

    /// Alternatives, each of them conditions that hold together.
    fn condition(&mut self) -> Result<Condition, TemplateError> {
        let mut alternatives = vec![self.conjunction()?];
        while self.operator("||") {
            alternatives.push(self.conjunction()?);
        }
        Ok(only(alternatives, Condition::Any))
    }

    fn conjunction(&mut self) -> Result<Condition, TemplateError> {
        let mut conditions = vec![self.comparison()?];
        while self.operator("&&") {
            conditions.push(self.comparison()?);
        }
        Ok(only(conditions, Condition::All))
    }

    fn operator(&mut self, token: &str) -> bool {
        self.space();
        self.take(token)
    }

    fn comparison(&mut self) -> Result<Condition, TemplateError> {
        self.space();
        if self.take("(") {
            let inner = self.deeper(Self::condition)?;
            return if self.operator(")") { Ok(inner) } else { Err(self.syntax()) };
        }
        let left = self.operand()?;
        self.space();
        // Those of two characters first.
        let comparison = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ]
        .into_iter()
        .find_map(|(token, comparison)| self.take(token).then_some(comparison));
        match (left, comparison) {
            (left, Some(comparison)) => Ok(Condition::Compare(left, comparison, self.operand()?)),
            (Operand::Path(path), None) => Ok(Condition::Exists(path)),
            (Operand::Literal(_), None) => Err(self.syntax()),
        }
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        self.space();
        match self.literal()? {
            Some(value) => Ok(Operand::Literal(value)),
            None if self.rest.starts_with(['@', '$', '.']) => Ok(Operand::Path(self.path()?)),
            None => Err(self.syntax()),
        }
    }
}

/// Without a list around a single condition.
fn only(mut conditions: Vec<Condition>, several: fn(Vec<Condition>) -> Condition) -> Condition {
    match conditions.pop() {
        Some(condition) if conditions.is_empty() => condition,
        last => several(conditions.into_iter().chain(last).collect()),
    }
}

/// Whether a character may stand in a name without an escape.
fn is_name(c: char) -> bool {
    !c.is_whitespace() && !".,[](){}$@=!<>&|'\"".contains(c)
}

enum Escape {
    Char(char),
    /// So many hexadecimal digits follow.
    Code(usize),
}

fn escape(c: char) -> Escape {
    match c {
        'a' => Escape::Char('\u{7}'),
        'b' => Escape::Char('\u{8}'),
        'f' => Escape::Char('\u{c}'),
        'n' => Escape::Char('\n'),
        'r' => Escape::Char('\r'),
        't' => Escape::Char('\t'),
        'v' => Escape::Char('\u{b}'),
        'x' => Escape::Code(2),
        'u' => Escape::Code(4),
        'U' => Escape::Code(8),
        other => Escape::Char(other),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}
