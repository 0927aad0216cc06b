//! A cluster of containers: creating it, starting its nodes, looking at it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::ProvisionError;
use crate::mounts;
use crate::network;
use crate::node;
use crate::plan::{Plan, Role};
use crate::precheck;
use crate::spec::Limits;
use crate::state::{Folder, FolderLock, Phase, State, make_folder};

/// What a cluster is made from.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    pub plan: Plan,
    /// The squashfs that all nodes share.
    pub image: PathBuf,
    /// The OCI image layout that the cluster's registry serves.
    pub bundle: Option<PathBuf>,
    /// The discovery server's program.
    pub discoveryd: Option<PathBuf>,
}

/// A cluster on this machine, kept from other commands while this value lives.
#[derive(Debug)]
pub struct Cluster {
    folder: Folder,
    state: State,
    _lock: FolderLock,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    pub name: String,
    pub role: Role,
    pub address: std::net::Ipv4Addr,
    /// `running`, `stopped`, `created`; `absent` when there is no container.
    pub status: String,
    pub pid: Option<u32>,
}

impl Cluster {
    /// Makes the cluster's folder, network and root, but starts no node.
    ///
    /// What was made stays when a later step fails; [`crate::destroy`] removes it.
    ///
    /// # Errors
    ///
    /// [`ProvisionError::Refused`] with all problems when nothing was changed.
    pub fn create(root: &Path, spec: &ClusterSpec) -> Result<Self, ProvisionError> {
        let name = &spec.plan.name;
        let refuse = |problems| Err(ProvisionError::Refused { name: name.clone(), problems });
        let problems = precheck::check(root, spec);
        if !problems.is_empty() {
            return refuse(problems);
        }
        make_folder(root)?;
        let folder = Folder::new(root, name)?;
        let all = FolderLock::of_all(root)?;
        // Another create may have come between the check and the lock.
        let problems = precheck::check(root, spec);
        if !problems.is_empty() {
            return refuse(problems);
        }
        let image = std::fs::canonicalize(&spec.image).map_err(ProvisionError::io("reading", &spec.image))?;
        let state = State {
            phase: Phase::Creating,
            plan: spec.plan.clone(),
            image,
            bundle: spec.bundle.clone(),
            discoveryd: spec.discoveryd.clone(),
            kubernetes_version: None,
            kubernetes_endpoint: None,
            limits: BTreeMap::new(),
        };
        make_folder(folder.path())?;
        let lock = FolderLock::of_cluster(&folder, name)?;
        state.write(&folder)?;
        drop(all);

        let cluster = Self { folder, state, _lock: lock };
        cluster.make()?;
        Ok(cluster)
    }

    fn make(&self) -> Result<(), ProvisionError> {
        let (folder, plan) = (&self.folder, &self.state.plan);
        make_folder(&folder.root())?;
        mounts::mount_image(&self.state.image, &folder.root())?;
        node::check_image(&self.state.image, &folder.root())?;
        network::create(plan)?;
        plan.nodes.iter().try_for_each(|node| network::attach(plan, node, folder))
    }

    /// Opens a cluster that was created, to work on it.
    ///
    /// # Errors
    ///
    /// When there is none, or another command works on it.
    pub fn open(root: &Path, name: &str) -> Result<Self, ProvisionError> {
        let folder = Folder::new(root, name)?;
        let state = read(root, name, &folder)?;
        let lock = FolderLock::of_cluster(&folder, name)?;
        Ok(Self { folder, state, _lock: lock })
    }

    /// Starts a node with its machine configuration; without one it waits in maintenance mode.
    ///
    /// # Errors
    ///
    /// When the plan has no such node, or its container cannot be made or does not stay.
    pub fn start_node(&self, name: &str, user_data: Option<&[u8]>, limits: Limits) -> Result<(), ProvisionError> {
        let plan = &self.state.plan;
        let missing = || ProvisionError::NoSuchNode { name: plan.name.clone(), node: name.to_owned() };
        let node = plan.node(name).ok_or_else(missing)?;
        node::start(&self.folder, &plan.name, node, user_data, limits)?;
        let running = node::state(&self.folder, &node.name).is_some_and(|state| state.status == "running");
        if running {
            return Ok(());
        }
        let output = tail(&self.folder.log(&node.name), 5).join("; ");
        Err(ProvisionError::NodeEnded { node: node.name.clone(), output })
    }

    /// Remembers something more of the cluster.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub fn remember(&mut self, change: impl FnOnce(&mut State)) -> Result<(), ProvisionError> {
        change(&mut self.state);
        self.state.write(&self.folder)
    }

    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.state.plan
    }

    /// Where the log of a node is.
    #[must_use]
    pub fn log_path(&self, node: &str) -> PathBuf {
        self.folder.log(node)
    }

    /// The last lines of a node's log, without those of API calls: whoever waits for a node makes most of them.
    #[must_use]
    pub fn log_tail(&self, node: &str, lines: usize) -> Vec<String> {
        tail(&self.folder.log(node), lines)
    }

    /// What is known of the nodes of a cluster, whether or not a command works on it.
    ///
    /// # Errors
    ///
    /// When there is no such cluster or its state cannot be read.
    pub fn show(root: &Path, name: &str) -> Result<(State, Vec<NodeReport>), ProvisionError> {
        let folder = Folder::new(root, name)?;
        let state = read(root, name, &folder)?;
        let nodes = state.plan.nodes.iter().map(|planned| {
            let container = node::state(&folder, &planned.name);
            NodeReport {
                name: planned.name.clone(),
                role: planned.role,
                address: planned.address,
                status: container.as_ref().map_or_else(|| "absent".to_owned(), |state| state.status.clone()),
                pid: container.map(|state| state.pid).filter(|pid| *pid != 0),
            }
        });
        let nodes = nodes.collect();
        Ok((state, nodes))
    }
}

fn read(root: &Path, name: &str, folder: &Folder) -> Result<State, ProvisionError> {
    let missing = || ProvisionError::NoSuchCluster { name: name.to_owned(), root: root.to_path_buf() };
    State::read(folder)?.ok_or_else(missing)
}

fn tail(path: &Path, lines: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<_> = text.lines().filter(|line| !line.contains("transport::audit: call ")).collect();
    all.iter().skip(all.len().saturating_sub(lines)).map(|line| (*line).to_owned()).collect()
}
