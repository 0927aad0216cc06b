//! Kernel parameters: the files under `/proc/sys` and `/sys`.

use std::fmt;
use std::io;
use std::path::{Component, PathBuf};

/// Where a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// `/proc/sys`.
    Sysctl,
    /// `/sys`.
    Sysfs,
}

impl Tree {
    /// Prefix of the name in an id.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Sysctl => "proc.sys.",
            Self::Sysfs => "sys.",
        }
    }

    const fn root(self) -> &'static str {
        match self {
            Self::Sysctl => "/proc/sys",
            Self::Sysfs => "/sys",
        }
    }
}

/// A parameter by its name below its tree. `net.ipv4.ip_forward` and `net/ipv4/ip_forward` are the same one; a slash form
/// keeps the dots of single parts, such as interface names. It is displayed as its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelParam {
    tree: Tree,
    /// With dots, unless a part of it has a dot itself: one spelling for each parameter.
    name: String,
}

impl fmt::Display for KernelParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.tree.prefix(), self.name)
    }
}

/// Failure with a kernel parameter.
#[derive(Debug, thiserror::Error)]
pub enum KernelParamError {
    #[error("reading kernel parameter {param}")]
    Read {
        param: KernelParam,
        #[source]
        source: io::Error,
    },
    #[error("writing {value:?} to kernel parameter {param}")]
    Write {
        param: KernelParam,
        value: String,
        #[source]
        source: io::Error,
    },
}

impl KernelParam {
    /// The parameter of this name, in either spelling. A name that leaves its tree is refused when it is read or written.
    #[must_use]
    pub fn new(tree: Tree, name: &str) -> Self {
        let name = name.trim_start_matches('/');
        let parts: Vec<&str> = if name.contains('/') { name.split('/').collect() } else { name.split('.').collect() };
        let separator = if parts.iter().any(|part| part.contains('.')) { "/" } else { "." };
        Self { tree, name: parts.join(separator) }
    }

    /// Where it is.
    #[must_use]
    pub const fn tree(&self) -> Tree {
        self.tree
    }

    /// Its name in the one spelling that it has.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameter of an id such as `proc.sys.kernel.panic`; `None` when it names no tree.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        let of = |tree: Tree| id.strip_prefix(tree.prefix()).map(|name| Self::new(tree, name));
        of(Tree::Sysctl).or_else(|| of(Tree::Sysfs))
    }

    /// The current value without the newline; for a list of choices, the selected one.
    ///
    /// # Errors
    /// `Read`; a parameter that this kernel lacks is `io::ErrorKind::NotFound`.
    pub fn read(&self) -> Result<String, KernelParamError> {
        let text = self.path().and_then(std::fs::read_to_string);
        let text = text.map_err(|source| KernelParamError::Read { param: self.clone(), source })?;
        Ok(match self.tree {
            Tree::Sysctl => text.trim_end(),
            Tree::Sysfs => chosen(text.trim_end()),
        }
        .to_owned())
    }

    /// Writes a value.
    ///
    /// # Errors
    /// `Write` with the kernel's reason.
    pub fn write(&self, value: &str) -> Result<(), KernelParamError> {
        self.path().and_then(|path| write_existing(&path, value)).map_err(|source| KernelParamError::Write {
            param: self.clone(),
            value: value.to_owned(),
            source,
        })
    }

    fn path(&self) -> io::Result<PathBuf> {
        let name = if self.name.contains('/') { self.name.clone() } else { self.name.replace('.', "/") };
        let below = PathBuf::from(name.trim_start_matches('/'));
        if !below.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name leaves its tree"));
        }
        Ok(PathBuf::from(self.tree.root()).join(below))
    }
}

fn write_existing(path: &std::path::Path, value: &str) -> io::Result<()> {
    use io::Write as _;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// `madvise` of `always [madvise] never`; any other text as it is.
fn chosen(text: &str) -> &str {
    let marked = |word: &&str| word.starts_with('[') && word.ends_with(']');
    let mut found = text.split_whitespace().filter(marked);
    match (found.next(), found.next()) {
        (Some(word), None) => word.trim_start_matches('[').trim_end_matches(']'),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(id: &str) -> io::Result<PathBuf> {
        KernelParam::from_id(id).unwrap().path()
    }

    #[test]
    fn both_spellings_name_the_same_file() {
        assert_eq!(path("proc.sys.kernel.pid_max").unwrap(), PathBuf::from("/proc/sys/kernel/pid_max"));
        assert_eq!(
            path("proc.sys.net/ipv4/conf/eth0.5/forwarding").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/forwarding")
        );
        assert_eq!(KernelParam::from_id("proc.sys.kernel.ostype").unwrap().read().unwrap(), "Linux");
    }

    #[test]
    fn both_spellings_are_one_parameter() {
        let of = |name| KernelParam::new(Tree::Sysctl, name).to_string();
        assert_eq!(
            (of("net/a/b"), of("/net/a/b"), of("net.a.b")),
            ("proc.sys.net.a.b".into(), of("net.a.b"), of("net/a/b"))
        );
        assert_eq!(of("net/ipv4/conf/eth0.5/forwarding"), "proc.sys.net/ipv4/conf/eth0.5/forwarding");
        assert_ne!(of("net/ipv4/conf/eth0.5/forwarding"), of("net.ipv4.conf.eth0.5.forwarding"));
    }

    #[test]
    fn a_parameter_of_sysfs_is_below_sys() {
        assert_eq!(
            path("sys.devices.system.cpu.cpu0.cpufreq.scaling_governor").unwrap(),
            PathBuf::from("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        );
        let param = KernelParam::from_id("sys.kernel.mm.transparent_hugepage.enabled").unwrap();
        assert_eq!(
            (param.tree, param.to_string().as_str()),
            (Tree::Sysfs, "sys.kernel.mm.transparent_hugepage.enabled")
        );
        assert_eq!(KernelParam::from_id("kernel.panic"), None);
    }

    #[test]
    fn of_a_list_the_choice_is_the_value() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("performance"), "performance");
        assert_eq!(chosen("[a] [b]"), "[a] [b]");
    }

    #[test]
    fn a_name_that_leaves_its_tree_is_refused() {
        for id in ["sys./../etc/passwd", "proc.sys.a/../../../etc/passwd"] {
            assert_eq!(path(id).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{id}");
        }
    }

    #[test]
    fn an_absent_parameter_is_named_in_the_error() {
        let param = KernelParam::from_id("proc.sys.kernel.no_such_parameter").unwrap();
        let error = param.read().unwrap_err();
        assert!(matches!(&error, KernelParamError::Read { param: named, source } if *named == param
            && source.kind() == io::ErrorKind::NotFound));
    }
}
