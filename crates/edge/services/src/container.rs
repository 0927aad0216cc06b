//! Common parts of containerised services: pulling, running and stopping.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use containers::run::{ContainerSpec, Ended};
use containers::{Containerd, Reference, Registries};
use parking_lot::Mutex;
use supervisor::{LogStore, RunContext, ServiceError};
use sys::capabilities::{self, CAP_SYS_RESOURCE};

use crate::WITHHELD;

use crate::oci::{self, Shape};

/// Dependencies of containerised services.
#[derive(Clone)]
pub struct Runtime {
    pub containerd: Containerd,
    /// Evaluated for each pull: mirrors change with the configuration.
    pub registries: Arc<dyn Fn() -> Registries + Send + Sync>,
    pub logs: LogStore,
    /// Directory for the pipes of containers.
    pub pipes: PathBuf,
    pub pulls: Pulls,
}

/// A lock for each image that was pulled, as two pulls of one image get into each other's way. There are as many as services
/// had images.
#[derive(Debug, Clone, Default)]
pub struct Pulls(Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

impl Runtime {
    /// Brings in the image; who asks for one that is being brought in waits for that.
    pub(crate) async fn pull(&self, image: &str) -> Result<(), ServiceError> {
        let reference: Reference = image.parse()?;
        let pull = Arc::clone(self.pulls.0.lock().entry(image.to_owned()).or_default());
        let _alone = pull.lock().await;
        containers::pull::ensure(&self.containerd, &(self.registries)(), &reference).await?;
        Ok(())
    }

    /// Runs `image` in the given shape until it ends.
    pub(crate) async fn run(
        &self,
        id: &str,
        image: &str,
        mut shape: Shape,
        grace: Duration,
        run: &RunContext,
    ) -> Result<(), ServiceError> {
        let reference: Reference = image.parse()?;
        let image = containers::pull::ensure(&self.containerd, &(self.registries)(), &reference).await?;
        if !capabilities::bounding().contains(&CAP_SYS_RESOURCE) {
            // Without it the kernel refuses to lower a score, and runc would fail.
            shape.oom_score_adj = None;
        }
        let spec = ContainerSpec {
            id: id.to_owned(),
            image,
            spec: oci::specification(&shape, &grantable()),
            pipes: self.pipes.clone(),
            output: self.logs.sink(id),
            input: None,
            stop_grace: grace,
        };
        let started = |pid| run.running(&format!("Started task {id} (PID {pid}) for container {id}"));
        match containers::run::run(&self.containerd, &spec, run.cancel.cancelled(), started).await? {
            Ended::Stopped | Ended::Code(0) => Ok(()),
            Ended::Code(code) => Err(format!("task {id} failed: exit code {code}").into()),
        }
    }
}

/// Capabilities that containerd itself must have: it runs without those that no service gets.
pub(crate) fn grantable() -> Vec<&'static str> {
    let withheld = |name: &&str| !WITHHELD.iter().any(|cap| capabilities::NAMES.get(*cap as usize) == Some(name));
    capabilities::bounding_names().into_iter().filter(withheld).collect()
}
