//! The last start of a node: its process, the monitor that watches it, and how it ended; and how a monitor is started.
//!
//! Only the parent of a process learns how it ends, so each node has a process that stays with it. A monitor that is killed
//! takes nothing with it; the driver then finds out otherwise how its node ended.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Exit;
use crate::error::{DriverError, HostError};
use crate::folder::{Folder, write_private};
use crate::logs;
use crate::process::Identity;
use crate::program::{Duty, Launcher};

/// How long the monitor of a node may take to end after its node.
const GRACE: Duration = Duration::from_secs(3);

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
pub(super) fn start_monitor(launcher: &Launcher, folder: &Folder, node: &str) -> Result<(), DriverError> {
    let failed = |reason: String| DriverError::Start { node: node.to_owned(), reason };
    let path = monitor_log(folder, node);
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

/// Says to the starter of this monitor how the start went.
pub(super) fn answer(launched: &Result<Launched, HostError>) -> Result<(), HostError> {
    let started = match launched {
        Ok(launched) => Started::Pid(launched.init.pid),
        Err(error) => Started::Failed(stdx::error_chain(error)),
    };
    let encode = |source| HostError::Encode { subject: "start of a node", source };
    let line = serde_json::to_string(&started).map_err(encode)?;
    // The starter of this process may have ended.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    Ok(())
}

/// Records a start by this monitor.
pub(super) fn record(folder: &Folder, node: &str, init: Identity) -> Result<Launched, HostError> {
    let own = Identity::of(rustix::process::getpid().as_raw_nonzero().get());
    let launched = Launched { init, monitor: own };
    let encode = |source| HostError::Encode { subject: "init of a node", source };
    write_private(&folder.launched(node), &serde_json::to_vec(&launched).map_err(encode)?)?;
    Ok(launched)
}

/// Records how the node ended.
pub(super) fn record_exit(folder: &Folder, node: &str, launched: Launched, exit: Exit) -> Result<(), HostError> {
    let exited = Exited { init: launched.init, exit };
    let encode = |source| HostError::Encode { subject: "end of a node", source };
    write_private(&folder.exit(node), &serde_json::to_vec(&exited).map_err(encode)?)
}

/// The monitor ends with its node; one that does not is ended.
pub(super) fn end_monitor(folder: &Folder, node: &str) -> Result<(), HostError> {
    let Some(monitor) = Launched::read(folder, node).and_then(|launched| launched.monitor) else {
        return Ok(());
    };
    if monitor.wait(GRACE) || monitor.end(GRACE) {
        return Ok(());
    }
    let processes = vec![monitor.pid.unsigned_abs()];
    Err(HostError::StillRunning { owner: format!("the monitor of node {node}"), processes })
}

/// Log of the program that runs the node and of its monitor.
pub(super) fn monitor_log(folder: &Folder, node: &str) -> PathBuf {
    folder.log(&format!("{node}.monitor"))
}

pub(super) fn open_log(path: &Path) -> Result<File, HostError> {
    File::options().create(true).append(true).open(path).map_err(HostError::io("opening", path))
}
