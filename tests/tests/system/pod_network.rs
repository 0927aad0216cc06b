//! Clusters whose pod network is not our own: a manifest that the control plane fetches and applies, and Flannel.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::ensure;

use crate::cluster::{Cluster, Wanted};
use crate::pods::services_are_reached;
use tests::support::eventually;

const CIDR: &str = "10.8.0.0/24";
/// The gateway of that network, where the manifest is served while the cluster comes up.
const SERVER: (&str, u16) = ("10.8.0.1", 8099);
/// The API server of a cluster in that network.
const ENDPOINT: &str = "https://10.8.0.2:6443";
/// Addresses that only the manifest's network gives.
const PODS: &str = "10.77.0.";

/// A pod of the host's network on every node, which writes the configuration of the plug-in that is on the node already.
const MANIFEST: &str = r#"{"apiVersion": "apps/v1", "kind": "DaemonSet",
  "metadata": {"name": "test-network", "namespace": "kube-system"},
  "spec": {"selector": {"matchLabels": {"app": "test-network"}}, "template": {
    "metadata": {"labels": {"app": "test-network"}},
    "spec": {"hostNetwork": true, "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 0,
      "volumes": [{"name": "cni", "hostPath": {"path": "/etc/cni"}}],
      "containers": [{"name": "writer", "image": "docker.io/library/busybox:1.37.0",
        "volumeMounts": [{"name": "cni", "mountPath": "/cni"}],
        "env": [{"name": "CONF", "value": "{\"cniVersion\": \"0.4.0\", \"name\": \"test\", \"plugins\": [{\"type\": \"bridge\", \"bridge\": \"test0\", \"isDefaultGateway\": true, \"ipMasq\": true, \"ipam\": {\"type\": \"host-local\", \"subnet\": \"10.77.0.0/24\"}}]}"}],
        "command": ["sh", "-c", "mkdir -p /cni/net.d && echo \"$CONF\" > /cni/net.d/10-test.conflist && exec sleep 86400"]}]}}}}
"#;

/// A name of the node that is not the one that `create` gives it.
const HOSTNAME: &str = r#"{"machine": {"network": {"hostname": "CP-One.lab.example.org"}}}"#;

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "guest"}, "spec": {
  "terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}],
  "containers": [{"name": "guest", "image": "docker.io/library/busybox:1.37.0", "command": ["sleep", "86400"]}]}}"#;

pub(crate) fn a_custom_pod_network_comes_from_its_manifest(cluster: &Cluster) -> anyhow::Result<()> {
    // It ends with the tests; the address exists only once the cluster's bridge does.
    std::thread::spawn(serve);
    let url = format!("http://{}:{}/network.json", SERVER.0, SERVER.1);
    let flags = ["--workers", "0", "--custom-cni-url", &url, "--config-patch-control-plane", HOSTNAME];
    cluster.with_another(&Wanted::new("sys-custom", CIDR, &flags), |kubernetes| {
        let nodes = kubernetes.ask(&["get", "nodes", "--output", "name"])?.ok()?;
        ensure!(nodes.trim() == "node/cp-one", "nodes are {nodes}");
        kubernetes.apply("guest.json", POD)?;
        eventually("a pod has an address of the network", Duration::from_secs(60), || {
            let address = kubernetes.ask(&["get", "pod", "guest", "--output", "jsonpath={.status.podIP}"])?.ok()?;
            ensure!(address.starts_with(PODS), "its address is {address:?}");
            Ok(())
        })
    })
}

/// Flannel itself, from its image, with the manifests that nodes render by default. The configurations are those of
/// `gen config`, as they would be for any machine.
pub(crate) fn pods_reach_services_over_flannel(cluster: &Cluster) -> anyhow::Result<()> {
    let nodes = [("on-control-plane", "sys-flannel-controlplane-1"), ("on-worker", "sys-flannel-worker-1")];
    let folder = cluster.file("sys-flannel-configurations");
    let (folder, version) = (folder.to_string_lossy(), cluster.kubernetes_version()?);
    let generate = ["gen", "config", "sys-flannel", ENDPOINT, "--kubernetes-version", version, "--output", &folder];
    cluster.talosctl(&generate)?.ok()?;
    cluster.with_another(&Wanted::new("sys-flannel", CIDR, &["--input-dir", &folder]), |kubernetes| {
        services_are_reached(kubernetes, nodes)?;
        let daemons = ["--namespace", "kube-system", "get", "daemonset", "kube-flannel", "--output"];
        let ready = kubernetes.ask(&[&daemons[..], &["jsonpath={.status.numberReady}"]].concat())?.ok()?;
        ensure!(ready == "2", "{ready:?} pods of Flannel are ready");
        Ok(())
    })
}

/// Answers every request with the manifest.
fn serve() {
    let listener = loop {
        match TcpListener::bind(SERVER) {
            Ok(listener) => break listener,
            Err(_) => std::thread::park_timeout(Duration::from_millis(100)),
        }
    };
    for mut stream in listener.incoming().filter_map(Result::ok) {
        let mut request = [0; 4096];
        let length = MANIFEST.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        // A client that went away asks again.
        drop(stream.read(&mut request).and_then(|_| stream.write_all((head + MANIFEST).as_bytes())));
    }
}
