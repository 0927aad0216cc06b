//! Defaults: the meaning of absent fields.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use pki::PemPair;
use url::Url;

use super::{Cluster, Config, Features, Machine};
use crate::images::{self, KubernetesImages};
use crate::scalar::MachineType;

/// Pods' addresses where none are given.
pub const DEFAULT_POD_CIDR: &str = "10.244.0.0/16";
/// Services' addresses where none are given.
pub const DEFAULT_SERVICE_CIDR: &str = "10.96.0.0/12";
/// The domain of services.
pub const DEFAULT_DNS_DOMAIN: &str = "cluster.local";
/// The port of the Kubernetes API on a control plane node.
pub const DEFAULT_API_SERVER_PORT: u16 = 6443;
/// The local port that leads to any API server.
pub const DEFAULT_KUBEPRISM_PORT: u16 = 7445;
/// The server of the discovery protocol.
pub const DEFAULT_DISCOVERY_ENDPOINT: &str = "https://discovery.talos.dev/";
/// The default servers for time.
pub const DEFAULT_TIME_SERVER: &str = "time.cloudflare.com";
/// The default resolvers.
pub const DEFAULT_RESOLVERS: [&str; 2] = ["1.1.1.1", "8.8.8.8"];
/// How long the administrator's kubeconfig is valid.
pub const DEFAULT_ADMIN_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// The disk to install to.
pub const DEFAULT_INSTALL_DISK: &str = "/dev/sda";

/// Which pod network a cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CniKind {
    Flannel,
    /// Manifests from these addresses.
    Custom(Vec<String>),
    /// Nothing: the operator brings one.
    None,
    /// A bridge on each node and routes between them, kept by our own controllers.
    Native,
}

impl Config {
    /// The machine part; an empty one where it is absent.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        static EMPTY: std::sync::LazyLock<Machine> = std::sync::LazyLock::new(Machine::default);
        self.machine.as_ref().unwrap_or(&EMPTY)
    }

    /// The cluster part; an empty one where it is absent.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        static EMPTY: std::sync::LazyLock<Cluster> = std::sync::LazyLock::new(Cluster::default);
        self.cluster.as_ref().unwrap_or(&EMPTY)
    }

    /// Default: worker.
    #[must_use]
    pub fn machine_type(&self) -> MachineType {
        self.machine().r#type.unwrap_or(MachineType::Worker)
    }

    #[must_use]
    pub fn is_control_plane(&self) -> bool {
        self.machine_type().is_control_plane()
    }
}

impl Machine {
    /// The issuing certificate authority of the machine API; only the certificate on workers.
    #[must_use]
    pub fn issuing_ca(&self) -> Option<&PemPair> {
        self.ca.as_ref().filter(|ca| !ca.crt.is_empty())
    }

    /// PEM texts of all certificate authorities whose clients are accepted: the issuing one first.
    #[must_use]
    pub fn accepted_ca_certificates(&self) -> Vec<&str> {
        let issuing = self.issuing_ca().map(|ca| ca.crt.as_str());
        issuing.into_iter().chain(self.accepted_cas.iter().map(|ca| ca.crt.as_str())).collect()
    }

    /// The configured name, if there is one.
    #[must_use]
    pub fn hostname(&self) -> Option<&str> {
        self.network.as_ref().map(|n| n.hostname.as_str()).filter(|name| !name.is_empty())
    }

    #[must_use]
    pub fn kubelet_image(&self) -> String {
        self.kubelet
            .as_ref()
            .map(|k| k.image.clone())
            .filter(|image| !image.is_empty())
            .unwrap_or_else(|| KubernetesImages::for_version(images::DEFAULT_KUBERNETES_VERSION).kubelet)
    }

    /// On unless switched off.
    #[must_use]
    pub fn rbac_enabled(&self) -> bool {
        self.feature(|f| f.rbac).unwrap_or(true)
    }

    #[must_use]
    pub fn stable_hostname(&self) -> bool {
        self.feature(|f| f.stable_hostname).unwrap_or(false)
    }

    /// Whether client certificates must allow client authentication.
    #[must_use]
    pub fn checks_client_key_usage(&self) -> bool {
        self.feature(|f| f.apid_check_ext_key_usage).unwrap_or(false)
    }

    #[must_use]
    pub fn disk_quota_support(&self) -> bool {
        self.feature(|f| f.disk_quota_support).unwrap_or(false)
    }

    /// The port of the local API balancer; `None` where it is off.
    #[must_use]
    pub fn kubeprism_port(&self) -> Option<u16> {
        let kubeprism = self.features.as_ref()?.kube_prism.as_ref()?;
        let port = kubeprism.port.filter(|port| *port != 0).unwrap_or(DEFAULT_KUBEPRISM_PORT);
        kubeprism.enabled.unwrap_or(false).then_some(port)
    }

    #[must_use]
    pub fn host_dns_enabled(&self) -> bool {
        self.features.as_ref().and_then(|f| f.host_dns.as_ref()).and_then(|h| h.enabled).unwrap_or(false)
    }

    #[must_use]
    pub fn kubespan_enabled(&self) -> bool {
        self.network.as_ref().and_then(|n| n.kubespan.as_ref()).and_then(|k| k.enabled).unwrap_or(false)
    }

    #[must_use]
    pub fn time_disabled(&self) -> bool {
        self.time.as_ref().and_then(|t| t.disabled).unwrap_or(false)
    }

    #[must_use]
    pub fn time_servers(&self) -> Vec<String> {
        let servers = self.time.as_ref().map(|t| t.servers.clone()).unwrap_or_default();
        if servers.is_empty() { vec![DEFAULT_TIME_SERVER.to_owned()] } else { servers }
    }

    /// How long the boot waits for time; `None` waits for ever.
    #[must_use]
    pub fn time_boot_timeout(&self) -> Option<Duration> {
        let text = &self.time.as_ref()?.boot_timeout;
        stdx::duration::parse(text).ok().filter(|d| !d.is_zero())
    }

    /// The configured resolvers, or the default ones.
    #[must_use]
    pub fn resolvers(&self) -> Vec<IpAddr> {
        let configured = self.network.as_ref().map(|n| n.nameservers.as_slice()).unwrap_or_default();
        let parsed: Vec<IpAddr> = configured.iter().filter_map(|text| text.parse().ok()).collect();
        if parsed.is_empty() { DEFAULT_RESOLVERS.iter().filter_map(|t| t.parse().ok()).collect() } else { parsed }
    }

    fn feature(&self, get: impl Fn(&Features) -> Option<bool>) -> Option<bool> {
        self.features.as_ref().and_then(get)
    }
}

impl Cluster {
    /// The address of the Kubernetes API for the whole cluster.
    #[must_use]
    pub fn endpoint(&self) -> Option<Url> {
        Url::parse(&self.control_plane.as_ref()?.endpoint).ok()
    }

    /// The port that API servers listen on.
    #[must_use]
    pub fn api_server_port(&self) -> u16 {
        self.control_plane
            .as_ref()
            .and_then(|c| c.local_api_server_port)
            .filter(|port| *port != 0)
            .unwrap_or(DEFAULT_API_SERVER_PORT)
    }

    /// The name that clients see; empty where none is given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cluster_name
    }

    #[must_use]
    pub fn pod_cidrs(&self) -> Vec<IpNet> {
        nets(self.network.as_ref().map(|n| n.pod_subnets.as_slice()), DEFAULT_POD_CIDR)
    }

    #[must_use]
    pub fn service_cidrs(&self) -> Vec<IpNet> {
        nets(self.network.as_ref().map(|n| n.service_subnets.as_slice()), DEFAULT_SERVICE_CIDR)
    }

    #[must_use]
    pub fn dns_domain(&self) -> &str {
        let domain = self.network.as_ref().map(|n| n.dns_domain.as_str()).unwrap_or_default();
        if domain.is_empty() { DEFAULT_DNS_DOMAIN } else { domain }
    }

    /// The address of the cluster's DNS in each service network: the tenth.
    #[must_use]
    pub fn dns_service_ips(&self) -> Vec<IpAddr> {
        self.service_cidrs().iter().filter_map(|net| nth_address(net, 10)).collect()
    }

    /// The address of the Kubernetes API in each service network: the first.
    #[must_use]
    pub fn api_service_ips(&self) -> Vec<IpAddr> {
        self.service_cidrs().iter().filter_map(|net| nth_address(net, 1)).collect()
    }

    /// Default: Flannel.
    #[must_use]
    pub fn cni(&self) -> CniKind {
        let Some(cni) = self.network.as_ref().and_then(|n| n.cni.as_ref()) else { return CniKind::Flannel };
        match cni.name.as_str() {
            "custom" => CniKind::Custom(cni.urls.clone()),
            "none" => CniKind::None,
            "native" => CniKind::Native,
            _ => CniKind::Flannel,
        }
    }

    #[must_use]
    pub fn api_server_image(&self) -> String {
        or_default(self.api_server.as_ref().map(|c| &c.image), || default_images().api_server)
    }

    #[must_use]
    pub fn controller_manager_image(&self) -> String {
        or_default(self.controller_manager.as_ref().map(|c| &c.image), || default_images().controller_manager)
    }

    #[must_use]
    pub fn scheduler_image(&self) -> String {
        or_default(self.scheduler.as_ref().map(|c| &c.image), || default_images().scheduler)
    }

    #[must_use]
    pub fn proxy_image(&self) -> String {
        or_default(self.proxy.as_ref().map(|c| &c.image), || default_images().proxy)
    }

    #[must_use]
    pub fn proxy_enabled(&self) -> bool {
        !self.proxy.as_ref().and_then(|p| p.disabled).unwrap_or(false)
    }

    #[must_use]
    pub fn proxy_mode(&self) -> &str {
        self.proxy.as_ref().map(|p| p.mode.as_str()).filter(|mode| !mode.is_empty()).unwrap_or("iptables")
    }

    #[must_use]
    pub fn etcd_image(&self) -> String {
        or_default(self.etcd.as_ref().map(|c| &c.image), || images::ETCD.to_owned())
    }

    #[must_use]
    pub fn etcd_ca(&self) -> Option<&PemPair> {
        self.etcd.as_ref()?.ca.as_ref()
    }

    #[must_use]
    pub fn coredns_enabled(&self) -> bool {
        !self.core_dns.as_ref().and_then(|c| c.disabled).unwrap_or(false)
    }

    #[must_use]
    pub fn coredns_image(&self) -> String {
        or_default(self.core_dns.as_ref().map(|c| &c.image), || images::COREDNS.to_owned())
    }

    /// PEM texts of all accepted Kubernetes certificate authorities: the issuing one first.
    #[must_use]
    pub fn accepted_ca_certificates(&self) -> Vec<&str> {
        let issuing = self.ca.as_ref().map(|ca| ca.crt.as_str()).filter(|crt| !crt.is_empty());
        issuing.into_iter().chain(self.accepted_cas.iter().map(|ca| ca.crt.as_str())).collect()
    }

    /// Default: off.
    #[must_use]
    pub fn discovery_enabled(&self) -> bool {
        self.discovery.as_ref().and_then(|d| d.enabled).unwrap_or(false)
    }

    /// Whether nodes find each other by annotations in Kubernetes.
    #[must_use]
    pub fn discovery_by_kubernetes(&self) -> bool {
        let registries = self.discovery.as_ref().and_then(|d| d.registries.as_ref());
        let disabled = registries.and_then(|r| r.kubernetes.as_ref()).and_then(|k| k.disabled).unwrap_or(false);
        self.discovery_enabled() && !disabled
    }

    /// The discovery service's address, where nodes find each other by one.
    #[must_use]
    pub fn discovery_service(&self) -> Option<&str> {
        let registries = self.discovery.as_ref().and_then(|d| d.registries.as_ref());
        let service = registries.and_then(|r| r.service.as_ref());
        if !self.discovery_enabled() || service.and_then(|s| s.disabled).unwrap_or(false) {
            return None;
        }
        let endpoint = service.map(|s| s.endpoint.as_str()).filter(|e| !e.is_empty());
        Some(endpoint.unwrap_or(DEFAULT_DISCOVERY_ENDPOINT))
    }

    #[must_use]
    pub fn schedules_on_control_planes(&self) -> bool {
        self.allow_scheduling_on_control_planes.unwrap_or(false)
    }

    /// How long an administrator's kubeconfig is valid.
    #[must_use]
    pub fn admin_kubeconfig_lifetime(&self) -> Duration {
        let text = self.admin_kubeconfig.as_ref().map(|a| a.cert_lifetime.as_str()).unwrap_or_default();
        stdx::duration::parse(text).ok().filter(|d| !d.is_zero()).unwrap_or(DEFAULT_ADMIN_LIFETIME)
    }

    #[must_use]
    pub fn external_cloud_provider(&self) -> bool {
        self.external_cloud_provider.as_ref().and_then(|e| e.enabled).unwrap_or(false)
    }
}

fn default_images() -> KubernetesImages {
    KubernetesImages::for_version(images::DEFAULT_KUBERNETES_VERSION)
}

fn or_default(image: Option<&String>, default: impl FnOnce() -> String) -> String {
    image.filter(|image| !image.is_empty()).cloned().unwrap_or_else(default)
}

fn nets(configured: Option<&[String]>, default: &str) -> Vec<IpNet> {
    let parsed: Vec<IpNet> = configured.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect();
    if parsed.is_empty() { default.parse().into_iter().collect() } else { parsed }
}

/// The address at an offset from the start of a network, if the network has that many.
#[must_use]
pub fn nth_address(net: &IpNet, offset: u32) -> Option<IpAddr> {
    let address: IpAddr = match net.network() {
        IpAddr::V4(base) => u32::from(base).checked_add(offset).map(std::net::Ipv4Addr::from)?.into(),
        IpAddr::V6(base) => u128::from(base).checked_add(u128::from(offset)).map(std::net::Ipv6Addr::from)?.into(),
    };
    net.contains(&address).then_some(address)
}
