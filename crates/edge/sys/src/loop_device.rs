//! Loop devices: a file as a block device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// `LOOP_CTL_GET_FREE`.
const GET_FREE: libc::c_ulong = 0x4C82;
/// `LOOP_CONFIGURE` (Linux 5.8 and newer).
const CONFIGURE: libc::c_ulong = 0x4C0A;
/// `LOOP_SET_CAPACITY`.
#[cfg(feature = "testing")]
const SET_CAPACITY: libc::c_ulong = 0x4C07;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
#[cfg(feature = "testing")]
const PARTITION_SCAN: u32 = 8;
/// Another process may take the free device first.
const TRIES: u32 = 16;

/// A file cannot be a block device.
#[derive(Debug, thiserror::Error)]
#[error("making {} a block device: {operation}", file.display())]
pub struct LoopError {
    pub file: PathBuf,
    pub operation: &'static str,
    #[source]
    pub source: io::Error,
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A configured device; it is released when this and the last mount of it are gone.
#[derive(Debug)]
pub struct LoopDevice {
    /// Kept open until something else uses the device, which is released with its last user.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "held, not read"))]
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `file` a read-only block device.
    ///
    /// # Errors
    /// [`LoopError`]: the kernel has no loop devices, or none is free.
    pub fn attach_read_only(file: &Path) -> Result<Self, LoopError> {
        let mut read = OpenOptions::new();
        read.read(true);
        Self::attach(file, &read, 0, READ_ONLY)
    }

    /// Makes `file` a writable disk with sectors of `sector_size` bytes; the kernel scans it for partitions.
    ///
    /// # Errors
    /// As [`Self::attach_read_only`].
    #[cfg(feature = "testing")]
    pub fn attach_disk(file: &Path, sector_size: u32) -> Result<Self, LoopError> {
        let mut write = OpenOptions::new();
        write.read(true).write(true);
        Self::attach(file, &write, sector_size, PARTITION_SCAN)
    }

    /// Takes the file's new size.
    ///
    /// # Errors
    /// The kernel's.
    #[cfg(feature = "testing")]
    pub fn refresh_size(&self) -> io::Result<()> {
        // SAFETY: this request takes no argument.
        let rc = unsafe { libc::ioctl(self.device.as_raw_fd(), SET_CAPACITY as _) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// `access` is to the file and to the device.
    fn attach(file: &Path, access: &OpenOptions, sector_size: u32, flags: u32) -> Result<Self, LoopError> {
        let error = |operation| move |source| LoopError { file: file.to_owned(), operation, source };
        let backing = access.open(file).map_err(error("opening it"))?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control");
        let control = control.map_err(error("opening /dev/loop-control"))?;
        let mut last = io::Error::other("no attempt");
        for _ in 0..TRIES {
            // SAFETY: this request takes no argument and returns a number.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
            if number < 0 {
                return Err(error("asking for a free device")(io::Error::last_os_error()));
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = access.open(&path).map_err(error("opening the device"))?;
            match configure(&device, &backing, sector_size, flags) {
                Ok(()) => return Ok(Self { device, path }),
                Err(source) if source.raw_os_error() == Some(libc::EBUSY) => last = source,
                Err(source) => return Err(error("configuring the device")(source)),
            }
        }
        Err(error("finding a free device")(last))
    }
}

fn configure(device: &File, backing: &File, sector_size: u32, flags: u32) -> io::Result<()> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: flags | AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let config = Config { fd, block_size: sector_size, info, reserved: [0; 8] };
    // SAFETY: the kernel reads exactly one `loop_config`, which outlives the call, and takes a reference to the file.
    let rc = unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!((size_of::<Info>(), size_of::<Config>()), (232, 304));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = LoopDevice::attach_read_only(Path::new("/no/such.sqsh")).unwrap_err();
        assert_eq!((error.operation, error.source.kind()), ("opening it", io::ErrorKind::NotFound));
    }
}
