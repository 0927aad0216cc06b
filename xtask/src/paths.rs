//! Directories of the project's commands. Only files shared by all checkouts are outside the checkout.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The directories of one checkout.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Build results: `_out`.
    pub(crate) out: PathBuf,
    /// Outside the checkout: packages, the Kubernetes build, bundles.
    pub(crate) cache: PathBuf,
}

impl Paths {
    #[expect(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]
    pub(crate) fn find() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
        let base = match std::env::var("XDG_CACHE_HOME") {
            Ok(directory) if directory.starts_with('/') => PathBuf::from(directory),
            _ => PathBuf::from(std::env::var("HOME").context("neither HOME nor XDG_CACHE_HOME is set")?).join(".cache"),
        };
        Ok(Self { root: root.to_owned(), out: root.join("_out"), cache: base.join("talos-offline") })
    }

    /// The finished root file system.
    pub(crate) fn image(&self) -> PathBuf {
        self.out.join("rootfs.squashfs")
    }

    /// The installer's image, as an OCI image layout.
    pub(crate) fn installer(&self) -> PathBuf {
        self.out.join("installer")
    }

    /// Debian packages that images are made of.
    pub(crate) fn packages(&self) -> PathBuf {
        self.cache.join("packages")
    }
}
