//! The place that the machine runs in: the configuration that it holds for the machine, its network settings and
//! metadata, and what of the machine is the machine's own.
//!
//! Implementations: the [`Container`] and [`Metal`]; clouds come beside them. Nothing here decides anything: controllers
//! publish the platform's values as resources, and others act on those.

mod container;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod metal;
mod oauth;
mod tftp;

use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use http_fetch::HttpFetch;
use machine::cmdline::Cmdline;
use machine::config_url::Variable;
use resources::machine::PlatformCapabilities;
use resources::runtime::PlatformMetadata;
use tokio::sync::watch;

pub use container::Container;
#[cfg(any(test, feature = "testing"))]
pub use fake::{FakeInventory, FakePlatform};
pub use metal::Metal;
pub use oauth::OauthError;

/// A platform does not answer, or its answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("decoding USERDATA: it must be base64 of the machine configuration")]
    UserData(#[source] base64::DecodeError),
    #[error("decoding USERDATA: the machine configuration must be UTF-8")]
    Encoding(#[source] std::string::FromUtf8Error),
    #[error(
        "platform {0:?} is not supported; PLATFORM must be \"container\", or talos.platform of the kernel's command line \"metal\""
    )]
    Unknown(String),
    #[error(
        "talos.config={0} cannot be fetched: it must be a URL of scheme http, https, tftp or file, \"metal-iso\" or \"none\""
    )]
    Source(String),
    #[error("the configuration of {0} must be UTF-8 text, which may be compressed by gzip, of at most 16 MiB")]
    Content(String),
    #[error("no filesystem has the label {label:?}, where talos.config=metal-iso looks for {file}")]
    NoFilesystem { label: &'static str, file: &'static str },
    #[error(transparent)]
    Oauth(#[from] OauthError),
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
        matches!(self, Self::Unavailable { .. } | Self::NoFilesystem { .. })
    }

    /// Whether the platform has no configuration until somebody attaches a medium. Asking again helps only then.
    #[must_use]
    pub const fn is_medium_absent(&self) -> bool {
        matches!(self, Self::NoFilesystem { .. })
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

/// A filesystem of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    pub device: PathBuf,
    /// As the kernel calls it: `iso9660`, `vfat`.
    pub kind: String,
}

/// What is known of the machine's hardware and names. All of it is found out while the machine runs.
#[async_trait]
pub trait Inventory: Debug + Send + Sync {
    /// The value of a variable as soon as it is known. Waits for it without a limit.
    async fn variable(&self, variable: Variable) -> String;

    /// The filesystem with this label; `None` when no disk has one. Waits until the disks are known. One that starts slowly
    /// or is attached later is not waited for.
    async fn filesystem(&self, label: &str) -> Option<Filesystem>;
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

    /// The configuration that the platform holds for this machine, which may have to say who it is; `None` when the platform
    /// has none.
    ///
    /// # Errors
    /// [`PlatformError::is_retryable`] distinguishes transient from permanent errors.
    async fn configuration(&self, machine: &dyn Inventory) -> Result<Option<String>, PlatformError>;

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
    /// The kernel's command line.
    pub command_line: Cmdline,
}

/// The platform that the environment names, or where it names none, `talos.platform` of the kernel's command line.
///
/// # Errors
/// [`PlatformError::Unknown`].
pub fn detect(environment: Environment) -> Result<Arc<dyn Platform>, PlatformError> {
    let Environment { platform, user_data, sku, command_line } = environment;
    let of_kernel = || command_line.last("talos.platform").map(str::to_owned);
    match platform.or_else(of_kernel).as_deref() {
        Some(container::NAME) => Ok(Arc::new(Container::new(user_data, sku))),
        Some(metal::NAME) => Ok(Arc::new(Metal::new(command_line, Arc::new(HttpFetch), Arc::new(HttpFetch)))),
        other => Err(PlatformError::Unknown(other.unwrap_or_default().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_platforms_are_refused_by_name() {
        let environment = Environment { platform: Some("vmware".into()), ..Environment::default() };
        let error = detect(environment).unwrap_err();
        assert!(matches!(&error, PlatformError::Unknown(name) if name == "vmware"), "{error}");
        assert!(!error.is_retryable());
    }

    #[test]
    fn the_command_line_names_the_platform_where_the_environment_names_none() {
        let command_line = Cmdline::parse("talos.platform=metal");
        let environment = |platform: Option<&str>| Environment {
            platform: platform.map(str::to_owned),
            command_line: command_line.clone(),
            ..Environment::default()
        };
        assert_eq!(detect(environment(None)).unwrap().name(), "metal");
        assert_eq!(detect(environment(Some("container"))).unwrap().name(), "container");
        let error = detect(Environment::default()).unwrap_err();
        assert!(matches!(&error, PlatformError::Unknown(name) if name.is_empty()), "{error}");
    }
}
