//! A machine for tests that ends: it refuses what the kernel refuses, says what an end lost, and can be made to fail at any
//! call.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Ending, LateSystem};
use crate::files::FileError;
use crate::kernel_param::{KernelParam, KernelParamError};
use crate::mounts::{Mount, MountError};
use crate::power::{End, KexecError};

/// A call that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Signal(Ending),
    Unmount(PathBuf),
    ReadOnly(PathBuf),
    Sync,
    /// A device, and where.
    MountKernels(PathBuf, PathBuf),
    Detach(PathBuf),
    /// With the command line.
    LoadKernel(PathBuf, String),
    End(End),
    RebootAfterFailure,
}

/// What a machine lost when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// A process was not asked to end.
    Process,
    /// It could still be written to.
    Writable(PathBuf),
    /// What was written is not on its disk.
    NotSynced,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    /// Ends when it is told to, and not only when it is killed.
    polite: bool,
    /// The mount that it writes to.
    writes_to: Option<PathBuf>,
}

/// See the module's documentation. Once the machine has ended, nothing happens any more.
#[derive(Debug, Default)]
pub struct FakeLateSystem {
    state: Mutex<State>,
    /// The machine has ended.
    end: Condvar,
}

#[derive(Debug, Default)]
struct State {
    processes: Vec<Process>,
    mounts: Vec<Mount>,
    /// Mounts that never let go.
    stuck: BTreeSet<PathBuf>,
    /// Mounts whose disk or server does not answer.
    blocked: BTreeSet<PathBuf>,
    params: BTreeMap<String, String>,
    /// By their disk and name.
    partitions: BTreeMap<(PathBuf, String), PathBuf>,
    /// Below the root of the filesystem with kernels.
    kernels: BTreeMap<PathBuf, Vec<u8>>,
    kernels_at: Option<PathBuf>,
    is_loaded: bool,
    is_synced: bool,
    waited: Duration,
    calls: Vec<Call>,
    fails_at: Option<usize>,
    refuses: Option<End>,
    ended: Option<(End, Vec<Loss>)>,
}

impl FakeLateSystem {
    /// With a process, which may write to a mount.
    #[must_use]
    pub fn with_process(self, polite: bool, writes_to: Option<&str>) -> Self {
        self.state.lock().processes.push(Process { polite, writes_to: writes_to.map(PathBuf::from) });
        self
    }

    /// With a mount; options are separated by commas.
    #[must_use]
    pub fn with_mount(self, target: &str, filesystem: &str, options: &str) -> Self {
        let mount = Mount {
            source: "/dev/fake".to_owned(),
            target: target.into(),
            filesystem: filesystem.to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
        };
        self.state.lock().mounts.push(mount);
        self
    }

    /// The mount can be neither unmounted nor made read-only.
    #[must_use]
    pub fn with_stuck(self, target: &str) -> Self {
        self.state.lock().stuck.insert(target.into());
        self
    }

    /// Nothing that concerns the mount returns until the machine has ended.
    #[must_use]
    pub fn with_blocked(self, target: &str) -> Self {
        self.state.lock().blocked.insert(target.into());
        self
    }

    /// With a kernel parameter.
    #[must_use]
    pub fn with_param(self, name: &str, value: &str) -> Self {
        self.state.lock().params.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a partition of this name on a disk.
    #[must_use]
    pub fn with_partition(self, disk: &str, label: &str, device: &str) -> Self {
        self.state.lock().partitions.insert((disk.into(), label.to_owned()), device.into());
        self
    }

    /// With a file on the filesystem with kernels, by its path there.
    #[must_use]
    pub fn with_kernel_file(self, path: &str, content: &[u8]) -> Self {
        self.state.lock().kernels.insert(path.into(), content.to_vec());
        self
    }

    /// A machine that cannot end this way.
    #[must_use]
    pub fn refusing(self, end: End) -> Self {
        self.state.lock().refuses = Some(end);
        self
    }

    /// The call of this number, from 0, fails.
    pub fn fail_at(&self, call: usize) {
        self.state.lock().fails_at = Some(call);
    }

    /// Calls that changed something, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// How it ended, and what was lost.
    #[must_use]
    pub fn ended(&self) -> Option<(End, Vec<Loss>)> {
        self.state.lock().ended.clone()
    }

    /// How long it was waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.state.lock().waited
    }

    /// As [`Self::call`], for a call that waits for these mounts.
    fn blocking_call(
        &self,
        call: Call,
        concerns: impl Fn(&Path) -> bool,
    ) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.call(call)?;
        while state.ended.is_none() && state.blocked.iter().any(|target| concerns(target)) {
            self.end.wait(&mut state);
        }
        if state.ended.is_some() { Err(io::Error::other("the machine has ended")) } else { Ok(state) }
    }

    fn call(&self, call: Call) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.ended.is_some() {
            return Err(io::Error::other("the machine has ended"));
        }
        let number = state.calls.len();
        state.calls.push(call);
        if state.fails_at == Some(number) { Err(io::Error::other("made to fail")) } else { Ok(state) }
    }
}

fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl State {
    fn is_busy(&self, target: &Path) -> bool {
        let has_mount = self.mounts.iter().any(|mount| mount.target != target && mount.target.starts_with(target));
        has_mount || self.stuck.contains(target) || self.is_written(target)
    }

    fn is_written(&self, target: &Path) -> bool {
        self.processes.iter().any(|process| process.writes_to.as_deref() == Some(target))
    }

    fn losses(&self) -> Vec<Loss> {
        let processes = self.processes.iter().map(|_| Loss::Process);
        let is_writable =
            |mount: &&Mount| mount.filesystem != "tmpfs" && mount.options.iter().any(|option| option == "rw");
        let writable = self.mounts.iter().filter(is_writable).map(|mount| Loss::Writable(mount.target.clone()));
        let synced = (!self.is_synced).then_some(Loss::NotSynced);
        processes.chain(writable).chain(synced).collect()
    }
}

impl LateSystem for FakeLateSystem {
    fn signal_all(&self, ending: Ending) {
        // A signal that cannot be sent is not noticed by its sender.
        let Ok(mut state) = self.call(Call::Signal(ending)) else { return };
        state.processes.retain(|process| ending == Ending::Politely && !process.polite);
    }

    fn others_run(&self) -> bool {
        !self.state.lock().processes.is_empty()
    }

    fn wait(&self, time: Duration) {
        self.state.lock().waited += time;
    }

    fn mounts(&self) -> Vec<Mount> {
        self.state.lock().mounts.clone()
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        let error = |source| MountError::Unmount { target: target.to_owned(), source };
        let call = Call::Unmount(target.to_owned());
        let mut state = self.blocking_call(call, |blocked| blocked == target).map_err(error)?;
        if !state.mounts.iter().any(|mount| mount.target == target) {
            return Err(error(os(libc::EINVAL)));
        }
        if state.is_busy(target) {
            return Err(error(os(libc::EBUSY)));
        }
        // What an unmount has written is on its disk.
        state.mounts.retain(|mount| mount.target != target);
        Ok(())
    }

    fn make_read_only(&self, target: &Path) -> Result<(), MountError> {
        let error =
            |source| MountError::Mount { what: "read-only remount".to_owned(), target: target.to_owned(), source };
        let call = Call::ReadOnly(target.to_owned());
        let mut state = self.blocking_call(call, |blocked| blocked == target).map_err(error)?;
        if state.stuck.contains(target) || state.is_written(target) {
            return Err(error(os(libc::EBUSY)));
        }
        let mount = state.mounts.iter_mut().find(|mount| mount.target == target);
        let mount = mount.ok_or_else(|| error(os(libc::EINVAL)))?;
        mount.options = vec!["ro".to_owned()];
        Ok(())
    }

    fn sync(&self) {
        // The kernel writes to all.
        if let Ok(mut state) = self.blocking_call(Call::Sync, |_| true) {
            state.is_synced = true;
        }
    }

    fn param(&self, param: &KernelParam) -> Result<String, KernelParamError> {
        let error = || KernelParamError::Read { param: param.clone(), source: os(libc::ENOENT) };
        self.state.lock().params.get(param.name()).cloned().ok_or_else(error)
    }

    fn partition(&self, disk: &Path, label: &str) -> Option<PathBuf> {
        self.state.lock().partitions.get(&(disk.to_owned(), label.to_owned())).cloned()
    }

    fn mount_kernels(&self, device: &Path, target: &Path) -> Result<(), MountError> {
        let error =
            |source| MountError::Mount { what: device.display().to_string(), target: target.to_owned(), source };
        let mut state = self.call(Call::MountKernels(device.to_owned(), target.to_owned())).map_err(error)?;
        if !state.partitions.values().any(|known| known == device) {
            return Err(error(os(libc::ENOENT)));
        }
        if state.kernels_at.is_some() {
            return Err(error(os(libc::EBUSY)));
        }
        state.kernels_at = Some(target.to_owned());
        Ok(())
    }

    fn detach(&self, target: &Path) -> Result<(), MountError> {
        let error = |source| MountError::Unmount { target: target.to_owned(), source };
        let mut state = self.call(Call::Detach(target.to_owned())).map_err(error)?;
        if state.kernels_at.take_if(|at| at == target).is_none() {
            return Err(error(os(libc::EINVAL)));
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
        let state = self.state.lock();
        let below = state.kernels_at.as_ref().and_then(|at| path.strip_prefix(at).ok());
        Ok(below.and_then(|path| state.kernels.get(path).cloned()))
    }

    fn load_kernel(&self, kernel: &Path, initramfs: &Path, command_line: &str) -> Result<(), KexecError> {
        for file in [kernel, initramfs] {
            if !matches!(self.read(file), Ok(Some(_))) {
                return Err(KexecError::Read { path: file.to_owned(), source: os(libc::ENOENT) });
            }
        }
        let call = Call::LoadKernel(kernel.to_owned(), command_line.to_owned());
        self.call(call).map_err(KexecError::Load)?.is_loaded = true;
        Ok(())
    }

    fn is_kernel_loaded(&self) -> bool {
        self.state.lock().is_loaded
    }

    fn end(&self, end: End) -> io::Error {
        let mut state = match self.call(Call::End(end)) {
            Ok(state) => state,
            Err(error) => return error,
        };
        if state.refuses == Some(end) || (end == End::Kexec && !state.is_loaded) {
            return os(libc::EINVAL);
        }
        state.ended = Some((end, state.losses()));
        self.end.notify_all();
        io::Error::other("the machine has ended")
    }

    fn reboot_after_failure(&self) {
        if let Ok(mut state) = self.call(Call::RebootAfterFailure) {
            state.ended = Some((End::Reboot, state.losses()));
            self.end.notify_all();
        }
    }
}
