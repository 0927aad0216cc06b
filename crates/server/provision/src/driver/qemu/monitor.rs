//! The monitor of a machine: a process that starts the emulator, and the machine's TPM, and stays until it ends.
//!
//! How the machine ended is in the log of the emulator's events ([`super::qmp`]); the monitor adds how the emulator's process
//! ended where that says nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use super::arguments::{self, Boot, Outputs};
use super::disks;
use super::machine::{self, CONTROL, Machine, TPM_SOCKET, disk};
use super::qmp;
use crate::command::{self, QEMU, SWTPM, Tool};
use crate::driver::Exit;
use crate::driver::launched::{self, Launched, monitor_log, open_log};
use crate::error::{CommandError, HostError, Operation as _, ProvisionError};
use crate::folder::{Folder, write_private};
use crate::logs;
use crate::process::Identity;

/// How long the emulator may take until it answers; it maps the guest's memory and reads its files before.
const PATIENCE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(10);

/// Is the monitor of a machine.
///
/// # Errors
///
/// When the folder of the cluster cannot be used. A failed start is reported to the process that started the monitor.
pub(in crate::driver) fn run(folder: &Folder, node: &str) -> Result<(), ProvisionError> {
    // It fails only where that is done already.
    let _ = rustix::process::setsid();
    // Sockets are named by their names in this folder: whole paths may be too long for them.
    let own = folder.node(node);
    rustix::process::chdir(&own).map_err(|error| HostError::io("entering", &own)(error.into()))?;
    let started = start(folder, node);
    let (launched, child) = match started {
        Ok((launched, child)) => (Ok(launched), Some(child)),
        Err(error) => (Err(error), None),
    };
    launched::answer(&launched)?;
    let (Ok(launched), Some(mut child)) = (launched, child) else { return Ok(()) };
    let exit = child.wait().map_or(Exit::Unknown, exit);
    Ok(launched::record_exit(folder, node, launched, exit)?)
}

fn exit(status: ExitStatus) -> Exit {
    let code = status.code().map(Exit::Code);
    code.or_else(|| status.signal().map(Exit::Signal)).unwrap_or(Exit::Unknown)
}

/// Starts the machine and records it.
fn start(folder: &Folder, node: &str) -> Result<(Launched, Child), HostError> {
    let machine = Machine::read(folder, node)?;
    let events = machine::events(folder, node);
    for stale in [&events, Path::new(CONTROL), Path::new(TPM_SOCKET)] {
        remove(stale)?;
    }
    if machine.settings.tpm {
        start_tpm(folder, node)?;
    }
    let system = disk(0);
    let partitioned = disks::has_partitions(Path::new(&system)).map_err(HostError::io("reading", system.as_ref()))?;
    let boot = if partitioned { Boot::Disk } else { Boot::Media };
    let console = folder.log(node);
    let outputs = Outputs { console: &console, events: &events };
    let mut child = start_in_own_folder(QEMU, &arguments::emulator(&machine, boot, &outputs), folder, node)?;
    if let Err(error) = until_it_answers(&mut child, folder, node) {
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    let identity = i32::try_from(child.id()).ok().and_then(Identity::of_any);
    let gone = || HostError::io("watching", Path::new(QEMU.program))(std::io::ErrorKind::NotFound.into());
    Ok((launched::record(folder, node, identity.ok_or_else(gone)?)?, child))
}

fn start_in_own_folder(tool: Tool, arguments: &[String], folder: &Folder, node: &str) -> Result<Child, HostError> {
    let Tool { program, package } = tool;
    let path = tool.find().ok_or(CommandError::Missing { program, package });
    let path = path.operation(|| format!("starting node {node}"))?;
    let log = open_log(&monitor_log(folder, node))?;
    let started = command::start_in(&folder.node(node), &path, arguments, &log);
    started.map_err(|source| CommandError::Start { program, source }).operation(|| format!("starting node {node}"))
}

/// Waits until the emulator runs the machine and tells events.
fn until_it_answers(child: &mut Child, folder: &Folder, node: &str) -> Result<(), HostError> {
    let failed = |status: String| {
        let output = logs::tail(&monitor_log(folder, node), 1, |_| true).pop().unwrap_or_default();
        let command = QEMU.program.to_owned();
        Err(CommandError::Failed { command, status, output }).operation(|| format!("starting node {node}"))
    };
    let mut last = None;
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        if let Ok(Some(status)) = child.try_wait() {
            return failed(status.to_string());
        }
        match qmp::negotiate(Path::new(CONTROL), PATIENCE) {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
        std::thread::park_timeout(STEP);
    }
    let last = last.map(|error| error.to_string()).unwrap_or_default();
    failed(format!("it did not answer within {} s: {last}", PATIENCE.as_secs()))
}

/// Starts the TPM, which waits for the emulator and ends with it.
fn start_tpm(folder: &Folder, node: &str) -> Result<(), HostError> {
    let mut child = start_in_own_folder(SWTPM, &arguments::tpm(), folder, node)?;
    let identity = i32::try_from(child.id()).ok().and_then(Identity::of_any);
    let encode = |source| HostError::Encode { subject: "TPM of a node", source };
    write_private(&machine::tpm(folder, node), &serde_json::to_vec(&identity).map_err(encode)?)?;
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        if Path::new(TPM_SOCKET).exists() {
            crate::process::leave(child);
            return Ok(());
        }
        if let Ok(Some(_)) = child.try_wait() {
            break;
        }
        std::thread::park_timeout(STEP);
    }
    let _ = child.kill();
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    let output = logs::tail(&monitor_log(folder, node), 1, |_| true).pop().unwrap_or_default();
    Err(CommandError::Failed { command: SWTPM.program.to_owned(), status, output })
        .operation(|| format!("starting the TPM of node {node}"))
}

fn remove(path: &Path) -> Result<(), HostError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(HostError::io("removing", path)(error)),
        _ => Ok(()),
    }
}
