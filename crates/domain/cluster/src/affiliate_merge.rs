//! Merges the registries' data about other nodes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::MachineType;
use resources::cluster::{Affiliate, Identity, KubeSpanAffiliate, RAW_NAMESPACE};

/// `Affiliate` in `cluster-raw`, one a registry and node → `Affiliate` in `cluster`, one a node. This node's own is left
/// to whoever knows it first hand.
#[derive(Debug)]
pub struct AffiliateMergeController;

#[async_trait]
impl Controller for AffiliateMergeController {
    fn name(&self) -> &'static str {
        "cluster.AffiliateMergeController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<Affiliate>().namespace(RAW_NAMESPACE), Input::weak::<Identity>().id(Identity::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<Affiliate>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(own) = ctx.get::<Identity>(Identity::ID)? else {
            return Ok(());
        };
        let mut merged: BTreeMap<String, Affiliate> = BTreeMap::new();
        for raw in ctx.list_in::<Affiliate>(RAW_NAMESPACE)? {
            if raw.node_id != own.node_id && !raw.node_id.is_empty() {
                merge(merged.entry(raw.node_id.clone()).or_default(), &raw);
            }
        }
        for (id, affiliate) in merged {
            ctx.put(&id, affiliate)?;
        }
        ctx.keep_touched::<Affiliate>()
    }
}

/// Lists are united, missing values are filled in, present values stay.
fn merge(into: &mut Affiliate, from: &Affiliate) {
    into.node_id.clone_from(&from.node_id);
    extend(&mut into.addresses, &from.addresses);
    fill(&mut into.hostname, &from.hostname);
    fill(&mut into.nodename, &from.nodename);
    fill(&mut into.operating_system, &from.operating_system);
    if into.machine_type == MachineType::Unknown {
        into.machine_type = from.machine_type;
    }
    if into.control_plane.is_none() {
        into.control_plane.clone_from(&from.control_plane);
    }
    let (mesh, other): (&mut KubeSpanAffiliate, _) = (&mut into.kubespan, &from.kubespan);
    fill(&mut mesh.public_key, &other.public_key);
    mesh.address = mesh.address.or(other.address);
    extend(&mut mesh.additional_addresses, &other.additional_addresses);
    extend(&mut mesh.endpoints, &other.endpoints);
}

fn fill(into: &mut String, from: &str) {
    if into.is_empty() {
        from.clone_into(into);
    }
}

fn extend<T: Clone + PartialEq>(into: &mut Vec<T>, from: &[T]) {
    for item in from {
        if !into.contains(item) {
            into.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use controller::testing::Harness;

    use super::*;

    fn affiliate(id: &str, hostname: &str, addresses: &[&str]) -> Affiliate {
        let addresses = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
        Affiliate { node_id: id.into(), hostname: hostname.into(), addresses, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn registries_complete_each_other_and_the_own_node_is_left_alone() {
        let harness = Harness::with(AffiliateMergeController);
        harness.put("local", Identity { node_id: "me".into() });
        let put = |id: &str, spec| {
            harness.put_in(RAW_NAMESPACE, id, spec);
        };
        put("service/other", affiliate("other", "w-1", &["10.5.0.3"]));
        put("k8s/other", affiliate("other", "later", &["10.5.0.3", "10.5.0.4"]));
        put("service/me", affiliate("me", "me", &[]));
        harness.settle().await;
        assert_eq!(harness.ids::<Affiliate>(), ["other"]);
        let merged = harness.get::<Affiliate>("other").unwrap();
        assert_eq!((merged.hostname.as_str(), merged.addresses.len()), ("later", 2), "k8s comes first by name");
    }
}
