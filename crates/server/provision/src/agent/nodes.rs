//! Keeps the nodes of a cluster powered on: one whose init ended, by a kill or a crash, is started again.
//!
//! It does not look into nodes: one that is up but unwell is its own services' matter. A node that was never started is
//! left alone, and so is one while another command works on the cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stdx::Backoff;
use stdx::backoff::random_jitter;
use tokio::time::Instant;

use crate::error::ProvisionError;
use crate::node;
use crate::plan::{Plan, PlannedNode};
use crate::state::{Folder, FolderLock, Phase, State};

const PERIOD: Duration = Duration::from_millis(500);
/// A node that ran this long started well.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// One node and when it may be started again.
struct Watched {
    node: PlannedNode,
    backoff: Backoff,
    started: Instant,
    not_before: Instant,
}

/// Watches the nodes of the cluster; ends only when it is dropped.
pub(super) async fn keep(root: PathBuf, plan: Plan) {
    let now = Instant::now();
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let watched =
        |node: &PlannedNode| Watched { node: node.clone(), backoff: backoff.clone(), started: now, not_before: now };
    let mut nodes: Vec<Watched> = plan.nodes.iter().map(watched).collect();
    loop {
        tokio::time::sleep(PERIOD).await;
        for watched in &mut nodes {
            watched.check(&root, &plan).await;
        }
    }
}

impl Watched {
    async fn check(&mut self, root: &Path, plan: &Plan) {
        let ended = |folder: Folder| node::has_ended(&folder, &self.node.name);
        if Instant::now() < self.not_before || !Folder::new(root, &plan.name).is_ok_and(ended) {
            return;
        }
        let (root, plan, node) = (root.to_path_buf(), plan.clone(), self.node.clone());
        // Tools of the host are waited for; dropping the future lets the thread finish what it began.
        let done = tokio::task::spawn_blocking(move || restart(&root, &plan, &node)).await;
        let name = &self.node.name;
        match done {
            Ok(Ok(false)) => return,
            Ok(Ok(true)) => tracing::warn!(node = name, "node had ended and was started again"),
            Ok(Err(error)) => {
                tracing::error!(node = name, error = %stdx::error_chain(&error), "node cannot be started again");
            }
            Err(error) => tracing::error!(node = name, %error, "starting a node panicked"),
        }
        if self.started.elapsed() > GOOD_RUN {
            self.backoff.reset();
        }
        self.started = Instant::now();
        self.not_before = self.started + self.backoff.next_delay(random_jitter());
    }
}

/// Starts a node that ended; not while another command works on the cluster. Whether it was started.
fn restart(root: &Path, plan: &Plan, node: &PlannedNode) -> Result<bool, ProvisionError> {
    let folder = Folder::new(root, &plan.name)?;
    let lock = match FolderLock::of_cluster(&folder, &plan.name) {
        Err(ProvisionError::Busy { .. }) => return Ok(false),
        lock => lock?,
    };
    // A destroy that was interrupted has the last word.
    if State::read(&folder)?.is_none_or(|state| state.phase == Phase::Destroying) {
        return Ok(false);
    }
    let started = node::power_cycle(&folder, plan, node).map(|()| true);
    drop(lock);
    started
}
