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
        let found = architecture(&head);
        if found != wanted {
            return Err(InstallError::Kernel { path: self.kernel.clone(), found, wanted: wanted.to_owned() });
        }
        let (whole, actual) = (whole_size(&head), size(&self.kernel)?);
        if actual < whole { Err(InstallError::Truncated { path: self.kernel.clone(), actual, whole }) } else { Ok(()) }
    }
}

/// The size in bytes that a kernel for amd64 has at least, by its own head (Linux's boot protocol: `setup_sects`, `syssize`). No
/// firmware says of every half of a kernel that it is none: some hang. Zero for other kernels.
fn whole_size(head: &[u8]) -> u64 {
    if architecture(head) != "amd64" {
        return 0;
    }
    let setup = match head.get(0x1f1).copied().unwrap_or_default() {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let paragraphs = head.get(0x1f4..0x1f8).map_or([0; 4], |bytes| [bytes[0], bytes[1], bytes[2], bytes[3]]);
    (setup + 1) * 512 + u64::from(u32::from_le_bytes(paragraphs)) * 16
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_lost_its_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let assets = Assets::below(folder.path());
        let mut kernel = vec![0x90; 5 * 512 + 1000 * 16];
        kernel[0x1f1] = 4;
        kernel[0x1f4..0x1f8].copy_from_slice(&1000_u32.to_le_bytes());
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        std::fs::write(&assets.kernel, &kernel).unwrap();
        assets.check_kernel("amd64").unwrap();
        std::fs::write(&assets.kernel, &kernel[..kernel.len() - 1]).unwrap();
        let error = assets.check_kernel("amd64").unwrap_err();
        assert!(matches!(error, InstallError::Truncated { actual: 18559, whole: 18560, .. }), "{error}");
        let error = assets.check_kernel("arm64").unwrap_err();
        assert!(matches!(error, InstallError::Kernel { .. }), "{error}");
    }
}
