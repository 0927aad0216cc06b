//! Paths on the node that rendered files and their users agree on.

/// Configuration of the control plane's static pods, one folder each.
pub const CONFIG_DIR: &str = "/system/config/kubernetes";
/// Keys, certificates and kubeconfigs of the control plane's static pods, one folder each.
pub const SECRETS_DIR: &str = "/system/secrets/kubernetes";
/// Where kube-apiserver writes its audit log.
pub const AUDIT_LOG_DIR: &str = "/var/log/audit/kube";
pub const KUBERNETES_DIR: &str = "/etc/kubernetes";
pub const MANIFESTS_DIR: &str = "/etc/kubernetes/manifests";
pub const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet.yaml";
pub const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubeconfig-kubelet";
pub const KUBELET_BOOTSTRAP_KUBECONFIG: &str = "/etc/kubernetes/bootstrap-kubeconfig";
pub const KUBELET_CREDENTIAL_PROVIDER_CONFIG: &str = "/etc/kubernetes/kubelet-credentialproviderconfig.yaml";
pub const KUBELET_CREDENTIAL_PROVIDER_BIN: &str = "/usr/local/lib/kubelet/credentialproviders";
pub const KUBERNETES_CA: &str = "/etc/kubernetes/pki/ca.crt";
pub const KUBELET_PKI_DIR: &str = "/var/lib/kubelet/pki";
pub const CNI_CONFIG_DIR: &str = "/etc/cni/net.d";
pub const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// Rendered from the merged resolvers for pods.
pub const POD_RESOLV_CONF: &str = "/system/resolved/resolv.conf";
/// Port on loopback that balances over all API servers, unless configured.
pub const KUBE_PRISM_PORT: u16 = 7445;
