//! The block devices of this kernel.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use machine::gpt;
use machine::kernel_log::DiskError;
use parking_lot::Mutex;
use rustix::fs::Advice;
use stdx::tasks::{self, Task};
use sys::kmsg;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::device::{BlockDevices, BlockError, Device, DiskErrors, Probed};
use crate::probe::{self, Content};
use crate::sysfs;
use crate::uevent::{Listener, Received};

/// Events come in bursts, and a device's node appears shortly after its event.
const SETTLE: Duration = Duration::from_millis(100);
/// A slow bus without a new device for this long has no more: a hub of USB looks at its ports within half a second.
const QUIET: Duration = Duration::from_secs(1);
/// Pause before another attempt to listen.
const RETRY: Duration = Duration::from_secs(1);
/// Pause before the kernel's log is opened again.
const REOPEN: Duration = Duration::from_secs(60);
/// Disks whose errors are counted at a time; machines have fewer.
const COUNTED: usize = 1024;
/// The facility of the kernel itself: what programs write to its log has another one.
const KERNEL: u8 = 0;

/// Events of each device, and those that were lost and may have been of any.
#[derive(Debug, Default)]
struct Generations {
    lost: u64,
    of: BTreeMap<String, u64>,
}

impl Generations {
    fn count(&mut self, received: &Received) {
        match received {
            Received::Lost => self.lost += 1,
            Received::Event(event) => {
                let name = event.path.rsplit('/').next().unwrap_or_default();
                *self.of.entry(name.to_owned()).or_default() += 1;
            }
        }
    }

    fn get(&self, name: &str) -> u64 {
        self.lost + self.of.get(name).copied().unwrap_or_default() + 1
    }
}

/// USB and SD: their controllers tell of no end of the search for devices.
#[derive(Debug, Default)]
struct SlowBuses {
    devices: Vec<String>,
    /// When they were others the last time.
    changed: Option<Instant>,
}

impl SlowBuses {
    /// Whether more devices may appear: `devices` are those that are there now, controllers among them.
    fn may_grow(&mut self, devices: Vec<String>, now: Instant) -> bool {
        if self.devices != devices {
            (self.devices, self.changed) = (devices, Some(now));
        }
        self.changed.is_some_and(|changed| now.duration_since(changed) < QUIET)
    }
}

/// Failed requests, by disk.
#[derive(Debug, Default)]
struct Errors(BTreeMap<String, DiskErrors>);

impl Errors {
    /// Whether a line of the kernel's log told of one.
    fn count(&mut self, line: &str) -> bool {
        let Some(error) = DiskError::parse(line) else { return false };
        if self.0.len() >= COUNTED && !self.0.contains_key(error.disk) {
            return false;
        }
        let of = self.0.entry(error.disk.to_owned()).or_default();
        of.count += 1;
        error.what.clone_into(&mut of.last);
        true
    }

    /// A disk that has just appeared has none, whatever the last one of its name had.
    fn forget(&mut self, received: &Received) {
        if let Received::Event(event) = received
            && event.action == "add"
        {
            self.0.remove(event.path.rsplit('/').next().unwrap_or_default());
        }
    }
}

/// Reads `/sys` and opens nodes in `/dev`.
#[derive(Debug)]
pub struct KernelBlockDevices {
    sys: PathBuf,
    dev: PathBuf,
    changes: Arc<watch::Sender<u64>>,
    generations: Arc<Mutex<Generations>>,
    slow_buses: Arc<Mutex<SlowBuses>>,
    errors: Arc<Mutex<Errors>>,
    _watcher: Task<()>,
    _log_reader: Task<()>,
}

impl KernelBlockDevices {
    /// Listens to the kernel's events from now on.
    ///
    /// # Errors
    /// [`BlockError::Events`].
    pub fn new() -> Result<Self, BlockError> {
        let mut first = Some(Listener::open().map_err(BlockError::Events)?);
        let changes = Arc::new(watch::Sender::new(0));
        let generations = Arc::new(Mutex::new(Generations::default()));
        let errors: Arc<Mutex<Errors>> = Arc::default();
        let (sender, counts, failed) = (Arc::clone(&changes), Arc::clone(&generations), Arc::clone(&errors));
        let watcher = tasks::keep("block device events", move || {
            let listener = first.take().map_or_else(Listener::open, Ok);
            let (sender, counts, failed) = (Arc::clone(&sender), Arc::clone(&counts), Arc::clone(&failed));
            async move {
                match listener {
                    Ok(mut listener) => {
                        let error = watch_block(&mut listener, &counts, &failed, &sender).await;
                        tracing::error!(error = stdx::error_chain(&error), "events of block devices are not heard");
                    }
                    Err(error) => {
                        tracing::error!(error = stdx::error_chain(&error), "listening to events of block devices");
                    }
                }
                tokio::time::sleep(RETRY).await;
                // What happened meanwhile was missed.
                counts.lock().lost += 1;
                sender.send_modify(|count| *count += 1);
            }
        });
        let (sender, failed) = (Arc::clone(&changes), Arc::clone(&errors));
        let log_reader = tasks::keep("errors of disks", move || {
            let (sender, failed) = (Arc::clone(&sender), Arc::clone(&failed));
            async move {
                let error = read_log(&failed, &sender).await;
                tracing::warn!(error = stdx::error_chain(&error), "the kernel's log is not read for errors of disks");
                tokio::time::sleep(REOPEN).await;
            }
        });
        Ok(Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
            changes,
            generations,
            slow_buses: Arc::default(),
            errors,
            _watcher: watcher,
            _log_reader: log_reader,
        })
    }
}

/// Counts failed requests from now on; returns only with an error.
async fn read_log(errors: &Mutex<Errors>, sender: &watch::Sender<u64>) -> io::Error {
    let mut reader = match kmsg::Reader::open(true) {
        Ok(reader) => reader,
        Err(error) => return error,
    };
    loop {
        match reader.next(true).await {
            Ok(Some(record)) if record.facility == KERNEL => {
                if errors.lock().count(&record.message) {
                    sender.send_modify(|count| *count += 1);
                }
            }
            // It waits for the next.
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

/// Announces changes of block devices; returns only with an error.
async fn watch_block(
    listener: &mut Listener,
    generations: &Mutex<Generations>,
    errors: &Mutex<Errors>,
    sender: &watch::Sender<u64>,
) -> io::Error {
    loop {
        let mut burst = match listener.next().await {
            Ok(received) => vec![received],
            Err(error) => return error,
        };
        let pause = tokio::time::sleep(SETTLE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                // Cancel-safe: an event that is not taken stays in the socket.
                received = listener.next() => match received {
                    Ok(received) => burst.push(received),
                    Err(error) => return error,
                },
                // Cancel-safe: the pause goes on.
                () = &mut pause => break,
            }
        }
        burst.retain(concerns_block);
        if !burst.is_empty() {
            burst.iter().for_each(|received| errors.lock().forget(received));
            let mut generations = generations.lock();
            burst.iter().for_each(|received| generations.count(received));
            drop(generations);
            sender.send_modify(|count| *count += 1);
        }
    }
}

fn concerns_block(received: &Received) -> bool {
    match received {
        Received::Event(event) => event.subsystem == "block",
        Received::Lost => true,
    }
}

#[async_trait]
impl BlockDevices for KernelBlockDevices {
    async fn devices(&self) -> Result<Vec<Device>, BlockError> {
        let (sys, dev) = (self.sys.clone(), self.dev.clone());
        let mut devices = on_thread(move || sysfs::devices(&sys, &dev)).await?;
        let generations = self.generations.lock();
        devices.iter_mut().for_each(|device| device.generation = generations.get(&device.name));
        Ok(devices)
    }

    fn written(&self, name: &str) {
        *self.generations.lock().of.entry(name.to_owned()).or_default() += 1;
        self.changes.send_modify(|count| *count += 1);
    }

    fn errors(&self, disk: &str) -> DiskErrors {
        self.errors.lock().0.get(disk).cloned().unwrap_or_default()
    }

    async fn pending(&self) -> Result<Vec<String>, BlockError> {
        let (sys, slow_buses) = (self.sys.clone(), Arc::clone(&self.slow_buses));
        on_thread(move || {
            let mut pending = sysfs::pending(&sys);
            let devices = sysfs::slow_bus_devices(&sys);
            if slow_buses.lock().may_grow(devices, Instant::now()) {
                pending.push("devices of USB or SD controllers".to_owned());
            }
            Ok(pending)
        })
        .await
    }

    async fn probe(&self, device: &Device) -> Result<Probed, BlockError> {
        let device = device.clone();
        on_thread(move || match probe_device(&device) {
            Err(error) if is_empty_drive(&error) => Ok(Probed::default()),
            probed => probed,
        })
        .await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn read_at(&self, device: &Path, offset: u64, length: usize) -> Result<Vec<u8>, BlockError> {
        let device = device.to_owned();
        on_thread(move || {
            let file = open(&device)?;
            let mut bytes = vec![0; length];
            let read = file.read_exact_at(&mut bytes, offset);
            read.map_err(|source| BlockError::Read { device, offset, length, source })?;
            Ok(bytes)
        })
        .await
    }

    async fn write_at(&self, device: &Path, offset: u64, bytes: Vec<u8>) -> Result<(), BlockError> {
        let device = device.to_owned();
        on_thread(move || {
            let open = OpenOptions::new().write(true).open(&device);
            let file = open.map_err(|source| BlockError::Open { device: device.clone(), source })?;
            let written = file.write_all_at(&bytes, offset).and_then(|()| file.sync_all());
            written.map_err(|source| BlockError::Write { device, offset, length: bytes.len(), source })
        })
        .await
    }
}

/// Opens a device for reading what is on it now: a partition's cache does not see what was written through its disk.
fn open(device: &Path) -> Result<File, BlockError> {
    let file = File::open(device).map_err(|source| BlockError::Open { device: device.to_owned(), source })?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).ok();
    Ok(file)
}

/// Whether a device holds nothing because there is no disc or card in it.
fn is_empty_drive(error: &BlockError) -> bool {
    let (BlockError::Open { source, .. } | BlockError::Read { source, .. }) = error else { return false };
    source.raw_os_error() == Some(rustix::io::Errno::NOMEDIUM.raw_os_error())
}

fn probe_device(device: &Device) -> Result<Probed, BlockError> {
    let mut file = open(&device.path)?;
    probe_reader(&mut file, device).map_err(|source| BlockError::Read {
        device: device.path.clone(),
        offset: 0,
        length: probe::HEAD,
        source,
    })
}

/// A partition table takes precedence over what else the first bytes say.
pub(crate) fn probe_reader(file: &mut (impl io::Read + io::Seek), device: &Device) -> io::Result<Probed> {
    if device.partition.is_none()
        && let Some(table) = read_table(file, device)?
    {
        let content = Content {
            name: "gpt",
            uuid: table.disk.to_string().to_lowercase(),
            block_size: device.sector_size,
            size: device.size,
            ..Content::default()
        };
        return Ok(Probed { content: Some(content), table: Some(table) });
    }
    Ok(Probed { content: probe::probe(file, device.size)?, table: None })
}

/// The partition table of a disk; `None` where there is none, or none that can be read.
fn read_table(file: &mut (impl io::Read + io::Seek), device: &Device) -> io::Result<Option<gpt::Table>> {
    let Ok(geometry) = gpt::Geometry::new(device.sector_size, device.size) else { return Ok(None) };
    let found = gpt::read(geometry, |offset, buffer: &mut [u8]| {
        file.seek(io::SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    });
    match found {
        Ok(found) => Ok(Some(found.table)),
        Err(gpt::ReadTableError::None) => Ok(None),
        Err(gpt::ReadTableError::Damaged { primary, backup }) => {
            tracing::warn!(device = %device.path.display(), %primary, %backup, "damaged partition table");
            Ok(None)
        }
        Err(gpt::ReadTableError::Read(error)) => Err(error),
    }
}

/// Runs work that waits for a disk on a thread of its own.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlockError> + Send + 'static,
) -> Result<T, BlockError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(BlockError::Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_without_a_disc_is_empty_and_one_that_fails_is_not() {
        let open = |errno: rustix::io::Errno| BlockError::Open { device: "/dev/sr0".into(), source: errno.into() };
        assert!(is_empty_drive(&open(rustix::io::Errno::NOMEDIUM)));
        assert!(!is_empty_drive(&open(rustix::io::Errno::IO)));
        assert!(!is_empty_drive(&BlockError::Interrupted));
    }

    #[test]
    fn errors_of_a_disk_are_counted_until_another_one_has_its_name() {
        let mut errors = Errors::default();
        assert!(!errors.count("vda: vda1 vda2"));
        for sector in [8, 16] {
            assert!(errors.count(&format!("I/O error, dev vdb, sector {sector} op 0x0:(READ) flags 0x0 phys_seg 1")));
        }
        let last = "I/O error, dev vdb, sector 16 op 0x0:(READ)".to_owned();
        assert_eq!(errors.0.get("vdb"), Some(&DiskErrors { count: 2, last }));
        let event = |action: &str| {
            let message = format!("{action}@/devices/pci0/block/vdb\0SUBSYSTEM=block\0");
            Received::Event(crate::uevent::Uevent::parse(message.as_bytes()).unwrap())
        };
        errors.forget(&event("remove"));
        assert_eq!(errors.0.len(), 1, "what it was lost by is still told");
        errors.forget(&event("add"));
        assert!(errors.0.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_bus_is_waited_for_until_it_was_quiet_for_a_while() {
        let mut buses = SlowBuses::default();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(!buses.may_grow(names(&[]), Instant::now()), "a machine without such a bus waits for nothing");
        assert!(buses.may_grow(names(&["usb1"]), Instant::now()));
        tokio::time::advance(QUIET / 2).await;
        assert!(buses.may_grow(names(&["usb1", "1-1"]), Instant::now()));
        tokio::time::advance(QUIET / 2).await;
        assert!(buses.may_grow(names(&["usb1", "1-1"]), Instant::now()), "the hub has just found a device");
        tokio::time::advance(QUIET / 2).await;
        assert!(!buses.may_grow(names(&["usb1", "1-1"]), Instant::now()));
    }
}
