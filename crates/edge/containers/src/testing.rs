//! For tests: a containerd and a registry of their own, and the calls of the CRI that show how pods run.
//!
//! Needs root, containerd, runc and a static busybox.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod cri;
mod daemon;
mod pods;
mod registry;

use std::time::Duration;

pub use cri::{pull_for_pods, run_pod};
pub use daemon::{Daemon, Setup};
pub use pods::{FakePods, PodCall};
pub use registry::Registry;

/// Anything that containerd does takes less, also on a busy machine.
pub const IN_TIME: Duration = Duration::from_secs(60);

/// Waits for something that has to end.
///
/// # Panics
/// When it does not.
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(IN_TIME, work).await.unwrap_or_else(|_| panic!("{what}: timed out"))
}

/// Polls for a condition that others fulfil.
///
/// # Panics
/// When it never holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    in_time(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
