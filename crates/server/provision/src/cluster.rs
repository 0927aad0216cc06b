//! A cluster: creating it, starting its nodes, reporting on it. The driver implements nodes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::driver::{self, Ended, NodeDriver, NodeStatus, Seed};
use crate::error::{HostError, ProvisionError};
use crate::folder::{Folder, FolderLock, make_folder};
use crate::logs;
use crate::plan::{Plan, PlannedNode, Role};
use crate::precheck;
use crate::program::{AgentProgram, Launcher};
use crate::spec::{ClusterSpec, DriverSettings, Limits};
use crate::state::{NodeSettings, Power, State};

/// Lines of a node's log that an error quotes.
const QUOTED_LINES: usize = 5;

/// A cluster on this machine, kept from other commands while this value lives.
#[derive(Debug)]
pub struct Cluster {
    folder: Folder,
    state: State,
    driver: Arc<dyn NodeDriver>,
    _lock: FolderLock,
}

/// Status of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    pub name: String,
    pub role: Role,
    pub address: std::net::Ipv4Addr,
    pub status: NodeStatus,
    pub limits: Limits,
    /// Bytes of the disk that the system is on; none where it has none of its own.
    pub disk: Option<u64>,
}

impl Cluster {
    /// Refuses a cluster that cannot be made here. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`ProvisionError::Refused`] with all problems.
    pub fn check(root: &Path, spec: &ClusterSpec, program: &AgentProgram) -> Result<(), ProvisionError> {
        let name = &spec.plan.name;
        let folder = Folder::new(root, name)?;
        let problems = precheck::check(root, spec, &*open_driver(&spec.driver, root, &folder, name, program)?);
        if problems.is_empty() { Ok(()) } else { Err(ProvisionError::Refused { name: name.clone(), problems }) }
    }

    /// Makes the cluster's folder, network and root, but starts no node. `program` is that of the nodes' monitors.
    ///
    /// Created parts stay when a later step fails; [`crate::destroy`] removes them.
    ///
    /// # Errors
    ///
    /// [`ProvisionError::Refused`] with all problems when nothing was changed.
    pub async fn create(root: &Path, spec: &ClusterSpec, program: &AgentProgram) -> Result<Self, ProvisionError> {
        let folder = Folder::new(root, &spec.plan.name)?;
        let driver = open_driver(&spec.driver, root, &folder, &spec.plan.name, program)?;
        Self::create_with(root, spec, folder, driver, precheck::check).await
    }

    async fn create_with(
        root: &Path,
        spec: &ClusterSpec,
        folder: Folder,
        driver: Arc<dyn NodeDriver>,
        check: impl Fn(&Path, &ClusterSpec, &dyn NodeDriver) -> Vec<crate::error::Problem>,
    ) -> Result<Self, ProvisionError> {
        let name = &spec.plan.name;
        let refuse = |problems| Err(ProvisionError::Refused { name: name.clone(), problems });
        let problems = check(root, spec, &*driver);
        if !problems.is_empty() {
            return refuse(problems);
        }
        make_folder(root)?;
        let all = FolderLock::of_all(root)?;
        // Another create may have come between the check and the lock.
        let problems = check(root, spec, &*driver);
        if !problems.is_empty() {
            return refuse(problems);
        }
        let settings = spec.driver.clone().resolved()?;
        let (bundle, exposed) = (spec.bundle.clone(), spec.exposed.clone());
        let (discoveryd, kmsd) = (spec.discoveryd.clone(), spec.kmsd.clone());
        let state = State { bundle, discoveryd, kmsd, exposed, ..State::new(spec.plan.clone(), settings.clone()) };
        make_folder(folder.path())?;
        let lock = FolderLock::of_cluster(&folder, name)?;
        state.write(&folder)?;
        drop(all);
        driver.prepare(&ClusterSpec { driver: settings, ..spec.clone() }).await?;
        Ok(Self { folder, state, driver, _lock: lock })
    }

    /// Opens a cluster that was created, to work on it.
    ///
    /// # Errors
    ///
    /// When there is none, or another command works on it.
    pub fn open(root: &Path, name: &str, program: &AgentProgram) -> Result<Self, ProvisionError> {
        let folder = Folder::new(root, name)?;
        read(root, name, &folder)?;
        let lock = FolderLock::of_cluster(&folder, name)?;
        // Again: it may have changed until the lock was taken.
        let state = read(root, name, &folder)?;
        let driver = open_driver(&state.driver, root, &folder, name, program)?;
        Ok(Self { folder, state, driver, _lock: lock })
    }

    /// Starts a node with its machine configuration; without one it waits in maintenance mode.
    ///
    /// # Errors
    ///
    /// When the plan has no such node, or it cannot be made or does not stay.
    pub async fn start_node(
        &mut self,
        name: &str,
        user_data: Option<&[u8]>,
        limits: Limits,
    ) -> Result<(), ProvisionError> {
        let node = self.node(name)?;
        self.state.nodes.insert(node.name.clone(), NodeSettings { limits, power: Power::On });
        self.state.write(&self.folder)?;
        self.driver.seed(&self.state.plan, &node, Seed { user_data, limits }).await?;
        self.driver.start(&self.state.plan, &node).await?;
        self.check_running(&node).await
    }

    /// Powers a node on that is off or has crashed.
    ///
    /// # Errors
    ///
    /// [`ProvisionError::NodeRuns`] when it runs; otherwise as [`Self::start_node`].
    pub async fn power_on(&mut self, name: &str) -> Result<(), ProvisionError> {
        let node = self.node(name)?;
        match self.driver.report(&node).await? {
            NodeStatus::Running { .. } => return Err(ProvisionError::NodeRuns { node: node.name }),
            NodeStatus::Absent => {
                return Err(ProvisionError::NodeAbsent { node: node.name });
            }
            NodeStatus::Ended(_) => {}
        }
        self.state.nodes.entry(node.name.clone()).or_default().power = Power::On;
        self.state.write(&self.folder)?;
        self.driver.power_cycle(&self.state.plan, &node).await?;
        self.check_running(&node).await
    }

    async fn check_running(&self, node: &PlannedNode) -> Result<(), ProvisionError> {
        match self.driver.report(node).await? {
            NodeStatus::Running { .. } => Ok(()),
            _ => {
                let output = self.log_tail(&node.name, QUOTED_LINES).join("; ");
                Err(ProvisionError::NodeEnded { node: node.name.clone(), output })
            }
        }
    }

    /// Powers nodes on again that asked for a reboot, as the agent does while no command works on the cluster. The first
    /// node that ended for good, if one did.
    pub(crate) async fn tend(&self) -> Result<Option<(PlannedNode, Ended)>, ProvisionError> {
        for node in &self.state.plan.nodes {
            match self.driver.has_ended(node).await? {
                None => {}
                Some(Ended::Reboot) => self.driver.power_cycle(&self.state.plan, node).await?,
                Some(ended) => return Ok(Some((node.clone(), ended))),
            }
        }
        Ok(None)
    }

    fn node(&self, name: &str) -> Result<PlannedNode, ProvisionError> {
        let plan = &self.state.plan;
        let missing = || ProvisionError::NoSuchNode { name: plan.name.clone(), node: name.to_owned() };
        plan.node(name).cloned().ok_or_else(missing)
    }

    /// Remembers something more of the cluster.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub fn remember(&mut self, change: impl FnOnce(&mut State)) -> Result<(), ProvisionError> {
        change(&mut self.state);
        Ok(self.state.write(&self.folder)?)
    }

    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.state.plan
    }

    /// Restrictions of nodes on this host, and limits of their isolation; one sentence each.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        self.driver.notices(&self.state.plan)
    }

    /// Where the log of a node is.
    #[must_use]
    pub fn log_path(&self, node: &str) -> PathBuf {
        self.folder.log(node)
    }

    /// The last lines of a node's log, without those of API calls: whoever waits for a node makes most of them.
    #[must_use]
    pub fn log_tail(&self, node: &str, lines: usize) -> Vec<String> {
        logs::tail(&self.folder.log(node), lines, |line| !line.contains("transport::audit: call "))
    }

    /// Status of a cluster's nodes, whether or not a command holds its lock.
    ///
    /// # Errors
    ///
    /// If there is no such cluster, or its state cannot be read.
    pub async fn show(root: &Path, name: &str) -> Result<(State, Vec<NodeReport>), ProvisionError> {
        let folder = Folder::new(root, name)?;
        let state = read(root, name, &folder)?;
        // A report starts nothing.
        let nothing = AgentProgram { program: PathBuf::new(), arguments: Vec::new() };
        let driver = open_driver(&state.driver, root, &folder, name, &nothing)?;
        let mut nodes = Vec::new();
        for planned in &state.plan.nodes {
            nodes.push(NodeReport {
                name: planned.name.clone(),
                role: planned.role,
                address: planned.address,
                status: driver.report(planned).await?,
                limits: state.settings(&planned.name).limits,
                disk: state.driver.machines().map(|machines| machines.disk.size),
            });
        }
        Ok((state, nodes))
    }
}

fn read(root: &Path, name: &str, folder: &Folder) -> Result<State, ProvisionError> {
    let missing = || ProvisionError::NoSuchCluster { name: name.to_owned(), root: root.to_path_buf() };
    State::read(folder)?.ok_or_else(missing)
}

fn open_driver(
    settings: &DriverSettings,
    root: &Path,
    folder: &Folder,
    name: &str,
    program: &AgentProgram,
) -> Result<Arc<dyn NodeDriver>, ProvisionError> {
    let root = std::path::absolute(root).map_err(HostError::io("finding", root))?;
    Ok(driver::open(settings, folder, name, Launcher::of_file(program.clone(), &root, name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Exit;
    use crate::driver::fake::{Call, FakeDriver};
    use crate::error::Problem;
    use crate::plan::NodeSpec;

    fn spec(root: &Path) -> ClusterSpec {
        let plan = Plan::new("one", "10.5.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 1 }).unwrap();
        let image = root.join("image");
        std::fs::write(&image, "").unwrap();
        let driver = DriverSettings::Runc { image };
        ClusterSpec { plan, driver, bundle: None, discoveryd: None, kmsd: None, reachable: vec![], exposed: vec![] }
    }

    async fn create(root: &Path, driver: &Arc<FakeDriver>) -> Cluster {
        let folder = Folder::new(root, "one").unwrap();
        let driver: Arc<dyn NodeDriver> = driver.clone();
        Cluster::create_with(root, &spec(root), folder, driver, |_, _, _| vec![]).await.unwrap()
    }

    #[tokio::test]
    async fn a_cluster_that_is_refused_makes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (folder, driver) = (Folder::new(root.path(), "one").unwrap(), FakeDriver::new());
        let problems = |_: &Path, _: &ClusterSpec, _: &dyn NodeDriver| vec![Problem::new("no", "none")];
        let spec = spec(root.path());
        let refused = Cluster::create_with(root.path(), &spec, folder.clone(), driver.clone(), problems).await;
        assert!(matches!(refused, Err(ProvisionError::Refused { .. })), "{refused:?}");
        assert_eq!((driver.calls(), folder.path().exists()), (vec![], false));
    }

    #[tokio::test]
    async fn a_node_is_seeded_before_it_is_started_and_its_limits_are_remembered() {
        let root = tempfile::tempdir().unwrap();
        let driver = FakeDriver::new();
        let mut cluster = create(root.path(), &driver).await;
        let limits = Limits { milli_cpus: Some(500), memory: None };
        cluster.start_node("one-worker-1", Some(b"config"), limits).await.unwrap();
        let name = || "one-worker-1".to_owned();
        assert_eq!(driver.calls(), [Call::Prepare, Call::Seed(name(), Some(b"config".to_vec())), Call::Start(name())]);
        let state = State::read(&cluster.folder).unwrap().unwrap();
        assert_eq!(state.settings("one-worker-1"), NodeSettings { limits, power: Power::On });
        let missing = cluster.start_node("one-worker-2", None, limits).await.unwrap_err();
        assert!(matches!(missing, ProvisionError::NoSuchNode { .. }), "{missing}");
    }

    #[tokio::test]
    async fn a_node_that_does_not_stay_is_an_error_with_the_end_of_its_log() {
        let root = tempfile::tempdir().unwrap();
        let driver = FakeDriver::new();
        let mut cluster = create(root.path(), &driver).await;
        make_folder(&cluster.folder.logs()).unwrap();
        std::fs::write(cluster.log_path("one-worker-1"), "it broke\n").unwrap();
        driver.end_at_start("one-worker-1", Ended::Crashed(Exit::Code(1)));
        let ended = cluster.start_node("one-worker-1", None, Limits::default()).await.unwrap_err();
        assert!(matches!(&ended, ProvisionError::NodeEnded { output, .. } if output == "it broke"), "{ended}");
    }

    #[tokio::test]
    async fn only_a_node_that_is_off_is_powered_on() {
        let root = tempfile::tempdir().unwrap();
        let driver = FakeDriver::new();
        let mut cluster = create(root.path(), &driver).await;
        let absent = cluster.power_on("one-worker-1").await.unwrap_err();
        assert!(matches!(absent, ProvisionError::NodeAbsent { .. }), "{absent}");
        cluster.start_node("one-worker-1", None, Limits::default()).await.unwrap();
        let running = cluster.power_on("one-worker-1").await.unwrap_err();
        assert!(matches!(running, ProvisionError::NodeRuns { .. }), "{running}");
        driver.end("one-worker-1", Ended::PoweredOff);
        cluster.remember(|state| state.nodes.entry("one-worker-1".to_owned()).or_default().power = Power::Off).unwrap();
        cluster.power_on("one-worker-1").await.unwrap();
        assert_eq!(driver.calls().last(), Some(&Call::PowerCycle("one-worker-1".to_owned())));
        assert_eq!(State::read(&cluster.folder).unwrap().unwrap().settings("one-worker-1").power, Power::On);
    }

    #[tokio::test]
    async fn while_a_cluster_comes_up_a_reboot_goes_on_and_any_other_end_is_told() {
        let root = tempfile::tempdir().unwrap();
        let driver = FakeDriver::new();
        let mut cluster = create(root.path(), &driver).await;
        for node in ["one-controlplane-1", "one-worker-1"] {
            cluster.start_node(node, None, Limits::default()).await.unwrap();
        }
        assert_eq!(cluster.tend().await.unwrap(), None);
        driver.end("one-controlplane-1", Ended::Reboot);
        assert_eq!(cluster.tend().await.unwrap(), None);
        assert_eq!(driver.calls().last(), Some(&Call::PowerCycle("one-controlplane-1".to_owned())));
        driver.end("one-worker-1", Ended::PoweredOff);
        let (node, ended) = cluster.tend().await.unwrap().unwrap();
        assert_eq!((node.name.as_str(), ended), ("one-worker-1", Ended::PoweredOff));
    }
}
