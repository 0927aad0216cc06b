//! Operators run on their links, and their results are layers of settings.

mod dhcp4;
mod lease_specs;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use dhcp::{LinkAddress, Sockets};
use resources::enums::{OperationalState, Operator};
use resources::network::{
    CONFIG_NAMESPACE, HostnameSpec, HostnameStatus, LinkStatus, OperatorSpec, ResolverSpec, TimeServerSpec,
};
use resources::runtime::DevicesStatus;

use crate::held::devices_are_ready;
use crate::layer_specs;
use crate::route_config;
use dhcp4::Running;
use lease_specs::LeaseSpecs;

/// `network.OperatorSpecController`: runs a DHCP client for each `OperatorSpec` `dhcp4` whose link is up, and publishes its
/// lease as specs of the layer `operator`, with ids `dhcp4/LINK/ID`. They go when the client stops or its lease ends.
///
/// `dhcp6` and `vip` do not run in this version.
pub struct OperatorSpecController {
    sockets: Arc<dyn Sockets>,
    running: BTreeMap<String, Running>,
}

impl std::fmt::Debug for OperatorSpecController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperatorSpecController").field("running", &self.running.keys()).finish_non_exhaustive()
    }
}

impl OperatorSpecController {
    /// Clients that use `sockets`.
    pub fn new(sockets: Arc<dyn Sockets>) -> Self {
        Self { sockets, running: BTreeMap::new() }
    }

    /// Starts, restarts and stops clients.
    fn converge(&mut self, ctx: &mut Ctx, wanted: BTreeMap<String, (OperatorSpec, LinkAddress)>) {
        self.running.retain(|id, running| {
            let stays = wanted.get(id).is_some_and(|(spec, link)| running.is_for(spec, link));
            if !stays {
                running.stop();
            }
            stays
        });
        for (id, (spec, link)) in wanted {
            if !self.running.contains_key(&id) {
                let running = Running::start(ctx, spec, link, Arc::clone(&self.sockets));
                self.running.insert(id, running);
            }
        }
    }
}

#[async_trait]
impl Controller for OperatorSpecController {
    fn name(&self) -> &'static str {
        "network.OperatorSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<OperatorSpec>(),
            Input::weak::<LinkStatus>(),
            Input::weak::<HostnameStatus>().id(HostnameStatus::ID),
            Input::weak::<DevicesStatus>().id(DevicesStatus::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        layer_specs::outputs()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let mut wanted = BTreeMap::new();
        if devices_are_ready(ctx)? {
            for spec in ctx.list::<OperatorSpec>()? {
                let link = ctx.get::<LinkStatus>(&spec.link_name)?;
                if let Some(link) = link.as_deref().and_then(|link| runs_on(&spec, link)) {
                    wanted.insert(spec.id().to_owned(), (OperatorSpec::clone(&spec), link));
                }
            }
        }
        self.converge(ctx, wanted);
        let hostname = ctx.get::<HostnameStatus>(HostnameStatus::ID)?;
        for (id, running) in &self.running {
            running.tell_name(hostname.as_deref());
            if let Some(lease) = running.lease() {
                publish(ctx, id, LeaseSpecs::of(&lease, &running.spec))?;
            }
        }
        layer_specs::keep_touched(ctx)
    }
}

/// The link of an operator that can run now: DHCP on an Ethernet link that is up.
fn runs_on(spec: &OperatorSpec, link: &LinkStatus) -> Option<LinkAddress> {
    let is_up = matches!(link.operational_state, OperationalState::UP | OperationalState::UNKNOWN);
    if spec.operator != Operator::Dhcp4 || (spec.require_up && !is_up) {
        return None;
    }
    let hardware = link.hardware_addr.0.as_slice().try_into().ok()?;
    Some(LinkAddress { name: spec.link_name.clone(), index: link.index, hardware })
}

/// `from` is the operator and its link.
fn publish(ctx: &mut Ctx, from: &str, specs: LeaseSpecs) -> Result<(), ReconcileError> {
    let LeaseSpecs { address, routes, link, hostname, resolvers, time_servers } = specs;
    if let Some(prefix) = address.address {
        let id = format!("{from}/{}/{prefix}", address.link_name);
        ctx.put_in(CONFIG_NAMESPACE, &id, address)?;
    }
    for route in routes {
        route_config::put(ctx, from, route)?;
    }
    if let Some(link) = link {
        ctx.put_in(CONFIG_NAMESPACE, &format!("{from}/{}", link.name), link)?;
    }
    if let Some(hostname) = hostname {
        ctx.put_in(CONFIG_NAMESPACE, &format!("{from}/{}", HostnameSpec::ID), hostname)?;
    }
    if let Some(resolvers) = resolvers {
        ctx.put_in(CONFIG_NAMESPACE, &format!("{from}/{}", ResolverSpec::ID), resolvers)?;
    }
    if let Some(time_servers) = time_servers {
        ctx.put_in(CONFIG_NAMESPACE, &format!("{from}/{}", TimeServerSpec::ID), time_servers)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
