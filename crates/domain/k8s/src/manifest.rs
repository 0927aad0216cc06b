//! `k8s.ManifestController`: the manifests of a new cluster.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::manifests::{self, BootstrapInput, CoreDnsInput, FlannelInput, ProxyInput};
use resources::k8s::{BootstrapManifestsConfig, Manifest, SingleManifest};
use resources::secrets::KubernetesRootSecret;
use serde_json::Value;

use crate::kube_clients::object;

#[derive(Debug, Default)]
pub struct ManifestController;

#[async_trait]
impl Controller for ManifestController {
    fn name(&self) -> &'static str {
        "k8s.ManifestController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<BootstrapManifestsConfig>().id(BootstrapManifestsConfig::ID),
            Input::weak::<KubernetesRootSecret>().id(KubernetesRootSecret::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<Manifest>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (Some(config), Some(root)) = (
            ctx.get::<BootstrapManifestsConfig>(BootstrapManifestsConfig::ID)?,
            ctx.get::<KubernetesRootSecret>(KubernetesRootSecret::ID)?,
        ) else {
            return ctx.keep_touched::<Manifest>();
        };
        for manifest in manifests::bootstrap(&input(&config, &root)) {
            ctx.put(&manifest.name, resource(&manifest.objects))?;
        }
        ctx.keep_touched::<Manifest>()
    }
}

pub(crate) fn resource(objects: &[Value]) -> Manifest {
    Manifest { items: objects.iter().map(|value| SingleManifest { object: object(value) }).collect() }
}

fn input(config: &BootstrapManifestsConfig, root: &KubernetesRootSecret) -> BootstrapInput {
    let service_ips = [&config.dns_service_ip, &config.dns_service_ipv6];
    BootstrapInput {
        server: config.server.clone(),
        token_id: root.bootstrap_token_id.clone(),
        token_secret: root.bootstrap_token_secret.clone(),
        proxy: config
            .proxy_enabled
            .then(|| ProxyInput { image: config.proxy_image.clone(), args: config.proxy_args.clone() }),
        core_dns: config.core_dns_enabled.then(|| CoreDnsInput {
            image: config.core_dns_image.clone(),
            cluster_domain: config.cluster_domain.clone(),
            service_ips: service_ips.into_iter().filter(|ip| !ip.is_empty()).cloned().collect(),
        }),
        flannel: config.flannel_enabled.then(|| FlannelInput {
            image: config.flannel_image.clone(),
            install_cni_image: config.flannel_cni_image.clone(),
            pod_cidrs: config.pod_cidrs.clone(),
            extra_args: config.flannel_extra_args.clone(),
            service_host: config.flannel_kube_service_host.clone(),
            service_port: config.flannel_kube_service_port.clone(),
        }),
        talos_api: config.talos_api_service_enabled,
        host_dns_service_ip: config.service_host_dns_address.clone(),
    }
}
