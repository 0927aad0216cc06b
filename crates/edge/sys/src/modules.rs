//! Kernel modules: loading files, names with what they depend on, and the modules of devices.

mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use machine::cmdline::Cmdline;

use self::index::Index;

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses the file.
const COMPRESSED: libc::c_int = 4;
/// More than any index of modules.
const MAX_INDEX: u64 = 16 << 20;
/// Where modules are, in a directory for each kernel release.
const MODULES: &str = "/usr/lib/modules";

/// A module cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("reading {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("kernel module {0:?} is not in this image")]
    Unknown(String),
    #[error("loading kernel module {}", path.display())]
    Load {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("parameters of a kernel module have a zero byte: {0:?}")]
    Parameters(String),
}

/// Loads the module in a file, which may be compressed; one that is loaded already is kept.
///
/// # Errors
/// `Read`, `Load`.
pub fn load_file(path: &Path, parameters: &str) -> Result<(), ModuleError> {
    let file = File::open(path).map_err(|source| ModuleError::Read { path: path.to_owned(), source })?;
    let compressed = path.extension().is_some_and(|extension| extension != "ko");
    let text = std::ffi::CString::new(parameters).map_err(|_| ModuleError::Parameters(parameters.to_owned()))?;
    let flags = if compressed { COMPRESSED } else { 0 };
    // SAFETY: the descriptor is open, and the text with its NUL outlives the call.
    let rc = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), text.as_ptr(), flags) };
    match io::Error::last_os_error() {
        _ if rc == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        source => Err(ModuleError::Load { path: path.to_owned(), source }),
    }
}

/// The modules of an image.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    directory: PathBuf,
    index: Index,
    arguments: Arguments,
}

/// What the kernel's arguments say of modules, as modprobe reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Arguments {
    /// `MODULE.PARAMETER=VALUE`, by module.
    parameters: BTreeMap<String, String>,
    /// `modprobe.blacklist=MODULE,MODULE`: not loaded for devices.
    unwanted: BTreeSet<String>,
}

impl Arguments {
    fn parse(line: &Cmdline) -> Self {
        let mut parsed = Self::default();
        for argument in line.iter() {
            match argument.key.split_once('.') {
                Some(("modprobe", "blacklist")) => {
                    parsed.unwanted.extend(argument.value.split(',').map(|name| name.replace('-', "_")));
                }
                Some((module, _)) => {
                    let text = argument.to_string();
                    let parameter = text.split_once('.').map_or("", |(_, parameter)| parameter);
                    let all = parsed.parameters.entry(module.replace('-', "_")).or_default();
                    all.push_str(if all.is_empty() { "" } else { " " });
                    all.push_str(parameter);
                }
                None => {}
            }
        }
        parsed
    }

    /// Those of a module and `own`, which come later and so win.
    fn with(&self, name: &str, own: &str) -> String {
        let told = self.parameters.get(name).map_or("", String::as_str);
        format!("{told} {own}").trim().to_owned()
    }
}

impl Modules {
    /// Reads the index of the modules for the running kernel, and its arguments.
    ///
    /// # Errors
    /// `Read`.
    pub fn of_running_kernel() -> Result<Self, ModuleError> {
        let line = read(Path::new("/proc/cmdline"))?;
        Self::read(&Path::new(MODULES).join(crate::host::kernel_release()), &Cmdline::parse(&line))
    }

    /// Reads the index in a directory; parameters of modules are also taken from the kernel's arguments.
    ///
    /// # Errors
    /// `Read`.
    pub fn read(directory: &Path, arguments: &Cmdline) -> Result<Self, ModuleError> {
        let dependencies = read(&directory.join("modules.dep"))?;
        // Kernels without modules of that kind have none of these.
        let other = |name: &str| read(&directory.join(name)).unwrap_or_default();
        let (builtin, soft, aliases) = (other("modules.builtin"), other("modules.softdep"), other("modules.alias"));
        Ok(Self {
            directory: directory.to_owned(),
            index: Index::parse(&dependencies, &builtin, &soft, aliases),
            arguments: Arguments::parse(arguments),
        })
    }

    /// Loads a module by its name or alias, after those that it needs, and with those that it wishes for. What is built into
    /// the kernel is there already.
    ///
    /// # Errors
    /// `Unknown`, `Load`; of modules that are only wished for, none.
    pub fn load(&self, name: &str, parameters: &str) -> Result<(), ModuleError> {
        let steps = self.index.plan(name).ok_or_else(|| ModuleError::Unknown(name.to_owned()))?;
        let asked = name.replace('-', "_");
        for step in steps {
            let own = if step.name == asked { parameters } else { "" };
            match load_file(&self.directory.join(step.file), &self.arguments.with(step.name, own)) {
                Err(error) if step.is_soft => {
                    tracing::debug!(module = step.name, error = stdx::error_chain(&error), "not loaded");
                }
                loaded => loaded?,
            }
        }
        Ok(())
    }

    /// Names of the modules for devices with these aliases (`modalias` in sysfs), without those that the kernel's arguments
    /// exclude.
    #[must_use]
    pub fn for_devices(&self, aliases: &[String]) -> Vec<String> {
        let found = self.index.for_aliases(aliases).into_iter();
        found.filter(|name| !self.arguments.unwanted.contains(*name)).map(str::to_owned).collect()
    }

    /// Where a module is in the kernel's tree: `kernel/drivers/net/virtio_net.ko`.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&str> {
        self.index.file(name)
    }
}

/// Names of the modules that are loaded.
///
/// # Errors
/// `Read`.
pub fn loaded() -> Result<Vec<String>, ModuleError> {
    let text = read(Path::new("/proc/modules"))?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn read(path: &Path) -> Result<String, ModuleError> {
    let error = |source| ModuleError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MAX_INDEX).read_to_string(&mut text)).map_err(error)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(arguments: &str) -> Modules {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        file("modules.dep", "kernel/drivers/net/one.ko:\nkernel/drivers/net/two-half.ko:\n");
        file("modules.builtin", "kernel/drivers/virtio/virtio-pci.ko\n");
        file("modules.alias", "alias pci:v1* one\nalias pci:v1* two_half\n");
        Modules::read(directory.path(), &Cmdline::parse(arguments)).unwrap()
    }

    #[test]
    fn builtin_ones_need_nothing_and_unknown_ones_are_named() {
        let modules = modules("");
        modules.load("virtio-pci", "").unwrap();
        let error = modules.load("nosuch", "").unwrap_err();
        assert!(matches!(&error, ModuleError::Unknown(name) if name == "nosuch"), "{error}");
    }

    #[test]
    fn a_module_without_its_file_cannot_be_loaded() {
        let error = modules("").load("one", "").unwrap_err();
        assert!(matches!(&error, ModuleError::Read { path, .. } if path.ends_with("net/one.ko")), "{error}");
    }

    #[test]
    fn arguments_of_the_kernel_have_parameters_and_exclude_modules() {
        let modules = modules("quiet two-half.a=1 one.b=\"x y\" two_half.c modprobe.blacklist=one,z-a");
        assert_eq!(modules.for_devices(&["pci:v1".into()]), ["two_half"]);
        assert_eq!(modules.arguments.with("two_half", "d=2"), "a=1 c d=2");
        assert_eq!(modules.arguments.with("one", ""), "b=\"x y\"");
        assert_eq!(modules.arguments.with("other", "e"), "e");
        assert!(modules.arguments.unwanted.contains("z_a"));
    }

    #[test]
    fn a_directory_without_an_index_is_named() {
        let error = Modules::read(Path::new("/no/modules"), &Cmdline::default()).unwrap_err();
        assert!(matches!(&error, ModuleError::Read { path, .. } if path.ends_with("modules.dep")), "{error}");
    }
}
