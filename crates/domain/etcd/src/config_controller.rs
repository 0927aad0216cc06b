//! etcd settings from the configuration.

use async_trait::async_trait;
use config::v1alpha1::Config;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::{config::MachineConfig, etcd::EtcdConfig};

/// `etcd.ConfigController`, in a file that is not called `config` because a crate is.
#[derive(Debug)]
pub struct ConfigController;

#[async_trait]
impl Controller for ConfigController {
    fn name(&self) -> &'static str {
        "etcd.ConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<EtcdConfig>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())?.filter(|config| config.is_control_plane()) {
            ctx.put(EtcdConfig::ID, etcd_config(config))?;
        }
        ctx.keep_touched::<EtcdConfig>()
    }
}

/// Addresses of pods and services never belong to a member, so their networks are excluded.
fn etcd_config(config: &Config) -> EtcdConfig {
    let cluster = config.cluster();
    let networks = cluster.pod_cidrs().into_iter().chain(cluster.service_cidrs());
    let excluded: Vec<String> = networks.map(|net| net.to_string()).collect();
    let etcd = cluster.etcd.as_ref();
    EtcdConfig {
        advertise_valid_subnets: etcd.map(|etcd| etcd.advertised_subnets.clone()).unwrap_or_default(),
        advertise_exclude_subnets: excluded.clone(),
        listen_valid_subnets: etcd.map(|etcd| etcd.listen_subnets.clone()).unwrap_or_default(),
        listen_exclude_subnets: excluded,
        image: cluster.etcd_image(),
        extra_args: etcd.map(|etcd| etcd.extra_args.clone().into_iter().collect()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    fn config(kind: &str) -> MachineConfig {
        let text = format!(
            "version: v1alpha1\nmachine:\n  type: {kind}\ncluster:\n  etcd:\n    image: etcd:1\n    \
             advertisedSubnets: [10.5.0.0/24]\n    extraArgs: {{ snapshot-count: \"5\" }}\n"
        );
        MachineConfig::new(text)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_control_plane_has_one() {
        let harness = Harness::with(ConfigController);
        harness.put(MachineConfig::ACTIVE_ID, config("controlplane"));
        harness.settle().await;
        let spec = harness.get::<EtcdConfig>(EtcdConfig::ID).unwrap();
        assert_eq!((spec.image.as_str(), spec.extra_args["snapshot-count"].as_str()), ("etcd:1", "5"));
        assert_eq!(spec.advertise_valid_subnets, ["10.5.0.0/24"]);
        assert_eq!(spec.advertise_exclude_subnets, ["10.244.0.0/16", "10.96.0.0/12"]);
        harness.put(MachineConfig::ACTIVE_ID, config("worker"));
        harness.settle().await;
        assert_eq!(harness.list::<EtcdConfig>(), []);
    }
}
