//! Routing of calls, as a pure function of caller, request and node.

use std::collections::HashSet;

use http::HeaderMap;
use pki::{Role, RoleSet};
use tonic::Status;

use crate::authz::{Method, NodeTargets};
use crate::node::{Forwarding, NodeState};

/// Metadata: the one node that a call is for.
pub(crate) const NODE: &str = "node";
/// Metadata: the nodes that a call is for.
pub(crate) const NODES: &str = "nodes";
/// Metadata: the node that forwarded a call.
pub(crate) const PROXY_FROM: &str = "proxyfrom";
/// Metadata: a role of the client on whose behalf a call is made; repeated.
pub(crate) const ROLE: &str = "talos-role";

/// Maximum number of nodes per call.
const MAX_NODES: usize = 1024;

/// The caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The roles that count.
    pub(crate) roles: RoleSet,
    /// Whether another node forwarded the call; it is never forwarded again.
    pub(crate) forwarded: bool,
}

impl Caller {
    /// The caller from the roles of its certificate and the metadata of its call.
    ///
    /// Only a node may speak for somebody else: metadata about roles counts from an impersonator alone, and never makes
    /// an impersonator.
    pub(crate) fn new(certified: RoleSet, headers: &HeaderMap) -> Self {
        if !certified.contains(Role::Impersonator) {
            return Self { roles: certified, forwarded: false };
        }
        let roles = RoleSet::parse(values(headers, ROLE)).iter().filter(|role| *role != Role::Impersonator).collect();
        Self { roles, forwarded: true }
    }
}

/// The destination of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the `machined` of this node.
    Local,
    /// To one other node, without a change to what it answers.
    Node(String),
    /// To several nodes, maybe this one among them; what they answer is put together.
    Nodes(Vec<String>),
}

/// Decides the destination of a call, or its refusal.
pub(crate) fn route(method: &Method, caller: &Caller, headers: &HeaderMap, node: &NodeState) -> Result<Route, Status> {
    if !method.allows(&caller.roles) {
        return Err(Status::permission_denied(format!(
            "not authorized: {} needs one of {}",
            method.path,
            names(method)
        )));
    }
    if caller.forwarded {
        return Ok(Route::Local);
    }
    let one = values(headers, NODE);
    let many = values(headers, NODES);
    match (one.as_slice(), many.as_slice()) {
        ([], []) => Ok(Route::Local),
        ([], many) => {
            if method.spread == NodeTargets::OneNode {
                let why = format!("{} takes one node at a time: use \"node\" instead of \"nodes\"", method.path);
                return Err(Status::invalid_argument(why));
            }
            if many.len() > MAX_NODES {
                return Err(Status::invalid_argument(format!("a call goes to at most {MAX_NODES} nodes")));
            }
            for target in many {
                check_forwarding(node, target)?;
            }
            Ok(Route::Nodes(many.to_vec()))
        }
        ([target], []) if node.is_local(target) => Ok(Route::Local),
        ([target], []) => {
            check_forwarding(node, target)?;
            Ok(Route::Node(target.clone()))
        }
        _ => Err(Status::invalid_argument("metadata must have one \"node\", or \"nodes\", not both")),
    }
}

fn check_forwarding(node: &NodeState, target: &str) -> Result<(), Status> {
    if node.forwarding == Forwarding::Refuses && !node.is_local(target) {
        let why =
            format!("no request forwarding: this node does not carry calls to {target}, use a control plane node");
        return Err(Status::permission_denied(why));
    }
    Ok(())
}

fn names(method: &Method) -> String {
    method.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

/// The values of a metadata key, each once, in order; proxies may have joined them with commas.
fn values(headers: &HeaderMap, key: &str) -> Vec<String> {
    let texts = headers.get_all(key).iter().filter_map(|value| value.to_str().ok());
    let mut known = HashSet::new();
    let values = texts.flat_map(|text| text.split(',')).map(str::trim);
    values.filter(|value| !value.is_empty() && known.insert(*value)).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests;
