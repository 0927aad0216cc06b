//! The kernel's watchdog in software: it resets a machine whose programs hang, on hardware without a watchdog of its own and
//! beside one that somebody else uses.

use std::io;
use std::path::{Path, PathBuf};

/// The module.
pub const MODULE: &str = "softdog";
/// How the kernel names its device.
const IDENTITY: &str = "Software Watchdog";
const CLASS: &str = "class/watchdog";

/// Its device, once the module is loaded.
///
/// # Errors
/// `sysfs` (`/sys`) cannot be read.
pub fn device(sysfs: &Path) -> io::Result<Option<PathBuf>> {
    let class = sysfs.join(CLASS);
    if !class.exists() {
        return Ok(None);
    }
    for entry in std::fs::read_dir(class)? {
        let entry = entry?;
        let identity = std::fs::read_to_string(entry.path().join("identity")).unwrap_or_default();
        if identity.trim_end() == IDENTITY {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_among_other_watchdogs() {
        let sysfs = tempfile::tempdir().unwrap();
        assert_eq!(device(sysfs.path()).unwrap(), None);
        for (name, identity) in [("watchdog0", "iTCO_wdt\n"), ("watchdog1", "Software Watchdog\n")] {
            let folder = sysfs.path().join(CLASS).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("identity"), identity).unwrap();
        }
        assert_eq!(device(sysfs.path()).unwrap(), Some(PathBuf::from("/dev/watchdog1")));
    }
}
