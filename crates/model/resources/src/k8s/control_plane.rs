//! Control plane components and bootstrap manifests.

use ipnet::IpNet;
use serde_json::Value;

use crate::StringMap;
use crate::field::{Field as _, Message as _};
use crate::object::Object;
use crate::spec::{Definition, Spec};

message! {
    /// An admission plug-in and its configuration.
    AdmissionPlugin {
        name: String = 1 "name",
        configuration: Object = 2 "configuration",
    }
}

resource! {
    /// Admission plug-ins of the API server.
    AdmissionControlConfig: "AdmissionControlConfigs.kubernetes.talos.dev" in "controlplane" sensitive,
    {
        config: Vec<AdmissionPlugin> = 1 "config",
    }
}

impl AdmissionControlConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "admission-control";
}

message! {
    /// A host path mounted into a static pod.
    ExtraVolume {
        name: String = 1 "name",
        host_path: String = 2 "hostPath",
        mount_path: String = 3 "mountPath",
        readonly: bool = 4 "readonly",
    }
}

message! {
    /// Requests and limits of a static pod.
    Resources {
        requests: StringMap = 1 "requests",
        limits: StringMap = 2 "limits",
    }
}

resource! {
    /// Settings of kube-apiserver.
    ApiServerConfig: "APIServerConfigs.kubernetes.talos.dev" in "controlplane" sensitive,
    {
        image: String = 1 "image",
        cloud_provider: String = 2 "cloudProvider",
        control_plane_endpoint: String = 3 "controlPlaneEndpoint",
        etcd_servers: Vec<String> = 4 "etcdServers",
        local_port: i64 = 5 "localPort",
        service_cidr: Vec<String> = 6 "serviceCIDR",
        extra_args: StringMap = 7 "extraArgs",
        extra_volumes: Vec<ExtraVolume> = 8 "extraVolumes",
        environment_variables: StringMap = 9 "environmentVariables",
        pod_security_policy_enabled: bool = 10 "podSecurityPolicyEnabled",
        advertised_address: String = 11 "advertisedAddress",
        resources: Resources = 12 "resources",
    }
}

impl ApiServerConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "kube-apiserver";
}

resource! {
    /// The audit policy of the API server.
    AuditPolicyConfig: "AuditPolicyConfigs.kubernetes.talos.dev" in "controlplane" sensitive,
    {
        config: Object = 1 "config",
    }
}

impl AuditPolicyConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "audit-policy";
}

resource! {
    /// Whether the configuration files of static pods are on disk.
    ConfigStatus: "ConfigStatuses.kubernetes.talos.dev" in "controlplane",
    columns ["Ready" => "{.ready}", "Secrets Version" => "{.version}"],
    {
        ready: bool = 1 "ready",
        version: String = 2 "version",
    }
}

impl ConfigStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "static-pods";
}

resource! {
    /// Settings of kube-controller-manager.
    ControllerManagerConfig: "ControllerManagerConfigs.kubernetes.talos.dev" in "controlplane" sensitive,
    {
        enabled: bool = 1 "enabled",
        image: String = 2 "image",
        cloud_provider: String = 3 "cloudProvider",
        pod_cidrs: Vec<String> = 4 "podCIDRs",
        service_cidrs: Vec<String> = 5 "serviceCIDRs",
        extra_args: StringMap = 6 "extraArgs",
        extra_volumes: Vec<ExtraVolume> = 7 "extraVolumes",
        environment_variables: StringMap = 8 "environmentVariables",
        resources: Resources = 9 "resources",
    }
}

impl ControllerManagerConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "kube-controller-manager";
}

message! {
    /// Pod subnets of one family.
    PodSubnetRange {
        /// The cluster's.
        subnet: Option<IpNet> = 1 "subnet",
        /// Prefix length of a node's part.
        node_mask_size: u32 = 2 "nodeMaskSize",
    }
}

resource! {
    /// The allocator of the nodes' pod subnets, and its ranges. A type of our own.
    PodSubnetAllocation: "PodSubnetAllocations.kubernetes.talos.dev" in "controlplane",
    columns ["Allocator" => "{.allocator}", "Ranges" => "{.ranges[*].subnet}", "Problem" => "{.problem}"],
    {
        /// `machine`, `kube-controller-manager` or `none`.
        allocator: String = 1 "allocator",
        /// In the order of a node's subnets; empty unless the machine allocates.
        ranges: Vec<PodSubnetRange> = 2 "ranges",
        /// Subnets that no node gets.
        reserved: Vec<IpNet> = 3 "reserved",
        /// The defect of the configuration that prevents allocation.
        problem: String = 4 "problem" omitempty,
    }
}

impl PodSubnetAllocation {
    /// ID of the single instance.
    pub const ID: &'static str = "pods";
}

message! {
    /// A manifest from a URL or inline.
    ExtraManifest {
        name: String = 1 "name",
        url: String = 2 "url",
        priority: String = 3 "priority",
        extra_headers: StringMap = 4 "extraHeaders",
        inline_manifest: String = 5 "inlineManifest",
    }
}

resource! {
    /// Extra manifests of the configuration.
    ExtraManifestsConfig: "ExtraManifestsConfigs.kubernetes.talos.dev" in "controlplane" sensitive,
    {
        extra_manifests: Vec<ExtraManifest> = 1 "extraManifests",
    }
}

impl ExtraManifestsConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "extra-manifests";
}

message! {
    /// One object of a manifest.
    SingleManifest {
        object: Object = 1 "" inline,
    }
}

message! {
    /// Objects to apply to the cluster in one step.
    Manifest {
        items: Vec<SingleManifest> = 1 "items",
    }
}

impl Spec for Manifest {
    const DEFINITION: Definition =
        definition!("Manifests.kubernetes.talos.dev" in "controlplane" sensitive, aliases [], columns []);
    /// The list alone.
    fn to_yaml(&self) -> Value {
        self.items.yaml()
    }
    fn to_proto(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_proto(&mut out);
        out
    }
}

resource! {
    /// The applied manifests.
    ManifestStatus: "ManifestStatuses.kubernetes.talos.dev" in "controlplane",
    {
        manifests_applied: Vec<String> = 1 "manifestsApplied",
    }
}

impl ManifestStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "manifests";
}

resource! {
    /// Parameters of the bootstrap manifests.
    BootstrapManifestsConfig: "BootstrapManifestsConfigs.kubernetes.talos.dev" in "controlplane",
    {
        server: String = 1 "string",
        cluster_domain: String = 2 "clusterDomain",
        pod_cidrs: Vec<String> = 3 "podCIDRs",
        proxy_enabled: bool = 4 "proxyEnabled",
        proxy_image: String = 5 "proxyImage",
        proxy_args: Vec<String> = 6 "proxyArgs",
        core_dns_enabled: bool = 7 "coreDNSEnabled",
        core_dns_image: String = 8 "coreDNSImage",
        dns_service_ip: String = 9 "dnsServiceIP",
        dns_service_ipv6: String = 10 "dnsServiceIPv6",
        flannel_enabled: bool = 11 "flannelEnabled",
        flannel_image: String = 12 "flannelImage",
        flannel_cni_image: String = 13 "flannelCNIImage",
        flannel_extra_args: Vec<String> = 16 "flannelExtraArgs",
        flannel_kube_service_host: String = 17 "flannelKubeServiceHost",
        flannel_kube_service_port: String = 18 "flannelKubeServicePort",
        pod_security_policy_enabled: bool = 14 "podSecurityPolicyEnabled",
        talos_api_service_enabled: bool = 15 "talosAPIServiceEnabled",
        service_host_dns_address: String = 19 "serviceHostDNSAddress",
    }
}

impl BootstrapManifestsConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "manifests";
}

resource! {
    /// Settings of kube-scheduler.
    SchedulerConfig: "SchedulerConfigs.kubernetes.talos.dev" in "controlplane" sensitive,
    {
        enabled: bool = 1 "enabled",
        image: String = 2 "image",
        extra_args: StringMap = 3 "extraArgs",
        extra_volumes: Vec<ExtraVolume> = 4 "extraVolumes",
        environment_variables: StringMap = 5 "environmentVariables",
        resources: Resources = 6 "resources",
        config: Object = 7 "config",
    }
}

impl SchedulerConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "kube-scheduler";
}

resource! {
    /// Whether the secrets of static pods are on disk.
    SecretStatus: "SecretStatuses.kubernetes.talos.dev" in "controlplane",
    columns ["Ready" => "{.ready}", "Secrets Version" => "{.version}"],
    {
        ready: bool = 1 "ready",
        version: String = 2 "version",
    }
}

impl SecretStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "static-pods";
}
