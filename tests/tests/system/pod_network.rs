//! A cluster whose pod network is somebody else's: a manifest that the control plane fetches and applies.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::cluster::Cluster;
use crate::support::eventually;

const NAME: &str = "sys-custom";
const CIDR: &str = "10.8.0.0/24";
/// The gateway of that network, where the manifest is served while the cluster comes up.
const SERVER: (&str, u16) = ("10.8.0.1", 8099);
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
        "env": [{"name": "CONF", "value": "{\"cniVersion\": \"0.4.0\", \"name\": \"test\", \"plugins\": [{\"type\": \"bridge\", \"bridge\": \"test0\", \"isGateway\": true, \"ipam\": {\"type\": \"host-local\", \"subnet\": \"10.77.0.0/24\"}}]}"}],
        "command": ["sh", "-c", "mkdir -p /cni/net.d && echo \"$CONF\" > /cni/net.d/10-test.conflist && exec sleep 86400"]}]}}}}
"#;

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "guest"}, "spec": {
  "terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}],
  "containers": [{"name": "guest", "image": "docker.io/library/busybox:1.37.0", "command": ["sleep", "86400"]}]}}"#;

pub(crate) fn a_custom_pod_network_comes_from_its_manifest(cluster: &Cluster) -> anyhow::Result<()> {
    let talosconfig = cluster.file("custom-talosconfig");
    let kubeconfig = cluster.file("custom-kubeconfig");
    // It ends with the tests; the address exists only once the cluster's bridge does.
    std::thread::spawn(serve);
    let url = format!("http://{}:{}/network.json", SERVER.0, SERVER.1);
    let created = cluster.create_as(&talosconfig, NAME, CIDR, &["--workers", "0", "--custom-cni-url", &url]);
    let checked = created.and_then(|answer| {
        answer.ok()?;
        let fetch = ["kubeconfig".as_ref(), kubeconfig.as_os_str()];
        cluster.talosctl_as(&talosconfig, &fetch)?.ok().context("fetching the kubeconfig")?;
        let pod = cluster.file("guest.json");
        std::fs::write(&pod, POD).context("writing a manifest")?;
        let kubectl = |arguments: &[&str]| cluster.kubectl_as(&kubeconfig, arguments)?.ok();
        kubectl(&["apply", "--filename", &pod.to_string_lossy()])?;
        eventually("a pod has an address of the network", Duration::from_secs(60), || {
            let address = kubectl(&["get", "pod", "guest", "--output", "jsonpath={.status.podIP}"])?;
            ensure!(address.starts_with(PODS), "its address is {address:?}");
            Ok(())
        })
    });
    let destroyed = cluster.talosctl(&["cluster", "destroy", "--name", NAME])?.ok();
    checked?;
    destroyed.map(drop)
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
