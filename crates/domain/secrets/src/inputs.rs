//! Shared accessors of the controllers' inputs.

use std::net::IpAddr;

use controller::{Ctx, Input, ReconcileError};
use resources::network::{HostnameStatus, NetworkStatus, NodeAddress};

/// All current and former addresses of the node.
pub(crate) const ACCUMULATIVE: &str = "accumulative";
/// The same without those of pods and Services: the bridge of the pods comes with the first of them, and a certificate
/// with its address would restart the API server for nothing.
pub(crate) const OWN_ACCUMULATIVE: &str = "accumulative-no-k8s";
/// Addresses that others can route to, without those of pods and Services.
pub(crate) const OWN_ROUTED: &str = "routed-no-k8s";

pub(crate) fn addresses_input(id: &str) -> Input {
    Input::weak::<NodeAddress>().id(id)
}

/// The node's addresses, without lengths of networks; none before they are known.
pub(crate) fn addresses(ctx: &Ctx, id: &str) -> Result<Vec<IpAddr>, ReconcileError> {
    let known = ctx.get::<NodeAddress>(id)?;
    Ok(known.map(|known| known.addresses.iter().map(ipnet::IpNet::addr).collect()).unwrap_or_default())
}

pub(crate) fn hostname_input() -> Input {
    Input::weak::<HostnameStatus>().id(HostnameStatus::ID)
}

/// The node's name, short and with its domain (the same where there is none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) hostname: String,
    pub(crate) fqdn: String,
}

pub(crate) fn names(ctx: &Ctx) -> Result<Option<Names>, ReconcileError> {
    Ok(ctx.get::<HostnameStatus>(HostnameStatus::ID)?.filter(|status| !status.hostname.is_empty()).map(|status| {
        let hostname = status.hostname.clone();
        let fqdn = match status.domainname.as_str() {
            "" => hostname.clone(),
            domain => format!("{hostname}.{domain}"),
        };
        Names { hostname, fqdn }
    }))
}

pub(crate) fn network_input() -> Input {
    Input::weak::<NetworkStatus>().id(NetworkStatus::ID)
}

/// Whether names and addresses are final.
pub(crate) fn network_ready(ctx: &Ctx) -> Result<bool, ReconcileError> {
    Ok(ctx.get::<NetworkStatus>(NetworkStatus::ID)?.is_some_and(|s| s.address_ready && s.hostname_ready))
}
