//! Handles of network namespaces.
//!
//! A thread that enters a namespace never leaves it: each entry uses a thread of its own, which ends afterwards.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::NetlinkError;

/// A network namespace. It exists as long as a handle, process or mount refers to it.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// The namespace of the current thread.
    pub fn current() -> Result<Self, NetlinkError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace of a process.
    pub fn of_process(pid: u32) -> Result<Self, NetlinkError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace that a file refers to.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetlinkError> {
        let path = path.as_ref();
        let file = File::open(path)
            .map_err(|error| NetlinkError::new(format!("opening network namespace {}", path.display()), error))?;
        Ok(Self(file.into()))
    }

    /// A new namespace with a loopback link that is down.
    pub fn create() -> Result<Self, NetlinkError> {
        on_a_thread(|| {
            // SAFETY: the flag affects the network only; no file descriptors or memory are unshared.
            #[expect(unsafe_code, reason = "the safe variant is deprecated for flags that are not used here")]
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|error| NetlinkError::new("creating a network namespace", error))?;
            Self::current()
        })
    }

    /// Runs `work` on a thread in the namespace. Sockets opened there stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
        on_a_thread(|| {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| NetlinkError::new("entering a network namespace", error))?;
            Ok(work())
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `work` on a thread that ends afterwards.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, NetlinkError> + Send) -> Result<T, NetlinkError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| NetlinkError::new("starting a thread for a network namespace", error))?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
