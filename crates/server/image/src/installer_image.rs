//! The installer image: the program `installer`, what it runs, and the boot assets that it installs, as an OCI image that
//! nodes pull.

use std::collections::BTreeMap;
use std::path::Path;

use crate::assemble::{Inputs, assemble};
use crate::list::{Item, List};
use crate::meta_variable::meta_variable;
use crate::oci::{Layout, Start, tarball};
use crate::place::Place;
use crate::profile::Profile;
use crate::tree::{Node, Tree};
use crate::{ImageError, sha256};

const LIST: &str = include_str!("../boot/installer.list");

/// The assets below `/usr/install/ARCH`, as they are named in the directory of assets.
pub const ASSETS: &[&str] =
    &["vmlinuz", "initramfs.xz", "systemd-stub.efi", "systemd-boot.efi", "grub-boot.img", "grub-core.img"];

/// Whether an image had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    New,
    UpToDate,
}

/// Writes the image as an OCI image layout to `directory`, which is replaced if it was made of other inputs.
///
/// # Errors
/// As [`layout`].
pub fn layout_if_changed(profile: &Profile, place: Place<'_>, directory: &Path) -> Result<Made, ImageError> {
    let (tree, mut list) = tree(profile, place)?;
    list.env.extend(meta_variable(&profile.customization.meta_contents)?);
    let content = tarball(&tree).map_err(ImageError::read("the installer image"))?;
    let inputs = sha256(format!("{LIST}\n{}\n{:?}\n{}", profile.version, list.env, sha256(&content)).as_bytes());
    let stamp = directory.join("inputs");
    if std::fs::read_to_string(&stamp).is_ok_and(|known| known == inputs) {
        return Ok(Made::UpToDate);
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(ImageError::write(parent))?;
    let scratch = tempfile::tempdir_in(parent).map_err(ImageError::write(parent))?;
    let partial = scratch.path().join("layout");
    add(profile, &tree, list, &partial)?;
    std::fs::write(partial.join("inputs"), &inputs).map_err(ImageError::write(&partial))?;
    // The old one goes first: no directory is renamed over another one that has files.
    match std::fs::rename(directory, scratch.path().join("old")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(ImageError::Write { path: directory.to_owned(), source: error });
        }
        _ => {}
    }
    std::fs::rename(&partial, directory).map_err(ImageError::write(directory))?;
    Ok(Made::New)
}

/// Writes the image as an OCI image layout into `directory`, which must not exist.
///
/// # Errors
/// A missing asset or program, or a failed write.
pub fn layout(profile: &Profile, place: Place<'_>, directory: &Path) -> Result<(), ImageError> {
    let (tree, mut list) = tree(profile, place)?;
    list.env.extend(meta_variable(&profile.customization.meta_contents)?);
    add(profile, &tree, list, directory)
}

fn add(profile: &Profile, tree: &Tree, list: List, directory: &Path) -> Result<(), ImageError> {
    let reference = list.image.as_deref().unwrap_or_default().replace("{version}", &profile.version);
    let mut layout = Layout::create(directory)?;
    layout.add(&reference, tree, &Start { entrypoint: list.entrypoint, env: list.env })?;
    layout.finish()
}

/// The files of the image.
fn tree(profile: &Profile, place: Place<'_>) -> Result<(Tree, List), ImageError> {
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
    Ok((tree, list))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::testing;
    use crate::profile::MetaValue;

    #[test]
    fn the_image_has_the_assets_and_is_made_again_only_for_other_inputs() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        for name in ASSETS.iter().chain(&["installer"]) {
            std::fs::write(base.join(name), name).unwrap();
        }
        let (packages, out) = (testing::packages(), base.join("layout"));
        let place = Place { assets: base, programs: base, packages: &packages, out: base };
        let profile = Profile::built_in("installer").unwrap().complete().unwrap();
        let (tree, list) = tree(&profile, place).unwrap();
        assert_eq!(list.entrypoint, ["/bin/installer"]);
        for name in ASSETS {
            assert!(tree.get(&format!("/usr/install/amd64/{name}")).is_some(), "{name}");
        }
        assert_eq!(tree.resolve("/bin/installer").as_deref(), Some("/usr/bin/installer"));
        assert!(tree.resolve("/usr/sbin/mkfs.xfs").is_some());
        assert_eq!(layout_if_changed(&profile, place, &out).unwrap(), Made::New);
        let index = std::fs::read_to_string(out.join("index.json")).unwrap();
        assert!(index.contains(&format!("ghcr.io/siderolabs/installer:{}", profile.version)), "{index}");
        assert_eq!(layout_if_changed(&profile, place, &out).unwrap(), Made::UpToDate);
        std::fs::write(base.join("vmlinuz"), "another").unwrap();
        assert_eq!(layout_if_changed(&profile, place, &out).unwrap(), Made::New);
        assert_ne!(std::fs::read_to_string(out.join("index.json")).unwrap(), index);
        let tars = ["one", "two"].map(|name| {
            build(&profile, place, &base.join(name)).unwrap();
            std::fs::read(base.join(name)).unwrap()
        });
        assert!(tars[0] == tars[1], "the same inputs must give the same bits");

        let mut profile = profile;
        profile.customization.meta_contents = vec![MetaValue { key: 10, value: "x: y".into() }];
        assert_eq!(layout_if_changed(&profile, place, &out).unwrap(), Made::New);
        let text = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
        let blob = |descriptor: &serde_json::Value| -> serde_json::Value {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
            serde_json::from_str(&text(out.join("blobs/sha256").join(digest))).unwrap()
        };
        let index: serde_json::Value = serde_json::from_str(&text(out.join("index.json"))).unwrap();
        let config = blob(&blob(&index["manifests"][0])["config"]);
        let env = serde_json::json!(["PATH=/usr/sbin:/usr/bin", "INSTALLER_META_BASE64=MHhhPXg6IHk="]);
        assert_eq!(config["config"]["Env"], env);
    }
}
