//! Linux capabilities of this process: the bounding set, and dropping capabilities.

use std::io;

/// `CAP_SETPCAP`, by which a process reduces its bounding set.
pub const CAP_SETPCAP: u32 = 8;
/// `CAP_SYS_MODULE`, which children of a node do not get.
pub const CAP_SYS_MODULE: u32 = 16;
/// `CAP_SYS_BOOT`, which children of a node do not get.
pub const CAP_SYS_BOOT: u32 = 22;
/// What no child of a node gets, unless it is said otherwise: to boot the machine, and to load modules into its kernel.
pub const WITHHELD: [u32; 2] = [CAP_SYS_BOOT, CAP_SYS_MODULE];
/// `CAP_SYS_RESOURCE`, which some hosts do not give to containers.
pub const CAP_SYS_RESOURCE: u32 = 24;

/// Names by number, as `linux/capability.h` has them (Linux 5.9 and newer: 41 of them).
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Numbers of the capabilities in the bounding set.
pub fn bounding() -> Vec<u32> {
    (0..64u32)
        .filter(|cap| {
            // SAFETY: takes numbers only; returns 1, 0, or -1 past the last capability of this kernel.
            unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(*cap), 0, 0, 0) == 1 }
        })
        .collect()
}

/// Whether the calling thread has a capability in effect. A kernel that does not say counts as one that gives none.
pub fn has(capability: u32) -> bool {
    let word = get().ok().and_then(|data| data.get((capability / 32) as usize).copied());
    word.is_some_and(|word| word.effective & (1 << (capability % 32)) != 0)
}

/// Names of the capabilities in the bounding set; those that this table does not know are left out.
pub fn bounding_names() -> Vec<&'static str> {
    bounding().into_iter().filter_map(|cap| NAMES.get(cap as usize).copied()).collect()
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// Gives up all capabilities of the calling thread. Async-signal-safe.
///
/// # Errors
/// The kernel's.
pub fn clear() -> io::Result<()> {
    set([Data::default(); 2])
}

/// Gives up these capabilities of the calling thread. Async-signal-safe.
///
/// # Errors
/// The kernel's.
pub fn remove(capabilities: &[u32]) -> io::Result<()> {
    let mut data = get()?;
    for cap in capabilities {
        if let Some(word) = data.get_mut((cap / 32) as usize) {
            let mask = !(1u32 << (cap % 32));
            word.effective &= mask;
            word.permitted &= mask;
            word.inheritable &= mask;
        }
    }
    set(data)
}

fn get() -> io::Result<[Data; 2]> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads and writes exactly two data elements.
    let rc = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if rc == 0 { Ok(data) } else { Err(io::Error::last_os_error()) }
}

fn set(data: [Data; 2]) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    // SAFETY: version 3 reads exactly two data elements.
    let rc = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
