//! The node's root file system: the embedded list and the modules of a kernel as one squashfs with its SBOM.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::assemble::{Assembled, Inputs, assemble};
use crate::deb::Package;
use crate::kernel::Kernel;
use crate::list::List;
use crate::{ImageError, audit, sbom, sha256, squashfs};

/// Maximum size of an image in bytes.
pub const LIMIT: u64 = 77_000_000;

const LIST: &str = include_str!("../rootfs/rootfs.list");
const LOCALS: &[(&str, &str)] = &[
    ("passwd", include_str!("../rootfs/passwd")),
    ("group", include_str!("../rootfs/group")),
    ("os-release", include_str!("../rootfs/os-release")),
    ("md-module.rules", include_str!("../rootfs/md-module.rules")),
    ("mdadm.conf", include_str!("../rootfs/mdadm.conf")),
];

/// A finished image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The squashfs.
    pub bytes: Vec<u8>,
    /// SHA-256 of `bytes`.
    pub digest: String,
    /// SPDX document.
    pub sbom: Value,
}

/// The list of the content.
///
/// # Errors
/// A list that does not parse; a test prevents that.
pub fn list() -> Result<List, ImageError> {
    List::parse("rootfs.list", LIST)
}

/// Our own programs in the list.
///
/// # Errors
/// As [`list`].
pub fn programs() -> Result<Vec<String>, ImageError> {
    let programs = list()?.entries.into_iter().filter_map(|entry| match entry.item {
        crate::list::Item::Program { name, .. } => Some(name),
        _ => None,
    });
    Ok(programs.collect())
}

/// A digest of all inputs of the image (`packages`: names and digests; `kernel`: [`crate::kernel::Source::digest`]):
/// equal digests mean identical images.
#[must_use]
pub fn inputs_digest(
    packages: &BTreeMap<String, String>,
    programs: &BTreeMap<String, Vec<u8>>,
    kernel: &str,
    version: &str,
    level: u32,
) -> String {
    let mut text = format!("{version} {level} {kernel}\n{LIST}\n");
    for (name, content) in LOCALS {
        let _ = writeln!(text, "{name} {}", sha256(content.as_bytes()));
    }
    for (name, digest) in packages {
        let _ = writeln!(text, "{name} {digest}");
    }
    for (name, content) in programs {
        let _ = writeln!(text, "{name} {}", sha256(content));
    }
    sha256(text.as_bytes())
}

/// Builds the image of version `version` from packages, `programs` (by name) and the modules of `kernel` at zstd level
/// `level`.
///
/// # Errors
/// A missing input, a violation of [`audit`], or a size above [`LIMIT`].
pub fn build(
    packages: Vec<Package>,
    programs: BTreeMap<String, Vec<u8>>,
    kernel: &Kernel,
    version: &str,
    level: u32,
) -> Result<Image, ImageError> {
    let (mut done, mut inputs) = tree(packages, programs)?;
    for (path, node) in kernel.modules.iter() {
        done.tree.place(path, node.clone())?;
    }
    done.packages.insert(kernel.package.name.clone());
    inputs.packages.push(kernel.package.clone());
    let findings = audit::audit(&done.tree);
    if !findings.is_empty() {
        return Err(ImageError::Audit { findings });
    }
    let bytes = squashfs::to_bytes(&done.tree, level)?;
    let size = bytes.len() as u64;
    if size > LIMIT {
        return Err(ImageError::TooLarge { size, limit: LIMIT });
    }
    let digest = sha256(&bytes);
    let sbom = sbom::spdx("talos-rootfs", version, &digest, &done, &inputs);
    Ok(Image { bytes, digest, sbom })
}

/// The tree of the image without the kernel's modules, before it is compressed.
///
/// # Errors
/// A missing input.
pub fn tree(packages: Vec<Package>, programs: BTreeMap<String, Vec<u8>>) -> Result<(Assembled, Inputs), ImageError> {
    let locals = LOCALS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let inputs = Inputs { packages, programs, locals };
    Ok((assemble(&list()?, &inputs)?, inputs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{self, Source};
    use crate::packages::testing;
    use crate::tree::Kind;

    #[test]
    fn the_image_calls_itself_what_the_api_calls_the_system() {
        let text = LOCALS.iter().find(|(name, _)| *name == "os-release").unwrap().1;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.contains(&format!("PRETTY_NAME=\"{}\"", stdx::version::os_name()).as_str()), "{text}");
        assert!(lines.contains(&format!("VERSION_ID={}", stdx::version::TAG).as_str()), "{text}");
    }

    /// Builds the image twice, the second time from packages in another order.
    fn images() -> [Image; 2] {
        let programs: BTreeMap<String, Vec<u8>> =
            programs().unwrap().into_iter().map(|name| (name.clone(), name.into_bytes())).collect();
        let cached = testing::packages();
        let packages = cached.get(&list().unwrap().packages()).unwrap();
        let kernel = Source::parse(kernel::DEFAULT).read(&cached).unwrap();
        let reversed = packages.iter().rev().cloned().collect();
        [packages, reversed].map(|packages| build(packages, programs.clone(), &kernel, "v0", 6).unwrap())
    }

    #[test]
    fn the_image_of_debian_packages_is_reproducible_and_keeps_every_rule_and_the_node_contract() {
        let [image, again] = images();
        assert_eq!(image.digest, again.digest, "the same inputs must give the same bits");
        let tree = squashfs::read(&image.bytes).unwrap();
        assert_eq!(audit::audit(&tree), Vec::<String>::new());
        for program in ["apid", "trustd", "containerd", "containerd-shim-runc-v2", "runc"] {
            assert!(tree.resolve(&format!("/usr/bin/{program}")).is_some(), "{program}");
        }
        let init = tree.resolve("/sbin/init").unwrap();
        assert_eq!(tree.get(&init).unwrap().kind, Kind::File(b"machined".as_slice().into()));
        for path in ["/dev", "/proc", "/sys", "/run", "/system", "/tmp", "/var", "/etc/cni", "/etc/kubernetes"] {
            assert_eq!(tree.get(path).map(|node| &node.kind), Some(&Kind::Dir), "{path}");
        }
        for path in ["hosts", "resolv.conf", "hostname", "machine-id", "os-release"] {
            let node = tree.get(&format!("/etc/{path}"));
            assert!(matches!(node.map(|node| &node.kind), Some(Kind::File(_))), "{path}");
        }
        let packages = image.sbom["packages"].as_array().unwrap();
        let containerd = packages.iter().find(|package| package["name"] == "containerd").unwrap();
        assert_eq!(containerd["checksums"][0]["checksumValue"].as_str().unwrap().len(), 64);
        assert!(packages.iter().any(|package| package["name"] == "libc6"));
        assert_eq!(image.sbom["relationships"].as_array().unwrap().len(), packages.len());
        assert!((image.bytes.len() as u64) < LIMIT);
    }
}
