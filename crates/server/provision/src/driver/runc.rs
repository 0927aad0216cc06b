//! Nodes as runc containers on a shared read-only squashfs, each with a network namespace on the cluster's bridge.
//!
//! The tools of the host (`ip`, `nft`, `runc`, `mount`) do the work, on threads that may block. A process for each node, its
//! monitor, starts the container and sees how its init ends; see [`monitor`].

mod bundle;
mod cgroups;
mod container;
mod exit_file;
mod host;
mod link;
pub(crate) mod monitor;

use async_trait::async_trait;

use super::launched::{self, Launched, exit_of};
use super::{Ended, Exit, NodeDriver, NodeStatus, Seed};
use crate::command::{self, NEEDED, RUNC};
use crate::error::{DriverError, HostError, Operation as _, Problem};
use crate::folder::{self, Folder, make_folder};
use crate::mounts;
use crate::network;
use crate::plan::{Plan, PlannedNode, cgroup_name};
use crate::program::Launcher;
use crate::spec::{ClusterSpec, DriverSettings};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct RuncDriver {
    folder: Folder,
    cluster: String,
    launcher: Launcher,
}

#[async_trait]
impl NodeDriver for RuncDriver {
    fn problems(&self, spec: &ClusterSpec) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !rustix::process::geteuid().is_root() {
            problems.push(Problem::new("nodes are containers, which need root", "run the command by sudo"));
        }
        problems.extend(command::missing(&NEEDED));
        let DriverSettings::Runc { image } = &spec.driver else { return problems };
        let remedy = "build it by `imager rootfs` or name another";
        match mounts::is_squashfs(image) {
            Ok(true) => {}
            Ok(false) => {
                problems.push(Problem::new(format!("node image {} is not a squashfs", image.display()), remedy));
            }
            Err(error) => {
                let what = format!("node image {} cannot be read: {error}", image.display());
                problems.push(Problem::new(what, remedy));
            }
        }
        problems
    }

    fn notices(&self, plan: &Plan) -> Vec<String> {
        let mut notices = host::notices();
        notices.extend(network::host_firewall::notices(plan));
        notices
    }

    async fn prepare(&self, spec: &ClusterSpec) -> Result<(), DriverError> {
        let spec = spec.clone();
        self.blocking(move |driver| {
            let root = driver.folder.root();
            make_folder(&root)?;
            if let DriverSettings::Runc { image } = &spec.driver {
                mounts::mount_image(image, &root)?;
                bundle::check_image(image, &root)?;
            }
            Ok(network::create(&spec)?)
        })
        .await
    }

    async fn open_port(&self, plan: &Plan, port: u16) -> Result<(), DriverError> {
        let plan = plan.clone();
        self.blocking(move |_| Ok(network::open_port(&plan, port)?)).await
    }

    async fn seed(&self, plan: &Plan, node: &PlannedNode, seed: Seed<'_>) -> Result<(), DriverError> {
        let (plan, node) = (plan.clone(), node.clone());
        let (user_data, limits) = (seed.user_data.map(<[u8]>::to_vec), seed.limits);
        self.blocking(move |driver| {
            bundle::make_disks(&driver.folder, &node.name)?;
            bundle::write(&driver.folder, &plan.name, &node, user_data.as_deref(), limits)
        })
        .await
    }

    async fn start(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        let (plan, node) = (plan.clone(), node.clone());
        self.blocking(move |driver| driver.power_on(&plan, &node)).await
    }

    async fn has_ended(&self, node: &PlannedNode) -> Result<Option<Ended>, DriverError> {
        Ok(self.ended(&node.name))
    }

    async fn power_cycle(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        let (plan, node) = (plan.clone(), node.clone());
        self.blocking(move |driver| {
            driver.power_off(&plan, &node)?;
            driver.power_on(&plan, &node)
        })
        .await
    }

    async fn remove(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        let (plan, node) = (plan.clone(), node.clone());
        self.blocking(move |driver| {
            driver.power_off(&plan, &node)?;
            let data = driver.folder.node(&node.name);
            let removed = std::fs::remove_dir_all(&data);
            if data.exists() { Ok(removed.map_err(HostError::io("removing", &data))?) } else { Ok(()) }
        })
        .await
    }

    async fn report(&self, node: &PlannedNode) -> Result<NodeStatus, DriverError> {
        let Some(launched) = Launched::read(&self.folder, &node.name) else { return Ok(NodeStatus::Absent) };
        Ok(match self.ended(&node.name) {
            Some(ended) => NodeStatus::Ended(ended),
            None => NodeStatus::Running { pid: launched.init.pid.unsigned_abs() },
        })
    }

    async fn remove_all(&self) -> Vec<DriverError> {
        let removed = self.blocking(|driver| Ok(driver.remove_everything())).await;
        removed.unwrap_or_else(|error| vec![error])
    }

    fn has_traces(&self) -> bool {
        !network::links(&self.cluster).is_empty() || network::has_table(&self.cluster)
    }
}

impl RuncDriver {
    pub(super) fn new(folder: Folder, cluster: &str, launcher: Launcher) -> Self {
        Self { folder, cluster: cluster.to_owned(), launcher }
    }

    /// Runs a step that waits for tools of the host.
    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Self) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let driver = self.clone();
        tokio::task::spawn_blocking(move || step(&driver)).await.map_err(DriverError::Panicked)?
    }

    /// How the init of the last start ended; none while it runs, or while its monitor is about to say.
    fn ended(&self, node: &str) -> Option<Ended> {
        let launched = Launched::read(&self.folder, node).filter(|launched| !launched.init.is_alive())?;
        match exit_of(&self.folder, node, &launched.init) {
            Some(exit) => Some(Ended::of(exit)),
            None if launched.monitor.is_some_and(|monitor| monitor.is_alive()) => None,
            // The monitor was killed. The node's own file is less reliable: the node may write anything there.
            None => Some(Ended::of(exit_file::read(&self.folder, node).map_or(Exit::Unknown, Exit::Code))),
        }
    }

    fn power_on(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        link::attach(plan, node, &self.folder)?;
        make_folder(&self.folder.logs())?;
        launched::start_monitor(&self.launcher, &self.folder, &node.name)
    }

    /// Takes away what a start made, however far it came. Of control groups that runc could not take away: below old ones a
    /// new container may not set its devices.
    fn power_off(&self, plan: &Plan, node: &PlannedNode) -> Result<(), DriverError> {
        let name = &node.name;
        if self.folder.runc().join(name).exists() {
            self.delete(name)?;
        }
        let group = format!("{}/{name}", cgroup_name(&plan.name));
        let still = |processes| HostError::StillRunning { owner: format!("node {name}"), processes };
        cgroups::wait_until_empty(&group).map_err(still)?;
        launched::end_monitor(&self.folder, name)?;
        let mut errors = Vec::new();
        cgroups::remove(&group, &mut errors);
        if let Some(error) = errors.pop() {
            return Err(error.into());
        }
        Ok(link::detach(node, &self.folder)?)
    }

    /// Ends a container, however far it came.
    fn delete(&self, id: &str) -> Result<(), HostError> {
        let root = self.folder.runc();
        let arguments = [std::ffi::OsStr::new("--root"), root.as_os_str(), "delete".as_ref(), "--force".as_ref()];
        let removed = RUNC.run(arguments.into_iter().chain([id.as_ref()])).operation(|| format!("ending node {id}"));
        if root.join(id).exists() { removed.map(drop) } else { Ok(()) }
    }

    /// Also nodes that the plan does not name.
    fn remove_everything(&self) -> Vec<DriverError> {
        let mut errors = Vec::new();
        for id in folder::names(&self.folder.runc()) {
            errors.extend(self.delete(&id).err());
        }
        let group = cgroup_name(&self.cluster);
        if let Err(processes) = cgroups::wait_until_empty(&group) {
            errors.push(HostError::StillRunning { owner: format!("cluster {}", self.cluster), processes });
        }
        for node in folder::names(&self.folder.nodes()) {
            errors.extend(launched::end_monitor(&self.folder, &node).err());
        }
        cgroups::remove(&group, &mut errors);
        mounts::unmount_below(self.folder.path(), &mut errors);
        network::remove(&self.cluster, &mut errors);
        errors.into_iter().map(DriverError::from).collect()
    }
}
