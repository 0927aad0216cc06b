//! Semantic validation: required fields, contradictions between fields, secrets in the wrong place.
//!
//! The form of single values was checked when the documents were decoded.

mod cluster;
mod kinds;
mod machine;
mod network;

use std::fmt;
use std::str::FromStr;

use crate::document::Document;
use crate::documents::Documents;
use crate::effect;
use crate::error::ConfigError;
use yaml::FieldPath;

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
    /// Fields that are right and have no effect in this version.
    pub without_effect: Vec<ConfigError>,
}

impl Report {
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// Warnings become errors. Fields without effect stay what they are: they say something about this version, not about
    /// the configuration, which is a right one for any other machine of its kind.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.errors.append(&mut self.warnings);
        self
    }

    /// Warnings, those about fields without effect after the others.
    pub fn warnings(&self) -> impl Iterator<Item = &ConfigError> {
        self.warnings.iter().chain(&self.without_effect)
    }

    /// The warnings, those about fields without effect after the others, or everything that is wrong.
    ///
    /// # Errors
    /// All errors of the report.
    pub fn into_result(mut self) -> Result<Vec<ConfigError>, crate::ConfigErrors> {
        if !self.errors.is_empty() {
            return Err(crate::ConfigErrors(self.errors));
        }
        self.warnings.append(&mut self.without_effect);
        Ok(self.warnings)
    }
}

/// Checks all documents for a mode.
#[must_use]
pub fn validate(documents: &Documents, mode: Mode) -> Report {
    let mut report = Report::default();
    for (index, document) in documents.documents().iter().enumerate() {
        let mut check = Check { documents, index, report: &mut report };
        match document {
            Document::V1alpha1(config) => {
                machine::check(&mut check, config, mode);
                cluster::check(&mut check, config);
            }
            other => kinds::check(&mut check, other),
        }
    }
    let mut check = Check { documents, index: 0, report: &mut report };
    if documents.documents().is_empty() {
        check.error("", "the text is empty");
    } else if documents.v1alpha1().is_none() {
        check.warn("", "there is no root document (version: v1alpha1): the machine will wait for one");
    }
    report.without_effect = effect::warnings(documents);
    report
}

/// How many errors, and how many warnings, are told: a configuration may come from anybody, and each costs a search for its
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
        if self.report.errors.len() >= MAX_ISSUES {
            return;
        }
        let error = self.documents.error_at(self.index, &path_of(path), message.into());
        self.report.errors.push(error);
    }

    fn error_with_hint(&mut self, path: &str, message: impl Into<String>, hint: &str) {
        let before = self.report.errors.len();
        self.error(path, message);
        if let Some(error) = self.report.errors.get_mut(before) {
            error.hint = Some(hint.to_owned());
        }
    }

    fn warn(&mut self, path: &str, message: impl Into<String>) {
        if self.report.warnings.len() >= MAX_ISSUES {
            return;
        }
        let warning = self.documents.error_at(self.index, &path_of(path), message.into());
        self.report.warnings.push(warning);
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
