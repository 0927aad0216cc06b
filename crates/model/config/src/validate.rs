//! Semantic validation: required fields, contradictions between fields, secrets in the wrong place.
//!
//! The form of single values is checked when documents are decoded; where they were decoded without, it is checked here.

mod cluster;
mod components;
mod kinds;
mod links;
mod machine;
mod names;
mod network;
mod reach;

use std::fmt;
use std::str::FromStr;

use crate::document::Document;
use crate::documents::Documents;
use crate::effect;
use crate::error::ConfigError;
use crate::legacy::Tone;
use yaml::FieldPath;

pub use reach::reachable;

/// Platform mode of a machine; decides the required fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Installs itself on a disk.
    Metal,
    /// Runs from an image that a cloud provides.
    Cloud,
    /// Runs in a container.
    Container,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "metal" => Ok(Self::Metal),
            "cloud" => Ok(Self::Cloud),
            "container" => Ok(Self::Container),
            _ => Err(format!("unknown mode {text:?}: use metal, cloud or container")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metal => "metal",
            Self::Cloud => "cloud",
            Self::Container => "container",
        })
    }
}

/// The result: a configuration with errors must not be applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<ConfigError>,
    /// Warnings that are never errors: fields that have no effect in this version, old spellings, and what is missing
    /// from a configuration that other documents or a patch may still complete.
    pub remarks: Vec<ConfigError>,
}

impl Report {
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// Warnings become errors. Remarks stay what they are: they say nothing against the configuration.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.errors.append(&mut self.warnings);
        self
    }

    /// Warnings, then remarks.
    pub fn warnings(&self) -> impl Iterator<Item = &ConfigError> {
        self.warnings.iter().chain(&self.remarks)
    }

    /// The warnings and remarks, or everything that is wrong.
    ///
    /// # Errors
    /// All errors of the report.
    pub fn into_result(mut self) -> Result<Vec<ConfigError>, crate::ConfigErrors> {
        if !self.errors.is_empty() {
            return Err(crate::ConfigErrors(self.errors));
        }
        self.warnings.append(&mut self.remarks);
        Ok(self.warnings)
    }
}

/// Checks all documents for a mode.
#[must_use]
pub fn validate(documents: &Documents, mode: Mode) -> Report {
    let mut report = Report { errors: documents.malformed(), ..Report::default() };
    report.errors.truncate(MAX_ISSUES);
    old_spellings(documents, &mut report);
    for (index, document) in documents.documents().iter().enumerate() {
        let mut check = Check { documents, index, report: &mut report };
        match document {
            Document::V1alpha1(config) => {
                machine::check(&mut check, config, mode);
                cluster::check(&mut check, config);
                components::check(&mut check, config);
            }
            other => {
                names::document(&mut check, other);
                kinds::check(&mut check, other);
            }
        }
    }
    let mut check = Check { documents, index: 0, report: &mut report };
    if documents.documents().is_empty() {
        check.error("", "the text is empty");
    } else if documents.v1alpha1().is_none() {
        check.remark("", "there is no root document (version: v1alpha1): the machine will wait for one");
    }
    report.remarks.extend(effect::warnings(documents));
    report
}

fn old_spellings(documents: &Documents, report: &mut Report) {
    for (index, found) in documents.old_spellings() {
        let mut told = documents.error_at(*index, &found.path, found.message());
        (told.line, told.column) = (found.at.line, found.at.column);
        match found.legacy.tone {
            Tone::Warning => report.warnings.push(told),
            Tone::Remark => report.remarks.push(told),
            Tone::Silent => {}
        }
    }
}

/// How many errors, warnings and remarks are told, of each: a configuration may come from anybody, and each costs a search for its
/// place.
const MAX_ISSUES: usize = 100;

/// Collects the errors of one document.
struct Check<'a> {
    documents: &'a Documents,
    index: usize,
    report: &'a mut Report,
}

impl Check<'_> {
    /// `path` is dotted, with `[0]` for list elements.
    fn error(&mut self, path: &str, message: impl Into<String>) {
        Self::tell(self.documents, self.index, &mut self.report.errors, path, message.into());
    }

    fn error_with_hint(&mut self, path: &str, message: impl Into<String>, hint: &str) {
        let before = self.report.errors.len();
        self.error(path, message);
        if let Some(error) = self.report.errors.get_mut(before) {
            error.hint = Some(hint.to_owned());
        }
    }

    /// An error where warnings are errors.
    fn warn(&mut self, path: &str, message: impl Into<String>) {
        Self::tell(self.documents, self.index, &mut self.report.warnings, path, message.into());
    }

    fn remark(&mut self, path: &str, message: impl Into<String>) {
        Self::tell(self.documents, self.index, &mut self.report.remarks, path, message.into());
    }

    fn tell(documents: &Documents, index: usize, told: &mut Vec<ConfigError>, path: &str, message: String) {
        if told.len() < MAX_ISSUES {
            told.push(documents.error_at(index, &path_of(path), message));
        }
    }
}

fn path_of(text: &str) -> FieldPath {
    let mut path = FieldPath::default();
    for part in text.split('.').filter(|part| !part.is_empty()) {
        let (key, indices) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        path = path.key(key);
        for index in indices.split(['[', ']']).filter_map(|index| index.parse().ok()) {
            path = path.index(index);
        }
    }
    path
}

#[cfg(test)]
mod tests;
