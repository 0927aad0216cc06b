//! Software RAID: udevd adds each member to its array as it appears, and an array starts when it is complete. One that lacks a
//! member is started without it, after a while.

use std::time::Duration;

use block::FileSystemError;
use tokio::time::Instant;

use crate::volumes::VolumeEdges;

/// How long members are waited for, all arrays together (systemd's units of mdadm wait as long).
const LATE: Duration = Duration::from_secs(30);
/// How often arrays are looked at beside events.
const LOOK: Duration = Duration::from_secs(1);

/// An array cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// It lacks more members than its level bears.
    #[error("software RAID {} lacks too many of its disks", names.join(", "))]
    TooFew {
        names: Vec<String>,
        #[source]
        source: Option<FileSystemError>,
    },
    #[error(transparent)]
    Groups(#[from] FileSystemError),
}

/// Starts the arrays that lack members, 30 s after this was called; returns at once where none does.
///
/// # Errors
/// An array has too few members, and is not started; the others are.
pub async fn start(edges: &VolumeEdges) -> Result<(), ArrayError> {
    let deadline = Instant::now() + LATE;
    let mut changes = edges.devices.changes();
    let mut is_said = false;
    loop {
        let waiting = edges.groups.waiting_arrays().await?;
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            tracing::warn!(arrays = ?waiting, "starting software RAID without the disks that it lacks");
            let started = edges.groups.start_degraded_arrays().await;
            let names = edges.groups.waiting_arrays().await?;
            return if names.is_empty() {
                Ok(started?)
            } else {
                Err(ArrayError::TooFew { names, source: started.err() })
            };
        }
        if !is_said {
            is_said = true;
            tracing::info!(arrays = ?waiting, seconds = LATE.as_secs(), "waiting for disks of software RAID");
        }
        let next_look = (Instant::now() + LOOK).min(deadline);
        // Both arms are cancel-safe: the arrays are looked at after each. Without a source of changes time alone passes.
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep_until(next_look) => {}
        }
    }
}

#[cfg(test)]
mod tests;
