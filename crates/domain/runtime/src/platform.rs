//! Where the machine runs, and what that place tells it.

use base64::Engine as _;

/// The name of the platform of containers.
pub const CONTAINER: &str = "container";

/// Why a platform has no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("decoding USERDATA: it must be base64 of the machine configuration")]
    UserData(#[source] base64::DecodeError),
    #[error("decoding USERDATA: the machine configuration must be UTF-8")]
    Encoding(#[source] std::string::FromUtf8Error),
    #[error("platform {0:?} is not supported; PLATFORM must be \"container\"")]
    Unknown(String),
}

/// The places that a machine can run in. Metal and clouds come with the image that boots there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platform {
    /// A container: the network is set up from outside, the configuration comes in the environment.
    Container { user_data: Option<String>, sku: Option<String> },
}

impl Platform {
    /// From the environment of PID 1.
    ///
    /// # Errors
    /// `Unknown` for a platform that is not supported.
    pub fn detect(name: Option<&str>, user_data: Option<String>, sku: Option<String>) -> Result<Self, PlatformError> {
        match name {
            Some(CONTAINER) => Ok(Self::Container { user_data: user_data.filter(|data| !data.trim().is_empty()), sku }),
            other => Err(PlatformError::Unknown(other.unwrap_or_default().to_owned())),
        }
    }

    /// As `get platformmetadata` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Container { .. } => CONTAINER,
        }
    }

    /// As `version` has it.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Container { .. } => CONTAINER,
        }
    }

    /// The configuration that the platform holds for this machine, if any.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub fn configuration(&self) -> Result<Option<String>, PlatformError> {
        let Self::Container { user_data, .. } = self;
        let Some(data) = user_data else { return Ok(None) };
        let compact: String = data.split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(compact).map_err(PlatformError::UserData)?;
        String::from_utf8(bytes).map(Some).map_err(PlatformError::Encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(data: &str) -> Platform {
        Platform::detect(Some("container"), Some(data.into()), None).unwrap()
    }

    #[test]
    fn user_data_is_base64_and_may_be_wrapped_or_absent() {
        assert_eq!(container("aGVs\nbG8=").configuration().unwrap().as_deref(), Some("hello"));
        assert_eq!(container("  ").configuration().unwrap(), None);
        assert!(matches!(container("%%%").configuration(), Err(PlatformError::UserData(_))));
        assert!(matches!(container("/w==").configuration(), Err(PlatformError::Encoding(_))));
    }

    #[test]
    fn other_platforms_are_refused_by_name() {
        let error = Platform::detect(Some("metal"), None, None).unwrap_err();
        assert_eq!(error.to_string(), "platform \"metal\" is not supported; PLATFORM must be \"container\"");
    }
}
