//! Tasks of the sequences of a node that is a container: directories, mounts, limits, files, volumes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain_runtime::cri_parts::{ContainerdFile, ContainerdLimits};
use domain_runtime::{mount, user_files};
use resources::config::MachineConfig;
use resources::runtime::MountStatus;
use resources::v1alpha1::AcquireConfigSpec;
use sequencer::{OnFailure, Task, TaskError};
use services::BootstrapGate;
use state::{Key, StateError, Store};
use sys::capabilities::{CAP_SYS_RESOURCE, bounding};
use sys::files::{self, Access, FileError};

use crate::paths::{BOOTSTRAP_FILE, COPIES, ETC, RENDERED_ETC};

/// A task that only talks to the kernel.
pub(crate) const QUICK: Duration = Duration::from_secs(30);
/// Time for writers of a volume to stop.
const UNMOUNT: Duration = Duration::from_secs(10);
/// Owner of the resources that request a sequence's work from controllers.
const SEQUENCER: &str = "sequencer";

/// Directories of the system that are made at each boot, with their modes.
const DIRECTORIES: [(&str, u32); 8] = [
    ("/system/etc", 0o755),
    ("/system/etc/cri", 0o755),
    ("/system/run", 0o755),
    ("/system/run/machined", 0o755),
    ("/system/run/apid", 0o755),
    ("/system/run/trustd", 0o755),
    ("/system/secrets", 0o755),
    ("/system/config", 0o755),
];

/// A task that asks for the volume STATE, waits until it is mounted, and takes up what was left there.
pub(crate) fn mount_state(name: &'static str, store: &Store, gate: &BootstrapGate) -> Task {
    let (store, gate) = (store.clone(), gate.clone());
    Task::new(name, QUICK, move |_| {
        let (store, gate) = (store.clone(), gate.clone());
        async move {
            let state = mount::mount(&store, MountStatus::STATE, QUICK).await?;
            // Reading waits for a disk.
            Ok(tokio::task::spawn_blocking(move || gate.keep_in(state.join(BOOTSTRAP_FILE))).await??)
        }
    })
}

/// A task that asks for a volume and waits until it is mounted.
pub(crate) fn mount(name: &'static str, store: &Store, volume: &'static str) -> Task {
    let store = store.clone();
    Task::new(name, QUICK, move |_| {
        let store = store.clone();
        async move { Ok(mount::mount(&store, volume, QUICK).await.map(drop)?) }
    })
}

/// A task that withdraws a volume from its writers. A volume still in use does not block the end of the machine.
pub(crate) fn unmount(name: &'static str, store: &Store, volume: &'static str) -> Task {
    let store = store.clone();
    let unmount = Task::new(name, QUICK, move |_| {
        let store = store.clone();
        async move { Ok(mount::unmount(&store, volume, UNMOUNT).await?) }
    });
    unmount.on_failure(OnFailure::Ignore)
}

/// Directories below the volume EPHEMERAL that services expect.
pub(crate) async fn var(store: Store) -> Result<(), TaskError> {
    let ephemeral = store.get_as::<MountStatus>(MountStatus::EPHEMERAL)?;
    if let Some(ephemeral) = ephemeral {
        files::ensure_directory(&Path::new(&ephemeral.target).join("log"), 0o755)?;
    }
    Ok(())
}

/// Files of the configuration.
pub(crate) async fn user_files(store: Store) -> Result<(), TaskError> {
    let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let files = MachineConfig::root_of(active.as_deref())?.map(|config| config.machine().files.clone());
    let files = files.unwrap_or_default();
    if files.is_empty() {
        return Ok(());
    }
    let ephemeral = store.get_as::<MountStatus>(MountStatus::EPHEMERAL)?.ok_or("volume EPHEMERAL is not mounted")?;
    let places = user_files::Places {
        volume: PathBuf::from(&ephemeral.target),
        image: PathBuf::from("/"),
        copies: PathBuf::from(COPIES),
    };
    // Writing waits for a disk.
    Ok(tokio::task::spawn_blocking(move || user_files::write(&files, &places)).await??)
}

/// Has the configuration acquired: from now on the machine waits for one, in maintenance mode where it has to.
pub(crate) fn begin_acquisition(store: &Store) -> Result<(), StateError> {
    store.put(AcquireConfigSpec::ID, AcquireConfigSpec {}, SEQUENCER).map(drop)
}

/// The configuration exists.
pub(crate) fn end_acquisition(store: &Store) -> Result<(), StateError> {
    match store.destroy(&Key::of::<AcquireConfigSpec>(AcquireConfigSpec::ID), SEQUENCER) {
        Err(StateError::NotFound(_)) => Ok(()),
        ended => ended,
    }
}

pub(crate) fn directories() -> Result<(), FileError> {
    for (path, mode) in DIRECTORIES {
        files::make_directory(Path::new(path), Access { mode, owner: None })?;
    }
    Ok(())
}

/// Mounts have to reach containers and come back from them; the kubelet and containerd make control groups and set
/// kernel parameters. If the host refuses, a warning is logged once.
pub(crate) fn mounts() -> Result<(), TaskError> {
    sys::mounts::make_shared(Path::new("/"))?;
    for mount in sys::mounts::table()? {
        let wanted = mount.target.starts_with("/sys") || mount.target.starts_with("/proc/sys");
        if wanted && mount.options.iter().any(|option| option == "ro") {
            let result = sys::mounts::remount_writable(&mount.target);
            if let Err(error) = result {
                tracing::warn!(error = stdx::error_chain(&error), "read-only mount stays as it is");
            }
        }
    }
    Ok(())
}

pub(crate) fn limits() -> Result<(), TaskError> {
    /// Talos 1.7.
    const OPEN_FILES: u64 = 1_048_576;
    let got = sys::host::raise_open_files(OPEN_FILES)?;
    if got < OPEN_FILES {
        tracing::warn!(wanted = OPEN_FILES, got, "the host limits open files");
    }
    if !bounding().contains(&CAP_SYS_RESOURCE) {
        tracing::warn!("the host withholds CAP_SYS_RESOURCE: OOM scores stay as they are");
    }
    Ok(())
}

pub(crate) fn etc() -> Result<(), TaskError> {
    containerd_file().write_first()?;
    sys::mounts::bind(&Path::new(RENDERED_ETC).join("cri"), &Path::new(ETC).join("cri"))?;
    Ok(())
}

/// containerd's configuration file.
pub(crate) fn containerd_file() -> ContainerdFile {
    let limits = ContainerdLimits { restrict_oom_score: !bounding().contains(&CAP_SYS_RESOURCE) };
    ContainerdFile { rendered: RENDERED_ETC.into(), limits }
}
