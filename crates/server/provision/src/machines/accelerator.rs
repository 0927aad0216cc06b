//! Whether machines have hardware virtualization. `/dev/kvm` may be there and open, and yet run no guest, or none at a usable
//! speed (nested virtualization): so a tiny guest is run.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{self, QEMU};
use crate::error::HostError;

/// What runs the machines' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor, by KVM.
    Kvm,
    /// An emulator, slower by an order of magnitude.
    Tcg,
}

/// Result of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    Works,
    /// It does not, for this reason.
    Fails(String),
}

/// The firmware and this guest take a fifth of a second where virtualization works, emulated too.
const DEADLINE: Duration = Duration::from_secs(3);
/// `mov al, 0x2a; out 0xf4, al; cli; hlt`: tells the emulator to exit.
const GUEST: [u8; 6] = [0xb0, 0x2a, 0xe6, 0xf4, 0xfa, 0xf4];
/// What the emulator makes of 0x2a: twice that and one.
const STATUS: i32 = 0x55;
/// A disk that the firmware accepts; the boot sector is all that is on it.
const DISK_SIZE: u64 = 1 << 20;

/// Runs a guest by KVM: the firmware, which reads a boot sector from a disk, and that boot sector. Blocks for up to three
/// seconds. `scratch` is a folder for the disk, which is removed.
///
/// # Errors
///
/// When the disk cannot be made.
pub fn probe(scratch: &Path) -> Result<Probe, HostError> {
    probe_with(scratch, Path::new("/dev/kvm"), "kvm")
}

fn probe_with(scratch: &Path, device: &Path, accelerator: &str) -> Result<Probe, HostError> {
    if let Err(error) = File::options().read(true).write(true).open(device) {
        return Ok(Probe::Fails(format!("{} cannot be opened: {error}", device.display())));
    }
    let Some(program) = QEMU.find() else {
        return Ok(Probe::Fails(format!("{} is not installed", QEMU.program)));
    };
    let disk = scratch.join(format!(".probe.{}.img", std::process::id()));
    let log = scratch.join(format!(".probe.{}.log", std::process::id()));
    let probed = write_disk(&disk).map_err(HostError::io("writing", &disk)).and_then(|()| {
        let file = File::create(&log).map_err(HostError::io("writing", &log))?;
        Ok(run(&program, accelerator, &disk, &file))
    });
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    for file in [&disk, &log] {
        // Where it is not there, the error is that of its making.
        let _ = std::fs::remove_file(file);
    }
    Ok(match probed? {
        Ok(()) => Probe::Works,
        Err(reason) => match said.lines().next_back() {
            Some(line) => Probe::Fails(format!("{reason}; it said: {line}")),
            None => Probe::Fails(reason),
        },
    })
}

fn write_disk(path: &Path) -> std::io::Result<()> {
    let mut sector = [0; 512];
    sector[..GUEST.len()].copy_from_slice(&GUEST);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut file = File::create(path)?;
    file.write_all(&sector)?;
    file.set_len(DISK_SIZE)
}

fn run(program: &Path, accelerator: &str, disk: &Path, log: &File) -> Result<(), String> {
    let disk = disk.to_string_lossy().replace(',', ",,");
    let arguments = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-m",
        "64",
        "-accel",
        accelerator,
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=0x04",
        "-drive",
        &format!("file={disk},format=raw,if=ide"),
    ];
    let mut child =
        command::start(program, arguments, log).map_err(|error| format!("it cannot be started: {error}"))?;
    const STEP: Duration = Duration::from_millis(10);
    for _ in 0..DEADLINE.as_millis() / STEP.as_millis() {
        match child.try_wait() {
            Ok(None) => std::thread::park_timeout(STEP),
            Ok(Some(status)) if status.code() == Some(STATUS) => return Ok(()),
            Ok(Some(status)) => return Err(format!("a tiny guest did not run: {status}")),
            Err(error) => return Err(format!("its end cannot be seen: {error}")),
        }
    }
    // It ends; that it has ended already is no matter.
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("a tiny guest did not come up within {} s", DEADLINE.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_runs_where_there_is_an_emulator_and_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(probe_with(scratch.path(), Path::new("/dev/null"), "tcg").unwrap(), Probe::Works);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_accelerator_that_does_not_run_a_guest_fails_with_its_last_words() {
        let scratch = tempfile::tempdir().unwrap();
        let absent = probe_with(scratch.path(), Path::new("/does/not/exist"), "kvm").unwrap();
        assert!(matches!(&absent, Probe::Fails(reason) if reason.contains("/does/not/exist")), "{absent:?}");
        let refused = probe_with(scratch.path(), Path::new("/dev/null"), "no-such-accelerator").unwrap();
        assert!(matches!(&refused, Probe::Fails(reason) if reason.contains("no-such-accelerator")), "{refused:?}");
    }
}
