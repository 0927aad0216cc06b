//! `k8s.KubeletSpecController`: the kubelet's arguments and configuration, complete.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::kubelet::{self, KubeletInput};
use kubernetes::version::Version;
use resources::k8s::{KubeletConfig, KubeletSpec, NodeIp, Nodename};
use resources::machine::{Ownership, PlatformCapabilities};

/// On the host's kernel, as in a container, parameters are not the node's own: the kubelet may not insist on them there,
/// and counts quotas of filesystems only where the disks are the machine's.
#[derive(Debug)]
pub struct KubeletSpecController;

#[async_trait]
impl Controller for KubeletSpecController {
    fn name(&self) -> &'static str {
        "k8s.KubeletSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<KubeletConfig>().id(KubeletConfig::ID),
            Input::weak::<Nodename>().id(Nodename::ID),
            Input::weak::<NodeIp>().id(NodeIp::ID),
            Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubeletSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (Some(config), Some(nodename), Some(node_ip), Some(capabilities)) = (
            ctx.get::<KubeletConfig>(KubeletConfig::ID)?,
            ctx.get::<Nodename>(Nodename::ID)?,
            ctx.get::<NodeIp>(NodeIp::ID)?,
            ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)?,
        ) else {
            // A briefly missing input must not stop the kubelet.
            return Ok(());
        };
        let input = input(&config, &nodename.nodename, &node_ip, &capabilities);
        let spec = KubeletSpec {
            image: config.image.clone(),
            args: kubelet::args(&input)?,
            extra_mounts: config.extra_mounts.clone(),
            expected_nodename: nodename.nodename.clone(),
            config: kubelet::configuration(&input)?.as_object().cloned().unwrap_or_default(),
            credential_provider_config: config.credential_provider_config.clone(),
        };
        ctx.put(KubeletSpec::ID, spec)?;
        Ok(())
    }
}

fn input(
    config: &KubeletConfig,
    nodename: &str,
    node_ip: &NodeIp,
    capabilities: &PlatformCapabilities,
) -> KubeletInput {
    KubeletInput {
        version: Version::of_image_or_newest(&config.image),
        nodename: nodename.to_owned(),
        node_ips: node_ip.addresses.clone(),
        cluster_dns: config.cluster_dns.clone(),
        cluster_domain: config.cluster_domain.clone(),
        extra_args: config.extra_args.clone(),
        extra_config: config.extra_config.clone(),
        cloud_provider_external: config.cloud_provider_external,
        default_runtime_seccomp: config.default_runtime_seccomp_enabled,
        skip_node_registration: config.skip_node_registration,
        static_pod_list_url: config.static_pod_list_url.clone(),
        manifests_directory: !config.disable_manifests_directory,
        fs_quota_monitoring: config.enable_fs_quota_monitoring && capabilities.disks == Ownership::Machine,
        credential_provider: !config.credential_provider_config.is_empty(),
        protect_kernel_defaults: capabilities.kernel == Ownership::Machine,
        resolv_conf: String::new(),
    }
}
