//! Kernel modules: loading files, and names with what they depend on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses the file.
const COMPRESSED: libc::c_int = 4;
/// More than any `modules.dep`.
const MAX_INDEX: u64 = 8 << 20;
/// Modules that one module may need, as a bound for damaged indexes.
const MAX_DEPENDENCIES: usize = 256;

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
    /// By name: the file, and the files that it needs, nearest first.
    files: BTreeMap<String, (String, Vec<String>)>,
    builtin: Vec<String>,
}

impl Modules {
    /// Reads the index of the modules for a kernel release.
    ///
    /// # Errors
    /// `Read`.
    pub fn read(directory: &Path) -> Result<Self, ModuleError> {
        let dependencies = read(&directory.join("modules.dep"))?;
        let builtin = read(&directory.join("modules.builtin")).unwrap_or_default();
        Ok(Self {
            directory: directory.to_owned(),
            files: dependencies.lines().filter_map(parse_line).collect(),
            builtin: builtin.lines().map(name_of).collect(),
        })
    }

    /// Loads a module by its name, after those that it needs. What is built into the kernel is there already.
    ///
    /// # Errors
    /// `Unknown`, `Load`.
    pub fn load(&self, name: &str, parameters: &str) -> Result<(), ModuleError> {
        let Some(paths) = self.paths(name)? else { return Ok(()) };
        let (own, needed) = paths.split_last().ok_or_else(|| ModuleError::Unknown(name.to_owned()))?;
        for path in needed {
            load_file(path, "")?;
        }
        load_file(own, parameters)
    }

    /// Files in the order in which they are loaded; none for what is built in.
    fn paths(&self, name: &str) -> Result<Option<Vec<PathBuf>>, ModuleError> {
        let name = name.replace('-', "_");
        match self.files.get(&name) {
            Some((file, needed)) => {
                let all = needed.iter().rev().chain(std::iter::once(file));
                Ok(Some(all.map(|file| self.directory.join(file)).collect()))
            }
            None if self.builtin.contains(&name) => Ok(None),
            None => Err(ModuleError::Unknown(name)),
        }
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

/// `kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz`
fn parse_line(line: &str) -> Option<(String, (String, Vec<String>))> {
    let (file, needed) = line.split_once(':')?;
    let needed = needed.split_whitespace().take(MAX_DEPENDENCIES).map(str::to_owned).collect();
    Some((name_of(file), (file.to_owned(), needed)))
}

/// The name of the module in a file: without directories and extensions, with underscores.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Modules {
        let directory = tempfile::tempdir().unwrap();
        let dependencies = "kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz kernel/crypto/crc32c_generic.ko.xz\n\
                            kernel/lib/libcrc32c.ko.xz:\nno colon\nkernel/crypto/crc32c_generic.ko.xz:\n\
                            kernel/drivers/block/virtio_blk.ko.xz:\n";
        std::fs::write(directory.path().join("modules.dep"), dependencies).unwrap();
        std::fs::write(directory.path().join("modules.builtin"), "kernel/drivers/virtio/virtio-pci.ko\n").unwrap();
        Modules::read(directory.path()).unwrap()
    }

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let modules = modules();
        let names = |name: &str| -> Vec<String> {
            let paths = modules.paths(name).unwrap().unwrap();
            paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names("xfs"), ["crc32c_generic.ko.xz", "libcrc32c.ko.xz", "xfs.ko.xz"]);
        assert_eq!(names("virtio-blk"), ["virtio_blk.ko.xz"]);
    }

    #[test]
    fn builtin_ones_need_nothing_and_unknown_ones_are_named() {
        let modules = modules();
        assert_eq!(modules.paths("virtio_pci").unwrap(), None);
        let error = modules.load("nosuch", "").unwrap_err();
        assert!(matches!(&error, ModuleError::Unknown(name) if name == "nosuch"), "{error}");
    }

    #[test]
    fn a_directory_without_an_index_is_named() {
        let error = Modules::read(Path::new("/no/modules")).unwrap_err();
        assert!(matches!(&error, ModuleError::Read { path, .. } if path.ends_with("modules.dep")), "{error}");
    }
}
