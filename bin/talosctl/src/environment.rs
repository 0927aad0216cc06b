//! The process environment, read once, here; the rest of the program is passed values.

use std::env::var_os;
use std::ffi::OsString;
use std::path::PathBuf;

/// The relevant variables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) home: Option<PathBuf>,
    pub(crate) talosconfig: Option<PathBuf>,
    pub(crate) config_home: Option<PathBuf>,
    /// The first file of `KUBECONFIG`.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A command of the shell: `TALOS_EDITOR`, else `EDITOR`.
    pub(crate) editor: Option<OsString>,
    /// Log filter, `TALOSCTL_LOG`.
    pub(crate) log_filter: Option<String>,
}

impl Environment {
    pub(crate) fn from_process() -> Self {
        let path = |name: &str| var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let first_path = |name: &str| {
            let value = var_os(name)?;
            std::env::split_paths(&value).find(|path| !path.as_os_str().is_empty())
        };
        let set = |name: &str| var_os(name).filter(|value| !value.is_empty());
        Self {
            home: path("HOME"),
            talosconfig: path("TALOSCONFIG"),
            config_home: path("XDG_CONFIG_HOME"),
            kubeconfig: first_path("KUBECONFIG"),
            editor: set("TALOS_EDITOR").or_else(|| set("EDITOR")),
            log_filter: var_os("TALOSCTL_LOG").and_then(|value| value.into_string().ok()),
        }
    }

    /// Logs go to standard error, only if `TALOSCTL_LOG` is set.
    pub(crate) fn start_logging(&self) {
        if let Some(filter) = &self.log_filter {
            let filter = tracing_subscriber::EnvFilter::new(filter);
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        }
    }
}
