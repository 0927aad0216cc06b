//! The initramfs of a machine: `init`, the root image, and the modules that `init` loads before it can mount that.
//! `ARCHITECTURE.md`, "A machine of its own", describes its content.

use crate::kernel::Kernel;
use crate::tree::{Node, Tree};
use crate::{ImageError, cpio, sha256, xz};

/// Most that kernel and initramfs may have together, in bytes.
pub const LIMIT: u64 = 90_000_000;

/// A digest of all inputs of the boot assets (`kernel`: [`crate::kernel::Source::digest`], `loaders`:
/// [`crate::loaders::inputs_digest`]).
#[must_use]
pub fn inputs_digest(init: &[u8], rootfs: &[u8], kernel: &str, loaders: &str) -> String {
    sha256(format!("{} {} {kernel} {loaders}", sha256(init), sha256(rootfs)).as_bytes())
}

/// The initramfs of the program `init`, the squashfs `rootfs` and the modules of `kernel`, as a file that the kernel
/// unpacks.
///
/// # Errors
/// Kernel and initramfs are larger than [`LIMIT`].
pub fn initramfs(init: &[u8], rootfs: &[u8], kernel: &Kernel) -> Result<Vec<u8>, ImageError> {
    let mut tree = Tree::default();
    for directory in ["/dev", "/proc", "/sys"] {
        tree.place(directory, Node::dir())?;
    }
    tree.place("/init", Node::file(init, true))?;
    let mut order = String::new();
    for (name, content) in &kernel.initramfs {
        tree.place(&format!("/modules/{name}"), Node::file(content.clone(), false))?;
        order.push_str(name);
        order.push('\n');
    }
    tree.place("/modules/order", Node::file(order.into_bytes(), false))?;
    tree.place("/rootfs.sqsh", Node::file(rootfs, false))?;
    // Nearly all of it is compressed already.
    let bytes = xz::stored(&cpio::archive(&tree));
    let size = (bytes.len() + kernel.image.len()) as u64;
    if size > LIMIT { Err(ImageError::TooLarge { size, limit: LIMIT }) } else { Ok(bytes) }
}
