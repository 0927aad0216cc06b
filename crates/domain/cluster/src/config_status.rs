//! Discovery settings from the configuration.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::v1alpha1::Cluster;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::cluster::DiscoveryConfig;
use resources::config::MachineConfig;
use url::Url;

/// Configuration → `DiscoveryConfig` `cluster`.
#[derive(Debug, Default)]
pub struct ConfigController {
    /// A one-time message that discovery through Kubernetes has no effect.
    lack_is_known: bool,
}

/// A part of the configuration that discovery cannot use.
#[derive(Debug, thiserror::Error)]
enum DiscoveryConfigError {
    #[error("reading the discovery service's address {0:?}")]
    Endpoint(String, #[source] url::ParseError),
    #[error("reading the discovery service's address {0:?}: it has no host")]
    NoHost(String),
    #[error("reading cluster.secret")]
    Secret(#[source] base64::DecodeError),
}

#[async_trait]
impl Controller for ConfigController {
    fn name(&self) -> &'static str {
        "cluster.ConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<DiscoveryConfig>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())? {
            let spec = discovery_config(config.cluster())?;
            let lacks = spec.discovery_enabled && spec.registry_kubernetes_enabled;
            if lacks && !self.lack_is_known {
                tracing::warn!("nodes are not found through Kubernetes yet, only through the discovery service");
            }
            self.lack_is_known = lacks;
            ctx.put(DiscoveryConfig::ID, spec)?;
        }
        ctx.keep_touched::<DiscoveryConfig>()
    }
}

fn discovery_config(cluster: &Cluster) -> Result<DiscoveryConfig, DiscoveryConfigError> {
    let mut spec = DiscoveryConfig {
        discovery_enabled: cluster.discovery_enabled(),
        registry_kubernetes_enabled: cluster.discovery_by_kubernetes(),
        ..DiscoveryConfig::default()
    };
    let Some(address) = cluster.discovery_service() else {
        return Ok(spec);
    };
    let url = Url::parse(address).map_err(|error| DiscoveryConfigError::Endpoint(address.to_owned(), error))?;
    let host = url.host_str().ok_or_else(|| DiscoveryConfigError::NoHost(address.to_owned()))?;
    spec.registry_service_enabled = true;
    spec.service_endpoint_insecure = url.scheme() == "http";
    spec.service_endpoint = format!("{host}:{}", url.port_or_known_default().unwrap_or(443));
    spec.service_encryption_key = STANDARD.decode(cluster.secret.expose()).map_err(DiscoveryConfigError::Secret)?;
    spec.service_cluster_id = cluster.id.clone();
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    async fn spec(cluster: &str) -> DiscoveryConfig {
        let harness = Harness::with(ConfigController::default());
        let key = STANDARD.encode([7; 32]);
        let text =
            format!("version: v1alpha1\nmachine:\n  type: worker\ncluster:\n  id: abc\n  secret: {key}\n{cluster}");
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.settle().await;
        DiscoveryConfig::clone(&harness.get::<DiscoveryConfig>("cluster").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_is_used_where_discovery_is_on() {
        let spec =
            spec("  discovery:\n    enabled: true\n    registries:\n      kubernetes:\n        disabled: true\n").await;
        assert!(spec.discovery_enabled && spec.registry_service_enabled && !spec.registry_kubernetes_enabled);
        assert_eq!(
            (spec.service_endpoint.as_str(), spec.service_endpoint_insecure),
            ("discovery.talos.dev:443", false)
        );
        assert_eq!((spec.service_cluster_id.as_str(), spec.service_encryption_key), ("abc", vec![7; 32]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_plain_http_service_is_insecure_and_keeps_its_port() {
        let service = "    registries:\n      service:\n        endpoint: http://10.5.0.1:3000/\n";
        let spec = spec(&format!("  discovery:\n    enabled: true\n{service}")).await;
        assert_eq!((spec.service_endpoint.as_str(), spec.service_endpoint_insecure), ("10.5.0.1:3000", true));
    }

    #[tokio::test(start_paused = true)]
    async fn without_discovery_there_is_no_service_and_no_key() {
        let spec = spec("").await;
        assert_eq!(spec, DiscoveryConfig::default());
    }
}
