//! Watchdogs that reset nothing, by the clock of tokio.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Watchdog, WatchdogError, Watchdogs};

/// The timeout of a device before one is set, as of most drivers.
const INITIAL: Duration = Duration::from_secs(60);

/// Watchdogs of a test, stricter than the kernel's: one that has bitten refuses everything, as nobody is left to feed it.
/// Clones are one.
#[derive(Debug, Clone, Default)]
pub struct FakeWatchdogs(Arc<Mutex<BTreeMap<PathBuf, Device>>>);

#[derive(Debug)]
struct Device {
    longest: Duration,
    timeout: Duration,
    is_open: bool,
    /// When it was fed last; none while it is not armed.
    fed: Option<Instant>,
    feeds: u64,
    fails: bool,
}

impl Device {
    fn has_bitten(&self) -> bool {
        self.fed.is_some_and(|fed| fed.elapsed() > self.timeout)
    }
}

impl FakeWatchdogs {
    /// Adds a device that takes timeouts of one second to `longest`.
    #[must_use]
    pub fn with(self, device: impl Into<PathBuf>, longest: Duration) -> Self {
        let new = Device { longest, timeout: INITIAL.min(longest), is_open: false, fed: None, feeds: 0, fails: false };
        self.0.lock().insert(device.into(), new);
        self
    }

    /// The timeout of a device that is armed; none of one that is not, or not there.
    #[must_use]
    pub fn armed(&self, device: impl AsRef<Path>) -> Option<Duration> {
        let devices = self.0.lock();
        devices.get(device.as_ref()).filter(|device| device.fed.is_some()).map(|device| device.timeout)
    }

    /// Whether it has reset the machine.
    #[must_use]
    pub fn has_bitten(&self, device: impl AsRef<Path>) -> bool {
        self.0.lock().get(device.as_ref()).is_some_and(Device::has_bitten)
    }

    /// How often it was fed by [`Watchdog::feed`].
    #[must_use]
    pub fn feeds(&self, device: impl AsRef<Path>) -> u64 {
        self.0.lock().get(device.as_ref()).map_or(0, |device| device.feeds)
    }

    /// Has the device answer with errors from now on, or no longer.
    pub fn fail(&self, device: impl AsRef<Path>, fails: bool) {
        if let Some(device) = self.0.lock().get_mut(device.as_ref()) {
            device.fails = fails;
        }
    }
}

fn error(device: &Path, operation: &'static str, source: io::Error) -> WatchdogError {
    WatchdogError { device: device.to_owned(), operation, source }
}

impl Watchdogs for FakeWatchdogs {
    fn open(&self, path: &Path) -> Result<Box<dyn Watchdog>, WatchdogError> {
        const OPERATION: &str = "opening it";
        let mut devices = self.0.lock();
        let device = devices.get_mut(path);
        let device = device.ok_or_else(|| error(path, OPERATION, io::ErrorKind::NotFound.into()))?;
        if device.is_open || device.has_bitten() {
            return Err(error(path, OPERATION, io::Error::from_raw_os_error(libc::EBUSY)));
        }
        device.is_open = true;
        device.fed = Some(Instant::now());
        Ok(Box::new(FakeWatchdog { path: path.to_owned(), devices: self.clone() }))
    }
}

#[derive(Debug)]
struct FakeWatchdog {
    path: PathBuf,
    devices: FakeWatchdogs,
}

impl FakeWatchdog {
    fn with<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut Device) -> io::Result<T>,
    ) -> Result<T, WatchdogError> {
        let mut devices = self.devices.0.lock();
        let device = devices.get_mut(&self.path);
        let device = device.ok_or_else(|| error(&self.path, operation, io::ErrorKind::NotFound.into()))?;
        if device.fails || device.has_bitten() {
            return Err(error(&self.path, operation, io::Error::from_raw_os_error(libc::EIO)));
        }
        act(device).map_err(|source| error(&self.path, operation, source))
    }
}

impl Watchdog for FakeWatchdog {
    fn set_timeout(&mut self, timeout: Duration) -> Result<Duration, WatchdogError> {
        self.with("setting its timeout", |device| {
            let timeout = Duration::from_secs(timeout.as_secs());
            if timeout.is_zero() || timeout > device.longest {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            device.timeout = timeout;
            device.fed = Some(Instant::now());
            Ok(timeout)
        })
    }

    fn feed(&mut self) -> Result<(), WatchdogError> {
        self.with("feeding it", |device| {
            device.fed = Some(Instant::now());
            device.feeds += 1;
            Ok(())
        })
    }

    fn disarm(self: Box<Self>) -> Result<(), WatchdogError> {
        self.with("disarming it", |device| {
            device.fed = None;
            Ok(())
        })
    }
}

/// Closing alone leaves it armed.
impl Drop for FakeWatchdog {
    fn drop(&mut self) {
        if let Some(device) = self.devices.0.lock().get_mut(&self.path) {
            device.is_open = false;
        }
    }
}
