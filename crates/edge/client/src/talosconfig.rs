//! The talosconfig file: contexts, each with endpoints, nodes and credentials. Where it lies, reading, merging and
//! saving it. The environment is passed in as [`Lookup`]; no variable is read here.

use std::io;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::credentials::{Credentials, CredentialsError, decode_base64};
use crate::files::{read_file, replace_file, utf8};

#[cfg(test)]
mod tests;

/// Where pods with access to the API find their talosconfig.
const SERVICE_ACCOUNT_PATH: &str = "/var/run/secrets/talos.dev/config";

/// A talosconfig file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TalosConfig {
    /// Name of the current context; empty when there is none.
    #[serde(deserialize_with = "null_as_default")]
    pub context: String,
    #[serde(deserialize_with = "null_as_default")]
    pub contexts: IndexMap<String, ConfigContext>,
}

/// One cluster as seen by one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigContext {
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Base64 of PEM, like `crt` and `key`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub ca: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub crt: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "SecretText::is_empty")]
    pub key: SecretText,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Name of the cluster behind an endpoint that serves several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// A text that debug output does not show; it is written to files as it is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

/// Other ways to authenticate; kept as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Auth {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub siderov1: Option<SideroAuth>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BasicAuth {
    pub username: String,
    pub password: SecretText,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SideroAuth {
    pub identity: String,
}

/// Inputs for finding the talosconfig.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    /// `--talosconfig`
    pub flag: Option<PathBuf>,
    /// `TALOSCONFIG`
    pub variable: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`
    pub config_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

/// A context that was merged under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    pub from: String,
    pub to: String,
}

/// Why a talosconfig could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TalosConfigError {
    #[error("no place for a talosconfig: no --talosconfig, no TALOSCONFIG, no home directory")]
    NoPath,
    #[error("reading talosconfig {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("decoding talosconfig {}", .path.display())]
    Decode {
        path: PathBuf,
        #[source]
        source: yaml::ReadError,
    },
    #[error("encoding talosconfig")]
    Encode(#[source] serde_json::Error),
    #[error("writing talosconfig {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("talosconfig has no current context")]
    NoCurrentContext,
    #[error("talosconfig has no context {0:?}")]
    UnknownContext(String),
}

impl Lookup {
    /// The file to read and write: a path that was given, else the first of the usual ones that exists, else
    /// `~/.talos/config`.
    pub fn path(&self) -> Result<PathBuf, TalosConfigError> {
        self.path_given(Path::exists)
    }

    fn path_given(&self, exists: impl Fn(&Path) -> bool) -> Result<PathBuf, TalosConfigError> {
        if let Some(path) = self.flag.as_ref().or(self.variable.as_ref()) {
            return Ok(path.clone());
        }
        let from_config_home = self.config_home.as_ref().map(|dir| dir.join("talos/config.yaml"));
        let from_home = self.home.as_ref().map(|dir| dir.join(".talos/config"));
        let candidates = [from_config_home, from_home.clone(), Some(PathBuf::from(SERVICE_ACCOUNT_PATH))];
        let found = candidates.into_iter().flatten().find(|path| exists(path));
        found.or(from_home).ok_or(TalosConfigError::NoPath)
    }
}

impl TalosConfig {
    /// Reads a file; one that does not exist is an empty configuration.
    pub fn load(path: &Path) -> Result<Self, TalosConfigError> {
        match read_file(path).and_then(utf8) {
            Ok(text) => {
                Self::from_yaml(&text).map_err(|source| TalosConfigError::Decode { path: path.to_owned(), source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(TalosConfigError::Read { path: path.to_owned(), source }),
        }
    }

    pub fn from_yaml(text: &str) -> Result<Self, yaml::ReadError> {
        let meaningful = |line: &str| !matches!(line.trim(), "" | "---" | "...") && !line.trim().starts_with('#');
        if !text.lines().any(meaningful) {
            return Ok(Self::default());
        }
        yaml::from_str(text)
    }

    pub fn to_yaml(&self) -> Result<String, TalosConfigError> {
        let tree = serde_json::to_value(self).map_err(TalosConfigError::Encode)?;
        Ok(yaml::to_text(&tree))
    }

    /// Writes the file as a whole or not at all, readable by its owner only; a symlink is followed.
    pub fn save(&self, path: &Path) -> Result<(), TalosConfigError> {
        let text = self.to_yaml()?;
        replace_file(path, text.as_bytes(), 0o600)
            .map_err(|source| TalosConfigError::Write { path: path.to_owned(), source })
    }

    /// The context of this name, or the current one.
    pub fn select(&self, name: Option<&str>) -> Result<(&str, &ConfigContext), TalosConfigError> {
        let name = match name {
            Some(name) => name,
            None if self.context.is_empty() => return Err(TalosConfigError::NoCurrentContext),
            None => &self.context,
        };
        let found = self.contexts.get_key_value(name);
        found
            .map(|(name, context)| (name.as_str(), context))
            .ok_or_else(|| TalosConfigError::UnknownContext(name.into()))
    }

    /// As [`Self::select`], to change it.
    pub fn select_mut(&mut self, name: Option<&str>) -> Result<&mut ConfigContext, TalosConfigError> {
        let name = self.select(name)?.0.to_owned();
        self.contexts.get_mut(&name).ok_or(TalosConfigError::UnknownContext(name))
    }

    /// Adds the contexts of another file and makes its current context current. A context whose name is taken, even by the
    /// same one, gets a number behind its name; the renames are returned.
    pub fn merge(&mut self, other: &Self) -> Vec<Rename> {
        let mut renames = Vec::new();
        for (name, context) in &other.contexts {
            let target = self.free_name(name);
            if other.context == *name {
                self.context.clone_from(&target);
            }
            if target != *name {
                renames.push(Rename { from: name.clone(), to: target.clone() });
            }
            self.contexts.insert(target, context.clone());
        }
        renames
    }

    fn free_name(&self, name: &str) -> String {
        let numbered = (1u64..).map(|n| format!("{name}-{n}"));
        let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
        candidates.find(|candidate| !self.contexts.contains_key(candidate)).unwrap_or_else(|| name.to_owned())
    }
}

impl ConfigContext {
    /// The CA and, where present, the client's certificate and key.
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        if self.ca.is_empty() {
            return Err(CredentialsError::Missing { what: "the context", expected: "CA certificate" });
        }
        let ca = decode_base64(&self.ca, "the CA certificate")?;
        if self.crt.is_empty() && self.key.is_empty() {
            return Credentials::from_pem(&ca, None);
        }
        let crt = decode_base64(&self.crt, "the client certificate")?;
        let key = decode_base64(&self.key.0, "the client key")?;
        Credentials::from_pem(&ca, Some((&crt, &key)))
    }
}

impl SecretText {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() { "(none)" } else { "(hidden)" })
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
