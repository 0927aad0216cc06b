//! Errors in a configuration, with their positions.

use std::fmt;

/// One thing that is wrong: in which document, at which field, on which line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// Position of the document in the stream, from zero.
    pub document: usize,
    /// Its kind; `v1alpha1` for the root document, empty where the kind could not be read.
    pub kind: String,
    /// The field, such as `machine.network.interfaces[0].mtu`; empty for the document itself.
    pub path: String,
    /// From one; zero when the configuration did not come from a text.
    pub line: usize,
    /// From one.
    pub column: usize,
    pub message: String,
    /// Advice.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document + 1)?;
        if !self.kind.is_empty() {
            write!(f, " ({})", self.kind)?;
        }
        if self.line > 0 {
            write!(f, ", line {}, column {}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ", {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// All errors found; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => one.fmt(f),
            many => {
                write!(f, "{} errors:", many.len())?;
                many.iter().try_for_each(|error| write!(f, "\n  * {error}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
