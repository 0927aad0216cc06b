//! The boot loader of an installed machine: which versions there are, and which one it starts. The files of GRUB lie on BOOT,
//! those of systemd-boot on EFI and in variables of the firmware. Both are mounted for the time of a look or a change alone.

mod grub;
mod unified;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use machine::grub::{GrubError, Slot};
use machine::trial::{SlotId, Slots};

use crate::efivar::{EfiVariableError, EfiVariables};
use crate::filesystem::{FileSystemError, FileSystems, MountPlan, ProjectQuota};

/// Where the files of the boot loader are mounted meanwhile: for one caller at a time.
const MOUNT: &str = "/run/boot-loader";
/// How long they may stay busy.
const BUSY: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
static MOUNTED: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The boot loader cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    #[error("no disk of this machine has the system")]
    NotInstalled,
    #[error("the system disk has no partition {label} of the boot loader")]
    NoPartition { label: &'static str },
    #[error("mounting the files of the boot loader")]
    FileSystem(#[from] FileSystemError),
    #[error("{}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", path.display())]
    Grub {
        path: PathBuf,
        #[source]
        source: GrubError,
    },
    #[error(transparent)]
    Variable(#[from] EfiVariableError),
    #[error("the boot loader has no version {0}")]
    Unknown(SlotId),
    #[error("the look at the boot loader was interrupted")]
    Interrupted,
}

/// The versions of this machine and the choice between them. Each change is durable when its call returns.
#[async_trait]
pub trait BootLoader: Debug + Send + Sync {
    /// # Errors
    /// A machine that is not installed, or files that cannot be read.
    async fn slots(&self) -> Result<Slots, SlotsError>;

    /// Has it start a slot the next time and only then; none: its default.
    ///
    /// # Errors
    /// As [`BootLoader::slots`], and `Unknown`.
    async fn start_next(&self, slot: Option<&SlotId>) -> Result<(), SlotsError>;

    /// Has it start a slot by itself. Boots of it are not counted any more.
    ///
    /// # Errors
    /// As [`BootLoader::slots`], and `Unknown`.
    async fn make_default(&self, slot: &SlotId) -> Result<(), SlotsError>;
}

/// Where the boot loader keeps what it knows.
#[derive(Debug, Clone)]
enum Home {
    Grub { booted: Option<Slot> },
    Unified { variables: EfiVariables },
}

/// The boot loader of the running machine.
#[derive(Debug)]
pub struct KernelBootLoader {
    /// The system disk.
    disk: PathBuf,
    home: Home,
    filesystems: Arc<dyn FileSystems>,
}

impl KernelBootLoader {
    /// GRUB on the system disk, by its device, with the slot that the kernel came from.
    #[must_use]
    pub fn grub(disk: PathBuf, booted: Option<Slot>, filesystems: Arc<dyn FileSystems>) -> Self {
        Self { disk, home: Home::Grub { booted }, filesystems }
    }

    /// systemd-boot on the system disk, by its device.
    #[must_use]
    pub fn unified(disk: PathBuf, variables: EfiVariables, filesystems: Arc<dyn FileSystems>) -> Self {
        Self { disk, home: Home::Unified { variables }, filesystems }
    }

    /// Mounts, does the work, and unmounts, whatever came of it.
    async fn with<T: Send + 'static>(
        &self,
        writes: bool,
        work: impl FnOnce(&Home, &Path) -> Result<T, SlotsError> + Send + 'static,
    ) -> Result<T, SlotsError> {
        let (label, kind) = match self.home {
            Home::Grub { .. } => ("BOOT", "xfs"),
            Home::Unified { .. } => ("EFI", "vfat"),
        };
        let device = sys::partitions::on_disk(&self.disk, label).ok_or(SlotsError::NoPartition { label })?;
        let mut plan = MountPlan::xfs(device, MOUNT, ProjectQuota::Off);
        plan.kind = kind;
        plan.is_read_only = !writes;
        let _alone = MOUNTED.lock().await;
        // One that could not be unmounted before.
        self.unmount().await?;
        self.filesystems.mount(&plan).await?;
        let home = self.home.clone();
        let done = tokio::task::spawn_blocking(move || work(&home, Path::new(MOUNT))).await;
        self.unmount().await?;
        done.unwrap_or(Err(SlotsError::Interrupted))
    }

    /// Unmounts. A program that is being started has our open files for a moment, and keeps the mount busy.
    async fn unmount(&self) -> Result<(), SlotsError> {
        let deadline = tokio::time::Instant::now() + BUSY;
        loop {
            match self.filesystems.unmount(Path::new(MOUNT)).await {
                Err(error) if error.is_busy() && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                ended => return Ok(ended?),
            }
        }
    }
}

#[async_trait]
impl BootLoader for KernelBootLoader {
    async fn slots(&self) -> Result<Slots, SlotsError> {
        self.with(false, |home, root| match home {
            Home::Grub { booted } => grub::slots(root, *booted),
            Home::Unified { variables } => unified::slots(root, variables),
        })
        .await
    }

    async fn start_next(&self, slot: Option<&SlotId>) -> Result<(), SlotsError> {
        let slot = slot.cloned();
        self.with(true, move |home, root| match home {
            Home::Grub { .. } => grub::start_next(root, slot.as_ref()),
            Home::Unified { variables } => unified::start_next(root, variables, slot.as_ref()),
        })
        .await
    }

    async fn make_default(&self, slot: &SlotId) -> Result<(), SlotsError> {
        let slot = slot.clone();
        self.with(true, move |home, root| match home {
            Home::Grub { .. } => grub::make_default(root, &slot),
            Home::Unified { variables } => unified::make_default(root, variables, &slot),
        })
        .await
    }
}

/// A boot loader in memory, for tests.
#[cfg(feature = "testing")]
#[derive(Debug, Clone)]
pub struct FakeBootLoader(Arc<parking_lot::Mutex<Slots>>);

#[cfg(feature = "testing")]
impl FakeBootLoader {
    #[must_use]
    pub fn new(slots: Slots) -> Self {
        Self(Arc::new(parking_lot::Mutex::new(slots)))
    }

    /// What it knows now.
    #[must_use]
    pub fn now(&self) -> Slots {
        self.0.lock().clone()
    }

    /// Starts the machine: the slot that it was started from, and what is left.
    #[must_use]
    pub fn power_on(&self) -> Option<SlotId> {
        let mut slots = self.0.lock();
        slots.booted = slots.next.take().or_else(|| slots.default.clone());
        slots.booted.clone()
    }

    fn known(&self, slot: &SlotId) -> Result<(), SlotsError> {
        self.0.lock().version(slot).map(drop).ok_or_else(|| SlotsError::Unknown(slot.clone()))
    }
}

#[cfg(feature = "testing")]
#[async_trait]
impl BootLoader for FakeBootLoader {
    async fn slots(&self) -> Result<Slots, SlotsError> {
        Ok(self.now())
    }

    async fn start_next(&self, slot: Option<&SlotId>) -> Result<(), SlotsError> {
        slot.map(|slot| self.known(slot)).transpose()?;
        self.0.lock().next = slot.cloned();
        Ok(())
    }

    async fn make_default(&self, slot: &SlotId) -> Result<(), SlotsError> {
        self.known(slot)?;
        self.0.lock().default = Some(slot.clone());
        Ok(())
    }
}

/// A file of the boot loader; files are small.
fn read(path: &Path) -> Result<Option<Vec<u8>>, SlotsError> {
    const LARGEST: u64 = 64 * 1024;
    use std::io::Read as _;
    let error = |source| SlotsError::File { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(error)?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(error)?;
    Ok(Some(bytes))
}
