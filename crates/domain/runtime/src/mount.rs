//! Volumes: requested by `VolumeRequest`, reported by `MountStatus`, held by their writers.
//!
//! Only volumes of the host are served here. Where the disks are the machine's own, finding, unlocking and mounting them
//! is another controller's work; its answer is the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Destroyed, Held, Input, Output, ReconcileError};
use platform::HostMount;
use resources::block::{VolumePhase, VolumeStatus};
use resources::machine::VolumeRequest;
use resources::runtime::MountStatus;
use state::{Key, Kind, StateError, Store, WatchOptions};
use sys::files::{self, Access};

/// Owner of the requests of the boot sequence.
const REQUESTER: &str = "sequencer";

/// A volume could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {volume} is not mounted after {} s{}{reason}", waited.as_secs(), if reason.is_empty() { "" } else { ": " })]
    NotMounted { volume: String, waited: Duration, reason: String },
    #[error("volume {volume} is still used after {} s by {}", waited.as_secs(), holders.join(", "))]
    StillUsed { volume: String, waited: Duration, holders: Vec<String> },
    #[error(transparent)]
    State(#[from] StateError),
}

/// `runtime.MountController`.
#[derive(Debug)]
pub struct MountController {
    volumes: Vec<HostMount>,
}

impl MountController {
    /// Serves these volumes, which the host has mounted.
    pub fn new(volumes: Vec<HostMount>) -> Self {
        Self { volumes }
    }
}

#[async_trait]
impl Controller for MountController {
    fn name(&self) -> &'static str {
        "runtime.MountController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::strong::<VolumeRequest>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MountStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        for volume in &self.volumes {
            match ctx.hold::<VolumeRequest>(volume.volume)? {
                Held::Running(_) => {
                    let status = publish(volume)?;
                    ctx.put(volume.volume, status)?;
                }
                Held::TearingDown(_) => {
                    // A holder is still writing; this pass is repeated when the last finalizer is removed.
                    if ctx.destroy::<MountStatus>(volume.volume)? == Destroyed::Gone {
                        ctx.remove_finalizer::<VolumeRequest>(volume.volume)?;
                        tracing::info!(volume = volume.volume, "volume released");
                    }
                }
                Held::Absent => {}
            }
        }
        Ok(())
    }
}

/// The status of a volume that the host has mounted: the line of the mount table that its target is on.
fn publish(volume: &HostMount) -> Result<MountStatus, ReconcileError> {
    files::make_directory(&volume.target, Access { mode: volume.mode, owner: None })?;
    let on = sys::mounts::table()?.into_iter().filter(|mount| volume.target.starts_with(&mount.target));
    // Of mounts on the same directory the last one is seen.
    let on = on.max_by_key(|mount| mount.target.components().count());
    let (source, filesystem_type, options) =
        on.map(|mount| (mount.source, mount.filesystem, mount.options)).unwrap_or_default();
    Ok(MountStatus {
        source,
        target: volume.target.display().to_string(),
        filesystem_type,
        options,
        ..MountStatus::default()
    })
}

/// Asks for `volume` and waits until it is mounted; returns the directory. While it is prepared the wait goes on: a repair of a
/// large file system takes long, and whoever prepares limits that.
///
/// # Errors
/// [`VolumeError::NotMounted`] after `at_most`, with what its status says; the request stays.
pub async fn mount(store: &Store, volume: &str, at_most: Duration) -> Result<PathBuf, VolumeError> {
    let mut watch = store.watch_kind(&Kind::of::<MountStatus>(), WatchOptions::default())?;
    store.put(volume, VolumeRequest { requester: REQUESTER.to_owned() }, REQUESTER)?;
    let mounted = async {
        loop {
            if let Some(status) = store.get_as::<MountStatus>(volume)?
                && status.metadata.phase == state::Phase::Running
            {
                return Ok(Path::new(&status.target).to_owned());
            }
            watch.next().await?;
        }
    };
    // Both arms are cancel-safe: neither changes anything.
    tokio::select! {
        mounted = mounted => mounted,
        left = patience(store, volume, at_most) => Err(left?),
    }
}

/// Ends when `volume` was not even prepared for `at_most`.
async fn patience(store: &Store, volume: &str, at_most: Duration) -> Result<VolumeError, VolumeError> {
    let begun = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(at_most).await;
        let status = store.get_as::<VolumeStatus>(volume)?;
        let reason = match status.as_deref() {
            Some(status) if status.phase == VolumePhase::Preparing => {
                tracing::info!(volume, waited = ?begun.elapsed(), "a volume is still prepared");
                continue;
            }
            // An administrator can bring a key as long as the API runs; without STATE that is in maintenance mode.
            Some(status) if status.phase == VolumePhase::Locked && volume != MountStatus::STATE => {
                tracing::warn!(volume, reason = status.reason, "a volume waits for a key");
                continue;
            }
            Some(status) => status.reason.clone(),
            None => String::new(),
        };
        return Ok(VolumeError::NotMounted { volume: volume.to_owned(), waited: begun.elapsed(), reason });
    }
}

/// Withdraws the request for `volume` and waits until every user has let go and it is unmounted. A volume that nobody
/// asked for is as wanted.
///
/// # Errors
/// [`VolumeError::StillUsed`] after `at_most`; the volume stays in teardown, so that it is unmounted when they let go.
pub async fn unmount(store: &Store, volume: &str, at_most: Duration) -> Result<(), VolumeError> {
    let key = Key::of::<VolumeRequest>(volume);
    let mut watch = store.watch_kind(&key.kind, WatchOptions::default())?;
    let unmounted = async {
        loop {
            match store.teardown(&key, REQUESTER) {
                Ok(true) => match store.destroy(&key, REQUESTER) {
                    Ok(()) | Err(StateError::NotFound(_)) => return Ok(()),
                    Err(StateError::PendingFinalizers { .. }) => {}
                    Err(error) => return Err(error.into()),
                },
                Ok(false) => {}
                Err(StateError::NotFound(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            watch.next().await?;
        }
    };
    match tokio::time::timeout(at_most, unmounted).await {
        Ok(result) => result,
        Err(_) => {
            let status = store.get_as::<MountStatus>(volume)?;
            let holders = status.map(|status| status.metadata.finalizers.clone()).unwrap_or_default();
            Err(VolumeError::StillUsed { volume: volume.to_owned(), waited: at_most, holders })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use controller::testing::{Harness, Holder};

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn harness(target: &Path) -> Harness {
        let volume = HostMount { volume: MountStatus::STATE, target: target.to_owned(), mode: 0o700 };
        let harness = Harness::with(MountController::new(vec![volume]));
        // It writes within its passes, as node identity does.
        harness.run(Holder::new("test.Writer", MountStatus::STATE, |state: &MountStatus| {
            std::fs::write(Path::new(&state.target).join("written"), "x").unwrap();
        }));
        harness
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_is_there_while_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("state");
        let harness = harness(&target);
        harness.settle().await;
        assert!(harness.ids::<MountStatus>().is_empty() && !target.exists(), "not requested");
        assert_eq!(mount(&harness.store, MountStatus::STATE, LONG).await.unwrap(), target);
        harness.settle().await;
        let status = harness.get::<MountStatus>(MountStatus::STATE).unwrap();
        assert!(!status.filesystem_type.is_empty() && !status.source.is_empty(), "{status:?}");
        assert_eq!(status.metadata.finalizers, ["test.Writer"]);
        assert!(target.join("written").exists());
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o700);

        std::fs::remove_file(target.join("written")).unwrap();
        unmount(&harness.store, MountStatus::STATE, LONG).await.unwrap();
        harness.settle().await;
        assert!(harness.ids::<MountStatus>().is_empty() && harness.ids::<VolumeRequest>().is_empty());
        assert!(!target.join("written").exists(), "it wrote to a volume that is going");
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_that_is_used_stays_and_its_users_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let harness = harness(dir.path());
        mount(&harness.store, MountStatus::STATE, LONG).await.unwrap();
        let key = Key::of::<MountStatus>(MountStatus::STATE);
        harness.store.add_finalizer(&key, "test.Slow").unwrap();
        let error = unmount(&harness.store, MountStatus::STATE, LONG).await.unwrap_err();
        assert!(matches!(&error, VolumeError::StillUsed { holders, .. } if holders == &["test.Slow"]), "{error}");
        harness.store.remove_finalizer(&key, "test.Slow").unwrap();
        unmount(&harness.store, MountStatus::STATE, LONG).await.unwrap();
        assert!(harness.ids::<MountStatus>().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_that_nobody_has_is_not_waited_for_forever() {
        let harness = Harness::with(MountController::new(Vec::new()));
        let error = mount(&harness.store, MountStatus::EPHEMERAL, LONG).await.unwrap_err();
        assert!(matches!(&error, VolumeError::NotMounted { volume, .. } if volume == "EPHEMERAL"), "{error}");
        unmount(&harness.store, "OTHER", LONG).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_that_is_prepared_takes_its_time_and_its_failure_is_told() {
        let harness = Harness::with(MountController::new(Vec::new()));
        let status = |phase, reason: &str| VolumeStatus { phase, reason: reason.into(), ..VolumeStatus::default() };
        harness.put(MountStatus::EPHEMERAL, status(VolumePhase::Preparing, ""));
        let repaired = async {
            tokio::time::sleep(LONG * 4 + LONG / 2).await;
            harness.put(MountStatus::EPHEMERAL, status(VolumePhase::Failed, "bad superblock"));
        };
        let (mounted, ()) = tokio::join!(mount(&harness.store, MountStatus::EPHEMERAL, LONG), repaired);
        assert_eq!(mounted.unwrap_err().to_string(), "volume EPHEMERAL is not mounted after 50 s: bad superblock");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_waited_for_but_not_where_the_configuration_is_behind_it() {
        let harness = Harness::with(MountController::new(Vec::new()));
        let status = VolumeStatus { phase: VolumePhase::Locked, reason: "no key".into(), ..VolumeStatus::default() };
        for volume in [MountStatus::STATE, MountStatus::EPHEMERAL] {
            harness.put(volume, status.clone());
        }
        let error = mount(&harness.store, MountStatus::STATE, LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "volume STATE is not mounted after 10 s: no key");
        let waits = tokio::time::timeout(LONG * 100, mount(&harness.store, MountStatus::EPHEMERAL, LONG));
        assert!(waits.await.is_err(), "an administrator may bring it");
    }
}
