//! `k8s.KubeletConfigController`: how the kubelet is to run, from the configuration.

use async_trait::async_trait;
use config::v1alpha1::{Config, ExtraMount, LinuxIdMapping};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::k8s::{KubeletConfig, StaticPodServerStatus};
use resources::values::{IdMapping, Mount};

#[derive(Debug, Default)]
pub struct KubeletConfigController;

#[async_trait]
impl Controller for KubeletConfigController {
    fn name(&self) -> &'static str {
        "k8s.KubeletConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<StaticPodServerStatus>().id(StaticPodServerStatus::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubeletConfig>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let server = ctx.get::<StaticPodServerStatus>(StaticPodServerStatus::ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())?
            && let Some(server) = server
        {
            ctx.put(KubeletConfig::ID, kubelet_config(config, &server.url))?;
        }
        ctx.keep_touched::<KubeletConfig>()
    }
}

fn kubelet_config(config: &Config, static_pods: &str) -> KubeletConfig {
    let machine = config.machine();
    let cluster = config.cluster();
    let kubelet = machine.kubelet.clone().unwrap_or_default();
    let cluster_dns = if kubelet.cluster_dns.is_empty() {
        cluster.dns_service_ips().iter().map(ToString::to_string).collect()
    } else {
        kubelet.cluster_dns
    };
    KubeletConfig {
        image: machine.kubelet_image(),
        cluster_dns,
        cluster_domain: cluster.dns_domain().to_owned(),
        extra_args: kubelet.extra_args.into_iter().collect(),
        extra_mounts: kubelet.extra_mounts.iter().map(mount).collect(),
        extra_config: kubelet.extra_config,
        cloud_provider_external: cluster.external_cloud_provider(),
        default_runtime_seccomp_enabled: kubelet.default_runtime_seccomp_profile_enabled.unwrap_or(false),
        skip_node_registration: kubelet.skip_node_registration.unwrap_or(false),
        static_pod_list_url: static_pods.to_owned(),
        disable_manifests_directory: kubelet.disable_manifests_directory.unwrap_or(false),
        enable_fs_quota_monitoring: machine.disk_quota_support(),
        credential_provider_config: kubelet.credential_provider_config,
    }
}

fn mount(mount: &ExtraMount) -> Mount {
    let ids = |mappings: &[LinuxIdMapping]| {
        let id = |mapping: &LinuxIdMapping| IdMapping {
            container_id: mapping.container_id.unwrap_or_default(),
            host_id: mapping.host_id.unwrap_or_default(),
            size: mapping.size.unwrap_or_default(),
        };
        mappings.iter().map(id).collect()
    };
    Mount {
        destination: mount.destination.clone(),
        r#type: mount.r#type.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        uid_mappings: ids(&mount.uid_mappings),
        gid_mappings: ids(&mount.gid_mappings),
    }
}
