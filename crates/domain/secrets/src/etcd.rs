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
    issue::{self, CachedPair, KUBERNETES_LIFETIME},
};

/// `secrets.EtcdController`. Waits for the time, because etcd's certificates outlive a wrong clock.
#[derive(Debug, Default)]
pub struct EtcdController {
    server: CachedPair<(EtcdRootSecret, Vec<IpAddr>, Names, i64)>,
    peer: CachedPair<(EtcdRootSecret, Vec<IpAddr>, Names, i64)>,
    admin: CachedPair<(EtcdRootSecret, i64)>,
    api_server: CachedPair<(EtcdRootSecret, i64)>,
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
            *self = Self::default();
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
        let root = (*root.spec).clone();
        let own = (root.clone(), time.epoch);
        let named = (root, addresses.clone(), names.clone(), time.epoch);

        let validity = Validity::starting(ctx.clock().now(), KUBERNETES_LIFETIME);
        let leaf = |usage, name: &str, sans: Sans| {
            issue::leaf(&issue::authority(ca)?, Algorithm::EcdsaP256, usage, Subject::common_name(name), sans, validity)
        };
        // etcd's own gateway is a client with the server's certificate, so that one is good for both.
        let server = self
            .server
            .get(ctx, named.clone(), || leaf(Usage::Peer, &names.hostname, sans(&addresses, &names, true)))?;
        let peer = self.peer.get(ctx, named, || leaf(Usage::Peer, &names.hostname, sans(&addresses, &names, false)))?;
        let admin = self.admin.get(ctx, own.clone(), || leaf(Usage::Client, "talos", Sans::default()))?;
        let api_server = self.api_server.get(ctx, own, || leaf(Usage::Client, "kube-apiserver", Sans::default()))?;
        let spec = EtcdSecrets {
            etcd: Some(server),
            etcd_peer: Some(peer),
            etcd_admin: Some(admin),
            etcd_api_server: Some(api_server),
        };
        ctx.put(EtcdSecrets::ID, spec)?;
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
