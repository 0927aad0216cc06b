//! The existing resources of the types in the graph.

use std::collections::{BTreeSet, HashMap};

use client::{CallError, StateClient};
use wire::inspect::ControllerDependencyEdge;

use super::Existing;

/// The resources, and the types that could not be listed with the reason.
#[derive(Debug, Default)]
pub(super) struct ExistingResources {
    pub(super) existing: Vec<Existing>,
    pub(super) failed: Vec<(String, CallError)>,
}

/// # Errors
/// The node does not list its types.
pub(super) async fn existing(
    state: &StateClient,
    edges: &[ControllerDependencyEdge],
) -> Result<ExistingResources, CallError> {
    let definitions = state.definitions().await?;
    let namespaces = definitions.into_iter().map(|one| (one.resource_type, one.default_namespace)).collect();
    let mut found = ExistingResources::default();
    for (namespace, resource_type) in kinds(edges, &namespaces) {
        match state.list(&namespace, &resource_type).await {
            Ok(resources) => {
                found.existing.extend(resources.into_iter().map(|one| (resource_type.clone(), one.metadata.id)));
            }
            Err(error) => found.failed.push((resource_type, error)),
        }
    }
    Ok(found)
}

/// Namespaces and types of the edges. An output carries no namespace: it has its type's.
fn kinds(edges: &[ControllerDependencyEdge], namespaces: &HashMap<String, String>) -> BTreeSet<(String, String)> {
    let kind = |edge: &ControllerDependencyEdge| {
        let namespace = match edge.resource_namespace.as_str() {
            "" => namespaces.get(&edge.resource_type).filter(|namespace| !namespace.is_empty())?.as_str(),
            named => named,
        };
        Some((namespace.to_owned(), edge.resource_type.clone()))
    };
    edges.iter().filter_map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_looked_for_in_the_namespace_of_their_type() {
        let edge = |namespace: &str, resource_type: &str| ControllerDependencyEdge {
            resource_namespace: namespace.to_owned(),
            resource_type: resource_type.to_owned(),
            ..Default::default()
        };
        let edges = [edge("", "Out"), edge("network", "In"), edge("network", "Out"), edge("", "Unknown")];
        let namespaces = HashMap::from([("Out".to_owned(), "network".to_owned())]);
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let expected: BTreeSet<_> = pairs(&[("network", "In"), ("network", "Out")]);
        assert_eq!(kinds(&edges, &namespaces), expected);
    }
}
