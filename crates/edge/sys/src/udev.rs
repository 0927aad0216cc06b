//! The device manager of the machine, by its control program.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::capabilities::CAP_SYS_BOOT;
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

/// The device manager does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
#[error("asking udevd to {operation}")]
pub struct UdevError {
    pub operation: &'static str,
    #[source]
    pub source: ProcessError,
}

/// Devices to handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that disks and links are found by.
    Needed,
    All,
}

/// Buses and subsystems that disks and links are found by.
const NEEDED: [&str; 15] = [
    "pci",
    "virtio",
    "vmbus",
    "xen",
    "usb",
    "scsi",
    "scsi_host",
    "ata_port",
    "nvme",
    "nvme-subsystem",
    "mmc",
    "mmc_host",
    "block",
    "net",
    "acpi",
];

/// The device manager.
#[async_trait]
pub trait Devices: Debug + Send + Sync + 'static {
    /// Waits until it answers, at most [`READY`].
    ///
    /// # Errors
    /// [`UdevError`].
    async fn ready(&self) -> Result<(), UdevError>;

    /// Has it read its rules again.
    ///
    /// # Errors
    /// [`UdevError`].
    async fn reload(&self) -> Result<(), UdevError>;

    /// Has it handle devices that the kernel knows as if they had come now.
    ///
    /// # Errors
    /// [`UdevError`].
    async fn trigger(&self, which: Which) -> Result<(), UdevError>;

    /// Waits until it has handled all events, at most [`SETTLE`].
    ///
    /// # Errors
    /// [`UdevError`], also when that takes longer.
    async fn settle(&self) -> Result<(), UdevError>;
}

/// The one that runs on this machine.
#[derive(Debug, Default)]
pub struct Udevadm;

impl Udevadm {
    async fn run(operation: &'static str, args: &[&str]) -> Result<(), UdevError> {
        let command = Command::new(UDEVADM).args(args.iter().copied()).env("PATH", "/usr/sbin:/usr/bin");
        let command = command.capabilities(Capabilities::Without(vec![CAP_SYS_BOOT]));
        command.run().await.map(drop).map_err(|source| UdevError { operation, source })
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

    async fn reload(&self) -> Result<(), UdevError> {
        Self::run("read its rules again", &["control", "--reload"]).await
    }

    async fn trigger(&self, which: Which) -> Result<(), UdevError> {
        let matches: Vec<String> = match which {
            Which::Needed => NEEDED.iter().map(|name| format!("--subsystem-match={name}")).collect(),
            Which::All => vec!["--type=all".to_owned()],
        };
        let args: Vec<&str> =
            ["trigger", "--action=add"].into_iter().chain(matches.iter().map(String::as_str)).collect();
        Self::run("handle devices", &args).await
    }

    async fn settle(&self) -> Result<(), UdevError> {
        Self::run("settle", &["settle", &format!("--timeout={}", SETTLE.as_secs())]).await
    }
}
