//! Processes: one spawner, one reaper.
//!
//! A child is waited for by its pidfd, so that an exit status is never taken from its owner. A process that is PID 1
//! also runs [`reap_orphans`], which only takes children without an owner here. This module does not restart anything.

mod child_setup;
mod reaper;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use stdx::tasks::Task;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _};

pub use reaper::reap_orphans;
pub use rustix::process::Signal as ProcessSignal;

/// Where the lines that a process writes go. Called with raw bytes as they arrive.
pub type OutputSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Failure with a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("starting {program}")]
    Spawn {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("watching process {pid} of {program}")]
    Watch {
        program: String,
        pid: i32,
        #[source]
        source: io::Error,
    },
    #[error("sending {signal:?} to process {pid}")]
    Signal {
        signal: Signal,
        pid: i32,
        #[source]
        source: io::Error,
    },
    #[error("{program} ended with {status}")]
    Failed { program: String, status: ExitStatus },
}

/// Which capabilities a process keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Capabilities {
    /// All that the parent has but [`capabilities::WITHHELD`], and no way to gain those. Of a parent without `CAP_SETPCAP`, as
    /// the imager of an ordinary user, the bounding set stays as it is: it cannot be reduced, and the parent has none of them.
    ///
    /// [`capabilities::WITHHELD`]: crate::capabilities::WITHHELD
    #[default]
    Ordinary,
    /// None at all, and no way to gain any.
    None,
    /// All that the parent has but these (numbers of `linux/capability.h`).
    Without(Vec<u32>),
}

/// Program and settings. Defaults: environment empty, user of the parent, [`Capabilities::Ordinary`], nothing to read, output
/// discarded.
#[derive(Clone)]
pub struct Command {
    program: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    user: Option<(u32, u32)>,
    capabilities: Capabilities,
    oom_score_adj: Option<i32>,
    cgroup_procs: Vec<PathBuf>,
    output: Option<OutputSink>,
    input: Option<Arc<[u8]>>,
    inherit_env: bool,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("program", &self.program).field("args", &self.args).finish_non_exhaustive()
    }
}

impl Command {
    /// A command that runs `program`, which must be an absolute path or be found in the `PATH` that is passed to it.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            user: None,
            capabilities: Capabilities::Ordinary,
            oom_score_adj: None,
            cgroup_procs: Vec::new(),
            output: None,
            input: None,
            inherit_env: false,
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(key.into(), value.into());
        self
    }

    /// Starts from the parent's environment instead of an empty one. For tools on an operator's machine.
    #[must_use]
    pub fn inherit_env(mut self) -> Self {
        self.inherit_env = true;
        self
    }

    /// Runs as this user and group, without supplementary groups.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    #[must_use]
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// -1000 to 1000. If the kernel refuses (no `CAP_SYS_RESOURCE`), the process keeps the inherited score.
    #[must_use]
    pub fn oom_score_adj(mut self, value: i32) -> Self {
        self.oom_score_adj = Some(value);
        self
    }

    /// `cgroup.procs` files that the process writes itself into before it runs.
    #[must_use]
    pub fn cgroups(mut self, procs_files: Vec<PathBuf>) -> Self {
        self.cgroup_procs = procs_files;
        self
    }

    /// Both standard output and standard error go here.
    #[must_use]
    pub fn output(mut self, sink: OutputSink) -> Self {
        self.output = Some(sink);
        self
    }

    /// What it reads from its standard input. It is in memory and never in a file system.
    #[must_use]
    pub fn input(mut self, bytes: Arc<[u8]>) -> Self {
        self.input = Some(bytes);
        self
    }

    /// Starts it in a session of its own; the kernel kills it when the thread that started it ends with its process.
    ///
    /// # Errors
    /// `Spawn` when it cannot be executed, `Watch` when the kernel gives no pidfd.
    pub fn spawn(&self) -> Result<Child, ProcessError> {
        let program = self.program.display().to_string();
        let failed = |source| ProcessError::Spawn { program: program.clone(), source };
        let mut command = std_command(&self.program);
        if !self.inherit_env {
            command.env_clear();
        }
        let input = self.input.as_deref().map(in_memory).transpose().map_err(failed)?;
        command.args(&self.args).envs(&self.env).stdin(input.map_or_else(Stdio::null, Stdio::from));
        let piped = self.output.is_some();
        let stream = || if piped { Stdio::piped() } else { Stdio::null() };
        command.stdout(stream()).stderr(stream());
        let setup = child_setup::ChildSetup::new(self.user, &self.capabilities, self.oom_score_adj, &self.cgroup_procs);
        setup.install(&mut command);
        let (child, guard) = reaper::spawn_owned(&mut command).map_err(failed)?;
        own(program, child, guard, self.output.as_ref(), open_pidfd)
    }

    /// Starts it, waits for it, and returns its output.
    ///
    /// # Errors
    /// As [`Command::spawn`]; an exit status other than 0 is `Failed`.
    pub async fn run(&self) -> Result<String, ProcessError> {
        let text = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let mut child = self.clone().output(Arc::new(move |bytes| sink.lock().extend_from_slice(bytes))).spawn()?;
        let status = child.wait().await?;
        child.drain().await;
        let text = String::from_utf8_lossy(&text.lock()).into_owned();
        if status.success() { Ok(text) } else { Err(ProcessError::Failed { program: child.program.clone(), status }) }
    }
}

/// A file of this content that has no name: unlike a pipe it needs nobody who writes while it is read.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

fn open_pidfd(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // SAFETY: the registration owns the pidfd, so the descriptor stays open for as long as it is registered.
    Ok(unsafe { AsyncFd::register(pidfd) }?)
}

/// Takes a process over: its output and its pidfd. Where a descriptor cannot be had the process is killed and reaped: it
/// would run without anybody who could end it.
fn own(
    program: String,
    mut child: std::process::Child,
    guard: reaper::Owned,
    output: Option<&OutputSink>,
    open: impl FnOnce(Pid) -> io::Result<AsyncFd<OwnedFd>>,
) -> Result<Child, ProcessError> {
    let pid = guard.pid();
    let streams = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
    let taken = open(pid)
        .map_err(|source| ProcessError::Watch { program: program.clone(), pid: pid.as_raw_nonzero().get(), source })
        .and_then(|pidfd| {
            let mut copies = Vec::new();
            if let Some(sink) = output {
                for stream in streams.into_iter().flatten() {
                    let copy = copy_output(stream, Arc::clone(sink));
                    copies.push(copy.map_err(|source| ProcessError::Spawn { program: program.clone(), source })?);
                }
            }
            Ok((pidfd, copies))
        });
    match taken {
        Ok((pidfd, copies)) => Ok(Child { program, pidfd, guard, copies }),
        Err(error) => {
            // It has run for a moment only, so that it ends at once.
            if child.kill().and_then(|()| child.wait()).is_ok() {
                guard.reaped();
            }
            Err(error)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one spawner")]
fn std_command(program: &std::path::Path) -> std::process::Command {
    std::process::Command::new(program)
}

/// A process that was started here. Dropping it does not end it; its exit is then reaped with the orphans.
#[derive(Debug)]
pub struct Child {
    program: String,
    pidfd: AsyncFd<OwnedFd>,
    guard: reaper::Owned,
    copies: Vec<Task<()>>,
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.guard.pid().as_raw_nonzero().get()
    }

    /// Waits for its exit. Cancel-safe: the status is only taken when available.
    ///
    /// # Errors
    /// `Watch` when the kernel refuses to wait for it.
    pub async fn wait(&mut self) -> Result<ExitStatus, ProcessError> {
        let watch =
            |source: io::Error, program: &str, pid| ProcessError::Watch { program: program.into(), pid, source };
        loop {
            let mut ready = self
                .pidfd
                .readable()
                .await
                .map_err(|e| watch(e, &self.program, self.guard.pid().as_raw_nonzero().get()))?;
            let fd = std::os::fd::AsFd::as_fd(self.pidfd.get_ref());
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match rustix::process::waitid(WaitId::PidFd(fd), options) {
                Ok(Some(status)) => {
                    self.guard.reaped();
                    return Ok(exit_status(&status));
                }
                Ok(None) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(watch(e.into(), &self.program, self.pid())),
            }
        }
    }

    /// Waits until all that it wrote has reached the sink. A descendant that kept the stream open is not waited for
    /// longer than a second.
    pub async fn drain(&mut self) {
        for copy in self.copies.drain(..) {
            drop(tokio::time::timeout(std::time::Duration::from_secs(1), copy.join()).await);
        }
    }

    /// Sends a signal by its pidfd: never to another process that got the same number.
    ///
    /// # Errors
    /// `Signal` when the kernel refuses; a process that has ended already is not an error.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(ProcessError::Signal { signal, pid: self.pid(), source: e.into() }),
        }
    }

    /// SIGTERM, then SIGKILL after `grace`; returns how it ended.
    ///
    /// # Errors
    /// As [`Child::wait`] and [`Child::signal`].
    pub async fn stop(&mut self, grace: std::time::Duration) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::TERM)?;
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        self.signal(Signal::KILL)?;
        self.wait().await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Later output still reaches the sink: a closed stream would kill the process.
        self.copies.drain(..).for_each(Task::detach);
    }
}

fn exit_status(status: &rustix::process::WaitIdStatus) -> ExitStatus {
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) => signal,
        (None, None) => 0,
    };
    ExitStatus::from_raw(raw)
}

/// Whether a process of this id exists (zombies count).
pub fn exists(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

fn copy_output(fd: OwnedFd, sink: OutputSink) -> io::Result<Task<()>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(fd)?;
    Ok(stdx::tasks::spawn("process-output", async move { copy(&mut pipe, &sink).await }))
}

async fn copy(from: &mut (impl AsyncRead + Unpin), sink: &OutputSink) {
    let mut buffer = vec![0u8; 4096];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => sink(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests;
