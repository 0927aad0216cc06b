//! A kernel for tests that refuses what the kernel refuses, and can be made to fail or to lose power at any call.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::{EarlyError, EarlySystem, SystemMount};
use crate::kernel_param::{KernelParam, KernelParamError};
use crate::mounts::{Mount, MountError};

/// One call, for assertions on order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Mount(&'static str, &'static str),
    Directory(PathBuf),
    Write(PathBuf, String),
    Param(String, String),
    FileOver(PathBuf),
    File(PathBuf),
    /// A directory, and where it is shown as well.
    Bind(PathBuf, PathBuf),
    Share,
    Writable(PathBuf),
    OpenFiles(u64),
}

/// Strict: directories have to exist below existing ones, the root is read-only, filesystems and parameters that it does not
/// have are refused.
#[derive(Debug, Default)]
pub struct FakeEarlySystem {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    texts: BTreeMap<PathBuf, String>,
    directories: BTreeSet<PathBuf>,
    mounted: BTreeMap<PathBuf, &'static str>,
    kinds: BTreeSet<&'static str>,
    params: BTreeMap<String, String>,
    /// Mounts of the host, as a container has them.
    hosts: Vec<Mount>,
    /// Those that stay read-only.
    fixed: BTreeSet<PathBuf>,
    withheld: BTreeSet<u32>,
    /// No limit of open files above this.
    open_files: Option<u64>,
    calls: Vec<Call>,
    fails_at: Option<usize>,
}

impl FakeEarlySystem {
    /// A machine with these directories of its root, filesystems of its kernel, and parameters.
    #[must_use]
    pub fn new(directories: &[&str], kinds: &[&'static str], params: &[(&str, &str)]) -> Self {
        let state = State {
            directories: directories.iter().map(PathBuf::from).collect(),
            kinds: kinds.iter().copied().collect(),
            params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..State::default()
        };
        Self { state: Mutex::new(state) }
    }

    /// With a file of the kernel.
    #[must_use]
    pub fn with_text(self, path: &str, text: &str) -> Self {
        self.state.lock().texts.insert(path.into(), text.to_owned());
        self
    }

    /// With a mount that the host made; options are separated by commas.
    #[must_use]
    pub fn with_host_mount(self, target: &str, options: &str) -> Self {
        let mount = Mount {
            source: "host".to_owned(),
            target: target.into(),
            filesystem: "sysfs".to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
        };
        self.state.lock().hosts.push(mount);
        self
    }

    /// A host that keeps this mount read-only.
    #[must_use]
    pub fn with_fixed(self, target: &str) -> Self {
        self.state.lock().fixed.insert(target.into());
        self
    }

    /// A host that withholds a capability, and limits open files.
    #[must_use]
    pub fn withholding(self, capability: u32, open_files: u64) -> Self {
        {
            let mut state = self.state.lock();
            state.withheld.insert(capability);
            state.open_files = Some(open_files);
        }
        self
    }

    /// The call of this number, from 0, fails with an I/O error.
    pub fn fail_at(&self, call: usize) {
        self.state.lock().fails_at = Some(call);
    }

    /// Calls that changed something, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// What is mounted at `target`.
    #[must_use]
    pub fn mounted(&self, target: &str) -> Option<&'static str> {
        self.state.lock().mounted.get(Path::new(target)).copied()
    }

    /// A text of the kernel as it is now.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.state.lock().texts.get(Path::new(path)).cloned()
    }

    fn call(&self, call: Call) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        let number = state.calls.len();
        state.calls.push(call);
        if state.fails_at == Some(number) { Err(io::Error::other("made to fail")) } else { Ok(state) }
    }
}

impl State {
    /// Whether files can be made there: on a mounted filesystem, the root is read-only.
    fn is_writable(&self, path: &Path) -> bool {
        self.mounted.keys().any(|mounted| path.starts_with(mounted) && path != mounted)
    }
}

fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl EarlySystem for FakeEarlySystem {
    fn read(&self, path: &Path) -> Result<String, EarlyError> {
        let text = self.state.lock().texts.get(path).cloned();
        text.ok_or_else(|| EarlyError::Read { path: path.to_owned(), source: os(libc::ENOENT) })
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), EarlyError> {
        let error = |source| EarlyError::Write { path: path.to_owned(), text: text.to_owned(), source };
        let mut state = self.call(Call::Write(path.to_owned(), text.to_owned())).map_err(error)?;
        // Files of control groups come with their directory.
        let comes_with_directory = path.parent().is_some_and(|parent| state.directories.contains(parent));
        if !comes_with_directory && !state.texts.contains_key(path) {
            return Err(error(os(libc::ENOENT)));
        }
        state.texts.insert(path.to_owned(), text.to_owned());
        Ok(())
    }

    fn set_param(&self, param: &KernelParam, value: &str) -> Result<String, EarlyError> {
        let error = |source| KernelParamError::Write { param: param.clone(), value: value.to_owned(), source };
        let mut state = self.call(Call::Param(param.to_string(), value.to_owned())).map_err(error)?;
        let current = state.params.get_mut(param.name()).ok_or_else(|| error(os(libc::ENOENT)))?;
        // A value that cannot be changed is spelled with an exclamation mark.
        if !current.starts_with('!') {
            value.clone_into(current);
        }
        Ok(current.trim_start_matches('!').to_owned())
    }

    fn directory(&self, path: &Path, _mode: u32) -> Result<(), EarlyError> {
        let error = |source| EarlyError::Directory { path: path.to_owned(), source };
        let mut state = self.call(Call::Directory(path.to_owned())).map_err(error)?;
        if state.directories.contains(path) {
            return Ok(());
        }
        if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
            return Err(error(os(libc::ENOENT)));
        }
        if !state.is_writable(path) {
            return Err(error(os(libc::EROFS)));
        }
        state.directories.insert(path.to_owned());
        Ok(())
    }

    fn mount(&self, mount: &SystemMount) -> Result<(), EarlyError> {
        let target = PathBuf::from(mount.target);
        let error = |source| MountError::Mount { what: mount.kind.to_owned(), target: mount.target.into(), source };
        let mut state = self.call(Call::Mount(mount.kind, mount.target)).map_err(error)?;
        if !state.directories.contains(&target) {
            return Err(error(os(libc::ENOENT)).into());
        }
        if !state.kinds.contains(mount.kind) {
            return Err(error(os(libc::ENODEV)).into());
        }
        state.mounted.insert(target, mount.kind);
        Ok(())
    }

    fn share_mounts(&self) -> Result<(), EarlyError> {
        let error = |source| MountError::Mount { what: "shared propagation".into(), target: "/".into(), source };
        self.call(Call::Share).map(drop).map_err(|source| error(source).into())
    }

    fn mounts(&self) -> Result<Vec<Mount>, EarlyError> {
        Ok(self.state.lock().hosts.clone())
    }

    fn remount_writable(&self, target: &Path) -> Result<(), EarlyError> {
        let error = |source| MountError::Mount { what: "writable remount".into(), target: target.to_owned(), source };
        let mut state = self.call(Call::Writable(target.to_owned())).map_err(error)?;
        if state.fixed.contains(target) {
            return Err(error(os(libc::EPERM)).into());
        }
        let mount = state.hosts.iter_mut().find(|mount| mount.target == target);
        mount.ok_or_else(|| error(os(libc::EINVAL)))?.options = vec!["rw".to_owned()];
        Ok(())
    }

    fn may_have(&self, capability: u32) -> bool {
        !self.state.lock().withheld.contains(&capability)
    }

    fn files(&self, directory: &Path) -> Result<Vec<(OsString, Vec<u8>)>, EarlyError> {
        let state = self.state.lock();
        let below = state.texts.iter().filter(|(path, _)| path.parent() == Some(directory));
        let named = |(path, text): (&PathBuf, &String)| Some((path.file_name()?.to_owned(), text.clone().into_bytes()));
        Ok(below.filter_map(named).collect())
    }

    fn write_file(&self, path: &Path, contents: &[u8]) -> Result<(), EarlyError> {
        let text = String::from_utf8_lossy(contents).into_owned();
        let error = |source| EarlyError::Write { path: path.to_owned(), text: text.clone(), source };
        let mut state = self.call(Call::File(path.to_owned())).map_err(error)?;
        if !state.is_writable(path) {
            return Err(error(os(libc::EROFS)));
        }
        if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
            return Err(error(os(libc::ENOENT)));
        }
        state.texts.insert(path.to_owned(), text);
        Ok(())
    }

    fn bind(&self, directory: &Path, target: &Path) -> Result<(), EarlyError> {
        let what = directory.display().to_string();
        let error = |source| MountError::Mount { what: what.clone(), target: target.to_owned(), source };
        let state = self.call(Call::Bind(directory.to_owned(), target.to_owned())).map_err(error)?;
        if [directory, target].iter().any(|path| !state.directories.contains(*path)) {
            return Err(error(os(libc::ENOENT)).into());
        }
        Ok(())
    }

    fn file_over(&self, rendered: &Path, target: &Path, contents: &[u8]) -> Result<(), EarlyError> {
        let error = |source| EarlyError::Write { path: rendered.to_owned(), text: String::new(), source };
        let mut state = self.call(Call::FileOver(target.to_owned())).map_err(error)?;
        if !state.is_writable(rendered) {
            return Err(error(os(libc::EROFS)));
        }
        if !rendered.parent().is_some_and(|parent| state.directories.contains(parent)) {
            return Err(error(os(libc::ENOENT)));
        }
        state.texts.insert(target.to_owned(), String::from_utf8_lossy(contents).into_owned());
        Ok(())
    }

    fn raise_open_files(&self, wanted: u64) -> Result<u64, EarlyError> {
        let state = self.call(Call::OpenFiles(wanted)).map_err(EarlyError::Limit)?;
        Ok(state.open_files.unwrap_or(wanted).min(wanted))
    }
}
