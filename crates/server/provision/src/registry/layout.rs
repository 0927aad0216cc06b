//! An OCI image layout on disk: which references it has and where its blobs are.

use std::path::PathBuf;

use serde::Deserialize;

/// The annotation with the full upstream reference of a manifest.
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// Folders with `index.json` and `blobs`, as one.
#[derive(Debug, Clone)]
pub struct Layout {
    roots: Vec<PathBuf>,
}

/// A manifest's entry in the layout.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Descriptor {
    /// The full upstream reference, like `registry.k8s.io/pause:3.8`.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        self.annotations.get(REFERENCE).map(String::as_str)
    }
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// A layout that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("reading {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("decoding {}", .path.display())]
    Decode { path: PathBuf, source: serde_json::Error },
}

impl Layout {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::of_all([root.into()])
    }

    /// What is in several folders; the first that has something wins.
    pub(crate) fn of_all(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { roots: roots.into_iter().collect() }
    }

    /// All manifests of the index, read each time: a bundle may be rebuilt while it is served.
    ///
    /// # Errors
    ///
    /// When `index.json` cannot be read.
    pub fn manifests(&self) -> Result<Vec<Descriptor>, LayoutError> {
        let mut manifests = Vec::new();
        for root in &self.roots {
            let path = root.join("index.json");
            let bytes = std::fs::read(&path).map_err(|source| LayoutError::Read { path: path.clone(), source })?;
            let index: Index = serde_json::from_slice(&bytes).map_err(|source| LayoutError::Decode { path, source })?;
            manifests.extend(index.manifests);
        }
        Ok(manifests)
    }

    /// All references, like `registry.k8s.io/pause:3.8`.
    ///
    /// # Errors
    ///
    /// When `index.json` cannot be read.
    pub fn references(&self) -> Result<Vec<String>, LayoutError> {
        let manifests = self.manifests()?;
        Ok(manifests.iter().filter_map(Descriptor::reference).map(str::to_owned).collect())
    }

    /// The manifest of a repository's tag or digest. `host` is the requested registry; without it, any.
    pub(crate) fn find(
        &self,
        host: Option<&str>,
        repository: &str,
        reference: &str,
    ) -> Result<Option<Descriptor>, LayoutError> {
        let by_digest = digest(reference).is_some();
        let found = self.manifests()?.into_iter().find(|manifest| {
            if by_digest {
                return manifest.digest == reference;
            }
            let Some((registry, rest)) = manifest.reference().and_then(|full| full.split_once('/')) else {
                return false;
            };
            rest == format!("{repository}:{reference}") && host.is_none_or(|host| host == registry)
        });
        Ok(found)
    }

    /// Path of a blob with a valid digest, whether or not it exists.
    pub(super) fn blob(&self, digest_text: &str) -> Option<PathBuf> {
        let hex = digest(digest_text)?;
        let paths = || self.roots.iter().map(|root| root.join("blobs/sha256").join(hex));
        paths().find(|path| path.exists()).or_else(|| paths().next())
    }
}

/// The hexadecimal part of a well-formed SHA-256 digest.
pub(super) fn digest(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:")?;
    let valid = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    valid.then_some(hex)
}
