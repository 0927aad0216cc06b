//! The layers of a setting become one.
//!
//! Ids in `network-config` are `LAYER/ID`, or `OPERATOR/LINK/ID` where an operator of a link made them; in `network` they
//! are `ID`. What several layers say about one id is put together by [`Layered::over`], from the lowest layer to the highest.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::Spec;
use resources::enums::ConfigLayer;
use resources::network::{
    AddressSpec, CONFIG_NAMESPACE, HostnameSpec, LinkSpec, OperatorSpec, ResolverSpec, RouteSpec, TimeServerSpec,
    Wireguard,
};

/// A layered setting.
pub trait Layered: Spec {
    /// The layer that this one is.
    fn layer(&self) -> ConfigLayer;

    /// This one over a lower one of the same id, or over one of the same layer with an id that comes earlier.
    #[must_use]
    fn over(&self, lower: &Self) -> Self;
}

/// Settings in `network-config` → those in `network`.
#[derive(Debug)]
pub struct MergeController<S> {
    name: &'static str,
    spec: PhantomData<fn() -> S>,
}

impl<S> MergeController<S> {
    const fn named(name: &'static str) -> Self {
        Self { name, spec: PhantomData }
    }
}

impl MergeController<AddressSpec> {
    /// Addresses.
    pub const fn address() -> Self {
        Self::named("network.AddressMergeController")
    }
}

impl MergeController<RouteSpec> {
    /// Routes.
    pub const fn route() -> Self {
        Self::named("network.RouteMergeController")
    }
}

impl MergeController<OperatorSpec> {
    /// Operators.
    pub const fn operator() -> Self {
        Self::named("network.OperatorMergeController")
    }
}

impl MergeController<HostnameSpec> {
    /// Host names.
    pub const fn hostname() -> Self {
        Self::named("network.HostnameMergeController")
    }
}

impl MergeController<ResolverSpec> {
    /// DNS servers.
    pub const fn resolver() -> Self {
        Self::named("network.ResolverMergeController")
    }
}

impl MergeController<TimeServerSpec> {
    /// Time servers.
    pub const fn time_server() -> Self {
        Self::named("network.TimeServerMergeController")
    }
}

impl MergeController<LinkSpec> {
    /// Links.
    pub const fn link() -> Self {
        Self::named("network.LinkMergeController")
    }
}

/// Of these the last one counts alone.
macro_rules! whole {
    ($($type:ty),*) => {
        $(impl Layered for $type {
            fn layer(&self) -> ConfigLayer {
                self.layer
            }
            fn over(&self, _: &Self) -> Self {
                self.clone()
            }
        })*
    };
}

whole!(AddressSpec, RouteSpec, OperatorSpec);

impl Layered for HostnameSpec {
    fn layer(&self) -> ConfigLayer {
        self.layer
    }

    /// In one layer the first name stays.
    fn over(&self, lower: &Self) -> Self {
        if lower.layer == self.layer { lower.clone() } else { self.clone() }
    }
}

/// A list is replaced by a higher layer; lists of one layer are joined.
macro_rules! lists {
    ($($type:ty, $field:ident;)*) => {
        $(impl Layered for $type {
            fn layer(&self) -> ConfigLayer {
                self.layer
            }
            fn over(&self, lower: &Self) -> Self {
                if lower.layer != self.layer {
                    return self.clone();
                }
                let mut joined = lower.clone();
                joined.$field.extend(self.$field.iter().cloned());
                joined
            }
        })*
    };
}

lists! {
    ResolverSpec, dns_servers;
    TimeServerSpec, time_servers;
}

/// `higher`, unless it is nothing.
fn either<T: PartialEq + Default + Clone>(higher: &T, lower: &T) -> T {
    if *higher == T::default() { lower.clone() } else { higher.clone() }
}

impl Layered for LinkSpec {
    fn layer(&self) -> ConfigLayer {
        self.layer
    }

    /// By field.
    fn over(&self, lower: &Self) -> Self {
        Self {
            name: either(&self.name, &lower.name),
            logical: self.logical || lower.logical,
            up: self.up || lower.up,
            mtu: either(&self.mtu, &lower.mtu),
            kind: either(&self.kind, &lower.kind),
            r#type: either(&self.r#type, &lower.r#type),
            parent_name: either(&self.parent_name, &lower.parent_name),
            bond_slave: either(&self.bond_slave, &lower.bond_slave),
            bridge_slave: either(&self.bridge_slave, &lower.bridge_slave),
            vlan: either(&self.vlan, &lower.vlan),
            bond_master: either(&self.bond_master, &lower.bond_master),
            bridge_master: either(&self.bridge_master, &lower.bridge_master),
            wireguard: tunnel_over(&self.wireguard, &lower.wireguard),
            layer: self.layer,
        }
    }
}

/// Peers with new keys are added; of known ones the lower form stays.
fn tunnel_over(higher: &Wireguard, lower: &Wireguard) -> Wireguard {
    let mut peers = lower.peers.clone();
    let is_new = |key: &String| lower.peers.iter().all(|known| known.public_key != *key);
    peers.extend(higher.peers.iter().filter(|peer| is_new(&peer.public_key)).cloned());
    Wireguard {
        private_key: either(&higher.private_key, &lower.private_key),
        public_key: either(&higher.public_key, &lower.public_key),
        listen_port: either(&higher.listen_port, &lower.listen_port),
        firewall_mark: either(&higher.firewall_mark, &lower.firewall_mark),
        peers,
    }
}

/// The id without its layer.
fn merged_id(id: &str) -> &str {
    let Some((layer, rest)) = id.split_once('/') else { return id };
    match layer {
        "dhcp4" | "dhcp6" | "vip" => rest.split_once('/').map_or(rest, |(_, rest)| rest),
        _ => rest,
    }
}

#[async_trait]
impl<S: Layered> Controller for MergeController<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<S>().namespace(CONFIG_NAMESPACE)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<S>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        // By id; the sort by layer keeps that order within each.
        let mut layers = ctx.list_in::<S>(CONFIG_NAMESPACE)?;
        layers.sort_by_key(|spec| spec.layer());
        let mut merged: BTreeMap<String, S> = BTreeMap::new();
        for spec in &layers {
            let id = merged_id(spec.id());
            let over = merged.get(id).map_or_else(|| S::clone(spec), |lower| spec.over(lower));
            merged.insert(id.to_owned(), over);
        }
        let mut first_error = None;
        for (id, spec) in merged {
            // One that is still being removed from the kernel must not keep the others back.
            if let Err(error) = ctx.put(&id, spec) {
                first_error.get_or_insert(error);
            }
        }
        ctx.keep_touched::<S>()?;
        first_error.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
