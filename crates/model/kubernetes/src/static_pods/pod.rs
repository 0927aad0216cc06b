//! The shape that all three pods share.

use serde_json::{Map, Value, json};

use super::{
    CONFIG_FILE_VERSION_ANNOTATION, CONFIG_VERSION_ANNOTATION, Customization, Resources, Revisions,
    SECRETS_VERSION_ANNOTATION,
};
use crate::{paths, quantity};

pub(super) struct Component<'a> {
    pub(super) name: &'static str,
    pub(super) image: &'a str,
    pub(super) uid: u32,
    pub(super) args: Vec<String>,
    pub(super) custom: &'a Customization,
    pub(super) revisions: &'a Revisions,
    pub(super) default_cpu: &'static str,
    pub(super) default_memory: &'static str,
    pub(super) capabilities: &'static [&'static str],
    /// Has a folder of configuration files.
    pub(super) config_files: bool,
    /// Volumes besides configuration and secrets, as `(volume, mount)`.
    pub(super) volumes: Vec<(Value, Value)>,
    /// Secure port on loopback to probe `/healthz` at.
    pub(super) probe_port: Option<u16>,
}

pub(super) fn render(component: Component<'_>) -> Value {
    let mut container = json!({
        "name": component.name,
        "image": component.image,
        "command": command(&component),
        "env": environment(component.custom),
        "resources": resources(&component),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": capabilities(component.capabilities),
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    if let Some(port) = component.probe_port {
        container["startupProbe"] = probe(port, 0, 5, 24);
        container["livenessProbe"] = probe(port, 15, 10, 3);
    }
    let (volumes, mounts) = volumes(&component);
    container["volumeMounts"] = Value::Array(mounts);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": component.name,
            "namespace": "kube-system",
            "annotations": annotations(component.revisions),
            "labels": {
                "tier": "control-plane",
                "k8s-app": component.name,
                "component": component.name,
            },
        },
        "spec": {
            "priority": 2_000_000_000,
            "priorityClassName": "system-cluster-critical",
            "hostNetwork": true,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": component.uid,
                "runAsGroup": component.uid,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [container],
            "volumes": volumes,
        },
    })
}

fn command(component: &Component<'_>) -> Vec<String> {
    let mut command = vec![format!("/usr/local/bin/{}", component.name)];
    command.extend(component.args.iter().cloned());
    command
}

fn annotations(revisions: &Revisions) -> Map<String, Value> {
    let mut annotations = Map::new();
    for (name, value) in [
        (SECRETS_VERSION_ANNOTATION, &revisions.secrets),
        (CONFIG_FILE_VERSION_ANNOTATION, &revisions.config_files),
        (CONFIG_VERSION_ANNOTATION, &revisions.config),
    ] {
        if !value.is_empty() {
            annotations.insert(name.to_owned(), json!(value));
        }
    }
    annotations
}

fn capabilities(add: &[&str]) -> Value {
    if add.is_empty() { json!({ "drop": ["ALL"] }) } else { json!({ "drop": ["ALL"], "add": add }) }
}

fn environment(custom: &Customization) -> Vec<Value> {
    let mut environment: Vec<Value> = Vec::new();
    if !custom.environment.contains_key("GOMEMLIMIT")
        && let Some(bytes) = custom.resources.limits.get("memory").and_then(|limit| quantity::whole(limit))
    {
        environment.push(json!({ "name": "GOMEMLIMIT", "value": (bytes / 100 * 95).to_string() }));
    }
    environment.extend(custom.environment.iter().map(|(name, value)| json!({ "name": name, "value": value })));
    environment.push(json!({
        "name": "POD_IP",
        "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "status.podIP" } },
    }));
    environment
}

fn resources(component: &Component<'_>) -> Value {
    let Resources { requests, limits } = &component.custom.resources;
    let mut rendered = if requests.is_empty() {
        json!({ "requests": { "cpu": component.default_cpu, "memory": component.default_memory } })
    } else {
        json!({ "requests": requests })
    };
    if !limits.is_empty() {
        rendered["limits"] = json!(limits);
    }
    rendered
}

fn probe(port: u16, delay: u32, period: u32, failures: u32) -> Value {
    let mut probe = json!({
        "httpGet": { "host": "127.0.0.1", "path": "/healthz", "port": port, "scheme": "HTTPS" },
        "timeoutSeconds": 15,
        "periodSeconds": period,
        "failureThreshold": failures,
    });
    if delay > 0 {
        probe["initialDelaySeconds"] = json!(delay);
    }
    probe
}

/// A directory of the node as `(volume, mount)`.
pub(super) fn host_path(name: &str, host: &str, mount: &str, kind: &str, read_only: bool) -> (Value, Value) {
    let mut volume = json!({ "name": name, "hostPath": { "path": host } });
    if !kind.is_empty() {
        volume["hostPath"]["type"] = json!(kind);
    }
    let mut volume_mount = json!({ "name": name, "mountPath": mount });
    if read_only {
        volume_mount["readOnly"] = json!(true);
    }
    (volume, volume_mount)
}

fn volumes(component: &Component<'_>) -> (Vec<Value>, Vec<Value>) {
    let secrets = format!("{}/{}", paths::SECRETS_DIR, component.name);
    let config = format!("{}/{}", paths::CONFIG_DIR, component.name);
    let mut all = vec![host_path("secrets", &secrets, &secrets, "DirectoryOrCreate", true)];
    if component.config_files {
        all.push(host_path("config", &config, &config, "DirectoryOrCreate", true));
    }
    all.extend(component.volumes.iter().cloned());
    for extra in &component.custom.extra_volumes {
        all.push(host_path(&extra.name, &extra.host_path, &extra.mount_path, "", extra.read_only));
    }
    all.into_iter().unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limit_bounds_the_heap_unless_the_user_does() {
        let mut custom = Customization::default();
        custom.resources.limits.insert("memory".to_owned(), "1000".to_owned());
        assert_eq!(environment(&custom)[0], json!({ "name": "GOMEMLIMIT", "value": "950" }));
        custom.environment.insert("GOMEMLIMIT".to_owned(), "7".to_owned());
        assert_eq!(environment(&custom)[0], json!({ "name": "GOMEMLIMIT", "value": "7" }));
    }
}
