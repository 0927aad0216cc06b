//! Files that an installer image brings.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::InstallError;

/// Bytes of a kernel that tell its architecture.
const HEAD: usize = 0x300;

/// Kernel, initramfs and boot loaders. Those of a boot loader are only needed for layouts that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// The stub of unified kernel images, and systemd-boot.
    pub stub: PathBuf,
    pub systemd_boot: PathBuf,
    /// GRUB's boot sector, and a core image that looks for its menu in `/grub` of the third partition of its own disk.
    pub grub_boot: PathBuf,
    pub grub_core: PathBuf,
}

impl Assets {
    /// The files of an installer image, below `/usr/install/ARCH`.
    #[must_use]
    pub fn below(directory: &Path) -> Self {
        let path = |name: &str| directory.join(name);
        Self {
            kernel: path("vmlinuz"),
            initramfs: path("initramfs.xz"),
            stub: path("systemd-stub.efi"),
            systemd_boot: path("systemd-boot.efi"),
            grub_boot: path("grub-boot.img"),
            grub_core: path("grub-core.img"),
        }
    }

    /// Refuses a kernel of another architecture.
    pub(crate) fn check_kernel(&self, wanted: &str) -> Result<(), InstallError> {
        let mut head = Vec::new();
        let file = open(&self.kernel)?;
        file.take(HEAD as u64).read_to_end(&mut head).map_err(|source| missing(&self.kernel, source))?;
        match architecture(&head) {
            found if found == wanted => Ok(()),
            found => Err(InstallError::Kernel { path: self.kernel.clone(), found, wanted: wanted.to_owned() }),
        }
    }
}

/// The architecture that a kernel is for.
fn architecture(head: &[u8]) -> &'static str {
    if head.get(0x202..0x206) == Some(b"HdrS") {
        "amd64"
    } else if head.get(0x38..0x3c) == Some(b"ARM\x64") {
        "arm64"
    } else {
        "no known architecture"
    }
}

pub(crate) fn open(path: &Path) -> Result<File, InstallError> {
    File::open(path).map_err(|source| missing(path, source))
}

pub(crate) fn size(path: &Path) -> Result<u64, InstallError> {
    Ok(open(path)?.metadata().map_err(|source| missing(path, source))?.len())
}

/// All bytes of a file that is small by its nature.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>, InstallError> {
    const LARGEST: u64 = 16 << 20;
    let mut bytes = Vec::new();
    open(path)?.take(LARGEST).read_to_end(&mut bytes).map_err(|source| missing(path, source))?;
    Ok(bytes)
}

fn missing(path: &Path, source: io::Error) -> InstallError {
    InstallError::Asset { path: path.to_owned(), source }
}
