//! The configured access of pods to the machine API. Nothing carries it out yet.

use config::v1alpha1::Config;
use controller::{Controller, Projection};
use resources::kubeaccess::KubernetesAccessConfig;

/// `kubeaccess.ConfigController`: on control plane nodes.
pub(crate) fn controller() -> Box<dyn Controller> {
    Projection::boxed("kubeaccess.ConfigController", |config| {
        let id = || KubernetesAccessConfig::ID.to_owned();
        config.is_control_plane().then(|| (id(), access(config))).into_iter().collect()
    })
}

fn access(config: &Config) -> KubernetesAccessConfig {
    let features = config.machine().features.as_ref();
    let settings = features.and_then(|features| features.kubernetes_talos_api_access.as_ref());
    settings.map_or_else(KubernetesAccessConfig::default, |settings| KubernetesAccessConfig {
        enabled: settings.enabled.unwrap_or(false),
        allowed_api_roles: settings.allowed_roles.clone(),
        allowed_kubernetes_namespaces: settings.allowed_kubernetes_namespaces.clone(),
    })
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::config::MachineConfig;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn control_planes_tell_it_whether_it_is_on_or_not() {
        let harness = Harness::new();
        harness.runtime.register_boxed(controller()).unwrap();
        harness.runtime.start();
        let config = |kind: &str, features: &str| {
            MachineConfig::new(format!("version: v1alpha1\nmachine:\n  type: {kind}\n  features: {features}\n"))
        };
        harness.put(MachineConfig::ACTIVE_ID, config("worker", "{}"));
        harness.settle().await;
        assert_eq!(harness.get::<KubernetesAccessConfig>(KubernetesAccessConfig::ID), None);
        harness.put(MachineConfig::ACTIVE_ID, config("controlplane", "{}"));
        harness.settle().await;
        assert!(!harness.get::<KubernetesAccessConfig>(KubernetesAccessConfig::ID).unwrap().enabled);
        let features = "{kubernetesTalosAPIAccess: {enabled: true, allowedRoles: ['os:reader']}}";
        harness.put(MachineConfig::ACTIVE_ID, config("controlplane", features));
        harness.settle().await;
        let access = harness.get::<KubernetesAccessConfig>(KubernetesAccessConfig::ID).unwrap();
        assert_eq!((access.enabled, access.allowed_api_roles.as_slice()), (true, &["os:reader".to_owned()][..]));
    }
}
