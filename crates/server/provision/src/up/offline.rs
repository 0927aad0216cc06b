//! Facts from a bundle: version of Kubernetes and images.

use std::path::{Path, PathBuf};

use super::failure::UpError;
use crate::registry::Layout;

const KUBELET: &str = "ghcr.io/siderolabs/kubelet";
const ETCD: &str = "gcr.io/etcd-development/etcd";
const COREDNS: &str = "registry.k8s.io/coredns/coredns";

/// The images of a bundle.
#[derive(Debug, Clone)]
pub struct Offline {
    bundle: PathBuf,
    references: Vec<String>,
}

impl Offline {
    /// Reads which images the bundle has.
    ///
    /// # Errors
    ///
    /// An unreadable bundle, or one without a required image.
    pub fn read(bundle: &Path) -> Result<Self, UpError> {
        let references = Layout::new(bundle).references()?;
        let offline = Self { bundle: bundle.to_path_buf(), references };
        for image in [KUBELET, ETCD] {
            if offline.image(image).is_none() {
                return Err(UpError::MissingImage { bundle: bundle.to_path_buf(), image: image.to_owned() });
            }
        }
        Ok(offline)
    }

    fn image(&self, name: &str) -> Option<&str> {
        let tagged = |reference: &&String| reference.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        self.references.iter().find(tagged).map(String::as_str)
    }

    /// The version of Kubernetes, without `v`.
    pub(super) fn kubernetes_version(&self) -> Option<&str> {
        self.image(KUBELET)?.rsplit_once(":v").map(|(_, version)| version)
    }

    pub(super) fn etcd(&self) -> Option<&str> {
        self.image(ETCD)
    }

    pub(super) fn has_coredns(&self) -> bool {
        self.image(COREDNS).is_some()
    }

    /// Refuses a version that the bundle does not have.
    pub(super) fn check_version(&self, wanted: Option<&str>) -> Result<(), UpError> {
        let (Some(wanted), Some(has)) = (wanted, self.kubernetes_version()) else { return Ok(()) };
        if wanted.trim_start_matches('v') == has {
            return Ok(());
        }
        let (bundle, has, wanted) = (self.bundle.clone(), has.to_owned(), wanted.to_owned());
        Err(UpError::KubernetesVersion { bundle, has, wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(references: &[&str]) -> Result<Offline, UpError> {
        let folder = tempfile::tempdir().unwrap();
        let manifests: Vec<_> = references
            .iter()
            .map(|reference| {
                serde_json::json!({
                    "mediaType": "m", "digest": "sha256:0", "size": 1,
                    "annotations": { "org.opencontainers.image.ref.name": reference },
                })
            })
            .collect();
        let index = serde_json::json!({ "manifests": manifests });
        std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
        Offline::read(folder.path())
    }

    #[test]
    fn the_version_and_the_images_are_those_of_the_bundle() {
        let offline = bundle(&["ghcr.io/siderolabs/kubelet:v1.30.14", "gcr.io/etcd-development/etcd:v3.5.16"]).unwrap();
        assert_eq!(offline.kubernetes_version(), Some("1.30.14"));
        assert_eq!(offline.etcd(), Some("gcr.io/etcd-development/etcd:v3.5.16"));
        assert!(!offline.has_coredns());
        offline.check_version(Some("v1.30.14")).unwrap();
        offline.check_version(None).unwrap();
        let refused = offline.check_version(Some("1.30.0")).unwrap_err();
        assert!(matches!(&refused, UpError::KubernetesVersion { has, .. } if has == "1.30.14"), "{refused}");
    }

    #[test]
    fn a_bundle_without_etcd_is_refused() {
        let refused = bundle(&["ghcr.io/siderolabs/kubelet:v1.30.14", "gcr.io/etcd-development/etcd-tools:v1"]);
        assert!(matches!(&refused, Err(UpError::MissingImage { image, .. }) if image == ETCD), "{refused:?}");
    }
}
