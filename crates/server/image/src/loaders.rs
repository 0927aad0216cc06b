//! Boot loaders as files that installations and images use as they are: systemd's stub and menu for UEFI, the boot sector
//! and core image of GRUB for BIOS.

use crate::assemble::{Assembled, Inputs, assemble};
use crate::list::List;
use crate::packages::Packages;
use crate::tools::Tools;
use crate::tree::{Node, Tree};
use crate::{ImageError, sha256};

const LIST: &str = include_str!("../boot/loaders.list");
const TOOLS: &str = include_str!("../boot/tools.list");

/// Where GRUB's core image looks for its menu: partition 3 of the disk that it was started from, which is BOOT.
const PREFIX: &str = "(,gpt3)/grub";

/// Modules of the core image: the disk, its file systems, the menu, and starting Linux.
const MODULES: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "xfs",
    "fat",
    "normal",
    "configfile",
    "loadenv",
    "linux",
    "search",
    "search_label",
    "serial",
    "terminal",
    "echo",
    "test",
    "halt",
    "reboot",
];

/// The programs that make images.
///
/// # Errors
/// As [`Tools::unpack`].
pub fn tools(packages: &Packages) -> Result<Tools, ImageError> {
    Tools::unpack(&List::parse("tools.list", TOOLS)?, packages)
}

/// The loaders: `/systemd-stub.efi`, `/systemd-boot.efi`, `/grub-boot.img`, `/grub-core.img`.
///
/// # Errors
/// A package that is neither cached nor available, or a tool that fails.
pub fn build(packages: &Packages) -> Result<Tree, ImageError> {
    let list = List::parse("loaders.list", LIST)?;
    let inputs = Inputs { packages: packages.get(&list.packages())?, ..Inputs::default() };
    let Assembled { mut tree, .. } = assemble(&list, &inputs)?;
    let tools = tools(packages)?;
    let scratch = tempfile::tempdir().map_err(ImageError::write("a temporary directory"))?;
    let modules = tools.path("/usr/lib/grub/i386-pc").to_string_lossy().into_owned();
    let mut arguments = vec!["-O", "i386-pc", "-d", &modules, "-p", PREFIX, "-o", "core.img"];
    arguments.extend(MODULES);
    tools.run("/usr/bin/grub-mkimage", &arguments, scratch.path())?;
    let core = scratch.path().join("core.img");
    let content = std::fs::read(&core).map_err(ImageError::read(&core))?;
    tree.place("/grub-core.img", Node::file(content, false))?;
    Ok(tree)
}

/// A digest of all inputs of [`build`].
///
/// # Errors
/// A package that is neither cached nor available.
pub fn inputs_digest(packages: &Packages) -> Result<String, ImageError> {
    let mut text = format!("{LIST}\n{TOOLS}\n{PREFIX} {MODULES:?}\n");
    for list in [List::parse("loaders.list", LIST)?, List::parse("tools.list", TOOLS)?] {
        text.push_str(&format!("{:?}\n", packages.digests(&list.packages())?));
    }
    Ok(sha256(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    #[test]
    fn loaders_for_both_firmwares_are_made_the_same_each_time() {
        let packages = crate::packages::testing::packages();
        let tree = build(&packages).unwrap();
        assert_eq!(build(&packages).unwrap(), tree);
        let content = |path: &str| match &tree.get(path).unwrap().kind {
            Kind::File(content) => content.clone(),
            other => panic!("{other:?}"),
        };
        assert!(content("/systemd-boot.efi").starts_with(b"MZ"));
        let sections = [machine::uki::Section { name: ".linux", size: 1 }];
        machine::uki::layout(&content("/systemd-stub.efi"), &sections).unwrap();
        machine::grub::boot_sector(&content("/grub-boot.img"), 1).unwrap();
        let core = content("/grub-core.img");
        machine::grub::core_image(&core, 2048, 1 << 19).unwrap();
    }
}
