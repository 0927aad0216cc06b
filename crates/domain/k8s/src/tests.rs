//! Controllers on the harness, with a cluster, routes and files that are not real.

mod cluster;
mod kubelet;
mod network;
mod pod_subnets;
mod static_pods;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::testing::Harness;
use etcd_edge::{ClusterLock, LockError, Locked};
use http_fetch::{Fetch, FetchError};
use kube_edge::{FakeConnect, FakeKube};
use netlink::FakeNetlink;
use parking_lot::Mutex;
use resources::StringMap;
use resources::config::MachineConfig;
use resources::machine::PlatformCapabilities;
use resources::runtime::MountStatus;
use tempfile::TempDir;

use crate::{Edges, Root};

pub(crate) const CONTROL_PLANE: &str = "\
version: v1alpha1
machine:
  type: controlplane
  kubelet:
    image: ghcr.io/siderolabs/kubelet:v1.30.14
    disableManifestsDirectory: true
    defaultRuntimeSeccompProfileEnabled: true
  features:
    kubePrism:
      enabled: true
      port: 7445
cluster:
  clusterName: test
  controlPlane:
    endpoint: https://10.5.0.2:6443
  network:
    cni:
      name: native
  apiServer:
    image: registry.k8s.io/kube-apiserver:v1.30.14
    disablePodSecurityPolicy: true
  controllerManager:
    image: registry.k8s.io/kube-controller-manager:v1.30.14
  scheduler:
    image: registry.k8s.io/kube-scheduler:v1.30.14
  proxy:
    image: registry.k8s.io/kube-proxy:v1.30.14
  coreDNS:
    disabled: true
";

/// Nothing is fetched in these tests.
#[derive(Debug)]
struct NoFetch;

#[async_trait]
impl Fetch for NoFetch {
    async fn fetch(&self, url: &str, _headers: &StringMap) -> Result<String, FetchError> {
        Err(FetchError::TooLarge { url: url.to_owned(), limit: 0 })
    }
}

/// Always free; counts.
#[derive(Debug, Clone, Default)]
struct FakeLock(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl ClusterLock for FakeLock {
    async fn run_locked(&self, name: &str, _wait: Duration, work: Locked<'_>) -> Result<(), LockError> {
        self.0.lock().push(name.to_owned());
        work.await;
        Ok(())
    }
}

/// A node with nothing on it.
struct World {
    harness: Harness,
    dir: TempDir,
    kube: FakeKube,
    connect: FakeConnect,
    netlink: FakeNetlink,
    lock: FakeLock,
}

impl World {
    fn new() -> Self {
        let kube = FakeKube::new("v1.30.14");
        let harness = Harness::new();
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.put(MountStatus::EPHEMERAL, MountStatus { target: "/var".into(), ..MountStatus::default() });
        Self {
            harness,
            dir: TempDir::new().unwrap(),
            connect: FakeConnect::new(kube.clone()),
            kube,
            netlink: FakeNetlink::default(),
            lock: FakeLock::default(),
        }
    }

    fn root(&self) -> Root {
        Root::new(self.dir.path())
    }

    fn edges(&self) -> Edges {
        Edges {
            root: self.root(),
            connect: Arc::new(self.connect.clone()),
            routes: Arc::new(self.netlink.clone()),
            lock: Arc::new(self.lock.clone()),
            fetch: Arc::new(NoFetch),
        }
    }

    fn configure(&self, text: &str) {
        self.harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root().at(path)).ok()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// As if the kubelet had joined.
    fn join(&self) {
        self.write("/etc/kubernetes/kubeconfig-kubelet", "users: []\n");
    }
}

#[tokio::test(start_paused = true)]
async fn all_controllers_fit_together() {
    let world = World::new();
    let mut names = Vec::new();
    for controller in crate::controllers(&world.edges()) {
        names.push(controller.name());
        world.harness.runtime.register_boxed(controller).unwrap();
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 38);
    assert!(names.iter().all(|name| name.starts_with("k8s.") || *name == "kubeaccess.ConfigController"));
}
