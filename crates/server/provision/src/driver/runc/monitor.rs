//! The monitor of a node: a process that starts the node's container and stays until its init ends, to see how.
//!
//! runc leaves an init behind whose parent is gone; only the nearest subreaper above it learns its exit status. That has to be
//! a process for each node: one for all, or the agent, would lose exits during its absence. A monitor that is killed takes
//! nothing with it; its node runs on, and [`super::exit_file`] tells how it ended, if the node says so.

use rustix::process::{Pid, WaitOptions, WaitStatus};

use super::exit_file;
use crate::command::RUNC;
use crate::driver::Exit;
use crate::driver::launched::{self, Launched, monitor_log, open_log};
use crate::error::{HostError, Operation as _, ProvisionError};
use crate::folder::{Folder, make_folder};
use crate::logs;
use crate::process::Identity;

/// Is the monitor of a node: starts its container and returns when its init has ended.
///
/// # Errors
///
/// When the folder of the cluster cannot be used. A failed start of the node is reported to the process that started the monitor.
pub(in crate::driver) fn run(folder: &Folder, node: &str) -> Result<(), ProvisionError> {
    // It fails only where that is done already.
    let _ = rustix::process::setsid();
    let own = rustix::process::getpid();
    let subreaper = rustix::process::set_child_subreaper(Some(own));
    subreaper.map_err(|error| HostError::io("becoming subreaper of", &folder.node(node))(error.into()))?;
    let launched = launch(folder, node);
    launched::answer(&launched)?;
    let Ok(launched) = launched else { return Ok(()) };
    let exit = wait_for(launched.init.pid);
    Ok(launched::record_exit(folder, node, launched, exit)?)
}

/// Starts the container of an existing bundle and records its init.
fn launch(folder: &Folder, node: &str) -> Result<Launched, HostError> {
    let log = open_log(&folder.log(node))?;
    let (root, bundle, runc_log) = (folder.runc(), folder.bundle(node), monitor_log(folder, node));
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
    launched::record(folder, node, init.ok_or_else(gone)?)
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
