//! Watchdogs: devices that reset a machine which does not feed them in time.
//!
//! When to feed is the caller's decision. A watchdog that is dropped without [`Watchdog::disarm`] stays armed and resets the
//! machine, as it does when this process dies.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "testing")]
mod fake;

#[cfg(feature = "testing")]
pub use fake::FakeWatchdogs;

/// `WDIOC_SETTIMEOUT`: takes seconds and returns those that the device has taken.
const SET_TIMEOUT: libc::c_ulong = 0xC004_5706;
/// What a driver reads as "the next close is meant".
const MAGIC_CLOSE: &[u8] = b"V";
/// Any other byte is food.
const FOOD: &[u8] = b"\0";

/// A watchdog does not do as it is told.
#[derive(Debug, thiserror::Error)]
#[error("watchdog {}: {operation}", device.display())]
pub struct WatchdogError {
    pub device: PathBuf,
    pub operation: &'static str,
    #[source]
    pub source: io::Error,
}

impl WatchdogError {
    /// Whether another try may succeed: the device may appear, and its other user may go.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound || self.source.raw_os_error() == Some(libc::EBUSY)
    }
}

/// The watchdogs of a machine.
pub trait Watchdogs: Debug + Send + Sync {
    /// Opens a watchdog, which arms it with the timeout that it has. Only one user can have it open.
    ///
    /// # Errors
    /// There is none, it has another user, or it is no watchdog.
    fn open(&self, device: &Path) -> Result<Box<dyn Watchdog>, WatchdogError>;
}

/// An armed watchdog.
pub trait Watchdog: Debug + Send {
    /// Sets the time after which it resets the machine unless it is fed, in whole seconds, and feeds it. Returns the time
    /// that the device has taken, which may differ from the one asked for.
    ///
    /// # Errors
    /// The device does not have such a timeout, or none that can be set; it keeps its former one.
    fn set_timeout(&mut self, timeout: Duration) -> Result<Duration, WatchdogError>;

    /// Starts the time anew.
    ///
    /// # Errors
    /// The kernel's.
    fn feed(&mut self) -> Result<(), WatchdogError>;

    /// Stops it. A kernel with `nowayout` keeps it armed all the same.
    ///
    /// # Errors
    /// The kernel's; it stays armed.
    fn disarm(self: Box<Self>) -> Result<(), WatchdogError>;
}

/// Watchdogs of the kernel: `/dev/watchdog0` and so on.
#[derive(Debug, Default)]
pub struct KernelWatchdogs;

impl Watchdogs for KernelWatchdogs {
    fn open(&self, device: &Path) -> Result<Box<dyn Watchdog>, WatchdogError> {
        let file = OpenOptions::new().write(true).open(device).map_err(|source| WatchdogError {
            device: device.to_owned(),
            operation: "opening it",
            source,
        })?;
        Ok(Box::new(KernelWatchdog { device: device.to_owned(), file }))
    }
}

#[derive(Debug)]
struct KernelWatchdog {
    device: PathBuf,
    file: File,
}

impl KernelWatchdog {
    fn error(&self, operation: &'static str, source: io::Error) -> WatchdogError {
        WatchdogError { device: self.device.clone(), operation, source }
    }

    fn write(&mut self, bytes: &[u8], operation: &'static str) -> Result<(), WatchdogError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| self.error(operation, source))
    }
}

impl Watchdog for KernelWatchdog {
    fn set_timeout(&mut self, timeout: Duration) -> Result<Duration, WatchdogError> {
        const OPERATION: &str = "setting its timeout";
        let failed = |source| self.error(OPERATION, source);
        let mut seconds = libc::c_int::try_from(timeout.as_secs())
            .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidInput, "it is too long")))?;
        // SAFETY: the kernel reads and writes one number, which outlives the call.
        let rc = unsafe { libc::ioctl(self.file.as_raw_fd(), SET_TIMEOUT as _, &raw mut seconds) };
        if rc != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        let taken = u64::try_from(seconds).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        self.write(FOOD, OPERATION)?;
        Ok(Duration::from_secs(taken))
    }

    fn feed(&mut self) -> Result<(), WatchdogError> {
        self.write(FOOD, "feeding it")
    }

    fn disarm(mut self: Box<Self>) -> Result<(), WatchdogError> {
        self.write(MAGIC_CLOSE, "disarming it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_named_and_may_come() {
        let error = KernelWatchdogs.open(Path::new("/dev/no-such-watchdog")).unwrap_err();
        assert_eq!(
            stdx::error_chain(&error),
            "watchdog /dev/no-such-watchdog: opening it: No such file or directory (os error 2)"
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn food_and_the_last_word_are_different_bytes_and_no_watchdog_takes_no_timeout() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut dog = KernelWatchdogs.open(file.path()).unwrap();
        let error = dog.set_timeout(Duration::from_secs(60)).unwrap_err();
        assert_eq!((error.operation, error.source.raw_os_error()), ("setting its timeout", Some(libc::ENOTTY)));
        assert!(!error.is_retryable());
        let error = dog.set_timeout(Duration::from_secs(u64::MAX)).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::InvalidInput);
        dog.feed().unwrap();
        dog.disarm().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"\0V");
    }
}
