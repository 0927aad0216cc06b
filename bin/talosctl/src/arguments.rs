//! Parsers for the values of flags, for all commands.

use std::time::Duration;

/// A duration such as `1m0s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    stdx::duration::parse(text).map_err(|error| stdx::error_chain(&error))
}
