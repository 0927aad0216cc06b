//! The way to etcd on this node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use controller::{Ctx, Input, ReconcileError};
use etcd_edge::{Connector, Etcd, LOCAL_ENDPOINT, Tls, node_tls};
use resources::{
    secrets::{EtcdRootSecret, EtcdSecrets},
    v1alpha1::Service,
};

const SERVICE: &str = "etcd";
const PEER_PORT: u16 = 2380;

/// Connects when etcd is healthy, and again when the certificates change.
#[derive(Debug)]
pub(crate) struct LocalEtcd {
    connector: Arc<dyn Connector>,
    connected: Option<(u64, u64, Arc<dyn Etcd>)>,
}

impl LocalEtcd {
    pub(crate) fn new(connector: Arc<dyn Connector>) -> Self {
        Self { connector, connected: None }
    }

    pub(crate) fn inputs() -> Vec<Input> {
        vec![
            Input::weak::<Service>().id(SERVICE),
            Input::weak::<EtcdRootSecret>().id(EtcdRootSecret::ID),
            Input::weak::<EtcdSecrets>().id(EtcdSecrets::ID),
        ]
    }

    /// A connection to etcd here; none while it does not run well.
    pub(crate) async fn get(&mut self, ctx: &Ctx) -> Result<Option<Arc<dyn Etcd>>, ReconcileError> {
        if !service(ctx)?.is_some_and(|service| service.running && service.healthy) {
            self.connected = None;
            return Ok(None);
        }
        self.connection(ctx).await
    }

    /// A connection to etcd here, in whatever state that is; none while the node has no certificate for it.
    pub(crate) async fn connection(&mut self, ctx: &Ctx) -> Result<Option<Arc<dyn Etcd>>, ReconcileError> {
        let root = ctx.get::<EtcdRootSecret>(EtcdRootSecret::ID)?;
        let secrets = ctx.get::<EtcdSecrets>(EtcdSecrets::ID)?;
        let (Some(root), Some(secrets)) = (root, secrets) else {
            self.connected = None;
            return Ok(None);
        };
        let versions = (root.metadata.version, secrets.metadata.version);
        if let Some((root, secrets, etcd)) = &self.connected
            && (*root, *secrets) == versions
        {
            return Ok(Some(Arc::clone(etcd)));
        }
        let Some(tls) = node_tls(&root, &secrets) else { return Ok(None) };
        let etcd = self.connector.connect(&[LOCAL_ENDPOINT.to_owned()], &tls).await?;
        self.connected = Some((versions.0, versions.1, Arc::clone(&etcd)));
        Ok(Some(etcd))
    }
}

/// etcd's service here, where it is one.
pub(crate) fn service(ctx: &Ctx) -> Result<Option<Service>, ReconcileError> {
    Ok(ctx.get::<Service>(SERVICE)?.map(|service| Service::clone(&service)))
}

/// What a client of etcd shows and trusts.
pub(crate) fn tls(ctx: &Ctx) -> Result<Option<Tls>, ReconcileError> {
    let root = ctx.get::<EtcdRootSecret>(EtcdRootSecret::ID)?;
    let secrets = ctx.get::<EtcdSecrets>(EtcdSecrets::ID)?;
    Ok(root.zip(secrets).and_then(|(root, secrets)| node_tls(&root, &secrets)))
}

/// Where other members reach a member at these addresses.
pub(crate) fn peer_urls(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(|address| format!("https://{}", SocketAddr::new(*address, PEER_PORT))).collect()
}

#[cfg(test)]
pub(crate) mod testing {
    use controller::testing::Harness;
    use resources::values::CertificateAndKey;

    use super::*;

    /// Makes etcd on this node look as it does when it runs.
    pub(crate) fn run_etcd(harness: &Harness) {
        let pair = Some(CertificateAndKey::new("crt", "key"));
        harness.put(EtcdRootSecret::ID, EtcdRootSecret { etcd_ca: pair.clone() });
        harness.put(EtcdSecrets::ID, EtcdSecrets { etcd_admin: pair, ..EtcdSecrets::default() });
        harness.put(SERVICE, Service { running: true, healthy: true, unknown: false });
    }

    pub(crate) fn stop_etcd(harness: &Harness) {
        harness.put(SERVICE, Service { running: false, healthy: false, unknown: true });
    }
}
