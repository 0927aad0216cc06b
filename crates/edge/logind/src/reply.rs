//! Answers to calls.

use std::os::fd::OwnedFd;

use crate::message::Value;

pub(crate) const ACCESS_DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
pub(crate) const FAILED: &str = "org.freedesktop.DBus.Error.Failed";
pub(crate) const INVALID_ARGUMENTS: &str = "org.freedesktop.DBus.Error.InvalidArgs";
pub(crate) const LIMITS_EXCEEDED: &str = "org.freedesktop.DBus.Error.LimitsExceeded";
pub(crate) const MATCH_RULE_INVALID: &str = "org.freedesktop.DBus.Error.MatchRuleInvalid";
pub(crate) const NAME_HAS_NO_OWNER: &str = "org.freedesktop.DBus.Error.NameHasNoOwner";
pub(crate) const SERVICE_UNKNOWN: &str = "org.freedesktop.DBus.Error.ServiceUnknown";
pub(crate) const UNKNOWN_METHOD: &str = "org.freedesktop.DBus.Error.UnknownMethod";
pub(crate) const UNKNOWN_PROPERTY: &str = "org.freedesktop.DBus.Error.UnknownProperty";

/// What a call is answered with.
#[derive(Debug)]
pub(crate) enum Reply {
    Values(Vec<Value>),
    /// A descriptor.
    Descriptor(OwnedFd),
    Error {
        name: &'static str,
        text: String,
    },
}

impl Reply {
    pub(crate) fn text(text: &str) -> Self {
        Self::Values(vec![Value::Text(text.to_owned())])
    }

    pub(crate) fn error(name: &'static str, text: impl Into<String>) -> Self {
        Self::Error { name, text: text.into() }
    }
}
