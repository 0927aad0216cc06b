//! Mounts of this mount namespace.

use std::io;
use std::path::{Path, PathBuf};

pub use rustix::mount::MountFlags;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

/// Failure of a mount operation.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("mounting {what} on {}", target.display())]
    Mount {
        what: String,
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("unmounting {}", target.display())]
    Unmount {
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("reading the mount table")]
    Table(#[source] io::Error),
}

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: String,
    pub target: PathBuf,
    pub filesystem: String,
    pub options: Vec<String>,
}

/// Mounts a new filesystem of `kind`. `data` is the filesystem's own option string ("mode=0755,size=64m").
///
/// # Errors
/// `Mount` with the kernel's reason.
pub fn mount(source: &str, target: &Path, kind: &str, flags: MountFlags, data: &str) -> Result<(), MountError> {
    let data = std::ffi::CString::new(data).map_err(|e| error(kind, target, io::Error::other(e)))?;
    rustix::mount::mount(source, target, kind, flags, data.as_c_str()).map_err(|e| error(kind, target, e.into()))
}

/// Shows `source` (file or directory) at `target` as well.
///
/// # Errors
/// `Mount` with the kernel's reason.
pub fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    rustix::mount::mount_bind(source, target).map_err(|e| error(&source.display().to_string(), target, e.into()))
}

/// Makes an existing mount writable again where the namespace's owner made it read-only.
///
/// # Errors
/// `Mount` with the kernel's reason.
pub fn remount_writable(target: &Path) -> Result<(), MountError> {
    rustix::mount::mount_remount(target, MountFlags::BIND, c"").map_err(|e| error("writable remount", target, e.into()))
}

/// Makes mounts below `target` visible in the namespaces of containers and back (`rshared`).
///
/// # Errors
/// `Mount` with the kernel's reason.
pub fn make_shared(target: &Path) -> Result<(), MountError> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    rustix::mount::mount_change(target, flags).map_err(|e| error("shared propagation", target, e.into()))
}

/// Detaches a mount lazily; it disappears after its last use.
///
/// # Errors
/// `Unmount` with the kernel's reason.
pub fn detach(target: &Path) -> Result<(), MountError> {
    rustix::mount::unmount(target, UnmountFlags::DETACH)
        .map_err(|e| MountError::Unmount { target: target.into(), source: e.into() })
}

/// The mount table of this process, in mount order.
///
/// # Errors
/// `Table` when `/proc/self/mounts` cannot be read.
pub fn table() -> Result<Vec<Mount>, MountError> {
    let text = std::fs::read_to_string("/proc/self/mounts").map_err(MountError::Table)?;
    Ok(parse_table(&text))
}

/// Whether something is mounted exactly at `target`.
pub fn is_mounted(target: &Path) -> bool {
    table().is_ok_and(|mounts| mounts.iter().any(|m| m.target == target))
}

fn parse_table(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (source, target, filesystem, options) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            Some(Mount {
                source: String::from_utf8_lossy(&unescape(source.as_bytes())).into_owned(),
                target: String::from_utf8_lossy(&unescape(target.as_bytes())).into_owned().into(),
                filesystem: filesystem.to_owned(),
                options: options.split(',').map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// A path as the kernel's mount tables show it: space, tab, newline and backslash are escaped as `\ooo`.
#[must_use]
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match (byte, octal) {
            (b'\\', Some(value)) => {
                out.push(value);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

fn error(what: &str, target: &Path, source: io::Error) -> MountError {
    MountError::Mount { what: what.to_owned(), target: target.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table_lines_are_unescaped_and_short_lines_are_skipped() {
        let mounts = parse_table("tmpfs /a\\040b tmpfs rw,relatime 0 0\nbroken line\n");
        assert_eq!(
            mounts,
            [Mount {
                source: "tmpfs".into(),
                target: "/a b".into(),
                filesystem: "tmpfs".into(),
                options: vec!["rw".into(), "relatime".into()],
            }]
        );
    }

    #[test]
    fn a_backslash_that_starts_no_octal_number_stays() {
        assert_eq!(unescape(b"a\\9zz"), b"a\\9zz");
        assert_eq!(unescape(b"end\\"), b"end\\");
    }

    #[test]
    fn proc_is_a_mount_and_a_made_up_path_is_not() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/no-such-mount")));
    }
}
