//! Where the node's files are: `/` on a node, a folder in tests.

use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The place of an absolute path of the node.
    #[must_use]
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.join(Path::new(path).strip_prefix("/").unwrap_or_else(|_| Path::new(path)))
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}
