//! Where images come from.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use indexmap::IndexMap;
use pki::PemPair;
use serde::{Deserialize, Serialize};

use crate::scalar::SecretString;

/// Registries
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Registries {
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub mirrors: IndexMap<String, RegistryMirror>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub config: IndexMap<String, Registry>,
}

/// RegistryMirror
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryMirror {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub override_path: Option<bool>,
}

/// Registry
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RegistryTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<RegistryAuth>,
}

/// RegistryTls
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryTls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_identity: Option<PemPair>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// RegistryAuth
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryAuth {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub password: SecretString,
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub auth: SecretString,
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub identity_token: SecretString,
}
