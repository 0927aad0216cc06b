//! Settings of the components of Kubernetes that would be refused, or overwritten, when they are rendered.

use kubernetes::kubelet::SYSTEM_FIELDS;
use kubernetes::quantity;
use serde_json::Value;

use super::Check;
use crate::scalar::Object;
use crate::v1alpha1::{Cluster, Config, VolumeMount};

/// What the pods of the control plane can ask for.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

pub(super) fn check(check: &mut Check<'_>, config: &Config) {
    kubelet(check, config);
    if let Some(cluster) = &config.cluster {
        etcd(check, config, cluster);
        let pods: [(&str, Option<&Object>); 3] = [
            ("apiServer", cluster.api_server.as_ref().map(|pod| &pod.resources)),
            ("controllerManager", cluster.controller_manager.as_ref().map(|pod| &pod.resources)),
            ("scheduler", cluster.scheduler.as_ref().map(|pod| &pod.resources)),
        ];
        let volumes: [(&str, Option<&[VolumeMount]>); 3] = [
            ("apiServer", cluster.api_server.as_ref().map(|pod| &*pod.extra_volumes)),
            ("controllerManager", cluster.controller_manager.as_ref().map(|pod| &*pod.extra_volumes)),
            ("scheduler", cluster.scheduler.as_ref().map(|pod| &*pod.extra_volumes)),
        ];
        for (name, volumes) in volumes {
            for (index, volume) in volumes.into_iter().flatten().enumerate() {
                let path = format!("cluster.{name}.extraVolumes[{index}]");
                required(check, &format!("{path}.hostPath"), &volume.host_path);
                required(check, &format!("{path}.mountPath"), &volume.mount_path);
            }
        }
        for (name, object) in pods {
            if let Some(object) = object {
                resources(check, &format!("cluster.{name}.resources"), object);
            }
        }
        cloud_provider(check, cluster);
    }
}

fn kubelet(check: &mut Check<'_>, config: &Config) {
    let Some(kubelet) = &config.machine().kubelet else { return };
    for field in kubelet.extra_config.keys().filter(|field| SYSTEM_FIELDS.contains(&field.as_str())) {
        let path = format!("machine.kubelet.extraConfig.{field}");
        check.error(&path, format!("{field} of the kubelet's configuration is set by the system"));
    }
    for (index, mount) in kubelet.extra_mounts.iter().enumerate() {
        required(check, &format!("machine.kubelet.extraMounts[{index}].destination"), &mount.destination);
    }
}

fn required(check: &mut Check<'_>, path: &str, value: &str) {
    if value.is_empty() {
        check.error(path, "a path is needed");
    }
}

fn etcd(check: &mut Check<'_>, config: &Config, cluster: &Cluster) {
    let has_settings = cluster.etcd.as_ref().is_some_and(|etcd| *etcd != crate::v1alpha1::Etcd::default());
    let authority_key = cluster.etcd_ca().is_some_and(|ca| !ca.key.is_empty());
    // the key of the authority has its own error
    if has_settings && !config.is_control_plane() && !authority_key {
        check.error("cluster.etcd", "etcd runs on control planes only: a worker cannot have settings for it");
    }
}

fn cloud_provider(check: &mut Check<'_>, cluster: &Cluster) {
    let manifests = cluster.external_cloud_provider.as_ref().is_some_and(|provider| !provider.manifests.is_empty());
    if manifests && !cluster.external_cloud_provider() {
        let path = "cluster.externalCloudProvider.manifests";
        check.error(path, "the cloud provider is not enabled, so its manifests would not be applied");
    }
}

/// `requests` and `limits` of `cpu` and `memory`. The kubelet refuses a pod whose request is above its limit.
fn resources(check: &mut Check<'_>, path: &str, object: &Object) {
    let mut amounts = Vec::new();
    for (section, value) in object {
        let path = format!("{path}.{section}");
        if !["requests", "limits"].contains(&section.as_str()) {
            check.error(&path, "resources of a pod are requests and limits");
            continue;
        }
        let Value::Object(map) = value else {
            if !value.is_null() {
                check.error(&path, "expected a mapping of resources to quantities");
            }
            continue;
        };
        for (name, value) in map {
            let path = format!("{path}.{name}");
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !RESOURCES.contains(&name.as_str()) {
                check.error(&path, format!("{name} cannot be set for a pod of the control plane: only cpu and memory"));
            } else if let Some(amount) = quantity::milli(&text) {
                amounts.push((section.as_str(), name.as_str(), amount));
            } else {
                check.error_with_hint(&path, format!("{text:?} is not a quantity"), "for example 500m, 1, 256Mi");
            }
        }
    }
    let amount =
        |section: &str, name: &str| amounts.iter().find(|(s, n, _)| *s == section && *n == name).map(|(_, _, a)| *a);
    for name in RESOURCES {
        if let (Some(request), Some(limit)) = (amount("requests", name), amount("limits", name))
            && request > limit
        {
            check.error(&format!("{path}.requests.{name}"), format!("the request for {name} is above its limit"));
        }
    }
}
