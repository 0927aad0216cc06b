//! Which images a version of Kubernetes is made of.

/// The default version of Kubernetes, without `v`.
pub const DEFAULT_KUBERNETES_VERSION: &str = "1.30.0";
/// The image of etcd.
pub const ETCD: &str = "gcr.io/etcd-development/etcd:v3.5.13";
/// The image of CoreDNS.
pub const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.11.1";
/// The image of Flannel.
pub const FLANNEL: &str = "ghcr.io/siderolabs/flannel:v0.25.1";
/// The image that installs the CNI plug-ins which Flannel uses.
pub const INSTALL_CNI: &str = "ghcr.io/siderolabs/install-cni:v1.7.0-1-gbb76755";
/// The sandbox image of pods.
pub const PAUSE: &str = "registry.k8s.io/pause:3.8";
/// The image that installs the system on a disk, of this version.
#[must_use]
pub fn installer() -> String {
    format!("ghcr.io/siderolabs/installer:{}", stdx::version::TAG)
}

/// The images of one version of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesImages {
    pub kubelet: String,
    pub api_server: String,
    pub controller_manager: String,
    pub scheduler: String,
    pub proxy: String,
}

impl KubernetesImages {
    /// For a version with or without `v`.
    #[must_use]
    pub fn for_version(version: &str) -> Self {
        let version = version.strip_prefix('v').unwrap_or(version);
        let upstream = |name: &str| format!("registry.k8s.io/{name}:v{version}");
        Self {
            kubelet: format!("ghcr.io/siderolabs/kubelet:v{version}"),
            api_server: upstream("kube-apiserver"),
            controller_manager: upstream("kube-controller-manager"),
            scheduler: upstream("kube-scheduler"),
            proxy: upstream("kube-proxy"),
        }
    }
}

/// Whether a text, with or without `v`, is a whole version, such as `1.30.0` or `v1.31.0-rc.1`: images are tagged so.
pub(crate) fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (numbers, release) = text.split_once('-').map_or((text, None), |(numbers, release)| (numbers, Some(release)));
    let numbers: Vec<&str> = numbers.split('.').collect();
    numbers.len() == 3
        && numbers.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        && release.is_none_or(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))
        })
}

/// The version in an image's tag: `1.30.0` of `registry.k8s.io/kube-proxy:v1.30.0@sha256:…`.
#[must_use]
pub fn version_of(image: &str) -> Option<&str> {
    let name = image.split('@').next()?;
    let (_, tag) = name.rsplit_once(':')?;
    if tag.contains('/') {
        return None;
    }
    Some(tag.strip_prefix('v').unwrap_or(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_three_numbers() {
        assert!(["1.30.0", "v1.30.14", "1.31.0-alpha.1"].iter().all(|text| is_version(text)));
        assert!(["", "1.30", "latest", "1.30.x", "1.30.0-", "1.30.0/x"].iter().all(|text| !is_version(text)));
    }

    #[test]
    fn the_version_is_the_tag() {
        assert_eq!(version_of("registry.k8s.io/kube-proxy:v1.30.0"), Some("1.30.0"));
        assert_eq!(version_of("localhost:5000/kubelet@sha256:abc"), None);
        assert_eq!(version_of("localhost:5000/kubelet:v1.30.14@sha256:abc"), Some("1.30.14"));
        assert_eq!(version_of("kubelet"), None);
        assert_eq!(KubernetesImages::for_version("v1.28.3").scheduler, "registry.k8s.io/kube-scheduler:v1.28.3");
    }
}
