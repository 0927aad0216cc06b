//! Extension layers: squashfs files beside the root image, which lie over it.

use std::path::{Path, PathBuf};

use sys::mounts::{self, MountFlags};

use crate::log::Log;
use crate::{Failure, mount_squashfs};

/// What of a machine's layers is known, shown as `/etc/extensions.yaml`.
const DESCRIPTION: &str = "extensions.yaml";
/// Where layers are mounted. It is given up with the initramfs; the mounts stay, below the overlay.
const PARTS: &str = "/layers";
/// The kernel's own limit of layers in one overlay is 500.
const MAX_LAYERS: usize = 100;

/// Too many files claim to be layers.
#[derive(Debug, thiserror::Error)]
#[error("{0} extension layers are more than the {MAX_LAYERS} that one root can have")]
struct TooMany(usize);

/// Layers of an initramfs, the lowest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    files: Vec<PathBuf>,
    description: Option<PathBuf>,
}

impl Layers {
    /// Finds the layers in a directory: files `N.sqsh`, in the order of their numbers.
    pub(crate) fn find(directory: &Path) -> Result<Self, Failure> {
        let mut numbered: Vec<(u32, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".sqsh"));
            if let Some(number) = name.and_then(|name| name.parse().ok()) {
                numbered.push((number, path));
            }
        }
        if numbered.len() > MAX_LAYERS {
            return Err(Box::new(TooMany(numbered.len())));
        }
        numbered.sort();
        let description = Some(directory.join(DESCRIPTION)).filter(|path| path.is_file());
        Ok(Self { files: numbered.into_iter().map(|(_, path)| path).collect(), description })
    }

    /// Mounts the root image at `target`, with the layers over it.
    pub(crate) fn mount(&self, log: &Log, image: &Path, target: &Path) -> Result<(), Failure> {
        if self.files.is_empty() && self.description.is_none() {
            return mount_squashfs(image, target);
        }
        let parts = Path::new(PARTS);
        std::fs::create_dir_all(parts)?;
        mounts::mount("tmpfs", parts, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=0755")?;
        let mut lower = vec![parts.join("root")];
        mount_squashfs(image, &parts.join("root"))?;
        for (index, file) in self.files.iter().enumerate() {
            let part = parts.join(index.to_string());
            log.info(&format!("mounting the extension layer {}", file.display()));
            mount_squashfs(file, &part)?;
            lower.push(part);
        }
        if let Some(description) = &self.description {
            let part = parts.join("description");
            std::fs::create_dir_all(part.join("etc"))?;
            std::fs::copy(description, part.join("etc").join(DESCRIPTION))?;
            lower.push(part);
        }
        std::fs::create_dir_all(target)?;
        let options = lower_directories(&lower);
        Ok(mounts::mount("overlay", target, "overlay", MountFlags::RDONLY | MountFlags::NODEV, &options)?)
    }
}

/// The option of an overlay: the topmost layer comes first.
fn lower_directories(lowest_first: &[PathBuf]) -> String {
    let paths: Vec<String> = lowest_first.iter().rev().map(|path| path.display().to_string()).collect();
    format!("lowerdir={}", paths.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_in_the_order_of_their_numbers_and_other_files_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["10.sqsh", "2.sqsh", "0.sqsh", "rootfs.sqsh", "x.sqsh", "3.txt", "extensions.yaml"] {
            std::fs::write(at(name), "").unwrap();
        }
        let layers = Layers::find(directory.path()).unwrap();
        assert_eq!(layers.files, [at("0.sqsh"), at("2.sqsh"), at("10.sqsh")]);
        assert_eq!(layers.description, Some(at("extensions.yaml")));
    }

    #[test]
    fn the_last_layer_is_on_top() {
        let lower = ["/layers/root", "/layers/0", "/layers/1"].map(PathBuf::from);
        assert_eq!(lower_directories(&lower), "lowerdir=/layers/1:/layers/0:/layers/root");
    }

    #[test]
    fn more_layers_than_the_kernel_takes_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..=MAX_LAYERS {
            std::fs::write(directory.path().join(format!("{number}.sqsh")), "").unwrap();
        }
        let error = Layers::find(directory.path()).unwrap_err();
        assert!(error.downcast_ref::<TooMany>().is_some(), "{error}");
    }
}
