//! Names and addresses that certificates have to contain; they follow the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::{
    network::NodeAddress,
    runtime::MaintenanceServiceRequest,
    secrets::{CertSans, KubernetesRootSecret, OsRootSecret},
};

use crate::inputs::{self, ACCUMULATIVE, Names, OWN_ACCUMULATIVE};

/// The name on the certificate of the maintenance API.
pub(crate) use pki::MAINTENANCE_NAME;

const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Sorted, each once.
fn cert_sans(ips: impl IntoIterator<Item = IpAddr>, names: impl IntoIterator<Item = String>, fqdn: &str) -> CertSans {
    let pki::Sans { ips: named, dns: mut dns_names } = pki::Sans::parse(names);
    let mut ips: Vec<IpAddr> = ips.into_iter().chain(named).collect();
    ips.sort();
    ips.dedup();
    dns_names.sort();
    CertSans { ips, dns_names, fqdn: fqdn.to_owned() }
}

fn api(root: &OsRootSecret, addresses: Vec<IpAddr>, names: &Names) -> CertSans {
    let ips = root.cert_san_ips.iter().copied().chain(addresses).chain(LOCALHOST);
    let own = [names.hostname.clone(), names.fqdn.clone(), "localhost".to_owned()];
    cert_sans(ips, root.cert_san_dns_names.iter().cloned().chain(own), &names.fqdn)
}

fn kubernetes(root: &KubernetesRootSecret, addresses: Vec<IpAddr>, names: &Names) -> CertSans {
    let mut wanted = pki::Sans::parse(&root.cert_sans);
    if let Some(host) = url::Url::parse(&root.endpoint.0).ok().as_ref().and_then(url::Url::host_str) {
        wanted.push(host);
    }
    let ips = wanted.ips.iter().copied().chain(root.api_server_ips.iter().copied()).chain(addresses).chain(LOCALHOST);
    let service = [
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{}", root.dns_domain),
        "localhost".to_owned(),
        names.hostname.clone(),
        names.fqdn.clone(),
    ];
    cert_sans(ips, wanted.dns.into_iter().chain(service), &names.fqdn)
}

/// `secrets.APICertSANsController`.
#[derive(Debug)]
pub struct ApiCertSansController;

#[async_trait]
impl Controller for ApiCertSansController {
    fn name(&self) -> &'static str {
        "secrets.APICertSANsController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<OsRootSecret>().id(OsRootSecret::ID),
            inputs::addresses_input(OWN_ACCUMULATIVE),
            inputs::hostname_input(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<CertSans>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let root = ctx.get::<OsRootSecret>(OsRootSecret::ID)?;
        let addresses = inputs::addresses(ctx, OWN_ACCUMULATIVE)?;
        if let (Some(root), Some(names)) = (root, inputs::names(ctx)?)
            && !addresses.is_empty()
        {
            ctx.put(CertSans::API_ID, api(&root, addresses, &names))?;
        }
        ctx.keep_touched::<CertSans>()
    }
}

/// `secrets.KubernetesCertSANsController`.
#[derive(Debug)]
pub struct KubernetesCertSansController;

#[async_trait]
impl Controller for KubernetesCertSansController {
    fn name(&self) -> &'static str {
        "secrets.KubernetesCertSANsController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<KubernetesRootSecret>().id(KubernetesRootSecret::ID),
            inputs::addresses_input(OWN_ACCUMULATIVE),
            inputs::hostname_input(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<CertSans>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let root = ctx.get::<KubernetesRootSecret>(KubernetesRootSecret::ID)?;
        let addresses = inputs::addresses(ctx, OWN_ACCUMULATIVE)?;
        if let (Some(root), Some(names)) = (root, inputs::names(ctx)?)
            && !addresses.is_empty()
        {
            ctx.put(CertSans::K8S_ID, kubernetes(&root, addresses, &names))?;
        }
        ctx.keep_touched::<CertSans>()
    }
}

/// `secrets.MaintenanceCertSANsController`.
#[derive(Debug)]
pub struct MaintenanceCertSansController;

#[async_trait]
impl Controller for MaintenanceCertSansController {
    fn name(&self) -> &'static str {
        "secrets.MaintenanceCertSANsController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MaintenanceServiceRequest>(), Input::weak::<NodeAddress>().id(ACCUMULATIVE)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<CertSans>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let addresses = inputs::addresses(ctx, ACCUMULATIVE)?;
        if !ctx.list::<MaintenanceServiceRequest>()?.is_empty() && !addresses.is_empty() {
            let ips = addresses.into_iter().chain(LOCALHOST);
            let spec = cert_sans(ips, [MAINTENANCE_NAME.to_owned()], MAINTENANCE_NAME);
            ctx.put(CertSans::MAINTENANCE_ID, spec)?;
        }
        ctx.keep_touched::<CertSans>()
    }
}

#[cfg(test)]
mod tests;
