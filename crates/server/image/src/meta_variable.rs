//! Values of META of an artefact that has no partition for them: a variable, which the installer reads, and a machine without META.

use machine::meta::{Assignment, Meta, encode_preset};

use crate::ImageError;
use crate::profile::MetaValue;

const NAME: &str = "INSTALLER_META_BASE64";

/// The variable, as `NAME=VALUE`; none without values.
///
/// # Errors
/// A value that META cannot keep, or that the variable cannot hold.
pub(crate) fn meta_variable(values: &[MetaValue]) -> Result<Option<String>, ImageError> {
    if values.is_empty() {
        return Ok(None);
    }
    let mut all = Meta::default();
    for MetaValue { key, value } in values {
        all.set(*key, value.as_bytes())?;
    }
    let values: Vec<Assignment> =
        values.iter().map(|MetaValue { key, value }| Assignment { key: *key, value: value.clone() }).collect();
    Ok(Some(format!("{NAME}={}", encode_preset(&values)?)))
}
