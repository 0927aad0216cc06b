//! Variables of UEFI firmware, as the kernel's efivarfs has them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Where efivarfs is mounted.
pub const DIRECTORY: &str = "/sys/firmware/efi/efivars";
/// Largest value that is read.
const LARGEST: u64 = 64 * 1024;

/// Access to a variable failed.
#[derive(Debug, thiserror::Error)]
pub enum EfiVariableError {
    #[error("reading the EFI variable {name}")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("writing the EFI variable {name}")]
    Write {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the EFI variable {name} is too short for its attributes")]
    Short { name: String },
}

/// Whether UEFI firmware has started this kernel.
#[must_use]
pub fn is_uefi(sys: &Path) -> bool {
    sys.join("firmware/efi").exists()
}

/// The variables below a directory.
#[derive(Debug, Clone)]
pub struct EfiVariables {
    directory: PathBuf,
}

impl EfiVariables {
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    fn path(&self, name: &str, vendor: &str) -> PathBuf {
        self.directory.join(format!("{name}-{vendor}"))
    }

    /// The value of a variable, without its attributes; `None` where it does not exist.
    ///
    /// # Errors
    /// It cannot be read, or is shorter than its attributes.
    pub fn get(&self, name: &str, vendor: &str) -> Result<Option<Vec<u8>>, EfiVariableError> {
        let read = |source| EfiVariableError::Read { name: name.to_owned(), source };
        let file = match File::open(self.path(name, vendor)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() < 4 {
            return Err(EfiVariableError::Short { name: name.to_owned() });
        }
        Ok(Some(bytes.split_off(4)))
    }

    /// Writes a variable; the firmware takes attributes and value in one call. One that has this value already is left alone:
    /// each write wears the firmware's flash memory.
    ///
    /// # Errors
    /// `Write`, with the reason of the kernel or the firmware.
    pub fn set(&self, name: &str, vendor: &str, attributes: u32, value: &[u8]) -> Result<(), EfiVariableError> {
        if self.get(name, vendor).ok().flatten().is_some_and(|old| old == value) {
            return Ok(());
        }
        let path = self.path(name, vendor);
        let error = |source| EfiVariableError::Write { name: name.to_owned(), source };
        make_mutable(&path).map_err(error)?;
        let mut bytes = attributes.to_le_bytes().to_vec();
        bytes.extend_from_slice(value);
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(error)?;
        // One call: efivarfs hands each to the firmware as a whole.
        let written = file.write(&bytes).map_err(error)?;
        if written == bytes.len() { Ok(()) } else { Err(error(io::ErrorKind::WriteZero.into())) }
    }

    /// Removes a variable; one that does not exist is no error.
    ///
    /// # Errors
    /// `Write`.
    pub fn remove(&self, name: &str, vendor: &str) -> Result<(), EfiVariableError> {
        let path = self.path(name, vendor);
        let error = |source| EfiVariableError::Write { name: name.to_owned(), source };
        make_mutable(&path).map_err(error)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error(source)),
            _ => Ok(()),
        }
    }
}

/// efivarfs protects unknown variables from accidents by the immutable flag.
fn make_mutable(path: &Path) -> io::Result<()> {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match ioctl_getflags(&file) {
        Ok(flags) if flags.contains(IFlags::IMMUTABLE) => Ok(ioctl_setflags(&file, flags - IFlags::IMMUTABLE)?),
        // Other file systems have no such flag.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

    #[test]
    fn a_variable_is_its_attributes_and_its_value() {
        let directory = tempfile::tempdir().unwrap();
        let variables = EfiVariables::new(directory.path());
        assert_eq!(variables.get("X", VENDOR).unwrap(), None);
        variables.set("X", VENDOR, 7, b"ab").unwrap();
        assert_eq!(fs::read(directory.path().join(format!("X-{VENDOR}"))).unwrap(), b"\x07\0\0\0ab");
        assert_eq!(variables.get("X", VENDOR).unwrap().as_deref(), Some(&b"ab"[..]));
        variables.remove("X", VENDOR).unwrap();
        variables.remove("X", VENDOR).unwrap();
        assert_eq!(variables.get("X", VENDOR).unwrap(), None);
    }

    #[test]
    fn a_variable_without_attributes_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(format!("X-{VENDOR}")), b"ab").unwrap();
        let result = EfiVariables::new(directory.path()).get("X", VENDOR);
        assert!(matches!(result, Err(EfiVariableError::Short { .. })), "{result:?}");
    }
}
