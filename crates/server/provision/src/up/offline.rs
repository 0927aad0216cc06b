//! The images that the cluster's registry serves: those of a bundle, with their version of Kubernetes, and that of an installer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::failure::UpError;
use crate::registry::Layout;
use crate::spec::ClusterSpec;

const KUBELET: &str = "ghcr.io/siderolabs/kubelet";
const ETCD: &str = "gcr.io/etcd-development/etcd";
const COREDNS: &str = "registry.k8s.io/coredns/coredns";

/// Registries whose images a bundle may have.
const OF_BUNDLES: [&str; 5] = ["docker.io", "gcr.io", "ghcr.io", "quay.io", "registry.k8s.io"];

/// The images that the cluster's registry serves.
#[derive(Debug, Clone, Default)]
pub(super) struct Images {
    pub(super) offline: Option<Offline>,
    pub(super) installer: Option<Installer>,
}

impl Images {
    /// Reads which images the layouts of a cluster have.
    ///
    /// # Errors
    ///
    /// A layout that cannot be read, or one without a required image.
    pub(super) fn read(spec: &ClusterSpec) -> Result<Self, UpError> {
        let installer = spec.driver.machines().and_then(|machines| machines.installer.as_deref());
        Ok(Self {
            offline: spec.bundle.as_deref().map(Offline::read).transpose()?,
            installer: installer.map(Installer::read).transpose()?,
        })
    }

    /// The address of the cluster's registry for nodes; none if it serves nothing.
    pub(super) fn registry(&self, gateway: Ipv4Addr, port: u16) -> Option<String> {
        let serves = self.offline.is_some() || self.installer.is_some();
        serves.then(|| format!("http://{gateway}:{port}"))
    }

    /// The hosts that the cluster's registry is a mirror of. Nodes ask the host itself for what a mirror does not have.
    pub(super) fn hosts(&self) -> BTreeSet<&str> {
        let of_bundle = self.offline.iter().flat_map(|_| OF_BUNDLES);
        of_bundle.chain(self.installer.iter().flat_map(Installer::hosts)).collect()
    }
}

/// The layout of an installer.
#[derive(Debug, Clone)]
pub(super) struct Installer {
    layout: PathBuf,
    references: Vec<String>,
}

impl Installer {
    /// # Errors
    ///
    /// An unreadable layout, or one without an image that has a reference.
    pub(super) fn read(layout: &Path) -> Result<Self, UpError> {
        let references = Layout::new(layout).references()?;
        let installer = Self { layout: layout.to_path_buf(), references };
        if installer.hosts().next().is_none() {
            return Err(UpError::NoInstaller(installer.layout));
        }
        Ok(installer)
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.references.iter().filter_map(|reference| Some(reference.split_once('/')?.0))
    }

    pub(super) fn has(&self, image: &str) -> bool {
        self.references.iter().any(|reference| reference == image)
    }

    pub(super) fn layout(&self) -> &Path {
        &self.layout
    }

    pub(super) fn references(&self) -> &[String] {
        &self.references
    }
}

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
pub(super) mod tests {
    use super::*;

    /// A layout with images of these references.
    pub(in crate::up) fn layout(references: &[&str]) -> tempfile::TempDir {
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
        folder
    }

    fn bundle(references: &[&str]) -> Result<Offline, UpError> {
        Offline::read(layout(references).path())
    }

    #[test]
    fn the_registry_is_a_mirror_of_the_installers_host_without_a_bundle_as_well() {
        let own = layout(&["ghcr.io/siderolabs/installer:v1.7.0"]);
        let mut spec = spec();
        spec.driver.machines_mut().unwrap().installer = Some(own.path().to_path_buf());
        let images = Images::read(&spec).unwrap();
        assert_eq!(images.registry([10, 5, 0, 1].into(), 5000).as_deref(), Some("http://10.5.0.1:5000"));
        assert_eq!(images.hosts().into_iter().collect::<Vec<_>>(), ["ghcr.io"]);
        assert_eq!(Images::default().registry([10, 5, 0, 1].into(), 5000), None);
        assert_eq!(Images::default().hosts().len(), 0);
        let other = layout(&["registry.example:5000/installer:1"]);
        let bundled = bundle(&["ghcr.io/siderolabs/kubelet:v1.30.14", "gcr.io/etcd-development/etcd:v3.5.16"]).unwrap();
        let images = Images { offline: Some(bundled), installer: Some(Installer::read(other.path()).unwrap()) };
        let hosts: Vec<_> = images.hosts().into_iter().collect();
        assert_eq!(hosts, ["docker.io", "gcr.io", "ghcr.io", "quay.io", "registry.example:5000", "registry.k8s.io"]);
    }

    #[test]
    fn an_installer_without_an_image_is_refused() {
        let refused = Installer::read(layout(&[]).path()).unwrap_err();
        assert!(matches!(&refused, UpError::NoInstaller(_)), "{refused}");
        assert!(!refused.left_something());
        let refused = Installer::read(Path::new("/nowhere")).unwrap_err();
        assert!(matches!(&refused, UpError::Bundle(_)), "{refused}");
    }

    fn spec() -> ClusterSpec {
        let plan =
            crate::plan::Plan::new("one", "10.5.0.0/24", 1500, &crate::plan::NodeSpec { controlplanes: 1, workers: 0 });
        ClusterSpec {
            plan: plan.unwrap(),
            driver: crate::spec::DriverSettings::Qemu(Box::default()),
            bundle: None,
            discoveryd: None,
            kmsd: None,
            reachable: vec![],
            exposed: vec![],
        }
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
