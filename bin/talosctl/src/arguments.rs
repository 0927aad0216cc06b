//! Parsers for the values of flags, for all commands.

use std::time::Duration;

use config::generate::Contract;
use pki::Role;

use crate::command_error::CommandError;

/// A duration such as `1m0s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    stdx::duration::parse(text).map_err(|error| stdx::error_chain(&error))
}

/// A role of the machine API, such as `os:reader`.
pub(crate) fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error| format!("{error}: the roles are {}", Role::ALL.map(Role::as_str).join(", ")))
}

/// The path of a file without its extension, which is added to it: it has to end with a name. Scripts written for Talos 1.7 give
/// whole paths.
pub(crate) fn file_stem(text: &str) -> Result<String, String> {
    let name = text.rsplit('/').next().unwrap_or_default();
    if name.is_empty() {
        return Err("the name is missing".to_owned());
    }
    if matches!(name, "." | "..") || text.contains(char::is_control) {
        return Err("not the name of a file".to_owned());
    }
    Ok(text.to_owned())
}

/// The version of `--talos-version`; this one where the flag is absent or empty.
pub(crate) fn contract(version: Option<&str>) -> Result<Contract, CommandError> {
    let version = version.map(str::trim).filter(|version| !version.is_empty());
    let parsed = version.map(str::parse).transpose();
    parsed
        .map(Option::unwrap_or_default)
        .map_err(|error: String| CommandError::usage(format!("--talos-version: {error}")))
}

/// Host and URL of each `--registry-mirror`, in order.
pub(crate) fn mirrors(flags: &[String]) -> Result<Vec<(String, String)>, CommandError> {
    let mirror = |flag: &String| {
        let parts = flag.split_once('=').filter(|(host, url)| !host.is_empty() && !url.is_empty());
        let (host, url) =
            parts.ok_or_else(|| CommandError::usage(format!("--registry-mirror {flag:?} is not HOST=URL")))?;
        Ok((host.to_owned(), url.to_owned()))
    };
    flags.iter().map(mirror).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_version_is_none() {
        let of = |text: Option<&str>| contract(text).map_err(|error| error.error.to_string());
        assert_eq!(
            (of(None), of(Some("")), of(Some(" v1.2 "))),
            (Ok(Contract::default()), Ok(Contract::default()), Ok(Contract { major: 1, minor: 2 }))
        );
        let error = "--talos-version: \"new\" is not a version; for example v1.7".to_owned();
        assert_eq!(of(Some("new")), Err(error));
    }

    #[test]
    fn a_mirror_has_a_host_and_a_url() {
        let of = |text: &str| mirrors(&[text.to_owned()]).map_err(|error| error.error.to_string());
        assert_eq!(of("a=http://x?y=z"), Ok(vec![("a".to_owned(), "http://x?y=z".to_owned())]));
        for text in ["a", "=http://x", "a="] {
            assert_eq!(of(text), Err(format!("--registry-mirror {text:?} is not HOST=URL")));
        }
    }
}
