//! Keeps the nodes of a cluster in the power state that they shall have: one that crashed or asked for a reboot is powered on
//! again, one that powered itself off stays off.
//!
//! It does not look into nodes: one that is up but unwell is its own services' matter. A node that was never started is left
//! alone, and so are all while another command works on the cluster. Which nodes there are is read anew at each look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stdx::Backoff;
use stdx::backoff::random_jitter;
use tokio::time::Instant;

use crate::driver::{Ended, NodeDriver};
use crate::error::ProvisionError;
use crate::folder::{Folder, FolderLock};
use crate::plan::PlannedNode;
use crate::state::{Phase, Power, State};

const PERIOD: Duration = Duration::from_millis(500);
/// A node that ran this long started well.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// When a node may be powered on again.
#[derive(Debug)]
struct Pace {
    backoff: Backoff,
    started: Instant,
    not_before: Instant,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        Self { backoff, started: now, not_before: now }
    }

    fn powered_on(&mut self) {
        if self.started.elapsed() > GOOD_RUN {
            self.backoff.reset();
        }
        self.started = Instant::now();
        self.not_before = self.started + self.backoff.next_delay(random_jitter());
    }
}

/// The action taken for a node that ended.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// None: another command works on the cluster, or it is being destroyed.
    Nothing,
    PoweredOn(Ended),
    LeftOff,
}

/// Watches the nodes of the cluster; ends only when it is dropped.
pub(super) async fn keep(folder: Folder, name: String, driver: Arc<dyn NodeDriver>) {
    let mut paces: HashMap<String, Pace> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        // One that cannot be read now may be read later; the agent itself ends where there is none.
        let Ok(Some(state)) = State::read(&folder) else { continue };
        paces.retain(|node, _| state.plan.nodes.iter().any(|planned| planned.name == *node));
        for node in &state.plan.nodes {
            let pace = paces.entry(node.name.clone()).or_insert_with(Pace::new);
            if state.settings(&node.name).power == Power::On && Instant::now() >= pace.not_before {
                check(&folder, &name, &*driver, node, pace).await;
            }
        }
    }
}

/// Polls one node and acts on its state.
async fn check(folder: &Folder, name: &str, driver: &dyn NodeDriver, node: &PlannedNode, pace: &mut Pace) {
    let node_name = &node.name;
    let done = match driver.has_ended(node).await {
        Ok(None) => return,
        Ok(Some(_)) => settle(folder, name, driver, node_name).await,
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(Done::Nothing) => return,
        Ok(Done::PoweredOn(ended)) => tracing::warn!(node = node_name, %ended, "node was powered on again"),
        Ok(Done::LeftOff) => tracing::info!(node = node_name, "node powered itself off and stays off"),
        Err(error) => {
            tracing::error!(node = node_name, error = %stdx::error_chain(&error), "node cannot be powered on again");
        }
    }
    pace.powered_on();
}

/// Decides about a node that ended, from state and driver, while no other command can change it.
async fn settle(folder: &Folder, name: &str, driver: &dyn NodeDriver, node: &str) -> Result<Done, ProvisionError> {
    let _lock = match FolderLock::of_cluster(folder, name) {
        Err(ProvisionError::Busy { .. }) => return Ok(Done::Nothing),
        lock => lock?,
    };
    // A destroy that was interrupted has the last word.
    let Some(mut state) = State::read(folder)?.filter(|state| state.phase != Phase::Destroying) else {
        return Ok(Done::Nothing);
    };
    let Some(planned) = state.plan.node(node).cloned() else { return Ok(Done::Nothing) };
    if state.settings(node).power == Power::Off {
        return Ok(Done::Nothing);
    }
    match driver.has_ended(&planned).await? {
        None => Ok(Done::Nothing),
        Some(Ended::PoweredOff) => {
            state.nodes.entry(node.to_owned()).or_default().power = Power::Off;
            state.write(folder)?;
            Ok(Done::LeftOff)
        }
        Some(ended) => {
            driver.power_cycle(&state.plan, &planned).await?;
            Ok(Done::PoweredOn(ended))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Exit;
    use crate::driver::fake::FakeDriver;
    use crate::folder::make_folder;
    use crate::plan::Role;
    use crate::state::tests::state;

    const WORKER: &str = "one-worker-1";
    const CRASH: Ended = Ended::Crashed(Exit::Signal(9));

    struct Host {
        _root: tempfile::TempDir,
        folder: Folder,
        driver: Arc<FakeDriver>,
    }

    impl Host {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let folder = Folder::new(root.path(), "one").unwrap();
            make_folder(folder.path()).unwrap();
            state("one").write(&folder).unwrap();
            Self { _root: root, folder, driver: FakeDriver::new() }
        }

        /// An agent for that long.
        async fn run(&self, seconds: u64) {
            let driver: Arc<dyn NodeDriver> = self.driver.clone();
            let agent = keep(self.folder.clone(), "one".to_owned(), driver);
            tokio::time::timeout(Duration::from_secs(seconds), agent).await.unwrap_err();
        }

        fn state(&self) -> State {
            State::read(&self.folder).unwrap().unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_crashed_or_asked_for_a_reboot_is_powered_on_once() {
        for ended in [CRASH, Ended::Crashed(Exit::Code(1)), Ended::Crashed(Exit::Unknown), Ended::Reboot] {
            let host = Host::new();
            host.driver.end(WORKER, ended);
            host.run(1).await;
            host.run(100).await;
            assert_eq!(host.driver.power_cycles(WORKER), 1, "{ended}");
            assert_eq!(host.driver.calls().len(), 1, "the node that was never started is left alone");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_powered_itself_off_stays_off_for_every_later_agent() {
        let host = Host::new();
        host.driver.end(WORKER, Ended::PoweredOff);
        host.run(2).await;
        assert_eq!(host.state().settings(WORKER).power, Power::Off);
        // A later poll does not matter: a reboot of the host discards the exit status.
        host.driver.end(WORKER, CRASH);
        host.run(600).await;
        assert_eq!(host.driver.calls(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_keeps_ending_is_powered_on_ever_more_rarely() {
        let host = Host::new();
        host.driver.end(WORKER, CRASH);
        host.driver.end_at_start(WORKER, CRASH);
        host.run(600).await;
        let powered_on = host.driver.power_cycles(WORKER);
        assert!((8..=40).contains(&powered_on), "{powered_on} times in ten minutes");
        let failing = Host::new();
        failing.driver.end(WORKER, CRASH);
        failing.driver.fail(WORKER);
        failing.run(600).await;
        let tried = failing.driver.power_cycles(WORKER);
        assert!((8..=40).contains(&tried), "{tried} times in ten minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_done_while_a_command_works_on_the_cluster_or_it_is_being_destroyed() {
        let host = Host::new();
        host.driver.end(WORKER, CRASH);
        let lock = FolderLock::of_cluster(&host.folder, "one").unwrap();
        host.run(100).await;
        assert_eq!(host.driver.calls(), []);
        drop(lock);
        State { phase: Phase::Destroying, ..state("one") }.write(&host.folder).unwrap();
        host.run(100).await;
        assert_eq!(host.driver.calls(), []);
        state("one").write(&host.folder).unwrap();
        host.run(2).await;
        assert_eq!(host.driver.power_cycles(WORKER), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_came_later_is_kept_and_one_that_left_is_not() {
        let host = Host::new();
        let driver: Arc<dyn NodeDriver> = host.driver.clone();
        let agent = stdx::tasks::spawn("agent", keep(host.folder.clone(), "one".to_owned(), driver));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut state = host.state();
        state.plan.remove(WORKER).unwrap();
        let added = state.plan.add(Role::Worker).unwrap().name.clone();
        state.write(&host.folder).unwrap();
        host.driver.end(WORKER, CRASH);
        host.driver.end(&added, CRASH);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((host.driver.power_cycles(WORKER), host.driver.power_cycles(&added)), (0, 1));
        drop(agent);
    }
}
