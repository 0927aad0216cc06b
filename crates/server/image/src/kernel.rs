//! The kernel of a machine: from a Debian package, its image and the modules of a list, with the indexes that `modprobe`
//! and udevd read. Which package is an input.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::deb::Package;
use crate::list::List;
use crate::modules::{Chosen, ModuleList};
use crate::packages::Packages;
use crate::tools::{self, Tools};
use crate::tree::{Kind, Node, Tree};
use crate::{ImageError, sha256};

/// Debian's package of its current kernel; it depends on the package that has the files.
pub const DEFAULT: &str = "linux-image-amd64";

/// Where modules are in the root image.
pub const MODULES: &str = "/usr/lib/modules";

const MODULE_LIST: &str = include_str!("../kernel/modules.list");
const DEPMOD_LIST: &str = include_str!("../kernel/depmod.list");

/// Indexes that nobody reads on a node: symbols are for building modules.
const UNUSED: &[&str] = &["modules.symbols", "modules.symbols.bin"];

/// A kernel and the modules of the list.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Release, as `6.12.117+deb13-amd64`.
    pub version: String,
    /// The bootable image.
    pub image: Arc<[u8]>,
    /// The package that it comes from, without its files.
    pub package: Package,
    /// Modules and their indexes, below [`MODULES`]`/VERSION`.
    pub modules: Tree,
    /// Modules of the initramfs in the order of loading: file name and content.
    pub initramfs: Vec<(String, Arc<[u8]>)>,
}

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A package of Debian's archive, or one that depends on it.
    Name(String),
    /// A file of a package.
    File(std::path::PathBuf),
}

impl Source {
    /// A package file if `text` has a `/`, else the name of a package.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.contains('/') { Self::File(text.into()) } else { Self::Name(text.to_owned()) }
    }

    /// A text that differs where the kernel, the list of its modules, or the program that writes their indexes does.
    ///
    /// # Errors
    /// A package that is neither cached nor available.
    pub fn digest(&self, packages: &Packages) -> Result<String, ImageError> {
        let kernel = match self {
            Self::Name(name) => {
                let names = [packages.kernel(name)?];
                format!("{:?}", packages.digests(&names)?)
            }
            Self::File(path) => sha256(&std::fs::read(path).map_err(ImageError::read(path))?),
        };
        let tools = packages.digests(&List::parse("depmod.list", DEPMOD_LIST)?.packages())?;
        Ok(sha256(format!("{kernel}\n{tools:?}\n{MODULE_LIST}\n{DEPMOD_LIST}").as_bytes()))
    }

    /// Reads the kernel.
    ///
    /// # Errors
    /// A package that cannot be had, has no kernel, or lacks a module of the list.
    pub fn read(&self, packages: &Packages) -> Result<Kernel, ImageError> {
        let package = match self {
            Self::Name(name) => packages.open(&packages.kernel(name)?)?,
            Self::File(path) => Package::open(path)?,
        };
        let tools = Tools::unpack(&List::parse("depmod.list", DEPMOD_LIST)?, packages)?;
        Kernel::new(package, &ModuleList::parse("modules.list", MODULE_LIST)?, &tools)
    }
}

impl Kernel {
    fn new(package: Package, list: &ModuleList, depmod: &Tools) -> Result<Self, ImageError> {
        let bad = |problem: &str| ImageError::Kernel { package: package.name.clone(), problem: problem.to_owned() };
        let (version, image) = image(&package).ok_or_else(|| bad("no file /boot/vmlinuz-VERSION"))?;
        let base = [format!("{MODULES}/{version}/"), format!("/lib/modules/{version}/")]
            .into_iter()
            .find(|base| package.files.get(base.trim_end_matches('/')).is_some())
            .ok_or_else(|| bad("no modules"))?;
        let mut all = BTreeMap::new();
        let mut lists = BTreeMap::new();
        for (path, node) in package.files.iter() {
            let (Some(path), Kind::File(content)) = (path.strip_prefix(&base), &node.kind) else { continue };
            if let Some(module) = path.strip_prefix("kernel/") {
                all.insert(module.to_owned(), content.clone());
            } else if path.starts_with("modules.") {
                lists.insert(path.to_owned(), content.clone());
            }
        }
        let chosen = list.choose(&all)?;
        let modules = with_indexes(&version, &chosen, lists, depmod)?;
        let initramfs = chosen
            .initramfs
            .iter()
            .map(|path| (path.rsplit('/').next().unwrap_or(path).to_owned(), chosen.files[path].clone()))
            .collect();
        Ok(Self { version, image, package: Package { files: Tree::default(), ..package }, modules, initramfs })
    }
}

/// Version and image of the kernel in `package`.
fn image(package: &Package) -> Option<(String, Arc<[u8]>)> {
    package.files.iter().find_map(|(path, node)| match (path.strip_prefix("/boot/vmlinuz-"), &node.kind) {
        (Some(version), Kind::File(content)) => Some((version.to_owned(), content.clone())),
        _ => None,
    })
}

/// The modules with `lists` of the kernel's build and the indexes that depmod writes of all.
fn with_indexes(
    version: &str,
    chosen: &Chosen,
    lists: BTreeMap<String, Arc<[u8]>>,
    depmod: &Tools,
) -> Result<Tree, ImageError> {
    let base = format!("{MODULES}/{version}");
    let mut tree = Tree::default();
    for (path, content) in &chosen.files {
        tree.place(&format!("{base}/kernel/{path}"), Node::file(content.clone(), false))?;
    }
    for (name, content) in lists {
        tree.place(&format!("{base}/{name}"), Node::file(content, false))?;
    }
    let scratch = tempfile::tempdir().map_err(ImageError::write("a temporary directory"))?;
    tools::write(&tree, scratch.path())?;
    std::os::unix::fs::symlink("usr/lib", scratch.path().join("lib")).map_err(ImageError::write("lib"))?;
    let root = scratch.path().to_string_lossy();
    depmod.run("/usr/sbin/depmod", &["--config", "/dev/null", "--basedir", &root, version], Path::new("/"))?;
    let written = scratch.path().join(base.trim_start_matches('/'));
    for entry in std::fs::read_dir(&written).map_err(ImageError::read(&written))? {
        let path = entry.map_err(ImageError::read(&written))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = format!("{base}/{name}");
        if path.is_file() && !UNUSED.contains(&name.as_str()) && tree.get(&target).is_none() {
            let content = std::fs::read(&path).map_err(ImageError::read(&path))?;
            tree.place(&target, Node::file(content, false))?;
        }
    }
    Ok(tree)
}
