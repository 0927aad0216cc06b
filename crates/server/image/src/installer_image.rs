//! The installer image: the program `installer`, what it runs, and the boot assets that it installs, as an OCI image that
//! nodes pull.

use std::collections::BTreeMap;
use std::path::Path;

use crate::ImageError;
use crate::assemble::{Inputs, assemble};
use crate::list::{Item, List};
use crate::oci::{Layout, Start, tarball};
use crate::place::Place;
use crate::profile::Profile;
use crate::tree::{Node, Tree};

const LIST: &str = include_str!("../boot/installer.list");

/// The assets below `/usr/install/ARCH`, as they are named in the directory of assets.
pub const ASSETS: &[&str] =
    &["vmlinuz", "initramfs.xz", "systemd-stub.efi", "systemd-boot.efi", "grub-boot.img", "grub-core.img"];

/// Writes the image as an OCI image layout into `directory`, which must not exist.
///
/// # Errors
/// A missing asset or program, or a failed write.
pub fn layout(profile: &Profile, place: Place<'_>, directory: &Path) -> Result<(), ImageError> {
    let list = List::parse("installer.list", LIST)?;
    let mut programs = BTreeMap::new();
    for entry in &list.entries {
        if let Item::Program { name, .. } = &entry.item {
            let path = place.programs.join(name);
            programs.insert(name.clone(), std::fs::read(&path).map_err(ImageError::read(path))?);
        }
    }
    let packages = place.packages.get(&list.packages())?;
    let mut tree = assemble(&list, &Inputs { packages, programs, locals: BTreeMap::new() })?.tree;
    for name in ASSETS {
        let path = match *name {
            "vmlinuz" => given(&profile.input.kernel.path, place.assets, name),
            "initramfs.xz" => given(&profile.input.initramfs.path, place.assets, name),
            "systemd-stub.efi" => given(&profile.input.sd_stub.path, place.assets, name),
            "systemd-boot.efi" => given(&profile.input.sd_boot.path, place.assets, name),
            _ => place.assets.join(name),
        };
        let content = std::fs::read(&path).map_err(ImageError::read(path))?;
        tree.place(&format!("/usr/install/{}/{name}", profile.arch), Node::file(content, false))?;
    }
    let reference = list.image.as_deref().unwrap_or_default().replace("{version}", &profile.version);
    let mut layout = Layout::create(directory)?;
    layout.add(&reference, &tree, &Start { entrypoint: list.entrypoint, env: list.env })?;
    layout.finish()
}

fn given(path: &str, assets: &Path, name: &str) -> std::path::PathBuf {
    if path.is_empty() { assets.join(name) } else { path.into() }
}

/// Writes the image as one tar file of an OCI image layout to `target`.
///
/// # Errors
/// As [`layout`].
pub fn build(profile: &Profile, place: Place<'_>, target: &Path) -> Result<(), ImageError> {
    let scratch = tempfile::tempdir_in(place.out).map_err(ImageError::write(place.out))?;
    let directory = scratch.path().join("layout");
    layout(profile, place, &directory)?;
    let mut tree = Tree::default();
    collect(&directory, "", &mut tree)?;
    let partial = scratch.path().join("tar");
    tarball(&tree)
        .and_then(|content| std::fs::write(&partial, content))
        .and_then(|()| std::fs::rename(&partial, target))
        .map_err(ImageError::write(target))
}

/// Reads the files of a layout.
fn collect(directory: &Path, prefix: &str, tree: &mut Tree) -> Result<(), ImageError> {
    for entry in std::fs::read_dir(directory).map_err(ImageError::read(directory))? {
        let path = entry.map_err(ImageError::read(directory))?.path();
        let name = format!("{prefix}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            tree.place(&name, Node::dir())?;
            collect(&path, &name, tree)?;
        } else {
            let content = std::fs::read(&path).map_err(ImageError::read(&path))?;
            tree.place(&name, Node::file(content, false))?;
        }
    }
    Ok(())
}
