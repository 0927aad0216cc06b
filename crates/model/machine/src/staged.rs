//! A staged upgrade: one that the next start of the machine performs before it runs anything. META keeps it over the reboot, in
//! the format of Talos 1.7; what the node showed when it was staged is kept under a tag of ours.

use serde::{Deserialize, Serialize};

use crate::meta::tag;
use crate::trial::Check;

/// Longest reference of an image that is taken from META.
const LONGEST_IMAGE: usize = 4096;
/// Longest options, and longest list of checks, that are read.
const LONGEST: usize = 16 * 1024;

/// The tags of a staged upgrade. The image comes last: without it there is none.
pub const TAGS: [u8; 3] = [tag::STAGED_OPTIONS, tag::STAGED_CHECKS, tag::STAGED_IMAGE];

/// An upgrade for the next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedUpgrade {
    /// Reference of the installer image.
    pub image: String,
    pub preserve: bool,
    /// What the node showed, and has to show again; none where another system has staged it.
    pub checks: Option<Vec<Check>>,
}

/// The installer's options as Talos 1.7 writes them: each field, in this order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Options {
    pull: bool,
    /// The opposite of `preserve`.
    force: bool,
    upgrade: bool,
    zero: bool,
    /// Null where there are none, as well.
    extra_kernel_args: Option<Vec<String>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { pull: false, force: false, upgrade: true, zero: false, extra_kernel_args: Some(Vec::new()) }
    }
}

/// A staged upgrade that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StagedError {
    #[error("a value of the staged upgrade has {0} bytes, more than are read")]
    TooLong(usize),
    #[error("the staged upgrade has no options")]
    NoOptions,
    #[error("the options of the staged upgrade are damaged")]
    Options(#[source] serde_json::Error),
    #[error("the checks of the staged upgrade are damaged")]
    Checks(#[source] serde_json::Error),
}

impl StagedUpgrade {
    /// Values of META by their tags, in the order in which they are written.
    #[must_use]
    pub fn values(&self) -> [(u8, String); 3] {
        let options = Options { force: !self.preserve, ..Options::default() };
        let json = |text: serde_json::Result<String>| text.unwrap_or_default();
        [
            (tag::STAGED_OPTIONS, json(serde_json::to_string(&options))),
            (tag::STAGED_CHECKS, json(serde_json::to_string(self.checks.as_deref().unwrap_or_default()))),
            (tag::STAGED_IMAGE, self.image.clone()),
        ]
    }

    /// From values of META; none where there is no image.
    ///
    /// # Errors
    /// [`StagedError`].
    pub fn parse(
        image: Option<&str>,
        options: Option<&str>,
        checks: Option<&str>,
    ) -> Result<Option<Self>, StagedError> {
        let Some(image) = image.filter(|image| !image.is_empty()) else { return Ok(None) };
        let lengths =
            [(image, LONGEST_IMAGE), (options.unwrap_or_default(), LONGEST), (checks.unwrap_or_default(), LONGEST)];
        if let Some((value, _)) = lengths.into_iter().find(|(value, longest)| value.len() > *longest) {
            return Err(StagedError::TooLong(value.len()));
        }
        let options: Options =
            serde_json::from_str(options.ok_or(StagedError::NoOptions)?).map_err(StagedError::Options)?;
        let checks = checks.map(serde_json::from_str).transpose().map_err(StagedError::Checks)?;
        Ok(Some(Self { image: image.to_owned(), preserve: !options.force, checks }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_talos_and_are_read_back() {
        let staged = StagedUpgrade {
            image: "ghcr.io/x:v1".into(),
            preserve: false,
            checks: Some(vec![Check::Api, Check::Etcd]),
        };
        let values = staged.values();
        let options = r#"{"Pull":false,"Force":true,"Upgrade":true,"Zero":false,"ExtraKernelArgs":[]}"#;
        assert_eq!(values[0], (8, options.to_owned()));
        assert_eq!(values[1], (0x55, r#"["api","etcd"]"#.to_owned()));
        assert_eq!(values[2], (7, "ghcr.io/x:v1".to_owned()));
        assert_eq!(values.each_ref().map(|(tag, _)| *tag), TAGS);
        let [options, checks, image] = values.each_ref().map(|(_, value)| Some(value.as_str()));
        assert_eq!(StagedUpgrade::parse(image, options, checks).unwrap(), Some(staged));
    }

    #[test]
    fn one_of_another_system_has_no_checks_and_one_without_an_image_is_none() {
        let options = r#"{"Pull":false,"Force":false,"Upgrade":true,"Zero":false,"ExtraKernelArgs":null}"#;
        let staged = StagedUpgrade::parse(Some("x:1"), Some(options), None).unwrap().unwrap();
        assert_eq!(staged, StagedUpgrade { image: "x:1".into(), preserve: true, checks: None });
        assert_eq!(StagedUpgrade::parse(None, Some(options), Some("[]")).unwrap(), None);
        assert_eq!(StagedUpgrade::parse(Some(""), None, None).unwrap(), None);
    }

    #[test]
    fn damaged_values_are_errors() {
        let parse = StagedUpgrade::parse;
        assert!(matches!(parse(Some("x"), None, None), Err(StagedError::NoOptions)));
        assert!(matches!(parse(Some("x"), Some("{"), None), Err(StagedError::Options(_))));
        assert!(matches!(parse(Some("x"), Some("{}"), Some("[\"dns\"]")), Err(StagedError::Checks(_))));
        let long = "x".repeat(LONGEST_IMAGE + 1);
        assert!(matches!(parse(Some(&long), Some("{}"), None), Err(StagedError::TooLong(_))));
    }
}
