//! Authorization: certificates, roles, forwarding, and repeated refusals.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cluster::{CIDR, CONTROL_PLANE, Cluster, NAME, WORKER, Wanted};
use tests::support::eventually;

pub(crate) fn a_second_bootstrap_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let said = cluster.talosctl(&["bootstrap", "--nodes", CONTROL_PLANE.address])?.refused()?;
    ensure!(said.contains("etcd data directory is not empty"), "refused otherwise: {said}");
    let said = cluster.talosctl(&["bootstrap", "--nodes", WORKER.address])?.refused()?;
    ensure!(said.contains(WORKER.address), "a refusal that does not name the worker: {said}");
    Ok(())
}

pub(crate) fn a_second_cluster_in_the_same_network_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let said = cluster.create_another("sys2", CIDR)?.refused()?;
    ensure!(said.contains("overlaps"), "refused otherwise: {said}");
    let said = cluster.create_another(NAME, "10.7.1.0/24")?.refused()?;
    ensure!(said.contains("exists"), "refused otherwise: {said}");
    ensure!(!cluster.state().join("sys2").exists(), "a refused cluster left its folder");
    Ok(())
}

pub(crate) fn a_cluster_that_no_node_would_accept_is_refused_before_anything_is_made(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let patch = r#"{"machine": {"network": {"nameservers": ["nobody"]}}}"#;
    let refusals = [(["--kubernetes-version", "1.99.0"], "has Kubernetes"), (["--config-patch", patch], "nameservers")];
    for (flags, reason) in refusals {
        let said =
            cluster.create_as(&cluster.file("refused"), &Wanted::new("sys2", "10.7.1.0/24", &flags))?.refused()?;
        ensure!(said.contains(reason), "refused otherwise: {said}");
        ensure!(!cluster.state().join("sys2").exists(), "a refused cluster left its folder");
    }
    Ok(())
}

pub(crate) fn no_certificate_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let configuration = cluster.configuration(CONTROL_PLANE);
    let arguments = ["apply-config", "--insecure", "--nodes", CONTROL_PLANE.address, "--dry-run", "--file"];
    let mut arguments: Vec<_> = arguments.map(AsRef::as_ref).into();
    arguments.push(configuration.as_os_str());
    let said = cluster.talosctl(&arguments)?.refused()?;
    ensure!(said.contains("CertificateRequired"), "refused otherwise: {said}");
    Ok(())
}

pub(crate) fn a_certificate_of_another_cluster_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = cluster.file("other-cluster");
    std::fs::create_dir_all(&folder).context("making a folder")?;
    let other = Identity::make(cluster, &folder, Authority::Another, "os:admin", "1")?;
    let said = cluster.talosctl_as(&other.talosconfig, &["version", "--nodes", CONTROL_PLANE.address])?.refused()?;
    ensure!(said.contains("received fatal alert"), "refused otherwise: {said}");
    Ok(())
}

pub(crate) fn an_expired_certificate_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = cluster.file("expired");
    std::fs::create_dir_all(&folder).context("making a folder")?;
    // Valid for no hours at all; it ends with the second in which it was made.
    let expired = Identity::make(cluster, &folder, Authority::Own, "os:admin", "0")?;
    eventually("the certificate is expired", Duration::from_secs(10), || {
        let said =
            cluster.talosctl_as(&expired.talosconfig, &["version", "--nodes", CONTROL_PLANE.address])?.refused()?;
        ensure!(said.contains("CertificateExpired"), "refused otherwise: {said}");
        Ok(())
    })
}

pub(crate) fn a_reader_reads_resources_but_neither_files_nor_secrets(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = cluster.file("reader");
    std::fs::create_dir_all(&folder).context("making a folder")?;
    let reader = Identity::make(cluster, &folder, Authority::Own, "os:reader", "1")?.talosconfig;
    for allowed in [["get", "members"], ["version", "--short=false"]] {
        cluster.talosctl_as(&reader, &allowed)?.ok().with_context(|| allowed.join(" "))?;
    }
    for refused in [&["read", "/etc/hosts"][..], &["get", "machineconfig"], &["get", "osrootsecret"], &["bootstrap"]] {
        let said = cluster.talosctl_as(&reader, refused)?.refused().with_context(|| refused.join(" "))?;
        ensure!(
            ["not authorized", "not allowed", "denied"].iter().any(|word| said.contains(word)),
            "{}: refused otherwise: {said}",
            refused.join(" ")
        );
    }
    Ok(())
}

pub(crate) fn a_worker_answers_for_itself_and_forwards_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let version = ["version", "--endpoints", WORKER.address, "--nodes"];
    let of = |node: &'static str| [&version[..], &[node]].concat();
    let said = cluster.talosctl(&of(CONTROL_PLANE.address))?.refused()?;
    ensure!(said.contains("no request forwarding"), "refused otherwise: {said}");
    let own = cluster.talosctl(&of(WORKER.address))?.ok()?;
    ensure!(own.contains(WORKER.address), "an answer without the node: {own}");
    Ok(())
}

pub(crate) fn a_node_that_is_down_is_named_beside_the_answer_of_the_other(cluster: &Cluster) -> anyhow::Result<()> {
    let nobody = "10.7.0.77";
    let nodes = format!("{},{nobody}", CONTROL_PLANE.address);
    let answer = cluster.talosctl(&["version", "--nodes", &nodes])?;
    ensure!(!answer.succeeded, "it succeeded though a node is down");
    ensure!(answer.stdout.contains(CONTROL_PLANE.address), "no answer of the other node: {}", answer.stdout);
    ensure!(answer.stderr.contains(nobody), "the node that is down is not named: {}", answer.stderr);
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authority {
    Own,
    Another,
}

/// A talosconfig with a certificate made for one check.
pub(crate) struct Identity {
    pub(crate) talosconfig: PathBuf,
}

impl Identity {
    /// Endpoint and authority are the cluster's; only the client differs.
    pub(crate) fn make(
        cluster: &Cluster,
        folder: &Path,
        by: Authority,
        role: &str,
        hours: &str,
    ) -> anyhow::Result<Self> {
        let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let generate = |arguments: &[&str]| cluster.talosctl(arguments)?.ok().with_context(|| arguments.join(" "));
        let own = std::fs::read_to_string(cluster.configuration(CONTROL_PLANE)).context("reading a configuration")?;
        let (crt, key) = os_authority(&own).context("a control plane's configuration without an authority")?;
        let signing = match by {
            Authority::Own => own.clone(),
            Authority::Another => {
                generate(&["gen", "config", "other", "https://10.7.0.2:6443", "--output", &file("generated")])?;
                std::fs::read_to_string(folder.join("generated/controlplane.yaml"))
                    .context("reading a configuration")?
            }
        };
        let (signing_crt, signing_key) = os_authority(&signing).context("a configuration without an authority")?;
        ensure!((by == Authority::Own) == (signing_key == key), "the authorities are not as this check needs them");
        write_decoded(&folder.join("ca.crt"), signing_crt)?;
        write_decoded(&folder.join("ca.key"), signing_key)?;
        generate(&["gen", "key", "--name", &file("client")])?;
        generate(&["gen", "csr", "--key", &file("client.key"), "--roles", role])?;
        let (ca, csr, name) = (file("ca"), file("client.csr"), file("client"));
        generate(&["gen", "crt", "--ca", &ca, "--csr", &csr, "--name", &name, "--hours", hours])?;
        let [client_crt, client_key] = [encoded(&folder.join("client.crt"))?, encoded(&folder.join("client.key"))?];
        let address = CONTROL_PLANE.address;
        let text = format!(
            "context: test\ncontexts:\n    test:\n        endpoints: [{address}]\n        nodes: [{address}]\n        \
             ca: {crt}\n        crt: {client_crt}\n        key: {client_key}\n"
        );
        let talosconfig = folder.join("talosconfig");
        std::fs::write(&talosconfig, text).context("writing a talosconfig")?;
        Ok(Self { talosconfig })
    }
}

/// The certificate and the key below the first `ca:` of a configuration, which is the machine's, in base64.
fn os_authority(configuration: &str) -> Option<(&str, &str)> {
    let mut lines = configuration.lines().map(str::trim).skip_while(|line| !line.starts_with("ca:"));
    let mut value = |name: &str| lines.find_map(|line| line.strip_prefix(name)).map(first_word);
    Some((value("crt:")?, value("key:")?))
}

/// A value without quotes and without the comment after it.
fn first_word(value: &str) -> &str {
    value.split_whitespace().next().unwrap_or_default().trim_matches('"')
}

fn write_decoded(path: &Path, base64: &str) -> anyhow::Result<()> {
    let bytes = STANDARD.decode(base64).with_context(|| format!("decoding {}", path.display()))?;
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn encoded(path: &Path) -> anyhow::Result<String> {
    Ok(STANDARD.encode(std::fs::read(path).with_context(|| format!("reading {}", path.display()))?))
}
