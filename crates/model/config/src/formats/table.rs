//! Which field has which form.

use super::forms::{Form, Path, Port};

const HTTP: Form = Form::Url { schemes: &["http", "https"], port: Port::Optional, path: Path::Allowed };
/// Where logs go: sockets.
const SOCKET: Form = Form::Url { schemes: &["tcp", "udp"], port: Port::Required, path: Path::Refused };
/// What a cluster's endpoint is.
pub(super) const ENDPOINT: Form = Form::Url { schemes: &["https"], port: Port::Optional, path: Path::Allowed };
const BOND_MODES: &[&str] =
    &["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];

const V1ALPHA1: &[(&str, Form)] = &[
    // a name that no certificate can carry would leave the machine without one
    ("machine.certSANs[]", Form::San),
    ("cluster.apiServer.certSANs[]", Form::San),
    ("machine.kubelet.clusterDNS[]", Form::Ip),
    ("machine.kubelet.nodeIP.validSubnets[]", Form::IpFilter),
    ("machine.kubelet.extraMounts[].destination", Form::AbsolutePath),
    ("machine.network.hostname", Form::Dns),
    ("machine.network.nameservers[]", Form::Ip),
    ("machine.network.extraHostEntries[].ip", Form::Ip),
    ("machine.network.extraHostEntries[].aliases[]", Form::Dns),
    ("machine.network.kubespan.mtu", Form::Range(1280, 65_535)),
    ("machine.network.kubespan.filters.endpoints[]", Form::IpFilter),
    ("machine.network.interfaces[].deviceSelector.hardwareAddr", Form::MacPattern),
    ("machine.network.interfaces[].addresses[]", Form::CidrOrIp),
    ("machine.network.interfaces[].routes[].network", Form::Cidr),
    ("machine.network.interfaces[].routes[].gateway", Form::Ip),
    ("machine.network.interfaces[].routes[].source", Form::CidrOrIp),
    ("machine.network.interfaces[].mtu", Form::Range(0, 65_535)),
    ("machine.network.interfaces[].vip.ip", Form::Ip),
    ("machine.network.interfaces[].vlans[].vlanId", Form::Range(1, 4094)),
    ("machine.network.interfaces[].vlans[].addresses[]", Form::CidrOrIp),
    ("machine.network.interfaces[].vlans[].routes[].network", Form::Cidr),
    ("machine.network.interfaces[].vlans[].routes[].gateway", Form::Ip),
    ("machine.network.interfaces[].vlans[].routes[].source", Form::CidrOrIp),
    ("machine.network.interfaces[].vlans[].vip.ip", Form::Ip),
    ("machine.network.interfaces[].bond.mode", Form::OneOf(BOND_MODES)),
    ("machine.network.interfaces[].bond.lacpRate", Form::OneOf(&["slow", "fast"])),
    ("machine.network.interfaces[].bond.arpIPTarget[]", Form::Ip),
    (
        "machine.network.interfaces[].bond.xmitHashPolicy",
        Form::OneOf(&["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"]),
    ),
    ("machine.network.interfaces[].bond.arpValidate", Form::OneOf(&["none", "active", "backup", "all"])),
    ("machine.network.interfaces[].bond.arpAllTargets", Form::OneOf(&["any", "all"])),
    ("machine.network.interfaces[].bond.primaryReselect", Form::OneOf(&["always", "better", "failure"])),
    ("machine.network.interfaces[].bond.failOverMac", Form::OneOf(&["none", "active", "follow"])),
    ("machine.network.interfaces[].bond.adSelect", Form::OneOf(&["stable", "bandwidth", "count"])),
    ("machine.network.interfaces[].wireguard.privateKey", Form::Key32),
    ("machine.network.interfaces[].wireguard.peers[].publicKey", Form::Key32),
    ("machine.network.interfaces[].wireguard.peers[].endpoint", Form::HostPort),
    ("machine.network.interfaces[].wireguard.peers[].persistentKeepaliveInterval", Form::Duration),
    ("machine.network.interfaces[].wireguard.peers[].allowedIPs[]", Form::Cidr),
    ("machine.install.diskSelector.size", Form::SizeMatch),
    ("machine.install.diskSelector.type", Form::OneOf(&["ssd", "hdd", "nvme", "sd"])),
    ("machine.disks[].device", Form::AbsolutePath),
    ("machine.disks[].partitions[].mountpoint", Form::AbsolutePath),
    ("machine.files[].path", Form::AbsolutePath),
    ("machine.files[].op", Form::OneOf(&["create", "append", "overwrite"])),
    ("machine.time.bootTimeout", Form::Duration),
    ("machine.registries.mirrors.*.endpoints[]", HTTP),
    ("machine.logging.destinations[].endpoint", SOCKET),
    ("machine.logging.destinations[].format", Form::OneOf(&["json_lines"])),
    ("machine.systemDiskEncryption.*.provider", Form::OneOf(&["luks2"])),
    (
        "machine.systemDiskEncryption.*.cipher",
        Form::OneOf(&["aes-xts-plain64", "xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64"]),
    ),
    ("machine.systemDiskEncryption.*.keys[].slot", Form::Range(0, 31)),
    (
        "machine.systemDiskEncryption.*.keys[].kms.endpoint",
        Form::Url { schemes: &["https", "grpc"], port: Port::Optional, path: Path::Refused },
    ),
    (
        "machine.systemDiskEncryption.*.options[]",
        Form::OneOf(&["no_read_workqueue", "no_write_workqueue", "same_cpu_crypt"]),
    ),
    // zero is the default one
    ("machine.features.kubePrism.port", Form::Range(0, 65_535)),
    (
        "machine.features.kubernetesTalosAPIAccess.allowedRoles[]",
        Form::OneOf(&["os:admin", "os:operator", "os:reader", "os:etcd:backup"]),
    ),
    ("cluster.controlPlane.endpoint", ENDPOINT),
    ("cluster.controlPlane.localAPIServerPort", Form::Range(0, 65_535)),
    ("cluster.network.cni.name", Form::OneOf(&["flannel", "custom", "none", "native"])),
    ("cluster.network.cni.urls[]", HTTP),
    ("cluster.network.dnsDomain", Form::Dns),
    ("cluster.network.podSubnets[]", Form::Cidr),
    ("cluster.network.serviceSubnets[]", Form::Cidr),
    ("cluster.proxy.mode", Form::OneOf(&["iptables", "ipvs", "nftables"])),
    ("cluster.etcd.advertisedSubnets[]", Form::IpFilter),
    ("cluster.etcd.listenSubnets[]", Form::IpFilter),
    (
        "cluster.discovery.registries.service.endpoint",
        Form::Url { schemes: &["http", "https"], port: Port::Optional, path: Path::Refused },
    ),
    ("cluster.extraManifests[]", HTTP),
    ("cluster.externalCloudProvider.manifests[]", HTTP),
    ("cluster.adminKubeconfig.certLifetime", Form::Duration),
    ("cluster.apiServer.extraVolumes[].mountPath", Form::AbsolutePath),
    ("cluster.controllerManager.extraVolumes[].mountPath", Form::AbsolutePath),
    ("cluster.scheduler.extraVolumes[].mountPath", Form::AbsolutePath),
];

const OTHERS: &[(&str, &str, Form)] = &[
    ("NetworkDefaultActionConfig", "ingress", Form::OneOf(&["accept", "block"])),
    ("NetworkRuleConfig", "portSelector.protocol", Form::OneOf(&["tcp", "udp", "icmp", "icmpv6"])),
    ("NetworkRuleConfig", "ingress[].subnet", Form::Cidr),
    ("NetworkRuleConfig", "ingress[].except", Form::Cidr),
    ("EventSinkConfig", "endpoint", Form::HostPort),
    ("KmsgLogConfig", "url", SOCKET),
    ("WatchdogTimerConfig", "device", Form::AbsolutePath),
    ("WatchdogTimerConfig", "timeout", Form::Duration),
    ("UpgradeTrialConfig", "limit", Form::Duration),
    (
        "SideroLinkConfig",
        "apiUrl",
        // the token is part of it
        Form::Url { schemes: &["https", "grpc"], port: Port::Optional, path: Path::Allowed },
    ),
    ("ExtensionServiceConfig", "configFiles[].mountPath", Form::AbsolutePath),
];

pub(super) fn form(kind: &str, path: &[&str]) -> Option<Form> {
    if kind == "v1alpha1" {
        return V1ALPHA1.iter().find(|(pattern, _)| matches(pattern, path)).map(|(_, form)| *form);
    }
    OTHERS.iter().find(|(k, pattern, _)| *k == kind && matches(pattern, path)).map(|(_, _, form)| *form)
}

/// Compares a pattern with a path without building a text: a list step is `[]` in the path and a suffix in the pattern.
fn matches(pattern: &str, path: &[&str]) -> bool {
    let mut path = path.iter();
    for part in pattern.split('.') {
        let (name, lists) = part.find('[').map_or((part, 0), |at| (&part[..at], (part.len() - at) / 2));
        match path.next() {
            Some(key) if name == "*" || *key == name => {}
            _ => return false,
        }
        if (0..lists).any(|_| path.next() != Some(&"[]")) {
            return false;
        }
    }
    path.next().is_none()
}
