//! The `cluster` part.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use pki::PemPair;

use super::Check;
use crate::v1alpha1::{Cluster, Config};

pub(super) fn check(check: &mut Check<'_>, config: &Config) {
    let Some(cluster) = &config.cluster else {
        check.error("cluster", "the cluster part is missing");
        return;
    };
    if cluster.control_plane.as_ref().is_none_or(|c| c.endpoint.is_empty()) {
        let hint = "for example https://10.5.0.2:6443";
        check.error_with_hint("cluster.controlPlane.endpoint", "the address of the Kubernetes API is missing", hint);
    }
    if cluster.token.is_empty() {
        check.remark("cluster.token", "without the token kubelets cannot join the cluster");
    } else if !pki::token::is_bootstrap_token(cluster.token.expose()) {
        check.remark("cluster.token", "not the form of a bootstrap token (six and sixteen of a-z and 0-9, a dot between): the cluster has to know it already");
    }
    secrets(check, cluster, config.is_control_plane());
    network(check, cluster, config.is_control_plane());
    discovery(check, config, cluster);
    manifests(check, cluster);
}

fn secrets(check: &mut Check<'_>, cluster: &Cluster, control_plane: bool) {
    let etcd_ca = cluster.etcd.as_ref().and_then(|etcd| etcd.ca.as_ref());
    let authorities: [(&str, Option<&PemPair>); 3] = [
        ("cluster.ca", cluster.ca.as_ref()),
        ("cluster.aggregatorCA", cluster.aggregator_ca.as_ref()),
        ("cluster.etcd.ca", etcd_ca),
    ];
    for (path, pair) in authorities {
        let key = pair.is_some_and(|pair| !pair.key.is_empty());
        if !control_plane {
            if key {
                let path = format!("{path}.key");
                check.error_with_hint(
                    &path,
                    "a worker must not have the key of a certificate authority",
                    "leave only crt",
                );
            }
        } else if !key {
            check.remark(path, "without this certificate authority and its key no control plane runs here");
        } else if let Some(Err(error)) = pair.map(pki::Authority::from_pair) {
            check.error(path, error.to_string());
        }
    }
    let account = cluster.service_account.as_ref().is_some_and(|account| !account.key.is_empty());
    if control_plane && !account {
        check.remark("cluster.serviceAccount", "without the key of service accounts no control plane runs here");
    } else if !control_plane && account {
        check.error("cluster.serviceAccount.key", "a worker must not have the key of service accounts");
    }
    if !control_plane && cluster.ca.as_ref().is_none_or(|ca| ca.crt.is_empty()) {
        check.remark("cluster.ca", "without the certificate authority of Kubernetes the kubelet cannot join");
    }
}

fn network(check: &mut Check<'_>, cluster: &Cluster, control_plane: bool) {
    let Some(network) = &cluster.network else { return };
    // workers apply no manifests
    if let Some(cni) = network.cni.as_ref().filter(|_| control_plane) {
        match (cni.name.as_str(), cni.urls.is_empty()) {
            ("custom", true) => {
                check.warn(
                    "cluster.network.cni.urls",
                    "a custom network without manifests: they have to come from elsewhere",
                );
            }
            ("custom", false) | (_, true) => {}
            _ => check.error("cluster.network.cni.urls", "URLs of manifests belong to the custom network"),
        }
        if cni.flannel.is_some() && !matches!(cni.name.as_str(), "flannel" | "") {
            check.error("cluster.network.cni.flannel", "settings of Flannel belong to the flannel network");
        }
    }
    for (path, subnets) in [("podSubnets", &network.pod_subnets), ("serviceSubnets", &network.service_subnets)] {
        let families: Vec<bool> = subnets.iter().filter_map(|s| s.parse::<IpNet>().ok()).map(|n| is_v4(&n)).collect();
        if families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
            let path = format!("cluster.network.{path}");
            check.error(&path, "at most one network for IPv4 and one for IPv6");
        }
    }
    let services = cluster.service_cidrs();
    for pods in cluster.pod_cidrs() {
        if let Some(overlap) = services.iter().find(|s| s.contains(&pods) || pods.contains(*s)) {
            check.error("cluster.network.podSubnets", format!("{pods} overlaps with the service network {overlap}"));
        }
    }
}

fn is_v4(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V4(_))
}

fn discovery(check: &mut Check<'_>, config: &Config, cluster: &Cluster) {
    if cluster.discovery_service().is_some() {
        if cluster.id.is_empty() {
            check.error("cluster.id", "the discovery service needs the cluster's id");
        }
        if cluster.secret.is_empty() {
            check.error("cluster.secret", "the discovery service needs the cluster's secret");
        }
    }
    if config.machine().kubespan_enabled() && !cluster.discovery_enabled() {
        check.error("cluster.discovery.enabled", "KubeSpan finds its peers by discovery: it must be enabled");
    }
}

fn manifests(check: &mut Check<'_>, cluster: &Cluster) {
    let mut names = HashSet::new();
    for (index, manifest) in cluster.inline_manifests.iter().enumerate() {
        let path = format!("cluster.inlineManifests[{index}].name");
        if manifest.name.is_empty() {
            check.error(&path, "a manifest needs a name");
        } else if !names.insert(manifest.name.as_str()) {
            check.error(&path, format!("duplicate manifest name {}", manifest.name));
        }
    }
    if let Some(server) = &cluster.api_server {
        for (index, plugin) in server.admission_control.iter().enumerate() {
            if plugin.name.is_empty() {
                check.error(&format!("cluster.apiServer.admissionControl[{index}].name"), "a plug-in needs a name");
            }
        }
    }
}
