//! Where images come from.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use pki::PemPair;
use serde::{Deserialize, Serialize};

use crate::scalar::SecretString;

/// Where images come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Registries {
    /// Endpoints to use in place of a registry; * matches all others.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub mirrors: IndexMap<String, RegistryMirror>,
    /// TLS and credentials for single servers.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub config: IndexMap<String, Registry>,
}

/// Endpoints to use in place of a registry; * matches all others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryMirror {
    /// Endpoints in the order in which they are tried; the registry itself is last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Takes the path of the endpoint as it is, without adding /v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub override_path: Option<bool>,
}

/// TLS and credentials for single servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    /// How to talk TLS to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RegistryTls>,
    /// Credentials for the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<RegistryAuth>,
}

/// How to talk TLS to the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryTls {
    /// Client certificate with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_identity: Option<PemPair>,
    /// Certificate authority of the server, base64 of PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// Accepts any certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// Credentials for the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryAuth {
    /// User name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Password.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub password: SecretString,
    /// User name and password in base64, as in the file of Docker.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub auth: SecretString,
    /// Token in place of a password.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub identity_token: SecretString,
}
