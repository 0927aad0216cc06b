//! Which resources of the types in the graph exist.

use std::collections::BTreeSet;

use client::StateClient;
use wire::inspect::ControllerDependencyEdge;

use super::Existing;
use crate::command_error::CommandError;

pub(super) async fn existing(
    state: &StateClient,
    edges: &[ControllerDependencyEdge],
) -> Result<Vec<Existing>, CommandError> {
    let types: BTreeSet<(&str, &str)> =
        edges.iter().map(|edge| (edge.resource_namespace.as_str(), edge.resource_type.as_str())).collect();
    let mut found = Vec::new();
    for (namespace, resource_type) in types {
        for resource in state.list(namespace, resource_type).await? {
            found.push((resource_type.to_owned(), resource.metadata.id));
        }
    }
    Ok(found)
}
