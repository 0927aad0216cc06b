//! Configuration of Kubernetes: kubelet and component configurations, static pods, kubeconfigs, bootstrap manifests and
//! the native pod network, as pure functions of plain inputs.
//!
//! Everything that differs between Kubernetes releases sits in one table, [`version::Feature`]. Nothing here reads files,
//! the clock or a resource; `domain-k8s` converts resources to these inputs and writes the results.

pub mod args;
pub mod component_files;
pub mod kubeconfig;
pub mod kubelet;
pub mod manifests;
pub mod native_cni;
pub mod node_cidrs;
pub mod paths;
pub mod quantity;
pub mod static_pods;
pub mod version;
pub mod yaml;

#[cfg(test)]
mod golden;
