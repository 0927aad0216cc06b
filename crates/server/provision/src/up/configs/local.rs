//! The parts of configurations that only local clusters have.

use std::net::SocketAddrV4;

use config::{Documents, Patch};
use serde_json::{Value, json};

use super::{ConfigRequest, Install, generating, subject};
use crate::machines::user_device;
use crate::plan::{Plan, PlannedNode, Role};
use crate::up::failure::UpError;
use crate::up::offline::{Images, Offline};

/// The place where the configurations will be used.
pub(super) struct Local<'a> {
    pub(super) request: &'a ConfigRequest,
    pub(super) plan: &'a Plan,
    pub(super) images: &'a Images,
    /// URL of the cluster's registry.
    pub(super) registry: Option<&'a str>,
}

impl Local<'_> {
    /// Added to generated configurations, which have mirrors and discovery already.
    pub(super) fn additions(&self, role: Role) -> Value {
        let kubelet = kubelet(self.request.install.is_some());
        let mut patch = json!({ "version": "v1alpha1", "machine": { "kubelet": { "extraConfig": kubelet } } });
        if let Some(Install { disk, kernel_arguments, user_disks }) = &self.request.install {
            patch["machine"]["install"] = json!({ "disk": disk, "extraKernelArgs": kernel_arguments });
            if !user_disks.is_empty() {
                let disks = user_disks.iter().enumerate();
                let disks =
                    disks.map(|(number, disk)| json!({ "device": user_device(number), "partitions": disk.partitions }));
                patch["machine"]["disks"] = disks.collect();
            }
        }
        // Nodes know each other by their addresses in the cluster's own network.
        let own = (!self.plan.side_networks.is_empty()).then(|| json!([self.plan.cidr]));
        if let Some(own) = &own {
            patch["machine"]["kubelet"]["nodeIP"] = json!({ "validSubnets": own });
        }
        if role == Role::ControlPlane {
            let mut cluster = json!({});
            if let Some(etcd) = self.images.offline.as_ref().and_then(Offline::etcd) {
                cluster["etcd"]["image"] = json!(etcd);
            }
            if let Some(own) = own {
                cluster["etcd"]["advertisedSubnets"] = own;
            }
            if self.images.offline.as_ref().is_some_and(|offline| !offline.has_coredns()) {
                cluster["coreDNS"] = json!({ "disabled": true });
            }
            patch["cluster"] = cluster;
        }
        patch
    }

    /// Added to the operator's own configurations: what is not there.
    pub(super) fn absent(&self, role: Role, documents: &Documents) -> Value {
        let mut patch = self.additions(role);
        for host in self.registry.map(|_| self.images.hosts()).into_iter().flatten() {
            patch["machine"]["registries"]["mirrors"][host] = json!({ "endpoints": [self.registry] });
        }
        let there: Vec<Value> = documents.values();
        let enabled = |root: &Value| root.pointer("/cluster/discovery/enabled") == Some(&json!(true));
        if self.request.discovery && there.iter().any(enabled) {
            let service = json!({ "endpoint": self.plan.discovery_endpoint() });
            patch["cluster"]["discovery"] = json!({ "registries": { "service": service } });
        }
        there.iter().for_each(|document| remove_known(&mut patch, document));
        patch["version"] = json!("v1alpha1");
        patch
    }

    /// The operator's choices for a node, as patches: they are told of where they have no effect.
    pub(super) fn choices(&self, node: &PlannedNode) -> Result<Vec<Patch>, UpError> {
        let request = self.request;
        let mut patches = Vec::new();
        if request.debug {
            patches.push(json!({ "debug": true }));
        }
        if request.disable_ipv6 {
            patches.push(json!({ "machine": { "sysctls": { "net.ipv6.conf.all.disable_ipv6": "1" } } }));
        }
        if let Some(endpoint) = &request.endpoint {
            let name = endpoint.parse::<client::Endpoint>().map_err(client::ConnectError::Endpoint)?;
            patches.push(json!({ "machine": { "certSANs": [name.host()] } }));
            if node.role == Role::ControlPlane {
                patches.push(json!({ "cluster": { "apiServer": { "certSANs": [name.host()] } } }));
            }
        }
        if request.init_node && self.plan.first_control_plane() == Some(node) {
            patches.push(json!({ "machine": { "type": "init" } }));
        }
        let parse = |patch: Value| Patch::parse(&patch.to_string()).map_err(generating(subject(node.role)));
        patches.into_iter().map(parse).collect()
    }
}

/// Containers share the host's disk, which the kubelet takes for its own: at its usual thresholds (10 and 15 % free) it would
/// evict pods because of other data on the host.
///
/// The kubelet shows static pods to the API when it next looks at them after its node was registered, a minute or more
/// later as a rule (`syncFrequency`, 1 m by default); a cluster that is made to be used at once does not wait that long.
fn kubelet(own_disk: bool) -> Value {
    if own_disk {
        return json!({ "syncFrequency": "10s" });
    }
    json!({
        "evictionHard": {
            "imagefs.available": "1%",
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
        "syncFrequency": "10s",
    })
}

/// Takes out of a patch each value that a document has already.
fn remove_known(patch: &mut Value, document: &Value) {
    let (Some(patch), Some(document)) = (patch.as_object_mut(), document.as_object()) else { return };
    patch.retain(|key, wanted| match document.get(key) {
        None | Some(Value::Null) => true,
        Some(there) if wanted.is_object() && there.is_object() => {
            remove_known(wanted, there);
            wanted.as_object().is_some_and(|left| !left.is_empty())
        }
        Some(_) => false,
    });
}

/// Address and port of a URL like `http://10.5.0.1:5001/path`.
pub(super) fn address_of(url: &str) -> Option<SocketAddrV4> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?.rsplit('@').next()?;
    let port = if scheme == "https" { 443 } else { 80 };
    authority.parse().ok().or_else(|| Some(SocketAddrV4::new(authority.parse().ok()?, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_keeps_all_values_that_it_has() {
        let mut patch = json!({ "a": { "b": 1, "c": 2 }, "d": [1], "e": { "f": 1 }, "g": { "h": 1 } });
        remove_known(&mut patch, &json!({ "a": { "b": 9 }, "d": [], "e": { "f": 0 }, "g": null }));
        assert_eq!(patch, json!({ "a": { "c": 2 }, "g": { "h": 1 } }));
    }
}
