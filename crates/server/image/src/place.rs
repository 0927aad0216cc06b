//! Where the inputs of artefacts are, and where these go.

use std::path::Path;

use crate::packages::Packages;

/// What is made where.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Directory with `vmlinuz`, `initramfs.xz` and the loaders of [`crate::loaders::build`].
    pub assets: &'a Path,
    /// Directory with our own programs, for the installer image.
    pub programs: &'a Path,
    /// Cache of Debian packages, for the tools that make images.
    pub packages: &'a Packages,
    /// Directory for the artefact.
    pub out: &'a Path,
}
