//! The secrets bundle: all random values that a cluster's configurations share (`secrets.yaml`).
//!
//! Keys are lower case without separators; certificates and keys are base64 of PEM text. The `config` crate, which
//! knows the format of configurations, builds a bundle from an existing control plane configuration.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::authority::{Authority, CaProfile};
use crate::error::PkiError;
use crate::key::{Algorithm, PrivateKey};
use crate::pem::{PemPair, base64_text};
use crate::token;

/// The bundle. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsBundle {
    pub cluster: ClusterSecrets,
    pub secrets: BootstrapSecrets,
    #[serde(rename = "trustdinfo")]
    pub trustd: TrustdSecrets,
    pub certs: CertificateSecrets,
}

/// Identity of the cluster in discovery.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSecrets {
    /// 32 random bytes, base64 with the URL alphabet. Not secret.
    pub id: String,
    /// 32 random bytes, standard base64: the encryption key of discovery data.
    pub secret: String,
}

/// Secrets of Kubernetes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapSecrets {
    #[serde(rename = "bootstraptoken")]
    pub bootstrap_token: String,
    /// Encryption key for secrets in etcd, older cipher.
    #[serde(rename = "aescbcencryptionsecret", default, skip_serializing_if = "String::is_empty")]
    pub aescbc_encryption_secret: String,
    /// Encryption key for secrets in etcd.
    #[serde(rename = "secretboxencryptionsecret", default, skip_serializing_if = "String::is_empty")]
    pub secretbox_encryption_secret: String,
}

/// The token that workers present to `trustd`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustdSecrets {
    pub token: String,
}

/// The authorities and the service account key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateSecrets {
    pub etcd: PemPair,
    pub k8s: PemPair,
    #[serde(rename = "k8saggregator")]
    pub k8s_aggregator: PemPair,
    #[serde(rename = "k8sserviceaccount")]
    pub k8s_service_account: ServiceAccountKey,
    pub os: PemPair,
}

/// The signing key of service account tokens.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountKey {
    #[serde(with = "base64_text")]
    pub key: String,
}

/// Cipher for secrets in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncryptionSecret {
    #[default]
    Secretbox,
    /// For configurations before 1.3.
    AesCbc,
}

/// Choices that depend on the target version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretsOptions {
    pub encryption: EncryptionSecret,
    /// RSA since 1.7, ECDSA P-256 before. RSA with 2048 bits, kubeadm's default (`encryptionAlgorithm` of its v1beta4
    /// configuration): a key costs 70 ms of CPU (median of 20 runs), 3072 bits cost 280 ms and 4096 bits 620 ms (three
    /// rounds each with aws-lc-rs 1.19 on two busy cores of an AMD EPYC), and `gen config` has 100 ms.
    pub service_account: Algorithm,
}

impl Default for SecretsOptions {
    fn default() -> Self {
        Self { encryption: EncryptionSecret::default(), service_account: Algorithm::Rsa2048 }
    }
}

/// The files of a kubeadm-like PKI directory, as PEM text: `ca.{crt,key}`, `etcd/ca.{crt,key}`,
/// `front-proxy-ca.{crt,key}`, `sa.key`.
#[derive(Clone, Debug, Default)]
pub struct KubernetesPki {
    pub ca: PemPair,
    pub etcd: PemPair,
    pub front_proxy: PemPair,
    pub service_account: ServiceAccountKey,
}

impl SecretsBundle {
    /// A new bundle; its authorities are valid from `now`.
    pub fn generate(now: SystemTime, options: SecretsOptions) -> Result<Self, PkiError> {
        let authority = |profile| Ok::<_, PkiError>(Authority::generate(profile, now)?.pair());
        let certs = CertificateSecrets {
            etcd: authority(CaProfile::Etcd)?,
            k8s: authority(CaProfile::Kubernetes)?,
            k8s_aggregator: authority(CaProfile::Aggregator)?,
            k8s_service_account: ServiceAccountKey { key: PrivateKey::generate(options.service_account)?.to_pem() },
            os: authority(CaProfile::Os)?,
        };
        Self::around(certs, options, token::bootstrap_token()?)
    }

    /// A bundle that keeps the authorities of an existing Kubernetes cluster. Everything else is new, including the
    /// bootstrap token if none is given.
    pub fn from_kubernetes_pki(
        pki: &KubernetesPki,
        bootstrap_token: Option<String>,
        now: SystemTime,
        options: SecretsOptions,
    ) -> Result<Self, PkiError> {
        let certs = CertificateSecrets {
            etcd: Authority::from_pair(&pki.etcd)?.pair(),
            k8s: Authority::from_pair(&pki.ca)?.pair(),
            k8s_aggregator: Authority::from_pair(&pki.front_proxy)?.pair(),
            k8s_service_account: ServiceAccountKey { key: PrivateKey::from_pem(&pki.service_account.key)?.to_pem() },
            os: Authority::generate(CaProfile::Os, now)?.pair(),
        };
        let bootstrap_token = bootstrap_token.map_or_else(token::bootstrap_token, Ok)?;
        let bundle = Self::around(certs, options, bootstrap_token)?;
        bundle.check()?;
        Ok(bundle)
    }

    fn around(certs: CertificateSecrets, options: SecretsOptions, bootstrap_token: String) -> Result<Self, PkiError> {
        let mut secrets = BootstrapSecrets {
            bootstrap_token,
            aescbc_encryption_secret: String::new(),
            secretbox_encryption_secret: String::new(),
        };
        match options.encryption {
            EncryptionSecret::Secretbox => secrets.secretbox_encryption_secret = token::random_secret()?,
            EncryptionSecret::AesCbc => secrets.aescbc_encryption_secret = token::random_secret()?,
        }
        Ok(Self {
            cluster: ClusterSecrets { id: token::random_cluster_id()?, secret: token::random_secret()? },
            secrets,
            trustd: TrustdSecrets { token: token::bootstrap_token()? },
            certs,
        })
    }

    /// Parses `secrets.yaml` and checks every part.
    pub fn from_yaml(text: &str) -> Result<Self, PkiError> {
        let bundle: Self = yaml::from_str(text).map_err(PkiError::ReadBundle)?;
        bundle.check()?;
        Ok(bundle)
    }

    /// Writes `secrets.yaml`. Equal bundles give identical bytes.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut out = Writer::default();
        out.section("cluster");
        out.entry(1, "id", &self.cluster.id);
        out.entry(1, "secret", &self.cluster.secret);
        out.section("secrets");
        out.entry(1, "bootstraptoken", &self.secrets.bootstrap_token);
        out.optional(1, "aescbcencryptionsecret", &self.secrets.aescbc_encryption_secret);
        out.optional(1, "secretboxencryptionsecret", &self.secrets.secretbox_encryption_secret);
        out.section("trustdinfo");
        out.entry(1, "token", &self.trustd.token);
        out.section("certs");
        out.pair("etcd", &self.certs.etcd);
        out.pair("k8s", &self.certs.k8s);
        out.pair("k8saggregator", &self.certs.k8s_aggregator);
        out.pair("k8sserviceaccount", &PemPair::new("", self.certs.k8s_service_account.key.clone()));
        out.pair("os", &self.certs.os);
        out.text
    }

    /// Checks that the bundle is complete: authorities with matching keys, and tokens.
    pub fn check(&self) -> Result<(), PkiError> {
        let bundle = |field, reason: &str| Err(PkiError::Bundle { field, reason: reason.to_owned() });
        // Tokens of an existing cluster have any form.
        for (field, token) in
            [("secrets.bootstraptoken", &self.secrets.bootstrap_token), ("trustdinfo.token", &self.trustd.token)]
        {
            if token.is_empty() {
                return bundle(field, "must not be empty");
            }
        }
        if self.secrets.secretbox_encryption_secret.is_empty() && self.secrets.aescbc_encryption_secret.is_empty() {
            return bundle("secrets.secretboxencryptionsecret", "must not be empty");
        }
        for (field, text) in [("cluster.id", &self.cluster.id), ("cluster.secret", &self.cluster.secret)] {
            if text.is_empty() {
                return bundle(field, "must not be empty");
            }
        }
        for (field, pair) in [
            ("certs.etcd", &self.certs.etcd),
            ("certs.k8s", &self.certs.k8s),
            ("certs.k8saggregator", &self.certs.k8s_aggregator),
            ("certs.os", &self.certs.os),
        ] {
            Authority::from_pair(pair).map_err(|e| PkiError::Bundle { field, reason: e.to_string() })?;
        }
        PrivateKey::from_pem(&self.certs.k8s_service_account.key)
            .map_err(|e| PkiError::Bundle { field: "certs.k8sserviceaccount", reason: e.to_string() })?;
        Ok(())
    }
}

/// Writes this file's few value types: base64, base62, and tokens, whose characters an existing cluster may have chosen.
#[derive(Default)]
struct Writer {
    text: String,
}

/// A double-quoted text of YAML.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

impl Writer {
    fn section(&mut self, key: &str) {
        self.text.push_str(key);
        self.text.push_str(":\n");
    }

    fn entry(&mut self, depth: usize, key: &str, value: &str) {
        let plain = value.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && value.len() > 5
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=._-".contains(&b));
        let value = if plain { value.to_owned() } else { quoted(value) };
        self.text.push_str(&format!("{:1$}{key}: {value}\n", "", depth * 4));
    }

    fn optional(&mut self, depth: usize, key: &str, value: &str) {
        if !value.is_empty() {
            self.entry(depth, key, value);
        }
    }

    fn pair(&mut self, key: &str, pair: &PemPair) {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        self.text.push_str(&format!("    {key}:\n"));
        self.optional(2, "crt", &encode(&pair.crt));
        self.optional(2, "key", &encode(&pair.key));
    }
}

macro_rules! hidden {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(hidden)"))
            }
        }
    )*};
}
hidden!(SecretsBundle, ClusterSecrets, BootstrapSecrets, TrustdSecrets, ServiceAccountKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn fast() -> SecretsOptions {
        SecretsOptions { service_account: Algorithm::EcdsaP256, ..SecretsOptions::default() }
    }

    #[test]
    fn a_bundle_comes_back_from_its_file_and_is_written_the_same() {
        let bundle = SecretsBundle::generate(SystemTime::UNIX_EPOCH, fast()).unwrap();
        let text = bundle.to_yaml();
        let again = SecretsBundle::from_yaml(&text).unwrap();
        assert!(again == bundle, "{text}");
        assert_eq!(again.to_yaml(), text);
        assert!(!text.contains("aescbc"));
    }

    #[test]
    fn service_accounts_have_a_key_that_is_made_within_the_budget() {
        let bundle = SecretsBundle::generate(SystemTime::UNIX_EPOCH, SecretsOptions::default()).unwrap();
        let key = PrivateKey::from_pem(&bundle.certs.k8s_service_account.key).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(RSA 2048, hidden)");
    }

    /// The files of an existing cluster with these authorities.
    fn kubernetes_pki(bundle: &SecretsBundle) -> KubernetesPki {
        KubernetesPki {
            ca: bundle.certs.k8s.clone(),
            etcd: bundle.certs.etcd.clone(),
            front_proxy: bundle.certs.k8s_aggregator.clone(),
            service_account: bundle.certs.k8s_service_account.clone(),
        }
    }

    #[test]
    fn kubernetes_authorities_are_kept_and_the_rest_is_new() {
        let old = SecretsBundle::generate(SystemTime::UNIX_EPOCH, fast()).unwrap();
        let pki = kubernetes_pki(&old);
        let token = Some("abcdef.0123456789abcdef".to_owned());
        let new = SecretsBundle::from_kubernetes_pki(&pki, token, SystemTime::UNIX_EPOCH, fast()).unwrap();
        assert_eq!(new.certs.k8s, old.certs.k8s);
        assert_eq!(new.secrets.bootstrap_token, "abcdef.0123456789abcdef");
        assert_ne!(new.certs.os, old.certs.os);
    }

    #[test]
    fn a_bootstrap_token_of_an_existing_cluster_may_have_any_form() {
        let old = SecretsBundle::generate(SystemTime::UNIX_EPOCH, fast()).unwrap();
        let pki = kubernetes_pki(&old);
        for token in ["my-token", "yes", "1e3", "a \"b\" \\ c: #\t\u{85}\u{e9}"] {
            let import = |token: &str| {
                SecretsBundle::from_kubernetes_pki(&pki, Some(token.to_owned()), SystemTime::UNIX_EPOCH, fast())
            };
            let text = import(token).unwrap().to_yaml();
            assert_eq!(SecretsBundle::from_yaml(&text).unwrap().secrets.bootstrap_token, token, "{text}");
            let error = import("").unwrap_err();
            assert!(matches!(error, PkiError::Bundle { field: "secrets.bootstraptoken", .. }), "{error:?}");
        }
    }

    #[test]
    fn a_key_of_another_authority_is_refused_with_its_field() {
        let mut bundle = SecretsBundle::generate(SystemTime::UNIX_EPOCH, fast()).unwrap();
        bundle.certs.etcd.key = bundle.certs.k8s.key.clone();
        let error = SecretsBundle::from_yaml(&bundle.to_yaml()).unwrap_err();
        assert!(matches!(error, PkiError::Bundle { field: "certs.etcd", .. }), "{error:?}");
    }

    #[test]
    fn an_unknown_key_in_the_file_is_refused() {
        let bundle = SecretsBundle::generate(SystemTime::UNIX_EPOCH, fast()).unwrap();
        let error = SecretsBundle::from_yaml(&format!("{}more: 1\n", bundle.to_yaml())).unwrap_err();
        let PkiError::ReadBundle(error) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains("more") && !error.to_string().contains("certs:"), "{error}");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let bundle = SecretsBundle::generate(SystemTime::UNIX_EPOCH, fast()).unwrap();
        assert_eq!(format!("{bundle:?}"), "SecretsBundle(hidden)");
    }
}
