//! Function of the Kubernetes API.

use std::time::Duration;

use anyhow::ensure;

use crate::cluster::Cluster;
use tests::support::eventually;

const DEFINITION: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
  "metadata": {"name": "boats.test.example"}, "spec": {"group": "test.example", "scope": "Namespaced",
    "names": {"kind": "Boat", "plural": "boats", "singular": "boat"},
    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
      "properties": {"spec": {"type": "object", "additionalProperties": {"type": "string"}}}}}}]}}"#;

const RESOURCE: &str = r#"{"apiVersion": "test.example/v1", "kind": "Boat", "metadata": {"name": "first"},
  "spec": {"hull": "wood", "mast": "one"}}"#;

/// Operators of all kinds live on custom resources; maps in them go through other code of the API server than its own types.
pub(crate) fn a_custom_resource_is_kept(cluster: &Cluster) -> anyhow::Result<()> {
    let kubernetes = cluster.kubernetes();
    kubernetes.apply("definition.json", DEFINITION)?;
    eventually("the resource is accepted", Duration::from_secs(30), || kubernetes.apply("resource.json", RESOURCE))?;
    let spec = cluster.kubectl(&["get", "boat", "first", "--output", "jsonpath={.spec.hull} {.spec.mast}"])?.ok()?;
    ensure!(spec == "wood one", "the resource is {spec}");
    cluster.kubectl(&["delete", "crd", "boats.test.example"])?.ok()?;
    Ok(())
}
