//! Setup of the child between fork and exec. Only async-signal-safe calls are made there; everything that needs memory
//! is prepared before the fork.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use super::Capabilities;
use crate::capabilities;

#[derive(Debug, Clone)]
pub(super) struct ChildSetup {
    user: Option<(u32, u32)>,
    /// Removed from the bounding set.
    drop: Vec<u32>,
    /// Removed from the other sets.
    remove: Vec<u32>,
    drop_all: bool,
    oom_score_adj: Option<CString>,
    cgroups: Vec<CString>,
}

impl ChildSetup {
    pub(super) fn new(
        user: Option<(u32, u32)>,
        policy: &Capabilities,
        oom_score_adj: Option<i32>,
        cgroups: &[PathBuf],
    ) -> Self {
        let bounding = capabilities::bounding();
        let among = |unwanted: &[u32]| bounding.iter().copied().filter(|cap| unwanted.contains(cap)).collect();
        let (drop, remove, drop_all) = match policy {
            Capabilities::Ordinary if capabilities::has(capabilities::CAP_SETPCAP) => {
                (among(&capabilities::WITHHELD), capabilities::WITHHELD.to_vec(), false)
            }
            Capabilities::Ordinary => (Vec::new(), capabilities::WITHHELD.to_vec(), false),
            Capabilities::None => (bounding, Vec::new(), true),
            Capabilities::Without(unwanted) => (among(unwanted), unwanted.clone(), false),
        };
        let oom_score_adj = oom_score_adj.and_then(|value| CString::new(value.to_string()).ok());
        let cgroups = cgroups.iter().filter_map(|p| CString::new(p.as_os_str().as_bytes()).ok()).collect();
        Self { user, drop, remove, drop_all, oom_score_adj, cgroups }
    }

    pub(super) fn install(self, command: &mut std::process::Command) {
        // SAFETY: the closure makes system calls on data prepared before the fork; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || self.run()) };
    }

    #[expect(clippy::disallowed_methods, reason = "a child starts with the default dispositions")]
    fn run(&self) -> io::Result<()> {
        for path in &self.cgroups {
            write_file(path, c"0");
        }
        if let Some(value) = &self.oom_score_adj {
            write_file(c"/proc/self/oom_score_adj", value);
        }
        // SAFETY: plain system calls without pointers.
        unsafe {
            libc::setsid();
            for signal in 1..32 {
                libc::signal(signal, libc::SIG_DFL);
            }
            for cap in &self.drop {
                check(libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(*cap), 0, 0, 0))?;
            }
        }
        clear_signal_mask()?;
        if let Some((uid, gid)) = self.user {
            // SAFETY: an empty group list needs no memory; the other calls take numbers.
            unsafe {
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setresgid(gid, gid, gid))?;
                check(libc::setresuid(uid, uid, uid))?;
            }
        }
        if self.drop_all {
            capabilities::clear()?;
            // SAFETY: takes numbers only.
            unsafe { check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))? };
        } else if !self.remove.is_empty() {
            capabilities::remove(&self.remove)?;
        }
        Ok(())
    }
}

fn clear_signal_mask() -> io::Result<()> {
    // SAFETY: `set` is filled by sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()))
    }
}

/// Best effort: a kernel that refuses an OOM score or a cgroup is no reason not to run.
fn write_file(path: &std::ffi::CStr, value: &std::ffi::CStr) {
    let bytes = value.to_bytes();
    // SAFETY: both strings end with NUL and outlive the calls; the descriptor is closed here.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, bytes.as_ptr().cast(), bytes.len());
            libc::close(fd);
        }
    }
}

fn check(rc: libc::c_int) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
