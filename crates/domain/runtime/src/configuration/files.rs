//! The files of the configuration in STATE: the configuration itself, and beside it the certificates of the authorities
//! whose clients the machine API accepts, for the day on which the configuration cannot be read.

use std::path::{Path, PathBuf};

use config::acquire::Failure;
use config::{Documents, Mode};
use machine::layout::CONFIGURATION;
use pki::Certificate;
use resources::runtime::MetaKey;
use sys::files::{Access, FileError, write_atomic};

/// PEM certificates, no keys.
const AUTHORITIES: &str = "api-authorities.pem";

/// A configuration that was found cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigurationError {
    #[error(transparent)]
    Read(#[from] FileError),
    #[error("volume STATE cannot be used, and nothing is known of a configuration there: {reason}")]
    Volume { reason: String },
    #[error(transparent)]
    Platform(#[from] platform::PlatformError),
    #[error("the configuration of {origin} is empty")]
    Empty { origin: String },
    #[error("the configuration of {origin} is not valid")]
    Invalid {
        origin: String,
        #[source]
        source: config::ConfigErrors,
    },
}

impl ConfigurationError {
    /// Whether looking again may help. Damage is not an I/O error: it stays.
    pub(crate) const fn failure(&self) -> Failure {
        match self {
            Self::Read(_) | Self::Volume { .. } => Failure::Passing,
            Self::Platform(error) if error.is_medium_absent() => Failure::Absent,
            Self::Platform(error) if error.is_retryable() => Failure::Passing,
            Self::Platform(_) | Self::Empty { .. } | Self::Invalid { .. } => Failure::Lasting,
        }
    }
}

/// The certificates of authorities that STATE keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authorities {
    /// No file.
    Absent,
    /// PEM, at least one.
    Known(Vec<String>),
    /// The file cannot be read, or holds no certificate.
    Unreadable(String),
}

impl Authorities {
    /// Those that META keeps for a STATE that does not open.
    pub(crate) fn of_meta(kept: Option<&MetaKey>) -> Self {
        let Some(kept) = kept else { return Self::Absent };
        match Certificate::chain_from_pem(&kept.value) {
            Ok(chain) => Self::Known(chain.iter().map(Certificate::to_pem).collect()),
            Err(error) => Self::Unreadable(format!("reading those of META: {}", stdx::error_chain(&error))),
        }
    }
}

/// The files below the directory where STATE is mounted.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// All documents as they were applied.
    config: PathBuf,
    authorities: PathBuf,
}

impl Files {
    pub(crate) fn below(state: &Path) -> Self {
        Self { config: state.join(CONFIGURATION), authorities: state.join(AUTHORITIES) }
    }

    /// The configuration on disk; `None` where there is no file. It was accepted once: what a later version finds fault
    /// with is logged, and takes no node away, as long as the configuration can be read and the API served with it.
    pub(crate) fn read(&self, mode: Mode) -> Result<Option<Documents>, ConfigurationError> {
        let Some(bytes) = sys::files::read(&self.config)? else { return Ok(None) };
        let origin = self.config.display().to_string();
        let invalid = |source| ConfigurationError::Invalid { origin: origin.clone(), source };
        let documents = Documents::unjudged(&bytes).map_err(invalid)?;
        if documents.documents().is_empty() {
            return Err(ConfigurationError::Empty { origin });
        }
        config::validate::reachable(&documents).map_err(invalid)?;
        let report = config::validate(&documents, mode);
        for error in &report.errors {
            tracing::error!(origin, %error, "configuration would not be accepted again");
        }
        for warning in report.warnings() {
            tracing::warn!(origin, %warning, "configuration");
        }
        Ok(Some(documents))
    }

    /// Whether there is a configuration, readable or not. A path that cannot be looked at counts as one.
    pub(crate) fn has_config(&self) -> bool {
        self.config.try_exists().unwrap_or(true)
    }

    pub(crate) fn authorities(&self) -> Authorities {
        let text = match sys::files::read(&self.authorities) {
            Ok(None) => return Authorities::Absent,
            Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return Authorities::Unreadable(stdx::error_chain(&error)),
        };
        match Certificate::chain_from_pem(&text) {
            Ok(chain) => Authorities::Known(chain.iter().map(Certificate::to_pem).collect()),
            Err(error) => {
                let path = self.authorities.display();
                Authorities::Unreadable(format!("reading {path}: {}", stdx::error_chain(&error)))
            }
        }
    }

    /// Writes the configuration, then its authorities: a crash in between leaves those of the configuration before.
    pub(crate) async fn write(&self, documents: &Documents) -> Result<(), FileError> {
        let (files, documents) = (self.clone(), documents.clone());
        let write = move || {
            write_atomic(&files.config, documents.raw(), Access::SECRET)?;
            files.keep_authorities(&documents)
        };
        blocking(write, &self.config).await
    }

    /// Makes the kept authorities those of the configuration. One without any leaves them as they are.
    fn keep_authorities(&self, documents: &Documents) -> Result<(), FileError> {
        let accepted = documents.v1alpha1().map(|root| root.machine().accepted_ca_certificates()).unwrap_or_default();
        let mut text = String::new();
        for certificate in accepted {
            text.push_str(certificate.trim_end());
            text.push('\n');
        }
        if !text.is_empty() {
            write_atomic(&self.authorities, text.as_bytes(), Access::SECRET)?;
        }
        Ok(())
    }

    /// [`keep_authorities`](Self::keep_authorities) of a configuration that is on disk already.
    pub(crate) async fn renew_authorities(&self, documents: &Documents) -> Result<(), FileError> {
        let (files, documents) = (self.clone(), documents.clone());
        blocking(move || files.keep_authorities(&documents), &self.authorities).await
    }
}

/// Syncing to disk takes its time, in which others are served.
async fn blocking(work: impl FnOnce() -> Result<(), FileError> + Send + 'static, path: &Path) -> Result<(), FileError> {
    let failed =
        |source| FileError { operation: "writing", path: path.to_owned(), source: std::io::Error::other(source) };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// A configuration in a text that came from `origin`.
pub(crate) fn decode(origin: &str, bytes: &[u8], mode: Mode) -> Result<Documents, ConfigurationError> {
    let invalid = |source| ConfigurationError::Invalid { origin: origin.to_owned(), source };
    let documents = Documents::from_yaml(bytes).map_err(invalid)?;
    if documents.documents().is_empty() {
        return Err(ConfigurationError::Empty { origin: origin.to_owned() });
    }
    let warnings = config::validate(&documents, mode).into_result().map_err(invalid)?;
    for warning in warnings {
        tracing::warn!(origin, %warning, "configuration");
    }
    Ok(documents)
}
