//! The offline bundle: every image that a cluster needs, as one OCI image layout, from embedded lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::assemble::{Inputs, assemble};
use crate::deb::Package;
use crate::list::{Item, List};
use crate::oci::{Layout, Start};
use crate::packages::Packages;
use crate::{ImageError, sha256};

const LISTS: &[(&str, &str)] = &[
    ("busybox.list", include_str!("../bundle/busybox.list")),
    ("coredns.list", include_str!("../bundle/coredns.list")),
    ("etcd.list", include_str!("../bundle/etcd.list")),
    ("flannel.list", include_str!("../bundle/flannel.list")),
    ("install-cni.list", include_str!("../bundle/install-cni.list")),
    ("kube-apiserver.list", include_str!("../bundle/kube-apiserver.list")),
    ("kube-controller-manager.list", include_str!("../bundle/kube-controller-manager.list")),
    ("kube-proxy.list", include_str!("../bundle/kube-proxy.list")),
    ("kube-scheduler.list", include_str!("../bundle/kube-scheduler.list")),
    ("kubelet.list", include_str!("../bundle/kubelet.list")),
    ("pause.list", include_str!("../bundle/pause.list")),
];

/// Incremented when the writer's output changes for the same inputs.
const FORMAT: u32 = 1;

/// The components of a bundle with their versions, named as in the lists: `kubernetes`, `coredns`, `flannel`.
pub type Components = BTreeMap<String, String>;

/// The image lists for a bundle with these components.
///
/// # Errors
/// A list that does not parse; a test prevents that.
pub fn lists(components: &Components) -> Result<Vec<List>, ImageError> {
    let mut lists = LISTS.iter().map(|(name, text)| List::parse(name, text)).collect::<Result<Vec<_>, _>>()?;
    lists.retain(|list| list.component.as_ref().is_none_or(|name| components.contains_key(name)));
    Ok(lists)
}

/// All components that a bundle can have.
///
/// # Errors
/// As [`lists`].
pub fn component_names() -> Result<BTreeSet<String>, ImageError> {
    LISTS.iter().filter_map(|(name, text)| List::parse(name, text).map(|list| list.component).transpose()).collect()
}

/// The programs that the lists need.
///
/// # Errors
/// As [`lists`].
pub fn programs(components: &Components) -> Result<Vec<String>, ImageError> {
    let entries = lists(components)?.into_iter().flat_map(|list| list.entries);
    Ok(entries
        .filter_map(|entry| if let Item::Program { name, .. } = entry.item { Some(name) } else { None })
        .collect())
}

/// Builds the bundle of `programs` and Debian packages in a directory of `cache` named by a digest of all inputs,
/// unless it exists; returns that directory.
///
/// # Errors
/// A missing input, or a failed write.
pub fn build(
    packages: &Packages,
    programs: BTreeMap<String, Vec<u8>>,
    components: &Components,
    cache: &Path,
) -> Result<PathBuf, ImageError> {
    let lists = lists(components)?;
    let mut names: Vec<String> = lists.iter().flat_map(List::packages).collect();
    names.sort();
    names.dedup();
    let digest = digest(&packages.digests(&names)?, &programs, components);
    let directory = cache.join(format!("bundle-{}", &digest[..16]));
    if directory.join("index.json").exists() {
        return Ok(directory);
    }
    let inputs = Inputs { packages: packages.get(&names)?, programs, locals: BTreeMap::new() };
    std::fs::create_dir_all(cache).map_err(ImageError::write(cache))?;
    let partial = tempfile::tempdir_in(cache).map_err(ImageError::write(cache))?;
    let mut layout = Layout::create(partial.path())?;
    for list in &lists {
        let reference = reference(list, components, &inputs.packages)?;
        tracing::info!(image = reference, "writing");
        let done = assemble(list, &inputs)?;
        let start = Start { entrypoint: list.entrypoint.clone(), env: list.env.clone() };
        layout.add(&reference, &done.tree, &start)?;
    }
    layout.finish()?;
    let partial = partial.keep();
    std::fs::rename(&partial, &directory).map_err(ImageError::write(&directory))?;
    Ok(directory)
}

/// The reference of a list's image, with each `{name}` replaced by that component's or package's upstream version.
fn reference(list: &List, components: &Components, packages: &[Package]) -> Result<String, ImageError> {
    let wrong = |problem: &str| ImageError::List { list: list.name.clone(), line: 1, problem: problem.to_owned() };
    let template = list.image.as_deref().ok_or_else(|| wrong("no image reference"))?;
    let Some((before, rest)) = template.split_once('{') else { return Ok(template.to_owned()) };
    let (name, after) = rest.split_once('}').ok_or_else(|| wrong("unclosed brace"))?;
    let package = || packages.iter().find(|package| package.name == name).map(Package::upstream_version);
    let version = components.get(name).map(String::as_str).or_else(package);
    let version = version.ok_or_else(|| wrong("its version is unknown"))?;
    Ok(format!("{before}{version}{after}"))
}

fn digest(
    packages: &BTreeMap<String, String>,
    programs: &BTreeMap<String, Vec<u8>>,
    components: &Components,
) -> String {
    let mut text = format!("format {FORMAT}\n");
    for (name, list) in LISTS {
        let _ = writeln!(text, "{name} {}", sha256(list.as_bytes()));
    }
    for (name, value) in packages.iter().chain(components) {
        let _ = writeln!(text, "{name} {value}");
    }
    for (name, content) in programs {
        let _ = writeln!(text, "{name} {}", sha256(content));
    }
    sha256(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_has_every_image_and_is_made_once() {
        let cache = tempfile::tempdir().unwrap();
        let packages = crate::packages::testing::packages();
        let components = |pairs: &[(&str, &str)]| -> Components {
            pairs.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
        };
        let old = components(&[("kubernetes", "1.25.4")]);
        let new = components(&[("kubernetes", "1.30.14"), ("coredns", "1.11.1"), ("flannel", "0.25.7")]);
        let given = |components: &Components| -> BTreeMap<String, Vec<u8>> {
            programs(components).unwrap().into_iter().map(|name| (name.clone(), name.into_bytes())).collect()
        };
        let directory = build(&packages, given(&old), &old, cache.path()).unwrap();
        let index = directory.join("index.json");
        let text = std::fs::read_to_string(&index).unwrap();
        for reference in [
            "registry.k8s.io/kube-apiserver:v1.25.4",
            "registry.k8s.io/kube-controller-manager:v1.25.4",
            "registry.k8s.io/kube-scheduler:v1.25.4",
            "registry.k8s.io/kube-proxy:v1.25.4",
            "ghcr.io/siderolabs/kubelet:v1.25.4",
            "gcr.io/etcd-development/etcd:v3.5.",
            "registry.k8s.io/pause:3.8",
            "docker.io/library/busybox:1.",
        ] {
            assert!(text.contains(reference), "{reference} is not in {text}");
        }
        assert!(!text.contains("coredns") && !text.contains("flannel"), "{text}");
        let written = std::fs::metadata(&index).unwrap().modified().unwrap();
        assert_eq!(build(&packages, given(&old), &old, cache.path()).unwrap(), directory);
        assert_eq!(std::fs::metadata(&index).unwrap().modified().unwrap(), written);
        let mut other = given(&old);
        other.insert("pause".to_owned(), b"another".to_vec());
        assert_ne!(build(&packages, other, &old, cache.path()).unwrap(), directory);

        let directory = build(&packages, given(&new), &new, cache.path()).unwrap();
        let text = std::fs::read_to_string(directory.join("index.json")).unwrap();
        for reference in [
            "registry.k8s.io/kube-proxy:v1.30.14",
            "registry.k8s.io/coredns/coredns:v1.11.1",
            "ghcr.io/siderolabs/flannel:v0.25.1",
            "ghcr.io/siderolabs/install-cni:v1.7.0-1-gbb76755",
        ] {
            assert!(text.contains(reference), "{reference} is not in {text}");
        }
    }

    #[test]
    fn the_lists_name_the_components() {
        assert!(component_names().unwrap().iter().eq(["coredns", "flannel", "kubernetes"]));
    }

    #[test]
    fn a_version_that_nothing_says_is_named_with_its_list() {
        let list = List::parse("kubelet.list", include_str!("../bundle/kubelet.list")).unwrap();
        let error = reference(&list, &Components::new(), &[]).unwrap_err();
        assert!(matches!(&error, ImageError::List { list, .. } if list == "kubelet.list"), "{error:?}");
    }
}
