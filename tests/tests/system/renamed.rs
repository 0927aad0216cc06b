//! A node whose configuration changes while it runs: another name, another port of the local balancer, another name of the API
//! server.

use std::time::Duration;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cluster::{Cluster, Kubernetes, Wanted};
use tests::support::eventually;

const NAME: &str = "sys-renamed";
const CIDR: &str = "10.8.0.0/24";
const CONTROL_PLANE: (&str, &str) = ("sys-renamed-controlplane-1", "10.8.0.2");
const WORKER: (&str, &str) = ("sys-renamed-worker-1", "10.8.0.3");
const NEW_NAME: &str = "another";

const HOSTNAME: &str = r#"{"machine": {"network": {"hostname": "another"}}}"#;
const BALANCER: &str = r#"{"machine": {"features": {"kubePrism": {"enabled": true, "port": 7745}}}}"#;
const NEW_SAN: &str = r#"{"cluster": {"apiServer": {"certSANs": ["k2.example.org"]}}}"#;

const PATIENCE: Duration = Duration::from_secs(90);

fn pod(name: &str, node: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}, "spec": {{
  "nodeName": "{node}", "terminationGracePeriodSeconds": 0, "tolerations": [{{"operator": "Exists"}}],
  "containers": [{{"name": "guest", "image": "docker.io/library/busybox:1.37.0", "command": ["sleep", "86400"]}}]}}}}"#
    )
}

/// The cluster and the way to its nodes.
struct Changed<'a> {
    cluster: &'a Cluster,
    kubernetes: &'a Kubernetes<'a>,
}

pub(crate) fn a_node_follows_its_name_and_endpoint_and_certificates_restart_nothing(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    cluster.with_another(&Wanted::new(NAME, CIDR, &[]), |kubernetes| {
        let changed = Changed { cluster, kubernetes };
        // Its bridge has an address.
        changed.runs_pod("first", WORKER.0)?;
        let before = changed.control_plane_containers()?;
        changed.patch(CONTROL_PLANE.1, NEW_SAN)?;

        changed.patch(WORKER.1, HOSTNAME)?;
        changed.has_serving_certificate(NEW_NAME)?;
        changed.runs_pod("second", NEW_NAME)?;
        kubernetes.ask(&["delete", "node", WORKER.0])?.ok()?;

        changed.patch(WORKER.1, BALANCER)?;
        eventually("the kubelet's kubeconfig follows", PATIENCE, || {
            let kubeconfig = changed.talosctl(WORKER.1, &["read", "/etc/kubernetes/kubeconfig-kubelet"])?;
            ensure!(kubeconfig.contains("https://127.0.0.1:7745"), "{kubeconfig}");
            Ok(())
        })?;
        changed.runs_pod("third", NEW_NAME)?;

        let names = changed.talosctl(CONTROL_PLANE.1, &["get", "certsans", "k8s", "--output", "yaml"])?;
        ensure!(names.contains("k2.example.org"), "{names}");
        let after = changed.control_plane_containers()?;
        ensure!(after == before, "containers of the control plane were {before}, and are {after}");
        Ok(())
    })
}

impl Changed<'_> {
    fn talosctl(&self, node: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let talosconfig = self.cluster.file(&format!("{NAME}-talosconfig"));
        self.cluster.talosctl_as(&talosconfig, &[arguments, &["--nodes", node]].concat())?.ok()
    }

    fn patch(&self, node: &str, patch: &str) -> anyhow::Result<()> {
        self.talosctl(node, &["patch", "machineconfig", "--patch", patch]).map(drop)
    }

    /// A pod starts, with an address.
    fn runs_pod(&self, name: &str, node: &str) -> anyhow::Result<()> {
        eventually("the node is there", PATIENCE, || self.kubernetes.ask(&["get", "node", node])?.ok())?;
        self.kubernetes.apply(&format!("{name}.json"), &pod(name, node))?;
        eventually(&format!("pod {name} runs on {node}"), PATIENCE, || {
            let state = "jsonpath={.status.phase} {.status.podIP}";
            let state = self.kubernetes.ask(&["get", "pod", name, "--output", state])?.ok()?;
            ensure!(state.starts_with("Running 10.244."), "it is {state}");
            Ok(())
        })
    }

    fn has_serving_certificate(&self, name: &str) -> anyhow::Result<()> {
        eventually("the kubelet serves for its new name", PATIENCE, || {
            let pem = self.talosctl(WORKER.1, &["read", "/var/lib/kubelet/pki/kubelet.crt"])?;
            let lines = pem.lines().skip(1).take_while(|line| !line.starts_with('-'));
            let der = STANDARD.decode(lines.collect::<String>())?;
            // A DNS name among the alternative names: its tag, its length, itself.
            let wanted = [&[0x82, u8::try_from(name.len())?], name.as_bytes()].concat();
            ensure!(der.windows(wanted.len()).any(|part| part == wanted), "it is for another name: {pem}");
            Ok(())
        })
    }

    /// Names and identities of those of the control plane's pods.
    fn control_plane_containers(&self) -> anyhow::Result<String> {
        let columns = "jsonpath={range .items[*]}{.metadata.name}={.status.containerStatuses[0].containerID}\n{end}";
        let all = ["--namespace", "kube-system", "get", "pods", "--output", columns];
        // The kubelet shows its static pods to the API server in its own time.
        eventually("the control plane's pods are shown", PATIENCE, || {
            let text = self.kubernetes.ask(&all)?.ok()?;
            let mut lines: Vec<&str> = text.lines().filter(|line| line.contains(CONTROL_PLANE.0)).collect();
            lines.sort_unstable();
            let known = lines.iter().filter(|line| !line.ends_with('=')).count();
            ensure!(known == 3, "pods are {text}");
            Ok(lines.join(" "))
        })
    }
}
