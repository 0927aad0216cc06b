//! The monitor of a node: a process that starts the node's container and stays until its init ends, to see how.
//!
//! runc leaves an init behind whose parent is gone; only the nearest subreaper above it learns its exit status. That has to be
//! a process for each node: one for all, or the agent, would lose exits during its absence. A monitor that is killed takes
//! nothing with it; its node runs on, and [`super::exit_file`] tells how it ended, if the node says so.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};

use super::exit_file;
use crate::command::RUNC;
use crate::driver::Exit;
use crate::error::{DriverError, HostError, Operation as _, ProvisionError};
use crate::folder::{Folder, make_folder, write_private};
use crate::logs;
use crate::process::Identity;
use crate::program::{Duty, Launcher};

/// The last start of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Launched {
    #[serde(flatten)]
    pub(super) init: Identity,
    /// None for a node that an older program started.
    #[serde(default)]
    pub(super) monitor: Option<Identity>,
}

impl Launched {
    /// None for a node that was never started.
    pub(super) fn read(folder: &Folder, node: &str) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.launched(node)).ok()?).ok()
    }
}

/// How an init ended, as its monitor wrote it down.
#[derive(Debug, Serialize, Deserialize)]
struct Exited {
    init: Identity,
    exit: Exit,
}

/// How this init ended, where its monitor saw it.
pub(super) fn exit_of(folder: &Folder, node: &str, init: &Identity) -> Option<Exit> {
    let exited: Exited = serde_json::from_slice(&std::fs::read(folder.exit(node)).ok()?).ok()?;
    (exited.init == *init).then_some(exited.exit)
}

/// The one line of a monitor to its starter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Started {
    Pid(i32),
    Failed(String),
}

/// Starts the monitor of a node and waits until the node's init runs.
pub(super) fn start(launcher: &Launcher, folder: &Folder, node: &str) -> Result<(), DriverError> {
    let failed = |reason: String| DriverError::Start { node: node.to_owned(), reason };
    let path = runc_log(folder, node);
    let log = open_log(&path)?;
    let child = launcher.start_with_output(Duty::Monitor(node), Stdio::piped(), &log);
    let mut child = child.map_err(|error| failed(format!("its monitor cannot be started: {error}")))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let read = BufReader::new(output).read_line(&mut line);
        read.map_err(|error| failed(format!("its monitor cannot be heard: {error}")))?;
    }
    // Not waited for: it stays. Where this process stays too, it is reaped by the next start's end or with the process.
    crate::process::leave(child);
    match serde_json::from_str(&line) {
        Ok(Started::Pid(_)) => Ok(()),
        Ok(Started::Failed(reason)) => Err(failed(reason)),
        Err(_) => {
            let said = logs::tail(&path, 1, |_| true).pop().unwrap_or_else(|| "its monitor said nothing".to_owned());
            Err(failed(said))
        }
    }
}

/// Is the monitor of a node: starts its container and returns when its init has ended.
///
/// # Errors
///
/// When the folder of the cluster cannot be used. A failed start of the node is reported to the process that started the monitor.
pub fn run(root: &Path, cluster: &str, node: &str) -> Result<(), ProvisionError> {
    // It fails only where that is done already.
    let _ = rustix::process::setsid();
    let folder = Folder::new(root, cluster)?;
    let own = rustix::process::getpid();
    let subreaper = rustix::process::set_child_subreaper(Some(own));
    subreaper.map_err(|error| HostError::io("becoming subreaper of", &folder.node(node))(error.into()))?;
    let launched = launch(&folder, node);
    let started = match &launched {
        Ok(launched) => Started::Pid(launched.init.pid),
        Err(error) => Started::Failed(stdx::error_chain(error)),
    };
    let encode = |source| HostError::Encode { subject: "start of a node", source };
    let line = serde_json::to_string(&started).map_err(encode)?;
    // The starter of this process may have ended.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    let Ok(launched) = launched else { return Ok(()) };
    let exit = wait_for(launched.init.pid);
    let exited = Exited { init: launched.init, exit };
    let encode = |source| HostError::Encode { subject: "end of a node", source };
    Ok(write_private(&folder.exit(node), &serde_json::to_vec(&exited).map_err(encode)?)?)
}

/// Starts the container of an existing bundle and records its init.
fn launch(folder: &Folder, node: &str) -> Result<Launched, HostError> {
    let log = open_log(&folder.log(node))?;
    let (root, bundle, runc_log) = (folder.runc(), folder.bundle(node), runc_log(folder, node));
    make_folder(&root)?;
    exit_file::remove(folder, node)?;
    let pid = bundle.join("pid");
    let arguments: [&std::ffi::OsStr; 11] = [
        "--root".as_ref(),
        root.as_ref(),
        "--log".as_ref(),
        runc_log.as_ref(),
        "run".as_ref(),
        "--detach".as_ref(),
        "--pid-file".as_ref(),
        pid.as_ref(),
        "--bundle".as_ref(),
        bundle.as_ref(),
        node.as_ref(),
    ];
    RUNC.run_with_log(arguments, &log).operation(|| {
        let said = logs::tail(&runc_log, 1, |_| true).pop().unwrap_or_default();
        format!("runc ({said})")
    })?;
    let text = std::fs::read_to_string(&pid).map_err(HostError::io("reading", &pid))?;
    // An init that is dead already has an identity all the same: this process has not reaped it.
    let init = text.trim().parse().ok().and_then(Identity::of_any);
    let gone = || HostError::io("reading", &pid)(std::io::Error::other("its process has exited"));
    let own = Identity::of(rustix::process::getpid().as_raw_nonzero().get());
    let launched = Launched { init: init.ok_or_else(gone)?, monitor: own };
    let encode = |source| HostError::Encode { subject: "init of a node", source };
    write_private(&folder.launched(node), &serde_json::to_vec(&launched).map_err(encode)?)?;
    Ok(launched)
}

/// Reaps whatever ends until the init has.
fn wait_for(init: i32) -> Exit {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Pid::from_raw(init) == Some(pid) => return exit(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // There is no child: it was reaped by another process.
            Err(_) => return Exit::Unknown,
        }
    }
}

fn exit(status: WaitStatus) -> Exit {
    let code = status.exit_status().map(Exit::Code);
    code.or_else(|| status.terminating_signal().map(Exit::Signal)).unwrap_or(Exit::Unknown)
}

fn runc_log(folder: &Folder, node: &str) -> std::path::PathBuf {
    folder.log(&format!("{node}.runc"))
}

fn open_log(path: &Path) -> Result<File, HostError> {
    File::options().create(true).append(true).open(path).map_err(HostError::io("opening", path))
}
