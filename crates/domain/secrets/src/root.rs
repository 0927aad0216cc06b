//! Root secrets from the configuration, as resources.

use async_trait::async_trait;
use config::v1alpha1::Config;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::{
    Spec,
    config::MachineConfig,
    secrets::{EtcdRootSecret, KubeletSecrets, KubernetesRootSecret, OsRootSecret},
    values::{Key, Url},
};

use crate::issue::{certificates, from_config};

/// Why a configuration gives no root secret. Validation refuses such a configuration before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Something that must be there is not.
    #[error("configuration has no {0}")]
    Missing(&'static str),
}

/// Keeps one resource that is a function of the configuration.
#[derive(Debug)]
pub struct FromConfig<S> {
    name: &'static str,
    id: &'static str,
    derive: fn(&Config) -> Result<Option<S>, RootError>,
}

#[async_trait]
impl<S: Spec> Controller for FromConfig<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<S>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())?
            && let Some(secret) = (self.derive)(config)?
        {
            ctx.put(self.id, secret)?;
        }
        ctx.keep_touched::<S>()
    }
}

/// `secrets.RootOSController`: the authority of the machine API; its key on control planes only.
#[must_use]
pub fn root_os() -> FromConfig<OsRootSecret> {
    FromConfig {
        name: "secrets.RootOSController",
        id: OsRootSecret::ID,
        derive: |config| {
            let machine = config.machine();
            let sans = pki::Sans::parse(&machine.cert_sans);
            Ok(Some(OsRootSecret {
                issuing_ca: machine.issuing_ca().map(from_config),
                accepted_cas: certificates(machine.accepted_ca_certificates()),
                cert_san_ips: sans.ips,
                cert_san_dns_names: sans.dns,
                token: machine.token.expose().to_owned(),
            }))
        },
    }
}

/// `secrets.RootEtcdController`: the authority of etcd, on control planes.
#[must_use]
pub fn root_etcd() -> FromConfig<EtcdRootSecret> {
    FromConfig {
        name: "secrets.RootEtcdController",
        id: EtcdRootSecret::ID,
        derive: |config| {
            if !config.is_control_plane() {
                return Ok(None);
            }
            let ca = config.cluster().etcd_ca().ok_or(RootError::Missing("cluster.etcd.ca"))?;
            Ok(Some(EtcdRootSecret { etcd_ca: Some(from_config(ca)) }))
        },
    }
}

/// `secrets.RootKubernetesController`: authorities, keys and endpoints of Kubernetes, on control planes.
#[must_use]
pub fn root_kubernetes() -> FromConfig<KubernetesRootSecret> {
    FromConfig {
        name: "secrets.RootKubernetesController",
        id: KubernetesRootSecret::ID,
        derive: |config| if config.is_control_plane() { kubernetes(config).map(Some) } else { Ok(None) },
    }
}

fn kubernetes(config: &Config) -> Result<KubernetesRootSecret, RootError> {
    let cluster = config.cluster();
    let endpoint = cluster.endpoint().ok_or(RootError::Missing("cluster.controlPlane.endpoint"))?;
    let (bootstrap_token_id, bootstrap_token_secret) = token(config);
    let api_server = cluster.api_server.as_ref();
    Ok(KubernetesRootSecret {
        name: cluster.name().to_owned(),
        endpoint: Url::from(without_slash(&endpoint)),
        local_endpoint: Url::from(local_endpoint(config)),
        cert_sans: api_server.map(|server| server.cert_sans.clone()).unwrap_or_default(),
        api_server_ips: cluster.api_service_ips(),
        dns_domain: cluster.dns_domain().to_owned(),
        issuing_ca: Some(from_config(cluster.ca.as_ref().ok_or(RootError::Missing("cluster.ca"))?)),
        accepted_cas: certificates(cluster.accepted_ca_certificates()),
        service_account: cluster.service_account.as_ref().map(|account| Key::new(account.key.as_str())),
        aggregator_ca: cluster.aggregator_ca.as_ref().map(from_config),
        aes_cbc_encryption_secret: cluster.aescbc_encryption_secret.expose().to_owned(),
        bootstrap_token_id,
        bootstrap_token_secret,
        secretbox_encryption_secret: cluster.secretbox_encryption_secret.expose().to_owned(),
    })
}

/// `secrets.KubeletController`: the kubelet's bootstrap credentials.
#[must_use]
pub fn kubelet() -> FromConfig<KubeletSecrets> {
    FromConfig {
        name: "secrets.KubeletController",
        id: KubeletSecrets::ID,
        derive: |config| {
            let cluster = config.cluster();
            let endpoint = if config.machine().kubeprism_port().is_some() || config.is_control_plane() {
                local_endpoint(config)
            } else {
                without_slash(&cluster.endpoint().ok_or(RootError::Missing("cluster.controlPlane.endpoint"))?)
            };
            let (bootstrap_token_id, bootstrap_token_secret) = token(config);
            Ok(Some(KubeletSecrets {
                endpoint: Url::from(endpoint),
                accepted_cas: certificates(cluster.accepted_ca_certificates()),
                bootstrap_token_id,
                bootstrap_token_secret,
            }))
        },
    }
}

/// The way to an API server that needs nothing outside the node: the local balancer, or the server itself.
fn local_endpoint(config: &Config) -> String {
    match config.machine().kubeprism_port() {
        Some(port) => format!("https://127.0.0.1:{port}"),
        None => format!("https://localhost:{}", config.cluster().api_server_port()),
    }
}

/// Clients compare endpoints as text, so the root path is left out.
fn without_slash(url: &url::Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Id and secret of the bootstrap token. A token of an existing cluster may have no id.
fn token(config: &Config) -> (String, String) {
    let token = config.cluster().token.expose();
    let (id, secret) = token.split_once('.').unwrap_or(("", token));
    (id.to_owned(), secret.to_owned())
}

#[cfg(test)]
mod tests;
