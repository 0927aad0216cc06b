//! The device manager of the machine, by its control program, and by what it leaves below `/run/udev`.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::capabilities::CAP_SYS_BOOT;
use crate::drivers::Drivers;
use crate::process::{Capabilities, Command, ProcessError};

/// Its control program.
const UDEVADM: &str = "/usr/bin/udevadm";
/// How long known devices may take (Talos 1.7).
pub const SETTLE: Duration = Duration::from_secs(50);

/// How long its start may take.
pub const READY: Duration = Duration::from_secs(30);
/// Appears when it starts.
const SOCKET: &str = "/run/udev/control";
const POLL: Duration = Duration::from_millis(10);
/// Where the kernel shows its devices.
const SYS: &str = "/sys";
/// Sockets that the kernel sends messages to.
const NETLINK: &str = "/proc/net/netlink";
/// A file for each device that it has handled: `b8:0`, `n2`.
const DATABASE: &str = "/run/udev/data";

/// Why it does not.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Its control program.
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// It does not listen to the kernel.
    #[error("it does not listen to the kernel within {READY:?}")]
    Deaf,
    /// The kernel does not tell it of a device.
    #[error("announcing {}", path.display())]
    Announce {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The device manager does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
#[error("asking udevd to {operation}")]
pub struct UdevError {
    pub operation: &'static str,
    #[source]
    pub source: Cause,
}

/// The device manager.
#[async_trait]
pub trait Devices: Debug + Send + Sync + 'static {
    /// Waits until it answers, at most [`READY`].
    ///
    /// # Errors
    /// [`UdevError`].
    async fn ready(&self) -> Result<(), UdevError>;

    /// Waits until it hears of devices, at most [`READY`]: what is announced before, it misses.
    ///
    /// # Errors
    /// [`UdevError`].
    async fn listens(&self) -> Result<(), UdevError>;

    /// Has it read its rules again.
    ///
    /// # Errors
    /// [`UdevError`].
    async fn reload(&self) -> Result<(), UdevError>;

    /// Waits until the drivers of disks and links are loaded, and with them the devices that those found; false where they
    /// cannot be loaded.
    async fn drivers(&self) -> bool;

    /// Disks and links that it has not handled yet, by their names.
    async fn unhandled(&self) -> Vec<String>;

    /// Has it handle disks and links that it has not handled yet.
    ///
    /// # Errors
    /// [`UdevError`].
    async fn handle_disks_and_links(&self) -> Result<(), UdevError>;

    /// Has it handle all devices that the kernel knows as if they had come now.
    ///
    /// # Errors
    /// [`UdevError`].
    async fn trigger_all(&self) -> Result<(), UdevError>;

    /// Waits until it has handled all events, at most [`SETTLE`].
    ///
    /// # Errors
    /// [`UdevError`], also when that takes longer.
    async fn settle(&self) -> Result<(), UdevError>;
}

/// The one that runs on this machine.
#[derive(Debug, Default)]
pub struct Udevadm {
    drivers: Option<Drivers>,
}

impl Udevadm {
    /// On a machine whose drivers are being loaded.
    #[must_use]
    pub const fn with_drivers(drivers: Drivers) -> Self {
        Self { drivers: Some(drivers) }
    }

    async fn run(operation: &'static str, args: &[&str]) -> Result<(), UdevError> {
        let command = Command::new(UDEVADM).args(args.iter().copied()).env("PATH", "/usr/sbin:/usr/bin");
        let command = command.capabilities(Capabilities::Without(vec![CAP_SYS_BOOT]));
        command.run().await.map(drop).map_err(|source| UdevError { operation, source: source.into() })
    }
}

#[async_trait]
impl Devices for Udevadm {
    async fn ready(&self) -> Result<(), UdevError> {
        let begun = tokio::time::Instant::now();
        loop {
            while !std::path::Path::new(SOCKET).exists() && begun.elapsed() < READY {
                tokio::time::sleep(POLL).await;
            }
            let answer = Self::run("answer", &["control", "--ping", &format!("--timeout={}", READY.as_secs())]).await;
            // Its socket exists a moment before it is listened on.
            if answer.is_ok() || begun.elapsed() >= READY {
                return answer;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn listens(&self) -> Result<(), UdevError> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < READY {
            // Without the table it is not seen, and the wait ends in time.
            if hears_of_devices(&fs::read_to_string(NETLINK).unwrap_or_default(), std::process::id()) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(UdevError { operation: "listen", source: Cause::Deaf })
    }

    async fn reload(&self) -> Result<(), UdevError> {
        Self::run("read its rules again", &["control", "--reload"]).await
    }

    async fn drivers(&self) -> bool {
        match &self.drivers {
            Some(drivers) => drivers.loaded().await,
            None => false,
        }
    }

    async fn unhandled(&self) -> Vec<String> {
        unhandled(Path::new(SYS), Path::new(DATABASE)).into_iter().map(|device| device.name).collect()
    }

    async fn handle_disks_and_links(&self) -> Result<(), UdevError> {
        let announce = |Unhandled { path, .. }: Unhandled| {
            let path = path.join("uevent");
            match fs::write(&path, "add") {
                // It went away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                announced => announced.map_err(|source| Cause::Announce { path, source }),
            }
        };
        let announced = unhandled(Path::new(SYS), Path::new(DATABASE)).into_iter().try_for_each(announce);
        announced.map_err(|source| UdevError { operation: "handle disks and links", source })
    }

    async fn trigger_all(&self) -> Result<(), UdevError> {
        Self::run("handle all devices", &["trigger", "--action=add", "--type=all"]).await
    }

    async fn settle(&self) -> Result<(), UdevError> {
        Self::run("settle", &["settle", &format!("--timeout={}", SETTLE.as_secs())]).await
    }
}

/// Whether another process than `own` receives the kernel's messages about devices, as the kernel's table of sockets says: the
/// second field is the protocol (15), the third the process, the fourth its groups (1 is the kernel's).
fn hears_of_devices(table: &str, own: u32) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (protocol, process, groups) = (fields.next(), fields.next(), fields.next());
        // Further sockets of a process have negative numbers, the kernel's has 0.
        let process = process.and_then(|process| process.parse::<u32>().ok()).unwrap_or_default();
        let groups = groups.and_then(|groups| u32::from_str_radix(groups, 16).ok()).unwrap_or_default();
        protocol == Some("15") && process != 0 && process != own && groups & 1 != 0
    })
}

/// A disk or link that it has not handled.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unhandled {
    name: String,
    /// In sysfs.
    path: PathBuf,
}

/// Disks, partitions and links without an entry in the database. Those of no hardware need none: nobody looks for them by what
/// udevd finds out.
fn unhandled(sys: &Path, database: &Path) -> Vec<Unhandled> {
    let mut found = Vec::new();
    for (class, letter, number) in [("block", 'b', "dev"), ("net", 'n', "ifindex")] {
        for entry in fs::read_dir(sys.join("class").join(class)).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_virtual =
                fs::read_link(&path).is_ok_and(|link| link.components().any(|part| part.as_os_str() == "virtual"));
            let Ok(number) = fs::read_to_string(path.join(number)) else { continue };
            if !is_virtual && !database.join(format!("{letter}{}", number.trim())).exists() {
                found.push(Unhandled { name: entry.file_name().to_string_lossy().into_owned(), path });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn udevd_hears_of_devices_once_its_socket_is_bound() {
        let table = |lines: &str| format!("sk               Eth Pid        Groups   Rmem     Wmem     Dump\n{lines}");
        let own = "000000004b02923d 15  1          00000001 0        0        0\n000000004b02923e 15  -1037      00000001 0\n";
        assert!(!hears_of_devices(&table(own), 1));
        assert!(!hears_of_devices(&table("000000004b02923d 15  0          00000000 0        0        0\n"), 1));
        assert!(!hears_of_devices(&table("000000004b02923d 0   77         00000001 0        0        0\n"), 1));
        assert!(!hears_of_devices(&table("000000004b02923d 15  77         00000002 0        0        0\n"), 1));
        assert!(hears_of_devices(&table(&format!("{own}000000004b02923d 15  77         00000001 0        0\n")), 1));
    }

    #[test]
    fn disks_and_links_without_an_entry_in_the_database_are_not_handled() {
        let root = tempfile::tempdir().unwrap();
        let (sys, database) = (root.path().join("sys"), root.path().join("data"));
        fs::create_dir(&database).unwrap();
        let device = |class: &str, name: &str, parent: &str, file: &str, number: &str| {
            let directory = sys.join("devices").join(parent).join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(file), number).unwrap();
            fs::create_dir_all(sys.join("class").join(class)).unwrap();
            symlink(format!("../../devices/{parent}/{name}"), sys.join("class").join(class).join(name)).unwrap();
        };
        device("block", "vda", "pci0/virtio1/block", "dev", "254:0\n");
        device("block", "vda1", "pci0/virtio1/block", "dev", "254:1\n");
        device("block", "loop0", "virtual/block", "dev", "7:0\n");
        device("net", "eth0", "pci0/virtio0/net", "ifindex", "2\n");
        device("net", "lo", "virtual/net", "ifindex", "1\n");
        let names = || unhandled(&sys, &database).into_iter().map(|device| device.name).collect::<Vec<_>>();
        assert_eq!(names(), ["eth0", "vda", "vda1"]);
        fs::write(database.join("b254:0"), "").unwrap();
        fs::write(database.join("n2"), "").unwrap();
        assert_eq!(names(), ["vda1"]);
    }
}
