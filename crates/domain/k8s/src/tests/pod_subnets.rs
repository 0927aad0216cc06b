//! Pod subnets of nodes: who allocates, and from when on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::testing::Harness;
use etcd_edge::{ClusterLock, LockError, Locked};
use kube_edge::{KubeApi as _, Node, NodePatch};
use resources::k8s::PodSubnetAllocation;
use resources::secrets::KubernetesSecrets;

use super::{CONTROL_PLANE, World};
use crate::{POD_SUBNET_LOCK, PodSubnetAllocationController};

const WITH_FLAGS: &str = "  controllerManager:\n    extraArgs:\n";

fn with_flags(flags: &str) -> String {
    CONTROL_PLANE.replace("  controllerManager:\n", &format!("{WITH_FLAGS}{flags}"))
}

fn node(name: &str, subnet: &str) -> Node {
    Node { name: name.to_owned(), pod_cidrs: subnet.parse().into_iter().collect(), ..Node::default() }
}

fn administrator(harness: &Harness) {
    let secrets =
        KubernetesSecrets { localhost_admin_kubeconfig: "local admin".into(), ..KubernetesSecrets::default() };
    harness.put(KubernetesSecrets::ID, secrets);
}

/// A control plane.
fn start(world: &World, config: &str) {
    start_with(world, config, Arc::new(world.lock.clone()));
}

fn start_with(world: &World, config: &str, lock: Arc<dyn ClusterLock>) {
    for controller in crate::control_plane_config::controllers() {
        world.harness.runtime.register_boxed(controller).unwrap();
    }
    world.harness.run(PodSubnetAllocationController::new(world.edges().connect, lock));
    world.configure(config);
    administrator(&world.harness);
}

fn subnets(world: &World, name: &str) -> Vec<String> {
    world.kube.stored_node(name).unwrap().pod_cidrs.iter().map(ToString::to_string).collect()
}

fn allocation(world: &World) -> PodSubnetAllocation {
    (*world.harness.get::<PodSubnetAllocation>(PodSubnetAllocation::ID).unwrap().spec).clone()
}

#[tokio::test(start_paused = true)]
async fn node_has_its_subnet_the_moment_it_registers_whatever_the_pod_network_is() {
    for network in ["native", "flannel", "none"] {
        let world = World::new();
        start(&world, &CONTROL_PLANE.replace("name: native", &format!("name: {network}")));
        world.harness.settle().await;
        assert!(world.lock.0.lock().is_empty(), "there is nothing to do");

        world.kube.put_node(node("a", ""));
        world.harness.advance(Duration::from_millis(100)).await;
        assert_eq!(subnets(&world, "a"), ["10.244.0.0/24"]);
        world.kube.put_node(node("b", ""));
        world.harness.advance(Duration::from_millis(100)).await;
        assert_eq!(subnets(&world, "b"), ["10.244.1.0/24"]);
        assert!(world.lock.0.lock().iter().all(|name| name == POD_SUBNET_LOCK));
        assert!(world.connect.kubeconfigs().iter().all(|kubeconfig| kubeconfig == "local admin"));
        let held = world.lock.0.lock().len();
        world.harness.advance(Duration::from_secs(600)).await;
        assert_eq!(world.lock.0.lock().len(), held, "it is idle");
    }
}

#[tokio::test(start_paused = true)]
async fn operators_flags_choose_allocator_and_sizes() {
    let world = World::new();
    start(&world, &with_flags("      node-cidr-mask-size: \"26\"\n"));
    world.kube.put_node(node("a", ""));
    world.kube.put_node(node("b", ""));
    world.harness.settle().await;
    assert_eq!([subnets(&world, "a"), subnets(&world, "b")], [["10.244.0.0/26"], ["10.244.0.64/26"]]);

    for (flags, allocator) in [
        ("      allocate-node-cidrs: \"true\"\n", "kube-controller-manager"),
        ("      allocate-node-cidrs: \"false\"\n", "none"),
        ("      controllers: -nodeipam\n", "none"),
    ] {
        world.configure(&with_flags(flags));
        world.harness.settle().await;
        assert_eq!(allocation(&world).allocator, allocator);
        world.kube.put_node(node(allocator, ""));
        world.harness.advance(Duration::from_secs(600)).await;
        assert_eq!(subnets(&world, allocator), Vec::<String>::new());
    }
    let disabled = "machine:\n  controlPlane:\n    controllerManager: { disabled: true }\n";
    world.configure(&CONTROL_PLANE.replace("machine:\n", disabled));
    world.harness.settle().await;
    assert_eq!(allocation(&world).allocator, "none");
}

#[tokio::test(start_paused = true)]
async fn impossible_sizes_are_said_and_nobody_gets_a_subnet() {
    let world = World::new();
    start(&world, &with_flags("      node-cidr-mask-size: \"12\"\n"));
    world.kube.put_node(node("a", ""));
    world.harness.settle().await;
    assert_eq!(allocation(&world).problem, "node subnets of /12 do not fit into pod subnet 10.244.0.0/16");
    assert_eq!(subnets(&world, "a"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn worker_allocates_nothing() {
    let world = World::new();
    start(&world, &CONTROL_PLANE.replace("type: controlplane", "type: worker"));
    world.kube.put_node(node("a", ""));
    world.harness.settle().await;
    assert!(world.harness.get::<PodSubnetAllocation>(PodSubnetAllocation::ID).is_none());
    assert_eq!(subnets(&world, "a"), Vec::<String>::new());
}

/// Another control plane held the lock before, and gave `node` the first subnet.
#[derive(Debug)]
struct Contended(kube_edge::FakeKube);

#[async_trait]
impl ClusterLock for Contended {
    async fn run_locked(&self, _name: &str, _wait: Duration, work: Locked<'_>) -> Result<(), LockError> {
        let patch = NodePatch { pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()], ..NodePatch::default() };
        self.0.patch_node("b", &patch).await.unwrap();
        work.await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn decision_is_made_on_nodes_as_they_are_under_the_lock() {
    let world = World::new();
    start_with(&world, CONTROL_PLANE, Arc::new(Contended(world.kube.clone())));
    world.kube.put_node(node("a", ""));
    world.kube.put_node(node("b", ""));
    world.harness.settle().await;
    assert_eq!([subnets(&world, "a"), subnets(&world, "b")], [["10.244.1.0/24"], ["10.244.0.0/24"]]);
}

/// One lock for several control planes.
#[derive(Debug, Clone, Default)]
struct Mutual(Arc<tokio::sync::Mutex<()>>);

#[async_trait]
impl ClusterLock for Mutual {
    async fn run_locked(&self, _name: &str, _wait: Duration, work: Locked<'_>) -> Result<(), LockError> {
        let _held = self.0.lock().await;
        work.await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn three_control_planes_give_each_of_many_nodes_a_subnet_of_its_own() {
    let worlds = [World::new(), World::new(), World::new()];
    let lock = Mutual::default();
    for world in &worlds {
        for controller in crate::control_plane_config::controllers() {
            world.harness.runtime.register_boxed(controller).unwrap();
        }
        let connect = worlds[0].edges().connect;
        world.harness.run(PodSubnetAllocationController::new(connect, Arc::new(lock.clone())));
        world.configure(CONTROL_PLANE);
        administrator(&world.harness);
    }
    let kube = &worlds[0].kube;
    let names: Vec<String> = (0..250).map(|index| format!("node-{index}")).collect();
    for (index, name) in names.iter().enumerate() {
        kube.put_node(node(name, ""));
        // Their kubelets write too: versions that were listed are out of date.
        if index % 3 == 0 {
            worlds[0].harness.settle().await;
            let labels = std::collections::BTreeMap::from([("k".to_owned(), Some(index.to_string()))]);
            kube.patch_node(name, &NodePatch { labels, ..NodePatch::default() }).await.unwrap();
        }
    }
    for world in &worlds {
        world.harness.settle().await;
    }
    let mut given: Vec<String> = names.iter().flat_map(|name| subnets(&worlds[0], name)).collect();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), names.len());
}

#[tokio::test(start_paused = true)]
async fn server_that_is_away_is_asked_again() {
    let world = World::new();
    start(&world, CONTROL_PLANE);
    world.kube.set_reachable(false);
    world.kube.put_node(node("a", ""));
    world.harness.advance(Duration::from_secs(60)).await;
    world.kube.set_reachable(true);
    world.harness.advance(Duration::from_secs(11)).await;
    assert_eq!(subnets(&world, "a"), ["10.244.0.0/24"]);
    assert_eq!(world.harness.status("k8s.PodSubnetAllocationController").failures, 0, "a missing server is no failure");

    // A write that is refused is tried again.
    world.kube.refuse("patching", 403);
    world.kube.put_node(node("b", ""));
    world.harness.advance(Duration::from_secs(5)).await;
    world.kube.refuse("patching", 0);
    world.harness.advance(Duration::from_secs(31)).await;
    assert_eq!(subnets(&world, "b").len(), 1);
}
