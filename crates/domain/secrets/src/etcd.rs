//! The certificates of etcd and of its clients on this node, on control planes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use pki::{Algorithm, Sans, Subject, Usage, Validity};
use resources::{
    secrets::{EtcdRootSecret, EtcdSecrets},
    time::TimeStatus,
};

use crate::{
    inputs::{self, Names, OWN_ROUTED},
    issue::{self, KUBERNETES_LIFETIME, Leaf, Renewal},
};

/// `secrets.EtcdController`. Waits for the time, because etcd's certificates outlive a wrong clock.
#[derive(Debug, Default)]
pub struct EtcdController {
    renewal: Renewal<(EtcdRootSecret, Vec<IpAddr>, Names, i64)>,
}

#[async_trait]
impl Controller for EtcdController {
    fn name(&self) -> &'static str {
        "secrets.EtcdController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<EtcdRootSecret>().id(EtcdRootSecret::ID),
            Input::weak::<TimeStatus>().id(TimeStatus::ID),
            inputs::addresses_input(OWN_ROUTED),
            inputs::hostname_input(),
            inputs::network_input(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<EtcdSecrets>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let root = ctx.get::<EtcdRootSecret>(EtcdRootSecret::ID)?;
        let ca = root.as_ref().and_then(|root| root.etcd_ca.as_ref());
        let (Some(root), Some(ca)) = (&root, ca) else {
            self.renewal.forget();
            ctx.destroy::<EtcdSecrets>(EtcdSecrets::ID)?;
            return Ok(());
        };
        let addresses = inputs::addresses(ctx, OWN_ROUTED)?;
        let time = ctx.get::<TimeStatus>(TimeStatus::ID)?.filter(|status| status.synced);
        let (Some(names), Some(time), true) = (inputs::names(ctx)?, time, inputs::network_ready(ctx)?) else {
            return Ok(());
        };
        if addresses.is_empty() {
            return Ok(());
        }
        let from = ((*root.spec).clone(), addresses.clone(), names.clone(), time.epoch);
        if self.renewal.is_current(ctx, &from) {
            return Ok(());
        }

        let authority = issue::authority(ca)?;
        let now = ctx.clock().now();
        let leaf = |usage, name: &str, sans: &Sans| {
            let validity = Validity::starting(now, KUBERNETES_LIFETIME);
            issue::leaf(&authority, Algorithm::EcdsaP256, usage, Subject::common_name(name), sans.clone(), validity)
        };
        let peer_sans = sans(&addresses, &names, false);
        let server_sans = sans(&addresses, &names, true);
        let none = Sans::default();
        // etcd's own gateway is a client with the server's certificate, so that one is good for both.
        let server = leaf(Usage::Peer, &names.hostname, &server_sans)?;
        let peer = leaf(Usage::Peer, &names.hostname, &peer_sans)?;
        let admin = leaf(Usage::Client, "talos", &none)?;
        let api_server = leaf(Usage::Client, "kube-apiserver", &none)?;
        let due = [&server, &peer, &admin, &api_server].into_iter().map(|leaf| leaf.renew_at).min().unwrap_or(now);
        let some = |leaf: Leaf| Some(leaf.pair);
        let spec = EtcdSecrets {
            etcd: some(server),
            etcd_peer: some(peer),
            etcd_admin: some(admin),
            etcd_api_server: some(api_server),
        };
        ctx.put(EtcdSecrets::ID, spec)?;
        self.renewal.issued(ctx, from, due);
        Ok(())
    }
}

/// Names and addresses of this member; clients also reach it as localhost.
fn sans(addresses: &[IpAddr], names: &Names, local: bool) -> Sans {
    let mut sans = Sans { ips: addresses.to_vec(), dns: Vec::new() };
    sans.push(&names.hostname);
    sans.push(&names.fqdn);
    if local {
        sans.push("localhost");
        sans.push(&Ipv4Addr::LOCALHOST.to_string());
        sans.push(&Ipv6Addr::LOCALHOST.to_string());
    }
    sans
}

#[cfg(test)]
mod tests;
