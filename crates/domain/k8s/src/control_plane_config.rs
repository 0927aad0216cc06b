//! The `k8s.ControlPlane…Controller`s and `k8s.PodSubnetAllocationConfigController`: what the configuration says about the control plane, as resources. They have
//! outputs on control plane nodes alone.

use std::hash::{Hash as _, Hasher as _};

use config::scalar::Object;
use config::v1alpha1::{CniKind, Config, VolumeMount, nth_address};
use controller::Controller;
use kubernetes::component_files;
use kubernetes::manifests;
use kubernetes::node_cidrs::{self, Allocator, NodeCidrRange};
use resources::StringMap;
use resources::k8s::{
    AdmissionControlConfig, AdmissionPlugin, ApiServerConfig, AuditPolicyConfig, BootstrapManifestsConfig,
    ControllerManagerConfig, ExtraManifest, ExtraManifestsConfig, ExtraVolume, PodSubnetAllocation, PodSubnetRange,
    Resources, SchedulerConfig,
};
use serde_json::Value;

use controller::Projection;

use crate::machine_config;

/// Manifests of a pod network come before its users, those of a cloud provider next, the user's last.
const NETWORK_PRIORITY: &str = "05";
const CLOUD_PRIORITY: &str = "30";
const EXTRA_PRIORITY: &str = "99";
/// The Service in front of the nodes' resolvers has the address before the cluster's DNS.
const HOST_DNS_OFFSET: u32 = 9;

pub(crate) fn controllers() -> Vec<Box<dyn Controller>> {
    vec![
        Projection::boxed("k8s.ControlPlaneAPIServerController", |config| {
            on_control_plane(config, || (ApiServerConfig::ID, api_server(config)))
        }),
        Projection::boxed("k8s.ControlPlaneAdmissionControlController", |config| {
            on_control_plane(config, || (AdmissionControlConfig::ID, admission_control(config)))
        }),
        Projection::boxed("k8s.ControlPlaneAuditPolicyController", |config| {
            on_control_plane(config, || (AuditPolicyConfig::ID, audit_policy(config)))
        }),
        Projection::boxed("k8s.ControlPlaneBootstrapManifestsController", |config| {
            on_control_plane(config, || (BootstrapManifestsConfig::ID, bootstrap_manifests(config)))
        }),
        Projection::boxed("k8s.ControlPlaneControllerManagerController", |config| {
            on_control_plane(config, || (ControllerManagerConfig::ID, controller_manager(config)))
        }),
        Projection::boxed("k8s.ControlPlaneExtraManifestsController", |config| {
            on_control_plane(config, || (ExtraManifestsConfig::ID, extra_manifests(config)))
        }),
        Projection::boxed("k8s.PodSubnetAllocationConfigController", |config| {
            on_control_plane(config, || (PodSubnetAllocation::ID, pod_subnet_allocation(config)))
        }),
        Projection::boxed("k8s.ControlPlaneSchedulerController", |config| {
            on_control_plane(config, || (SchedulerConfig::ID, scheduler(config)))
        }),
    ]
}

fn on_control_plane<S>(config: &Config, output: impl FnOnce() -> (&'static str, S)) -> Vec<(String, S)> {
    if !config.is_control_plane() {
        return Vec::new();
    }
    let (id, spec) = output();
    vec![(id.to_owned(), spec)]
}

fn api_server(config: &Config) -> ApiServerConfig {
    let cluster = config.cluster();
    let api_server = cluster.api_server.clone().unwrap_or_default();
    ApiServerConfig {
        image: cluster.api_server_image(),
        cloud_provider: cloud_provider(config),
        control_plane_endpoint: machine_config::endpoint(config).unwrap_or_default(),
        etcd_servers: vec!["https://127.0.0.1:2379".to_owned()],
        local_port: cluster.api_server_port().into(),
        service_cidr: texts(&cluster.service_cidrs()),
        extra_args: api_server.extra_args.into_iter().collect(),
        extra_volumes: volumes(&api_server.extra_volumes),
        environment_variables: api_server.env.into_iter().collect(),
        pod_security_policy_enabled: !api_server.disable_pod_security_policy.unwrap_or(false),
        advertised_address: "$(POD_IP)".to_owned(),
        resources: resources(&api_server.resources),
    }
}

fn controller_manager(config: &Config) -> ControllerManagerConfig {
    let cluster = config.cluster();
    let manager = cluster.controller_manager.clone().unwrap_or_default();
    let machine = config.machine().control_plane.as_ref();
    let disabled = machine.and_then(|machine| machine.controller_manager.as_ref()).and_then(|manager| manager.disabled);
    ControllerManagerConfig {
        enabled: !disabled.unwrap_or(false),
        image: cluster.controller_manager_image(),
        cloud_provider: cloud_provider(config),
        pod_cidrs: texts(&cluster.pod_cidrs()),
        service_cidrs: texts(&cluster.service_cidrs()),
        extra_args: manager.extra_args.into_iter().collect(),
        extra_volumes: volumes(&manager.extra_volumes),
        environment_variables: manager.env.into_iter().collect(),
        resources: resources(&manager.resources),
    }
}

/// Where this node runs no controller manager, it allocates nothing in its place either.
fn pod_subnet_allocation(config: &Config) -> PodSubnetAllocation {
    let ControllerManagerConfig { enabled, pod_cidrs, service_cidrs, extra_args, .. } = controller_manager(config);
    let allocator = if enabled { node_cidrs::allocator(&extra_args) } else { Allocator::None };
    let mut allocation =
        PodSubnetAllocation { allocator: allocator.name().to_owned(), ..PodSubnetAllocation::default() };
    if allocator != Allocator::Machine {
        return allocation;
    }
    let ranges = node_cidrs::ranges(&pod_cidrs, &extra_args);
    match ranges.and_then(|ranges| Ok((ranges, node_cidrs::reserved(&service_cidrs, &extra_args)?))) {
        Ok((ranges, reserved)) => {
            let range = |range: NodeCidrRange| PodSubnetRange {
                subnet: Some(range.cluster),
                node_mask_size: range.node_prefix.into(),
            };
            allocation.ranges = ranges.into_iter().map(range).collect();
            allocation.reserved = reserved;
        }
        Err(error) => allocation.problem = error.to_string(),
    }
    allocation
}

fn scheduler(config: &Config) -> SchedulerConfig {
    let scheduler = config.cluster().scheduler.clone().unwrap_or_default();
    let machine = config.machine().control_plane.as_ref();
    let disabled = machine.and_then(|machine| machine.scheduler.as_ref()).and_then(|scheduler| scheduler.disabled);
    SchedulerConfig {
        enabled: !disabled.unwrap_or(false),
        image: config.cluster().scheduler_image(),
        extra_args: scheduler.extra_args.into_iter().collect(),
        extra_volumes: volumes(&scheduler.extra_volumes),
        environment_variables: scheduler.env.into_iter().collect(),
        resources: resources(&scheduler.resources),
        config: scheduler.config,
    }
}

fn admission_control(config: &Config) -> AdmissionControlConfig {
    let plugins = config.cluster().api_server.as_ref().map(|api| api.admission_control.as_slice()).unwrap_or_default();
    let plugin = |plugin: &config::v1alpha1::AdmissionPlugin| AdmissionPlugin {
        name: plugin.name.clone(),
        configuration: plugin.configuration.clone(),
    };
    AdmissionControlConfig { config: plugins.iter().map(plugin).collect() }
}

fn audit_policy(config: &Config) -> AuditPolicyConfig {
    let policy = config.cluster().api_server.as_ref().map(|api| api.audit_policy.clone()).unwrap_or_default();
    if policy.is_empty() {
        let default = component_files::default_audit_policy();
        return AuditPolicyConfig { config: default.as_object().cloned().unwrap_or_default() };
    }
    AuditPolicyConfig { config: policy }
}

fn bootstrap_manifests(config: &Config) -> BootstrapManifestsConfig {
    let cluster = config.cluster();
    let pod_cidrs = texts(&cluster.pod_cidrs());
    let proxy = cluster.proxy.clone().unwrap_or_default();
    let api_server = cluster.api_server.clone().unwrap_or_default();
    let features = config.machine().features.clone().unwrap_or_default();
    let dns_ips = cluster.dns_service_ips();
    let dns = |of_family: fn(&std::net::IpAddr) -> bool| {
        dns_ips.iter().copied().find(of_family).map(|ip| ip.to_string()).unwrap_or_default()
    };
    let flannel = matches!(cluster.cni(), CniKind::Flannel);
    let network = cluster.network.as_ref().and_then(|network| network.cni.as_ref());
    let balancer = config.machine().kubeprism_port().filter(|_| flannel);
    let host_dns = features.host_dns.as_ref().and_then(|dns| dns.forward_kube_dns_to_host).unwrap_or(false);
    let host_dns_address = cluster.service_cidrs().first().and_then(|net| nth_address(net, HOST_DNS_OFFSET));
    BootstrapManifestsConfig {
        server: machine_config::api_server_url(config).unwrap_or_default(),
        cluster_domain: cluster.dns_domain().to_owned(),
        proxy_enabled: cluster.proxy_enabled(),
        proxy_image: cluster.proxy_image(),
        proxy_args: manifests::proxy_args(&pod_cidrs, cluster.proxy_mode(), &proxy.extra_args.into_iter().collect()),
        core_dns_enabled: cluster.coredns_enabled(),
        core_dns_image: cluster.coredns_image(),
        dns_service_ip: dns(std::net::IpAddr::is_ipv4),
        dns_service_ipv6: dns(std::net::IpAddr::is_ipv6),
        flannel_enabled: flannel,
        flannel_image: config::images::FLANNEL.to_owned(),
        flannel_cni_image: config::images::INSTALL_CNI.to_owned(),
        flannel_extra_args: network
            .and_then(|cni| cni.flannel.as_ref())
            .map(|flannel| flannel.extra_args.clone())
            .unwrap_or_default(),
        flannel_kube_service_host: balancer.map(|_| "127.0.0.1".to_owned()).unwrap_or_default(),
        flannel_kube_service_port: balancer.map(|port| port.to_string()).unwrap_or_default(),
        pod_security_policy_enabled: !api_server.disable_pod_security_policy.unwrap_or(false),
        talos_api_service_enabled: features
            .kubernetes_talos_api_access
            .and_then(|access| access.enabled)
            .unwrap_or(false),
        service_host_dns_address: host_dns_address.filter(|_| host_dns).map(|ip| ip.to_string()).unwrap_or_default(),
        pod_cidrs,
    }
}

fn extra_manifests(config: &Config) -> ExtraManifestsConfig {
    let cluster = config.cluster();
    let from_url = |url: &String, priority: &str, headers: StringMap| ExtraManifest {
        name: manifest_name(url),
        url: url.clone(),
        priority: priority.to_owned(),
        extra_headers: headers,
        inline_manifest: String::new(),
    };
    let mut all = Vec::new();
    if let CniKind::Custom(urls) = cluster.cni() {
        all.extend(urls.iter().map(|url| from_url(url, NETWORK_PRIORITY, StringMap::new())));
    }
    if let Some(provider) = cluster.external_cloud_provider.as_ref().filter(|_| cluster.external_cloud_provider()) {
        all.extend(provider.manifests.iter().map(|url| from_url(url, CLOUD_PRIORITY, StringMap::new())));
    }
    let headers: StringMap = cluster.extra_manifest_headers.clone().into_iter().collect();
    all.extend(cluster.extra_manifests.iter().map(|url| from_url(url, EXTRA_PRIORITY, headers.clone())));
    all.extend(cluster.inline_manifests.iter().map(|inline| ExtraManifest {
        name: inline.name.clone(),
        priority: EXTRA_PRIORITY.to_owned(),
        inline_manifest: inline.contents.clone(),
        ..ExtraManifest::default()
    }));
    ExtraManifestsConfig { extra_manifests: all }
}

/// The name of a manifest from a URL, which everybody may read: the URL, or where that has credentials or a query, the rest
/// of it with a number that tells such URLs apart.
fn manifest_name(url: &str) -> String {
    if !url.contains(['@', '?', '#']) {
        return url.to_owned();
    }
    let shown = http_fetch::without_credentials(url);
    let mut hasher = std::hash::DefaultHasher::new();
    url.hash(&mut hasher);
    format!("{shown}#{:016x}", hasher.finish())
}

fn cloud_provider(config: &Config) -> String {
    if config.cluster().external_cloud_provider() { "external".to_owned() } else { String::new() }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn volumes(mounts: &[VolumeMount]) -> Vec<ExtraVolume> {
    let volume = |(index, mount): (usize, &VolumeMount)| ExtraVolume {
        name: format!("extra-volume-{index}"),
        host_path: mount.host_path.clone(),
        mount_path: mount.mount_path.clone(),
        readonly: mount.readonly.unwrap_or(false),
    };
    mounts.iter().enumerate().map(volume).collect()
}

/// Quantities may be written as numbers.
fn resources(object: &Object) -> Resources {
    let quantities = |key: &str| -> StringMap {
        let Some(Value::Object(quantities)) = object.get(key) else { return StringMap::new() };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        quantities.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    Resources { requests: quantities("requests"), limits: quantities("limits") }
}
