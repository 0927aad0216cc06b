//! Loop devices: files as disks, with the partitions of their tables.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Requests of linux/loop.h.
const LOOP_CTL_GET_FREE: u64 = 0x4C82;
const LOOP_CONFIGURE: u64 = 0x4C0A;
const LOOP_CLR_FD: u64 = 0x4C01;
const LOOP_SET_CAPACITY: u64 = 0x4C07;
const PARTITION_SCAN: u32 = 8;
const READ_ONLY: u32 = 1;
/// Two programs may be told the same free device.
const ATTEMPTS: usize = 32;

/// `struct loop_info64`.
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

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// How a file is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopMode {
    ReadOnly,
    ReadWrite,
}

/// A file attached as a block device. Dropping it detaches the file as soon as nobody uses the device.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a file with sectors of `sector_size` bytes; the kernel scans it for partitions.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(file: &Path, mode: LoopMode, sector_size: u32) -> io::Result<Self> {
        let backing = OpenOptions::new().read(true).write(mode == LoopMode::ReadWrite).open(file)?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let read_only = if mode == LoopMode::ReadOnly { READ_ONLY } else { 0 };
        for _ in 0..ATTEMPTS {
            let number = request(&control, LOOP_CTL_GET_FREE, std::ptr::null_mut::<()>())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(true).open(&path)?;
            let mut config = Config {
                fd: u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?,
                block_size: sector_size,
                info: Info {
                    device: 0,
                    inode: 0,
                    rdevice: 0,
                    offset: 0,
                    size_limit: 0,
                    number: 0,
                    encrypt_type: 0,
                    encrypt_key_size: 0,
                    flags: PARTITION_SCAN | read_only,
                    file_name: [0; 64],
                    crypt_name: [0; 64],
                    encrypt_key: [0; 32],
                    init: [0; 2],
                },
                reserved: [0; 8],
            };
            match request(&device, LOOP_CONFIGURE, &raw mut config) {
                Ok(_) => return Ok(Self { device, path }),
                // Somebody else took it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// `/dev/loop0`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file's new size.
    ///
    /// # Errors
    /// The kernel's.
    pub fn refresh_size(&self) -> io::Result<()> {
        request(&self.device, LOOP_SET_CAPACITY, std::ptr::null_mut::<()>()).map(drop)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // While it is in use, the kernel detaches it at its last use.
        request(&self.device, LOOP_CLR_FD, std::ptr::null_mut::<()>()).ok();
    }
}

fn request<T>(file: &File, request: u64, argument: *mut T) -> io::Result<i32> {
    // SAFETY: each request of this module gets the structure that it is defined with, or none where it takes none, and the
    // structure lives until the call returns.
    #[expect(unsafe_code, reason = "no crate has these requests")]
    let code = unsafe { libc::ioctl(file.as_raw_fd(), request as _, argument) };
    if code >= 0 { Ok(code) } else { Err(io::Error::last_os_error()) }
}
