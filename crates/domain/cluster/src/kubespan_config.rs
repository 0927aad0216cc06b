//! The configured mesh between nodes. Nothing carries it out yet.

use config::v1alpha1::Config;
use controller::{Controller, Projection};
use resources::kubespan::KubeSpanConfig;

/// The largest packet in a tunnel unless the configuration says otherwise (Talos 1.7).
const MTU: u32 = 1420;

/// `kubespan.ConfigController`.
pub(crate) fn controller() -> Box<dyn Controller> {
    Projection::boxed("kubespan.ConfigController", |config| vec![(KubeSpanConfig::ID.to_owned(), mesh(config))])
}

fn mesh(config: &Config) -> KubeSpanConfig {
    let settings = config.machine().network.as_ref().and_then(|network| network.kubespan.as_ref());
    let is_on = |setting: Option<bool>| setting.unwrap_or(false);
    KubeSpanConfig {
        enabled: config.machine().kubespan_enabled(),
        cluster_id: config.cluster().id.clone(),
        shared_secret: config.cluster().secret.expose().to_owned(),
        force_routing: !is_on(settings.and_then(|settings| settings.allow_down_peer_bypass)),
        advertise_kubernetes_networks: is_on(settings.and_then(|settings| settings.advertise_kubernetes_networks)),
        mtu: settings.and_then(|settings| settings.mtu).unwrap_or(MTU),
        endpoint_filters: settings
            .and_then(|settings| settings.filters.as_ref())
            .map(|filters| filters.endpoints.clone())
            .unwrap_or_default(),
        harvest_extra_endpoints: is_on(settings.and_then(|settings| settings.harvest_extra_endpoints)),
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::config::MachineConfig;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mesh_that_is_off_is_told_too() {
        let harness = Harness::new();
        harness.runtime.register_boxed(controller()).unwrap();
        harness.runtime.start();
        harness.settle().await;
        assert_eq!(harness.get::<KubeSpanConfig>(KubeSpanConfig::ID), None, "nothing is configured");
        let text = "version: v1alpha1\nmachine:\n  type: worker\n  network:\n    kubespan:\n      allowDownPeerBypass: true\n      \
                    filters:\n        endpoints: ['!10.0.0.0/8']\ncluster:\n  id: abc\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.settle().await;
        let mesh = harness.get::<KubeSpanConfig>(KubeSpanConfig::ID).unwrap();
        assert_eq!((mesh.enabled, mesh.force_routing, mesh.mtu), (false, false, MTU));
        assert_eq!(
            (mesh.cluster_id.as_str(), mesh.endpoint_filters.as_slice()),
            ("abc", &["!10.0.0.0/8".to_owned()][..])
        );
    }
}
