//! Creation of arbitrary objects that do not exist yet.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, ApiCapabilities, ApiResource, Scope};
use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Applied, Outcome};
use crate::call::{FIELD_MANAGER, within};
use crate::error::KubeError;
use crate::object::{ObjectRef, flatten};

/// How long a kind may take to appear after its definition was created.
const DEFINITION_PATIENCE: Duration = Duration::from_secs(15);
const DEFINITION_POLL: Duration = Duration::from_millis(250);

const NAMESPACE: &str = "Namespace";
const DEFINITION: &str = "CustomResourceDefinition";
const DEFAULT_NAMESPACE: &str = "default";

/// Lists are flattened; objects that others depend on come first.
pub(crate) fn ordered(objects: &[Value]) -> Vec<Value> {
    let mut flat = Vec::new();
    for object in objects {
        flatten(object, &mut flat);
    }
    flat.sort_by_key(|object| match object["kind"].as_str() {
        Some(NAMESPACE) => 0,
        Some(DEFINITION) => 1,
        _ => 2,
    });
    flat
}

/// Groups whose kinds the given objects define.
pub(crate) fn defined_groups(objects: &[Value]) -> BTreeSet<String> {
    objects
        .iter()
        .filter(|object| object["kind"] == DEFINITION)
        .filter_map(|object| object.pointer("/spec/group").and_then(Value::as_str))
        .map(str::to_owned)
        .collect()
}

pub(crate) async fn create_missing(client: &kube::Client, objects: &[Value]) -> Vec<Applied> {
    let objects = ordered(objects);
    let fresh_groups = defined_groups(&objects);
    let mut kinds = Kinds { client, known: Vec::new() };
    let mut applied = Vec::with_capacity(objects.len());
    for object in objects {
        let reference = ObjectRef::of(&object);
        let patience = if fresh_groups.contains(reference.group()) { DEFINITION_PATIENCE } else { Duration::ZERO };
        let outcome = create_one(&mut kinds, &reference, object, patience).await;
        applied.push(Applied { object: reference, outcome });
    }
    applied
}

async fn create_one(
    kinds: &mut Kinds<'_>,
    reference: &ObjectRef,
    object: Value,
    patience: Duration,
) -> Result<Outcome, KubeError> {
    if [&reference.api_version, &reference.kind, &reference.name].iter().any(|part| part.is_empty()) {
        return Err(KubeError::IncompleteManifest { object: reference.clone() });
    }
    let object: DynamicObject = serde_json::from_value(object)
        .map_err(|error| KubeError::MalformedManifest { object: reference.clone(), cause: Box::new(error) })?;
    let (resource, capabilities) = kinds.find(reference, patience).await?;
    let client = kinds.client.clone();
    let api: Api<DynamicObject> = if capabilities.scope == Scope::Namespaced {
        let namespace = if reference.namespace.is_empty() { DEFAULT_NAMESPACE } else { &reference.namespace };
        Api::namespaced_with(client, namespace, &resource)
    } else {
        Api::all_with(client, &resource)
    };
    let subject = reference.to_string();
    // Asked first, because some kinds (a Service with a fixed address) refuse a second creation as invalid.
    if within("getting", &subject, api.get_metadata_opt(&reference.name)).await?.is_some() {
        return Ok(Outcome::AlreadyThere);
    }
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match within("creating", &subject, api.create(&params, &object)).await {
        Ok(_) => Ok(Outcome::Created),
        Err(error) if error.is_conflict() => Ok(Outcome::AlreadyThere),
        Err(error) => Err(error),
    }
}

/// The server's resource kinds, queried once each.
struct Kinds<'a> {
    client: &'a kube::Client,
    known: Vec<(GroupVersionKind, ApiResource, ApiCapabilities)>,
}

impl Kinds<'_> {
    async fn find(
        &mut self,
        reference: &ObjectRef,
        patience: Duration,
    ) -> Result<(ApiResource, ApiCapabilities), KubeError> {
        let gvk = gvk(reference);
        if let Some((_, resource, capabilities)) = self.known.iter().find(|(known, ..)| *known == gvk) {
            return Ok((resource.clone(), capabilities.clone()));
        }
        let until = Instant::now() + patience;
        loop {
            match self.ask(reference, &gvk).await {
                Ok((resource, capabilities)) => {
                    self.known.push((gvk, resource.clone(), capabilities.clone()));
                    return Ok((resource, capabilities));
                }
                Err(error @ KubeError::UnknownKind { .. }) if Instant::now() >= until => return Err(error),
                Err(KubeError::UnknownKind { .. }) => tokio::time::sleep(DEFINITION_POLL).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask(
        &self,
        reference: &ObjectRef,
        gvk: &GroupVersionKind,
    ) -> Result<(ApiResource, ApiCapabilities), KubeError> {
        let unknown =
            || KubeError::UnknownKind { api_version: reference.api_version.clone(), kind: reference.kind.clone() };
        let found = tokio::time::timeout(Duration::from_secs(10), discovery::pinned_kind(self.client, gvk)).await;
        match found {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(kube::Error::Discovery(_))) => Err(unknown()),
            Ok(Err(error)) => match KubeError::from_kube("discovering", gvk.kind.clone(), error) {
                error if error.is_not_found() => Err(unknown()),
                error => Err(error),
            },
            Err(_) => Err(KubeError::Timeout { operation: "discovering", subject: gvk.kind.clone(), seconds: 10 }),
        }
    }
}

fn gvk(reference: &ObjectRef) -> GroupVersionKind {
    let (group, version) = reference.api_version.split_once('/').unwrap_or(("", reference.api_version.as_str()));
    GroupVersionKind::gvk(group, version, &reference.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_need_comes_first_and_lists_are_taken_apart() {
        let objects = [
            json!({ "kind": "Thing", "metadata": { "name": "cr" } }),
            json!({ "kind": "List", "items": [
                { "kind": "CustomResourceDefinition", "metadata": { "name": "crd" }, "spec": { "group": "x.dev" } },
                { "kind": "Namespace", "metadata": { "name": "ns" } },
                { "kind": "ConfigMap", "metadata": { "name": "cm" } },
            ] }),
        ];
        let ordered = ordered(&objects);
        let names: Vec<_> = ordered.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["ns", "crd", "cr", "cm"]);
        assert_eq!(defined_groups(&ordered), BTreeSet::from(["x.dev".to_owned()]));
    }

    #[test]
    fn core_group_has_no_slash() {
        let core = ObjectRef::of(&json!({ "apiVersion": "v1", "kind": "Secret" }));
        assert_eq!(gvk(&core), GroupVersionKind::gvk("", "v1", "Secret"));
        let apps = ObjectRef::of(&json!({ "apiVersion": "apps/v1", "kind": "DaemonSet" }));
        assert_eq!(gvk(&apps), GroupVersionKind::gvk("apps", "v1", "DaemonSet"));
    }
}
