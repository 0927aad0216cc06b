//! A cluster's configurations from its secrets and a few choices.
//!
//! The same input gives the same bytes. Fields whose value is the default are written out where operators expect to see
//! them; the rest is left to the defaults. Comments come from a table (`docs.txt`) and can be left out.

use std::time::{Duration, SystemTime};

use pki::{Algorithm, Authority, PemPair, PkiError, RoleSet, Sans, SecretsBundle, Subject, Template, Usage, Validity};

use crate::documents::Documents;
use crate::error::ConfigErrors;
use crate::formats;
use crate::images;
use crate::scalar::MachineType;
use crate::v1alpha1::{
    Config, DEFAULT_DNS_DOMAIN, DEFAULT_INSTALL_DISK, DEFAULT_KUBEPRISM_PORT, DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR,
};

pub use contract::Contract;
pub use tree::base64;

mod contract;
mod docs;
mod tree;

#[cfg(test)]
pub(crate) use docs::DOCS;
pub(crate) use docs::documentation;

/// Inputs of a cluster's configurations.
#[derive(Clone, Debug)]
pub struct Input {
    pub cluster_name: String,
    /// Address of the Kubernetes API: `https://host`, with a port that is not 443.
    pub endpoint: String,
    /// With or without `v`.
    pub kubernetes_version: String,
    pub secrets: SecretsBundle,
    /// Which version's fields to write.
    pub contract: Contract,
    /// More names and addresses for the certificates of the machine API and of the Kubernetes API.
    pub additional_sans: Vec<String>,
    pub install_disk: String,
    pub install_image: String,
    pub dns_domain: String,
    pub pod_subnets: Vec<String>,
    pub service_subnets: Vec<String>,
    /// The pod network; nothing is written for `None`, which means Flannel.
    pub cni: Option<String>,
    /// URLs of manifests for the `custom` pod network.
    pub cni_urls: Vec<String>,
    /// A registry and the mirrors to try before it.
    pub registry_mirrors: Vec<(String, Vec<String>)>,
    /// Registries whose certificates are not checked.
    pub insecure_registries: Vec<String>,
    pub persist: bool,
    pub discovery: bool,
    /// Address of the discovery service, where it is not the public one.
    pub discovery_endpoint: Option<String>,
    pub kubespan: bool,
    /// `None` leaves the local API balancer off.
    pub kubeprism_port: Option<u16>,
    pub local_api_server_port: Option<u16>,
    pub allow_scheduling_on_control_planes: bool,
    /// Resolvers, where the default ones will not do.
    pub nameservers: Vec<String>,
}

impl Input {
    /// The usual choices for a cluster.
    #[must_use]
    pub fn new(cluster_name: impl Into<String>, endpoint: impl Into<String>, secrets: SecretsBundle) -> Self {
        Self {
            cluster_name: cluster_name.into(),
            endpoint: endpoint.into(),
            kubernetes_version: images::DEFAULT_KUBERNETES_VERSION.to_owned(),
            secrets,
            contract: Contract::default(),
            additional_sans: Vec::new(),
            install_disk: DEFAULT_INSTALL_DISK.to_owned(),
            install_image: images::installer(),
            dns_domain: DEFAULT_DNS_DOMAIN.to_owned(),
            pod_subnets: vec![DEFAULT_POD_CIDR.to_owned()],
            service_subnets: vec![DEFAULT_SERVICE_CIDR.to_owned()],
            cni: None,
            cni_urls: Vec::new(),
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            persist: true,
            discovery: true,
            discovery_endpoint: None,
            kubespan: false,
            kubeprism_port: Some(DEFAULT_KUBEPRISM_PORT),
            local_api_server_port: None,
            allow_scheduling_on_control_planes: false,
            nameservers: Vec::new(),
        }
    }
}

/// Which comments to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommentStyle {
    /// Explains each field; the first line names the schema for editors.
    pub docs: bool,
    /// Shows fields that are not set, commented out.
    pub examples: bool,
}

impl CommentStyle {
    pub const FULL: Self = Self { docs: true, examples: true };
    pub const NONE: Self = Self { docs: false, examples: false };
}

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("cluster endpoint {message}")]
    Endpoint { message: String },
    #[error("cluster name {0:?} is empty")]
    Name(String),
    #[error("{0:?} is not a version of Kubernetes (for example 1.30.0)")]
    KubernetesVersion(String),
    #[error("generating the configuration of a {kind}")]
    Invalid {
        kind: MachineType,
        #[source]
        errors: ConfigErrors,
    },
    #[error("issuing the administrator's certificate")]
    Certificate(#[source] PkiError),
}

/// Checks a cluster endpoint: a full URL with `https://` and host; without a port it is 443.
///
/// # Errors
/// The missing field, with an example.
pub fn check_endpoint(endpoint: &str) -> Result<(), GenerateError> {
    formats::endpoint(endpoint).map_err(|message| GenerateError::Endpoint { message })
}

/// The configuration of a machine, as text with comments.
///
/// # Errors
/// When the endpoint or another choice is not valid.
pub fn generate(input: &Input, kind: MachineType, comments: CommentStyle) -> Result<String, GenerateError> {
    check_endpoint(&input.endpoint)?;
    if input.cluster_name.is_empty() {
        return Err(GenerateError::Name(input.cluster_name.clone()));
    }
    if !images::is_version(&input.kubernetes_version) {
        return Err(GenerateError::KubernetesVersion(input.kubernetes_version.clone()));
    }
    let value = tree::document(input, kind);
    let text = with_schema(docs::write(&value, comments), comments);
    Documents::from_yaml(text.as_bytes()).map_err(|errors| GenerateError::Invalid { kind, errors })?;
    Ok(text)
}

/// A document as text with comments: for configurations that were patched after they were generated.
#[must_use]
pub fn write_with_comments(documents: &Documents, comments: CommentStyle) -> String {
    let documents = documents.documents().iter().zip(documents.values());
    let texts: Vec<_> = documents
        .map(|(document, value)| match document {
            crate::Document::V1alpha1(_) => docs::write(&value, comments),
            _ => yaml::to_text(&value),
        })
        .collect();
    with_schema(texts.join("---\n"), comments)
}

/// Names the schema to editors that know the language server of YAML. Without a path: a schema beside the file is found.
const SCHEMA: &str = "# yaml-language-server: $schema=config.schema.json\n";

fn with_schema(text: String, comments: CommentStyle) -> String {
    if comments.docs { format!("{SCHEMA}{text}") } else { text }
}

/// Content of a talosconfig: certificates and key as base64 of PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientContext {
    pub context: String,
    pub endpoints: Vec<String>,
    pub ca: String,
    pub crt: String,
    pub key: String,
}

impl std::fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientContext")
            .field("context", &self.context)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// How long a client certificate is valid: one year.
pub const CLIENT_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A talosconfig's context with a new certificate for these roles.
///
/// # Errors
/// When the bundle's authority cannot sign.
pub fn client_context(
    cluster_name: &str,
    endpoints: Vec<String>,
    secrets: &SecretsBundle,
    roles: &RoleSet,
    now: SystemTime,
    lifetime: Duration,
) -> Result<ClientContext, GenerateError> {
    let pair = client_certificate(&secrets.certs.os, roles, now, lifetime).map_err(GenerateError::Certificate)?;
    Ok(ClientContext {
        context: cluster_name.to_owned(),
        endpoints,
        ca: tree::base64(&secrets.certs.os.crt),
        crt: tree::base64(&pair.crt),
        key: tree::base64(&pair.key),
    })
}

/// A client certificate of the machine API: Ed25519, one organization for each role.
///
/// # Errors
/// When the authority cannot be read or cannot sign.
pub fn client_certificate(
    authority: &PemPair,
    roles: &RoleSet,
    now: SystemTime,
    lifetime: Duration,
) -> Result<PemPair, PkiError> {
    let template = Template {
        subject: Subject { common_name: None, organizations: roles.to_strings() },
        sans: Sans::default(),
        usage: Usage::Client,
        validity: Validity::starting(now, lifetime),
    };
    Authority::from_pair(authority)?.issue_pair(Algorithm::Ed25519, &template)
}

/// The secrets that an existing control plane configuration holds.
///
/// # Errors
/// Missing or unusable secrets.
pub fn secrets_from_config(config: &Config) -> Result<SecretsBundle, PkiError> {
    use pki::secrets::{BootstrapSecrets, CertificateSecrets, ClusterSecrets, TrustdSecrets};
    let (machine, cluster) = (config.machine(), config.cluster());
    let bundle = SecretsBundle {
        cluster: ClusterSecrets { id: cluster.id.clone(), secret: cluster.secret.expose().to_owned() },
        secrets: BootstrapSecrets {
            bootstrap_token: cluster.token.expose().to_owned(),
            aescbc_encryption_secret: cluster.aescbc_encryption_secret.expose().to_owned(),
            secretbox_encryption_secret: cluster.secretbox_encryption_secret.expose().to_owned(),
        },
        trustd: TrustdSecrets { token: machine.token.expose().to_owned() },
        certs: CertificateSecrets {
            etcd: cluster.etcd_ca().cloned().unwrap_or_default(),
            k8s: cluster.ca.clone().unwrap_or_default(),
            k8s_aggregator: cluster.aggregator_ca.clone().unwrap_or_default(),
            k8s_service_account: cluster.service_account.clone().unwrap_or_default(),
            os: machine.ca.clone().unwrap_or_default(),
        },
    };
    bundle.check()?;
    Ok(bundle)
}

#[cfg(test)]
mod tests;
