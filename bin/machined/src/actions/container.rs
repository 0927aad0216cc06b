//! First steps of a node that is a container: directories, mounts and limits, as far as its host lets it.

use std::path::Path;

use sequencer::TaskError;
use sys::capabilities::{CAP_SYS_RESOURCE, bounding};
use sys::files::{self, Access, FileError};

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
