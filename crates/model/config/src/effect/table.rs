//! The table of each field's effect in this version.
//!
//! When a field takes effect, move its line to the fields with a reader and lower the number in the tests.

use super::{Effect, Field};

const fn read(path: &'static str, reader: &'static str) -> Field {
    Field { kind: "v1alpha1", path, effect: Effect::ReadBy(reader) }
}

const fn pending(path: &'static str, waits_for: &'static str) -> Field {
    unless(path, "", waits_for)
}

/// `default` equals the behaviour without the field.
const fn unless(path: &'static str, default: &'static str, waits_for: &'static str) -> Field {
    Field { kind: "v1alpha1", path, effect: Effect::Pending { default, waits_for } }
}

const fn obsolete(path: &'static str, default: &'static str, because: &'static str) -> Field {
    Field { kind: "v1alpha1", path, effect: Effect::Obsolete { default, because } }
}

const fn document(kind: &'static str, waits_for: &'static str) -> Field {
    Field { kind, path: "", effect: Effect::Pending { default: "", waits_for } }
}

const BONDS: &str = "bonds";
const BRIDGES: &str = "bridges";
const DHCPV6: &str = "DHCP for IPv6";
const FIREWALL: &str = "the ingress firewall";
const HOST_DNS: &str = "the DNS server of the host";
const EXTENSIONS: &str = "images with extensions";
const KUBESPAN: &str = "KubeSpan";
const TALOS_API_ACCESS: &str = "access to the machine API from Kubernetes";
const VLANS: &str = "VLANs";

pub(super) const FIELDS: &[Field] = &[
    read("version", "config"),
    read("debug", "runtime.ServiceLogConsoleController"),
    unless("persist", "true", "configurations that a reboot forgets"),
    read("machine.type", "config.MachineTypeController"),
    read("machine.token", "secrets.RootOSController"),
    read("machine.ca", "secrets.RootOSController"),
    read("machine.acceptedCAs", "secrets.RootOSController"),
    read("machine.certSANs", "secrets.RootOSController"),
    read("machine.controlPlane.controllerManager.disabled", "k8s.ControlPlaneControllerManagerController"),
    read("machine.controlPlane.scheduler.disabled", "k8s.ControlPlaneSchedulerController"),
    read("machine.kubelet.image", "k8s.KubeletConfigController"),
    read("machine.kubelet.clusterDNS", "k8s.KubeletConfigController"),
    read("machine.kubelet.extraArgs", "k8s.KubeletConfigController"),
    read("machine.kubelet.extraMounts[].destination", "k8s.KubeletConfigController"),
    read("machine.kubelet.extraMounts[].type", "k8s.KubeletConfigController"),
    read("machine.kubelet.extraMounts[].source", "k8s.KubeletConfigController"),
    read("machine.kubelet.extraMounts[].options", "k8s.KubeletConfigController"),
    pending("machine.kubelet.extraMounts[].uidMappings", "mounts with mapped user ids"),
    pending("machine.kubelet.extraMounts[].gidMappings", "mounts with mapped group ids"),
    read("machine.kubelet.extraConfig", "k8s.KubeletConfigController"),
    read("machine.kubelet.credentialProviderConfig", "k8s.KubeletConfigController"),
    read("machine.kubelet.defaultRuntimeSeccompProfileEnabled", "k8s.KubeletConfigController"),
    read("machine.kubelet.registerWithFQDN", "k8s.NodenameController"),
    read("machine.kubelet.nodeIP", "k8s.NodeIPConfigController"),
    read("machine.kubelet.skipNodeRegistration", "k8s.KubeletConfigController"),
    read("machine.kubelet.disableManifestsDirectory", "k8s.KubeletConfigController"),
    read("machine.pods", "k8s.StaticPodConfigController"),
    read("machine.network.hostname", "network.HostnameConfigController"),
    read("machine.network.interfaces[].interface", "network.LinkConfigController"),
    read("machine.network.interfaces[].deviceSelector", "network.DeviceConfigController"),
    read("machine.network.interfaces[].addresses", "network.AddressConfigController"),
    read("machine.network.interfaces[].routes", "network.RouteConfigController"),
    pending("machine.network.interfaces[].bond", BONDS),
    pending("machine.network.interfaces[].bridge", BRIDGES),
    pending("machine.network.interfaces[].vlans", VLANS),
    read("machine.network.interfaces[].mtu", "network.LinkConfigController"),
    read("machine.network.interfaces[].dhcp", "network.OperatorConfigController"),
    read("machine.network.interfaces[].ignore", "network.LinkConfigController"),
    unless("machine.network.interfaces[].dummy", "false", "dummy links"),
    read("machine.network.interfaces[].dhcpOptions.routeMetric", "network.OperatorConfigController"),
    read("machine.network.interfaces[].dhcpOptions.ipv4", "network.OperatorConfigController"),
    unless("machine.network.interfaces[].dhcpOptions.ipv6", "false", DHCPV6),
    pending("machine.network.interfaces[].dhcpOptions.duidv6", DHCPV6),
    pending("machine.network.interfaces[].wireguard", "WireGuard links"),
    pending("machine.network.interfaces[].vip", "shared addresses"),
    read("machine.network.nameservers", "network.ResolverConfigController"),
    read("machine.network.extraHostEntries", "network.EtcFileController"),
    unless("machine.network.kubespan.enabled", "false", KUBESPAN),
    unless("machine.network.kubespan.advertiseKubernetesNetworks", "false", KUBESPAN),
    unless("machine.network.kubespan.allowDownPeerBypass", "false", KUBESPAN),
    unless("machine.network.kubespan.harvestExtraEndpoints", "false", KUBESPAN),
    pending("machine.network.kubespan.mtu", KUBESPAN),
    pending("machine.network.kubespan.filters", KUBESPAN),
    read("machine.network.disableSearchDomain", "network.EtcFileController"),
    read("machine.disks", "mountUserDisks"),
    read("machine.install", "install"),
    pending("machine.install.extensions", EXTENSIONS),
    read("machine.files", "writeUserFiles"),
    read("machine.env", "runtime.ServiceRunController"),
    read("machine.time.disabled", "time.SyncController"),
    read("machine.time.servers", "network.TimeServerConfigController"),
    read("machine.time.bootTimeout", "time.SyncController"),
    read("machine.sysctls", "runtime.KernelParamConfigController"),
    read("machine.sysfs", "runtime.KernelParamConfigController"),
    read("machine.registries.mirrors", "files.CRIRegistryConfigController"),
    read("machine.registries.config.*.tls", "files.CRIRegistryConfigController"),
    read("machine.registries.config.*.auth", "files.CRIConfigPartsController"),
    read("machine.systemDiskEncryption", "block.VolumeController"),
    obsolete("machine.features.rbac", "true", "roles are always enforced"),
    read("machine.features.stableHostname", "network.HostnameConfigController"),
    unless("machine.features.kubernetesTalosAPIAccess.enabled", "false", TALOS_API_ACCESS),
    pending("machine.features.kubernetesTalosAPIAccess.allowedRoles", TALOS_API_ACCESS),
    pending("machine.features.kubernetesTalosAPIAccess.allowedKubernetesNamespaces", TALOS_API_ACCESS),
    obsolete("machine.features.apidCheckExtKeyUsage", "true", "the usage of client certificates is always checked"),
    read("machine.features.diskQuotaSupport", "k8s.KubeletConfigController"),
    read("machine.features.kubePrism", "k8s.KubePrismConfigController"),
    unless("machine.features.hostDNS.enabled", "false", HOST_DNS),
    unless("machine.features.hostDNS.forwardKubeDNSToHost", "false", HOST_DNS),
    unless("machine.features.hostDNS.resolveMemberNames", "false", HOST_DNS),
    read("machine.udev", "writeUdevRules"),
    read("machine.logging", "runtime.ServiceLogDeliveryController"),
    read("machine.kernel", "runtime.KernelModuleConfigController"),
    read("machine.seccompProfiles", "cri.SeccompProfileController"),
    read("machine.nodeLabels", "k8s.NodeLabelSpecController"),
    read("machine.nodeTaints", "k8s.NodeTaintSpecController"),
    read("cluster.id", "cluster.InfoController"),
    read("cluster.secret", "cluster.ConfigController"),
    read("cluster.controlPlane.endpoint", "secrets.RootKubernetesController"),
    read("cluster.controlPlane.localAPIServerPort", "k8s.ControlPlaneAPIServerController"),
    read("cluster.clusterName", "cluster.InfoController"),
    read("cluster.network.cni.name", "k8s.ControlPlaneBootstrapManifestsController"),
    read("cluster.network.cni.urls", "k8s.ControlPlaneExtraManifestsController"),
    read("cluster.network.cni.flannel", "k8s.ControlPlaneBootstrapManifestsController"),
    read("cluster.network.dnsDomain", "k8s.KubeletConfigController"),
    read("cluster.network.podSubnets", "k8s.ControlPlaneControllerManagerController"),
    read("cluster.network.serviceSubnets", "k8s.ControlPlaneAPIServerController"),
    read("cluster.token", "secrets.KubeletController"),
    read("cluster.aescbcEncryptionSecret", "secrets.RootKubernetesController"),
    read("cluster.secretboxEncryptionSecret", "secrets.RootKubernetesController"),
    read("cluster.ca", "secrets.RootKubernetesController"),
    read("cluster.acceptedCAs", "secrets.RootKubernetesController"),
    read("cluster.aggregatorCA", "secrets.RootKubernetesController"),
    read("cluster.serviceAccount", "secrets.RootKubernetesController"),
    read("cluster.apiServer.image", "k8s.ControlPlaneAPIServerController"),
    read("cluster.apiServer.extraArgs", "k8s.ControlPlaneAPIServerController"),
    read("cluster.apiServer.extraVolumes", "k8s.ControlPlaneAPIServerController"),
    read("cluster.apiServer.env", "k8s.ControlPlaneAPIServerController"),
    read("cluster.apiServer.certSANs", "secrets.RootKubernetesController"),
    obsolete(
        "cluster.apiServer.disablePodSecurityPolicy",
        "true",
        "the supported releases of Kubernetes have no pod security policies",
    ),
    read("cluster.apiServer.admissionControl", "k8s.ControlPlaneAdmissionControlController"),
    read("cluster.apiServer.auditPolicy", "k8s.ControlPlaneAuditPolicyController"),
    read("cluster.apiServer.resources", "k8s.ControlPlaneAPIServerController"),
    read("cluster.controllerManager", "k8s.ControlPlaneControllerManagerController"),
    read("cluster.proxy", "k8s.ControlPlaneBootstrapManifestsController"),
    read("cluster.scheduler", "k8s.ControlPlaneSchedulerController"),
    read("cluster.discovery.enabled", "cluster.ConfigController"),
    unless("cluster.discovery.registries.kubernetes.disabled", "true", "discovery through Kubernetes"),
    read("cluster.discovery.registries.service", "cluster.ConfigController"),
    read("cluster.etcd.image", "etcd.ConfigController"),
    read("cluster.etcd.ca", "secrets.RootEtcdController"),
    read("cluster.etcd.extraArgs", "etcd.ConfigController"),
    read("cluster.etcd.advertisedSubnets", "etcd.ConfigController"),
    read("cluster.etcd.listenSubnets", "etcd.ConfigController"),
    read("cluster.coreDNS", "k8s.ControlPlaneBootstrapManifestsController"),
    read("cluster.externalCloudProvider.enabled", "k8s.KubeletConfigController"),
    read("cluster.externalCloudProvider.manifests", "k8s.ControlPlaneExtraManifestsController"),
    read("cluster.extraManifests", "k8s.ControlPlaneExtraManifestsController"),
    read("cluster.extraManifestHeaders", "k8s.ControlPlaneExtraManifestsController"),
    read("cluster.inlineManifests", "k8s.ControlPlaneExtraManifestsController"),
    read("cluster.adminKubeconfig", "secrets.KubernetesController"),
    read("cluster.allowSchedulingOnControlPlanes", "k8s.NodeTaintSpecController"),
    document("NetworkDefaultActionConfig", FIREWALL),
    document("NetworkRuleConfig", FIREWALL),
    document("ExtensionServiceConfig", "services of system extensions"),
    Field { kind: "EventSinkConfig", path: "", effect: Effect::ReadBy("runtime.EventsSinkConfigController") },
    Field { kind: "KmsgLogConfig", path: "", effect: Effect::ReadBy("runtime.KmsgLogConfigController") },
    Field { kind: "WatchdogTimerConfig", path: "", effect: Effect::ReadBy("runtime.WatchdogTimerController") },
    Field { kind: "UpgradeTrialConfig", path: "", effect: Effect::ReadBy("runtime.UpgradeTrialController") },
    document("SideroLinkConfig", "SideroLink"),
];
