//! Builds images from Debian packages and our own programs: the node's root file system as one squashfs, kernel and
//! initramfs of a machine, and the container images of the offline bundle as OCI layers.
//!
//! The content is data: a [`list::List`] names every file with its package and its reason. [`assemble`] turns a list
//! into a [`tree::Tree`], adds the shared libraries that its programs need, and the writers serialise the tree
//! reproducibly: the output depends on the inputs only, not on a clock, host name or directory order.
//!
//! It chooses no place for results and builds no programs.

pub mod artifact;
pub mod assemble;
pub mod audit;
pub mod boot;
pub mod bundle;
pub mod cpio;
pub mod deb;
pub mod disk_format;
pub mod disk_image;
pub mod elf;
pub mod error;
pub mod installer_image;
pub mod iso;
pub mod kernel;
pub mod list;
pub mod loaders;
mod meta_variable;
pub mod modules;
pub mod oci;
pub mod packages;
pub mod place;
pub mod profile;
pub mod rootfs;
pub mod sbom;
pub mod squashfs;
pub mod tools;
pub mod tree;
pub mod xfs_times;
pub mod xz;

pub use error::ImageError;

/// Modification time of every file and of every image, seconds since 1970: 2024-01-01T00:00:00Z.
pub const EPOCH: u32 = 1_704_067_200;

/// [`EPOCH`] as text.
pub const EPOCH_TEXT: &str = "2024-01-01T00:00:00Z";

/// SHA-256 of `bytes` in lower-case hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    stdx::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}
