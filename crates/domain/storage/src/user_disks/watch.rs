//! Mounted disks of `machine.disks` while the machine runs: whether they are there, answer, and have room. A disk that was lost
//! and comes back is mounted again; nothing is ever formatted here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::{Device, FileSystemError, FileSystems, MountPlan, ProjectQuota, Usage};
use config::v1alpha1::{DiskPartition, MachineDisk};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::block::{UserDiskPhase, UserDiskStatus};
use stdx::error_chain;
use stdx::tasks::{self, Task};
use sys::mounts::Mount;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::health::{Act, Answer, Found, Mounted, Verdict, judge};
use super::{UserDiskError, find, find_partition, mount, unmount};
use crate::volumes::VolumeEdges;

/// How often mounted partitions are looked at beside events.
const LOOK: Duration = Duration::from_secs(15);
/// How long a file system may take to say how much room it has.
const ANSWER: Duration = Duration::from_secs(10);
/// The same for one that has not answered the last time.
const ANSWER_LATE: Duration = Duration::from_secs(1);
/// Pause before a file system that failed is mounted again.
const RENEW_AGAIN: Duration = Duration::from_secs(5 * 60);
/// Pause before another look while somebody mounts or unmounts.
const BUSY: Duration = Duration::from_secs(1);
/// What the mount table shows where a file system could not be mounted again.
const COVER: &str = "unavailable";
/// Sizes in the status are whole MiB, so that not every byte is a change.
const MIB: u64 = 1 << 20;

/// What is mounted.
#[derive(Debug, Clone)]
struct Present {
    disks: Vec<MachineDisk>,
    quota: ProjectQuota,
}

/// Mounts and unmounts the disks of `machine.disks`; cheap to clone. [`UserDiskController`] looks after them in between.
#[derive(Debug, Clone)]
pub struct UserDisks {
    edges: VolumeEdges,
    present: Arc<watch::Sender<Option<Present>>>,
    /// Who mounts or unmounts now.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl UserDisks {
    /// Mounts all partitions of `disks`; what is mounted already stays. `system` is the name of the system disk. Disks that are
    /// absent are waited for, a minute for all of them: those on USB and slow controllers appear late.
    ///
    /// # Errors
    /// The first [`UserDiskError`]; earlier disks stay mounted, and another call goes on.
    pub async fn mount(&self, disks: &[MachineDisk], system: &str, quota: ProjectQuota) -> Result<(), UserDiskError> {
        let _turn = self.turn.lock().await;
        mount(&self.edges, disks, system, quota).await?;
        self.present.send_replace(Some(Present { disks: disks.to_vec(), quota }));
        Ok(())
    }

    /// Unmounts all partitions of `disks`, the last one first.
    ///
    /// # Errors
    /// Something is in use; all others are unmounted.
    pub async fn unmount(&self, disks: &[MachineDisk]) -> Result<(), UserDiskError> {
        self.present.send_replace(None);
        let _turn = self.turn.lock().await;
        unmount(&self.edges, disks).await
    }
}

/// A look that a file system has not answered yet. There is one for each at most: it may keep a thread for ever.
#[derive(Debug)]
struct Look {
    answer: oneshot::Receiver<Result<Usage, FileSystemError>>,
    _task: Task<()>,
}

/// What this process knows of a mounted partition beside its status.
#[derive(Debug, Default)]
struct Known {
    status: Option<UserDiskStatus>,
    look: Option<Look>,
    renewed: Option<Instant>,
}

/// `block.UserDiskController`: `UserDiskStatus` of each mounted partition of `machine.disks`.
#[derive(Debug)]
pub struct UserDiskController {
    disks: UserDisks,
    /// By mount point.
    known: BTreeMap<String, Known>,
}

impl UserDiskController {
    /// The controller, and the way to mount.
    pub fn new(edges: VolumeEdges) -> (Self, UserDisks) {
        let disks = UserDisks { edges, present: Arc::new(watch::Sender::new(None)), turn: Arc::default() };
        (Self { disks: disks.clone(), known: BTreeMap::new() }, disks)
    }

    /// Looks at a partition, does what can be done, and says how it is.
    async fn look_after(
        &mut self,
        disk: &MachineDisk,
        number: usize,
        wanted: &DiskPartition,
        quota: ProjectQuota,
        (devices, table): (&[Device], &[Mount]),
    ) -> Result<UserDiskStatus, UserDiskError> {
        let (edges, target) = (&self.disks.edges, Path::new(&wanted.mountpoint));
        let known = self.known.entry(wanted.mountpoint.clone()).or_default();
        let former = known.status.clone();
        let mut status = former.clone().unwrap_or_default();
        status.disk.clone_from(&disk.device);
        let mount = table.iter().rfind(|mount| mount.target == target && mount.source != COVER);
        let device = mount.and_then(|mount| devices.iter().find(|one| one.path == Path::new(&mount.source)));
        let mounted = mount.map_or(Mounted::Nothing, |mount| Mounted::Partition {
            path: mount.source.clone().into(),
            is_there: device.is_some(),
        });
        let answer = match device {
            Some(_) => answer(edges, target, &mut known.look).await,
            None => Answer::Error(String::new()),
        };
        if let (Some(device), Answer::Usage(usage)) = (device, &answer) {
            if status.uuid.is_empty() {
                status.uuid =
                    edges.devices.probe(device).await?.content.map(|content| content.uuid).unwrap_or_default();
            }
            status.location = device.path.display().to_string();
            (status.size, status.available) = (usage.size / MIB * MIB, usage.available / MIB * MIB);
        }
        if let Some(of) = device.and_then(|device| device.partition.as_ref()) {
            let errors = edges.devices.errors(&of.disk);
            (status.errors, status.last_error) = (errors.count, errors.last);
        }
        let found = match device {
            Some(_) => Found::No(String::new()),
            None => found(edges, disk, number, &status.uuid).await?,
        };
        let Verdict { phase, reason, act } = judge(&mounted, &answer, &found);
        (status.phase, status.reason) = (phase, reason);
        self.act(target, &mut status, act, quota).await?;
        tell(target, former.as_ref(), &status);
        if let Some(known) = self.known.get_mut(&wanted.mountpoint) {
            known.status = Some(status.clone());
        }
        Ok(status)
    }

    /// Mounts a partition again where it can be.
    async fn act(
        &mut self,
        target: &Path,
        status: &mut UserDiskStatus,
        act: Act,
        quota: ProjectQuota,
    ) -> Result<(), UserDiskError> {
        let filesystems = &self.disks.edges.filesystems;
        let known = self.known.entry(target.display().to_string()).or_default();
        let path = match act {
            Act::Nothing => return Ok(()),
            Act::Renew(path) => {
                if known.renewed.is_some_and(|renewed| renewed.elapsed() < RENEW_AGAIN) {
                    return Ok(());
                }
                known.renewed = Some(Instant::now());
                if let Err(error) = filesystems.unmount(target).await {
                    let why = if error.is_busy() { "stop what uses it".to_owned() } else { error_chain(&error) };
                    status.reason = format!("{}; it cannot be mounted again: {why}", status.reason);
                    return Ok(());
                }
                path
            }
            Act::Replace(path) => {
                if filesystems.mounts().await?.iter().any(|mount| mount.target == target) {
                    filesystems.detach(target).await?;
                }
                path
            }
        };
        // A look at the former file system may never be answered.
        known.look = None;
        let mut plan = MountPlan::xfs(&path, target, quota);
        // The file system that is gone lives for as long as somebody uses it, and has the same UUID.
        plan.options =
            [plan.options.as_str(), "nouuid"].into_iter().filter(|one| !one.is_empty()).collect::<Vec<_>>().join(",");
        match filesystems.mount(&plan).await {
            Ok(()) => {
                status.remounts += 1;
                status.location = path.display().to_string();
                (status.phase, status.reason) = (UserDiskPhase::Mounted, String::new());
            }
            Err(error) => {
                let then = if error.wants_repair() { "; a restart of the machine repairs it" } else { "" };
                status.phase = UserDiskPhase::Failed;
                status.reason = format!("it cannot be mounted again: {}{then}", error_chain(&error));
                cover(filesystems.as_ref(), target).await?;
            }
        }
        Ok(())
    }
}

/// Keeps everybody from writing to the volume below, in place of the disk.
async fn cover(filesystems: &dyn FileSystems, target: &Path) -> Result<(), FileSystemError> {
    let plan = MountPlan {
        source: COVER.into(),
        target: target.to_owned(),
        kind: "tmpfs",
        options: "size=4k,mode=0555".to_owned(),
        is_read_only: true,
    };
    filesystems.mount(&plan).await
}

/// The answer of a file system, also to an earlier look.
async fn answer(edges: &VolumeEdges, target: &Path, look: &mut Option<Look>) -> Answer {
    let patience = if look.is_some() { ANSWER_LATE } else { ANSWER };
    let mut waiting = look.take().unwrap_or_else(|| {
        let (filesystems, target) = (Arc::clone(&edges.filesystems), target.to_owned());
        let (sender, answer) = oneshot::channel();
        let task = tasks::spawn("room on a user disk", async move {
            // Nobody waits any more where the disk was mounted again.
            sender.send(filesystems.usage(&target).await).ok();
        });
        Look { answer, _task: task }
    });
    // Cancel-safe: the receiver keeps what was not taken.
    match tokio::time::timeout(patience, &mut waiting.answer).await {
        Ok(Ok(Ok(usage))) => Answer::Usage(usage),
        Ok(Ok(Err(error))) => Answer::Error(error_chain(&error)),
        Ok(Err(_)) => Answer::Error("the look at it was interrupted".to_owned()),
        Err(_) => {
            *look = Some(waiting);
            Answer::Silence(ANSWER.as_secs())
        }
    }
}

/// What the path of the configuration leads to, where the file system `uuid` is looked for.
async fn found(edges: &VolumeEdges, disk: &MachineDisk, number: usize, uuid: &str) -> Result<Found, UserDiskError> {
    let partition = match find(edges, &disk.device).await {
        Ok(device) => find_partition(edges, &device, number).await?,
        Err(error @ UserDiskError::Absent { .. }) => return Ok(Found::No(error.to_string())),
        Err(error) => return Err(error),
    };
    let Some(partition) = partition else {
        return Ok(Found::No(format!("{} has no partition {number}", disk.device)));
    };
    let content = edges.devices.probe(&partition).await?.content;
    if content.is_some_and(|content| content.name == "xfs" && !uuid.is_empty() && content.uuid == uuid) {
        return Ok(Found::Same(partition.path));
    }
    let path = partition.path.display();
    Ok(Found::No(format!("{path} is not the file system that was there; the next start of the machine looks at it")))
}

/// Logs what has changed.
fn tell(target: &Path, former: Option<&UserDiskStatus>, status: &UserDiskStatus) {
    let (mountpoint, disk, location) = (target.display(), &status.disk, &status.location);
    let (was, remounts) = former.map_or((UserDiskPhase::Mounted, 0), |former| (former.phase, former.remounts));
    if status.remounts > remounts {
        tracing::info!(disk, location, %mountpoint, "user disk mounted again; what had open files on it has to open them again");
    }
    if status.phase != was {
        let (phase, reason) = (status.phase.as_str(), &status.reason);
        if status.phase == UserDiskPhase::Mounted {
            tracing::info!(disk, location, %mountpoint, "user disk is in order");
        } else {
            tracing::error!(disk, location, %mountpoint, phase, reason, "user disk is not in order");
        }
    }
    if status.errors > 0 && former.is_none_or(|former| former.errors == 0) {
        tracing::warn!(disk, location, %mountpoint, error = status.last_error, "a request to a user disk failed");
    }
}

#[async_trait]
impl Controller for UserDiskController {
    fn name(&self) -> &'static str {
        "block.UserDiskController"
    }

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<UserDiskStatus>()]
    }

    fn resync(&self) -> Option<Duration> {
        Some(LOOK)
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("block devices", &self.disks.edges.devices.changes());
        ctx.wake_on_change("mounted user disks", &self.disks.present.subscribe());
        // While disks are waited for there is nothing to look at.
        let turn = Arc::clone(&self.disks.turn);
        let Ok(_turn) = turn.try_lock() else {
            ctx.requeue_after(BUSY);
            return Ok(());
        };
        let present = self.disks.present.borrow().clone().filter(|present| !present.disks.is_empty());
        let Some(Present { disks, quota }) = present else {
            self.known.clear();
            return ctx.keep_touched::<UserDiskStatus>();
        };
        let edges = self.disks.edges.clone();
        let (devices, table) = (edges.devices.devices().await?, edges.filesystems.mounts().await?);
        let mut failed = None;
        for disk in &disks {
            for (number, wanted) in (1..).zip(&disk.partitions) {
                match self.look_after(disk, number, wanted, quota, (&devices, &table)).await {
                    Ok(status) => drop(ctx.put(&wanted.mountpoint, status)?),
                    // One disk's failure hides no other.
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        match failed {
            // What is known of the others stays.
            Some(error) => Err(error.into()),
            None => ctx.keep_touched::<UserDiskStatus>(),
        }
    }
}

#[cfg(test)]
mod tests;
