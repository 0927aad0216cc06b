//! The place that the machine runs in: the configuration that it holds for the machine, its network settings and
//! metadata, and what of the machine is the machine's own.
//!
//! One implementation, the [`Container`]; machines of their own and clouds come beside it. Nothing here decides anything:
//! controllers publish the platform's values as resources, and others act on those.

mod container;
#[cfg(feature = "testing")]
mod fake;

use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use resources::machine::PlatformCapabilities;
use resources::runtime::PlatformMetadata;
use tokio::sync::watch;

pub use container::Container;
#[cfg(feature = "testing")]
pub use fake::FakePlatform;

/// A platform does not answer, or its answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("decoding USERDATA: it must be base64 of the machine configuration")]
    UserData(#[source] base64::DecodeError),
    #[error("decoding USERDATA: the machine configuration must be UTF-8")]
    Encoding(#[source] std::string::FromUtf8Error),
    #[error("platform {0:?} is not supported; PLATFORM must be \"container\"")]
    Unknown(String),
    /// The platform may answer later, as when the network is not up yet.
    #[error("asking platform {platform} for the machine configuration")]
    Unavailable {
        platform: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PlatformError {
    /// Whether asking again may help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A volume that the host mounted before the machine started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMount {
    /// The volume's label: `STATE`, `EPHEMERAL`.
    pub volume: &'static str,
    pub target: PathBuf,
    /// The mode of the mounted directory.
    pub mode: u32,
}

/// Network settings that come from the platform; they make the layer `platform`. Empty lists set nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlatformNetwork {
    pub resolvers: Vec<IpAddr>,
    pub time_servers: Vec<String>,
}

/// A place that machines run in.
#[async_trait]
pub trait Platform: Debug + Send + Sync {
    /// As `get platformmetadata` and `version` show it.
    fn name(&self) -> &'static str;

    /// The rules that configurations of this machine have to pass.
    fn mode(&self) -> config::Mode;

    /// The parts of the machine that it owns, and those of its host. Constant while the machine runs.
    fn capabilities(&self) -> PlatformCapabilities;

    /// Volumes provided by the host; none on a machine with disks of its own.
    fn host_mounts(&self) -> Vec<HostMount>;

    /// The configuration that the platform holds for this machine; `None` when it has none.
    ///
    /// # Errors
    /// [`PlatformError::is_retryable`] distinguishes transient from permanent errors.
    async fn configuration(&self) -> Result<Option<String>, PlatformError>;

    /// Network settings, as they change.
    fn network(&self) -> watch::Receiver<PlatformNetwork>;

    /// Metadata of the machine as it changes; `None` while unknown.
    fn metadata(&self) -> watch::Receiver<Option<PlatformMetadata>>;
}

/// PID 1's settings about its platform.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `PLATFORM`.
    pub platform: Option<String>,
    /// `USERDATA`: base64 of the configuration.
    pub user_data: Option<String>,
    /// `TALOSSKU`: the kind of machine.
    pub sku: Option<String>,
}

/// The platform that the environment names.
///
/// # Errors
/// [`PlatformError::Unknown`].
pub fn detect(environment: Environment) -> Result<Arc<dyn Platform>, PlatformError> {
    match environment.platform.as_deref() {
        Some(container::NAME) => Ok(Arc::new(Container::new(environment.user_data, environment.sku))),
        other => Err(PlatformError::Unknown(other.unwrap_or_default().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_platforms_are_refused_by_name() {
        let environment = Environment { platform: Some("metal".into()), ..Environment::default() };
        let error = detect(environment).unwrap_err();
        assert_eq!(error.to_string(), "platform \"metal\" is not supported; PLATFORM must be \"container\"");
        assert!(!error.is_retryable());
    }
}
