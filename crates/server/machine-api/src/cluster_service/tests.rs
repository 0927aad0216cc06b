use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use kube_edge::{FakeKube, KubeApi, Node, NodeAddress, PodSummary, Readiness};
use parking_lot::Mutex;
use wire::machine as api;

use std::net::IpAddr;

use super::*;

const CP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 5, 0, 2));
const WORKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 5, 0, 3));

/// A cluster of two nodes that works, unless told otherwise.
struct Cluster {
    kube: FakeKube,
    down: BTreeSet<IpAddr>,
    failed: Mutex<BTreeMap<&'static str, String>>,
}

fn node(name: &str, address: IpAddr) -> Node {
    let address = NodeAddress { kind: "InternalIP".into(), address: address.to_string() };
    Node { name: name.into(), ready: true, addresses: vec![address], ..Node::default() }
}

fn pod(name: &str) -> PodSummary {
    PodSummary {
        namespace: "kube-system".into(),
        name: name.into(),
        node: "cp".into(),
        phase: "Running".into(),
        ready: true,
        ip: Some(CP),
        labels: BTreeMap::new(),
    }
}

fn cluster() -> Cluster {
    let kube = FakeKube::new("v1.30.0");
    kube.put_node(node("cp", CP));
    kube.put_node(node("worker", WORKER));
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        kube.put_pod(pod(&format!("{component}-cp")));
    }
    kube.put_readiness("kube-system", "kube-proxy", Readiness { desired: 2, ready: 2, updated: 2 });
    Cluster { kube, down: BTreeSet::new(), failed: Mutex::default() }
}

#[async_trait]
impl ClusterView for Cluster {
    async fn services(&self, node: IpAddr) -> Result<Vec<api::ServiceInfo>, String> {
        if self.down.contains(&node) {
            return Err("connection refused".into());
        }
        let info = |id: &str| {
            let failed = self.failed.lock().get(id).cloned();
            let health = api::ServiceHealth {
                unknown: false,
                healthy: failed.is_none(),
                last_message: failed.unwrap_or_default(),
                last_change: None,
            };
            api::ServiceInfo { id: id.into(), state: "Running".into(), events: None, health: Some(health) }
        };
        Ok(["etcd", "apid", "kubelet"].map(info).to_vec())
    }

    async fn members(&self, _: IpAddr) -> Result<Vec<api::EtcdMember>, String> {
        let peer_urls = vec![format!("https://{CP}:2380")];
        Ok(vec![api::EtcdMember { id: 1, hostname: "cp".into(), peer_urls, ..Default::default() }])
    }

    async fn unfinished(&self, _: IpAddr) -> Result<Option<String>, String> {
        Ok(None)
    }

    async fn kubernetes(&self) -> Result<Arc<dyn KubeApi>, String> {
        Ok(Arc::new(self.kube.clone()))
    }
}

/// The messages of a run and how it ended.
async fn checked(view: &dyn ClusterView) -> (Vec<String>, Result<(), Status>) {
    let nodes = ClusterNodes { control_planes: vec![CP], workers: vec![WORKER] };
    checked_for(view, Some(nodes)).await
}

async fn checked_for(view: &dyn ClusterView, nodes: Option<ClusterNodes>) -> (Vec<String>, Result<(), Status>) {
    let (sender, mut receiver) = mpsc::channel(BACKLOG);
    let until = Instant::now() + Duration::from_secs(60);
    let checking = async move { run(view, nodes, until, &sender).await };
    let hearing = async move {
        let mut heard = Vec::new();
        while let Some(message) = receiver.recv().await {
            heard.push(message.unwrap().message);
        }
        heard
    };
    let (outcome, heard) = tokio::join!(checking, hearing);
    (heard, outcome)
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_works_passes_every_check_in_order() {
    let (heard, outcome) = checked(&cluster()).await;
    outcome.unwrap();
    let ends: Vec<_> = heard.iter().filter(|m| !m.ends_with("...")).cloned().collect();
    let expected: Vec<_> = CHECKS
        .iter()
        .map(|check| {
            let end = if check.kind == checks::Kind::CoreDns { "SKIP" } else { "OK" };
            format!("waiting for {}: {end}", check.what)
        })
        .collect();
    assert_eq!(ends, expected);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_is_named_with_the_reason() {
    let (heard, outcome) = checked(&Cluster { down: [WORKER].into(), ..cluster() }).await;
    let expected = "waiting for apid to be ready: 10.5.0.3: connection refused";
    assert_eq!(heard.last().unwrap(), expected);
    assert_eq!(heard.iter().filter(|m| *m == expected).count(), 1, "the same reason is told once");
    let status = outcome.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::DeadlineExceeded, expected));
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_service_is_named_with_what_it_says() {
    let cluster = cluster();
    cluster.failed.lock().insert("kubelet", "no route to the API server".into());
    let (heard, _) = checked(&cluster).await;
    let expected = "waiting for kubelet to be healthy: 10.5.0.2: service kubelet is not healthy: no route to the API \
                    server; 10.5.0.3: service kubelet is not healthy: no route to the API server";
    assert_eq!(heard.last().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_ready_or_missing_is_named() {
    let cluster = cluster();
    cluster.kube.put_node(Node { ready: false, ..node("worker", WORKER) });
    let (heard, _) = checked(&cluster).await;
    assert_eq!(heard.last().unwrap(), "waiting for all k8s nodes to report ready: 10.5.0.3: node worker is not ready");
    cluster.kube.remove_node("worker");
    let (heard, _) = checked(&cluster).await;
    assert_eq!(heard.last().unwrap(), "waiting for all k8s nodes to report: 10.5.0.3: is no node of Kubernetes yet");
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_is_not_complete_is_waited_for() {
    let cluster = cluster();
    cluster.kube.put_readiness("kube-system", "kube-proxy", Readiness { desired: 2, ready: 1, updated: 2 });
    let (heard, _) = checked(&cluster).await;
    assert_eq!(heard.last().unwrap(), "waiting for kube-proxy to report ready: 1 of 2 pods of kube-proxy are ready");
}

#[tokio::test(start_paused = true)]
async fn nodes_are_taken_from_kubernetes_where_discovery_tells_none() {
    let cluster = cluster();
    let (heard, outcome) = checked_for(&cluster, None).await;
    let expected = "waiting for control plane nodes of Kubernetes to be known: Kubernetes has no control plane node";
    assert_eq!(
        (heard.last().unwrap().as_str(), outcome.unwrap_err().code()),
        (expected, tonic::Code::DeadlineExceeded)
    );
    let labels = [("node-role.kubernetes.io/control-plane".to_owned(), String::new())].into();
    cluster.kube.put_node(Node { labels, ..node("cp", CP) });
    let (heard, outcome) = checked_for(&cluster, None).await;
    outcome.unwrap();
    assert!(heard.contains(&"waiting for all k8s nodes to report ready: OK".to_owned()), "{heard:?}");
    let nodes = checks::nodes_of_kubernetes(&cluster).await.unwrap();
    assert_eq!(nodes, ClusterNodes { control_planes: vec![CP], workers: vec![WORKER] });
}

#[test]
fn a_time_to_wait_is_a_day_at_most_and_never_overflows() {
    let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    assert_eq!(wait(None), DEFAULT_WAIT);
    assert_eq!(wait(duration(0, 0)), DEFAULT_WAIT);
    assert_eq!(wait(duration(-5, 0)), DEFAULT_WAIT);
    assert_eq!(wait(duration(90, 0)), Duration::from_secs(90));
    assert_eq!(wait(duration(i64::MAX, 999_999_999)), MAX_WAIT);
}

#[test]
fn a_machine_that_runs_but_is_not_ready_says_what_is_missing() {
    use prost::Message;
    use wire::talos::resource::definitions::enums::RuntimeMachineStage as Stage;
    use wire::talos::resource::definitions::runtime::{MachineStatusSpec, MachineStatusStatus, UnmetCondition};
    let unmet = UnmetCondition { name: "services".into(), reason: "etcd is down".into() };
    let status = Some(MachineStatusStatus { ready: false, unmet_conditions: vec![unmet] });
    let spec = |stage: Stage| MachineStatusSpec { stage: stage.into(), status: status.clone() }.encode_to_vec();
    let running = nodes::unfinished(&spec(Stage::MachineStageRunning));
    assert_eq!(running.unwrap(), "not ready (services: etcd is down)");
    let booting = nodes::unfinished(&spec(Stage::MachineStageBooting));
    assert_eq!(booting.unwrap(), "stage is booting, not running");
}
