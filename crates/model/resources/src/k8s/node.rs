//! The kubelet, the node object and the way to the API servers.

use std::net::IpAddr;

use crate::StringMap;
use crate::object::Object;
use crate::values::Mount;

resource! {
    /// API server addresses from one source.
    Endpoint: "Endpoints.kubernetes.talos.dev" in "controlplane",
    columns ["Addresses" => "{.addresses}"],
    {
        addresses: Vec<IpAddr> = 1 "addresses",
    }
}

impl Endpoint {
    /// The id `kube-apiserver`.
    pub const KUBE_APISERVER_ID: &'static str = "kube-apiserver";
    /// The id `discovery`.
    pub const DISCOVERY_ID: &'static str = "discovery";
    /// The id `controlplane`.
    pub const CONTROLPLANE_ID: &'static str = "controlplane";
}

resource! {
    /// Kubelet settings from the configuration.
    KubeletConfig: "KubeletConfigs.kubernetes.talos.dev" in "k8s" sensitive,
    {
        image: String = 1 "image",
        cluster_dns: Vec<String> = 2 "clusterDNS",
        cluster_domain: String = 3 "clusterDomain",
        extra_args: StringMap = 4 "extraArgs" omitempty,
        extra_mounts: Vec<Mount> = 5 "extraMounts" omitempty,
        extra_config: Object = 6 "extraConfig" omitempty,
        cloud_provider_external: bool = 7 "cloudProviderExternal",
        default_runtime_seccomp_enabled: bool = 8 "defaultRuntimeSeccompEnabled",
        skip_node_registration: bool = 9 "skipNodeRegistration",
        static_pod_list_url: String = 10 "staticPodListURL",
        disable_manifests_directory: bool = 11 "disableManifestsDirectory",
        enable_fs_quota_monitoring: bool = 12 "enableFSQuotaMonitoring",
        credential_provider_config: Object = 13 "credentialProviderConfig" omitempty,
    }
}

impl KubeletConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "kubelet";
}

resource! {
    /// Exists while the kubelet may run; finalizers on it delay its stop.
    KubeletLifecycle: "KubeletLifecycles.kubernetes.talos.dev" in "k8s",
    {
    }
}

impl KubeletLifecycle {
    /// ID of the single instance.
    pub const ID: &'static str = "kubelet";
}

resource! {
    /// Whether the kubelet has a client certificate to start with. A type of our own.
    KubeletIdentityStatus: "KubeletIdentityStatuses.kubernetes.talos.dev" in "k8s",
    columns ["Nodename" => "{.nodename}", "Ready" => "{.ready}", "Waits for" => "{.waitsFor}"],
    {
        ready: bool = 1 "ready",
        /// Changes when the kubelet must restart to use new files.
        revision: u64 = 2 "revision",
        /// The unmet condition and the last error; empty when ready.
        waits_for: String = 3 "waitsFor",
        /// The name that the rest is about.
        nodename: String = 4 "nodename",
    }
}

impl KubeletIdentityStatus {
    /// Its only id.
    pub const ID: &'static str = "kubelet";
}

resource! {
    /// Complete kubelet settings: arguments and configuration.
    KubeletSpec: "KubeletSpecs.kubernetes.talos.dev" in "k8s" sensitive,
    {
        image: String = 1 "image",
        args: Vec<String> = 2 "args" omitempty,
        extra_mounts: Vec<Mount> = 3 "extraMounts" omitempty,
        expected_nodename: String = 4 "expectedNodename" omitempty,
        config: Object = 5 "config",
        credential_provider_config: Object = 6 "credentialProviderConfig" omitempty,
    }
}

impl KubeletSpec {
    /// ID of the single instance.
    pub const ID: &'static str = "kubelet";
}

resource! {
    /// Whether the local load balancer has a healthy API server.
    KubePrismStatus: "KubePrismStatuses.kubernetes.talos.dev" in "k8s",
    columns ["HOST" => "{.host}", "HEALTHY" => "{.healthy}"],
    {
        host: String = 1 "host",
        healthy: bool = 2 "healthy",
    }
}

impl KubePrismStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "k8s-loadbalancer";
}

message! {
    /// One API server behind the load balancer.
    KubePrismEndpoint {
        host: String = 1 "host",
        port: u32 = 2 "port",
    }
}

resource! {
    /// Listen address and upstreams of the local load balancer.
    KubePrismConfig: "KubePrismConfigs.kubernetes.talos.dev" in "k8s",
    columns ["Host" => "{.host}", "Port" => "{.port}", "Endpoints" => "{.endpoints}"],
    {
        host: String = 1 "host",
        port: i64 = 2 "port",
        endpoints: Vec<KubePrismEndpoint> = 3 "endpoints",
    }
}

impl KubePrismConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "k8s-loadbalancer-config";
}

resource! {
    /// All known API servers.
    KubePrismEndpoints: "KubePrismEndpoints.kubernetes.talos.dev" in "k8s",
    columns ["Hosts" => "{.endpoints[*].host}", "Ports" => "{.endpoints[*].port}"],
    {
        endpoints: Vec<KubePrismEndpoint> = 1 "endpoints",
    }
}

impl KubePrismEndpoints {
    /// ID of the single instance.
    pub const ID: &'static str = "k8s-cluster";
}

resource! {
    /// Exists while the node must stay cordoned.
    NodeCordonedSpec: "NodeCordonedSpecs.k8s.talos.dev" in "k8s" sensitive,
    {
    }
}

impl NodeCordonedSpec {
    /// ID of the single instance.
    pub const ID: &'static str = "cordoned";
}

resource! {
    /// A required label of the node.
    NodeLabelSpec: "NodeLabelSpecs.k8s.talos.dev" in "k8s" sensitive,
    columns ["Value" => "{.value}"],
    {
        key: String = 1 "key",
        value: String = 2 "value",
    }
}

resource! {
    /// The node as Kubernetes sees it.
    NodeStatus: "NodeStatuses.kubernetes.talos.dev" in "k8s",
    columns ["Ready" => "{.nodeReady}", "Unschedulable" => "{.unschedulable}"],
    {
        nodename: String = 1 "nodename",
        node_ready: bool = 2 "nodeReady",
        unschedulable: bool = 3 "unschedulable",
        labels: StringMap = 4 "labels",
        annotations: StringMap = 5 "annotations",
    }
}

resource! {
    /// A required taint of the node.
    NodeTaintSpec: "NodeTaintSpecs.k8s.talos.dev" in "k8s" sensitive,
    columns ["Effect" => "{.effect}", "Value" => "{.value}"],
    {
        key: String = 1 "key",
        effect: String = 2 "effect",
        value: String = 3 "value",
    }
}

resource! {
    /// Addresses of the node for Kubernetes.
    NodeIp: "NodeIPs.kubernetes.talos.dev" in "k8s",
    {
        addresses: Vec<IpAddr> = 1 "addresses",
    }
}

impl NodeIp {
    /// ID of the single instance.
    pub const ID: &'static str = "kubelet";
}

resource! {
    /// Subnets for selecting the node's addresses.
    NodeIpConfig: "NodeIPConfigs.kubernetes.talos.dev" in "k8s",
    {
        valid_subnets: Vec<String> = 1 "validSubnets" omitempty,
        exclude_subnets: Vec<String> = 2 "excludeSubnets",
    }
}

impl NodeIpConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "kubelet";
}

resource! {
    /// The node's name in Kubernetes.
    Nodename: "Nodenames.kubernetes.talos.dev" in "k8s",
    columns ["Nodename" => "{.nodename}"],
    {
        nodename: String = 1 "nodename",
        hostname_version: String = 2 "hostnameVersion",
        skip_node_registration: bool = 3 "skipNodeRegistration",
    }
}

impl Nodename {
    /// ID of the single instance.
    pub const ID: &'static str = "nodename";
}

resource! {
    /// Static pod source of the kubelet.
    StaticPodServerStatus: "StaticPodServerStatuses.kubernetes.talos.dev" in "k8s",
    {
        url: String = 1 "url",
    }
}

impl StaticPodServerStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "static-pod-server";
}
