//! The state that `apid` follows on this node's state socket, folded into one value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use stdx::Secret;
use stdx::tasks::TaskSet;
use tokio::sync::watch;
use transport::follow::Contents;
use wire::common::{NetIp, PemEncodedCertificateAndKey};
use wire::resource::config::MachineTypeSpec;
use wire::resource::config::machine_type_spec::MachineType;
use wire::talos::resource::definitions::cluster::MemberSpec;
use wire::talos::resource::definitions::network::{HostnameStatusSpec, NodeAddressSpec};
use wire::talos::resource::definitions::secrets::ApiCertsSpec;

use crate::node::{Forwarding, NodeState};

/// The types that `apid` reads, with their namespaces: the content of its state socket.
pub const TYPES: &[(&str, &str)] = &[
    ("secrets", "ApiCertificates.secrets.talos.dev"),
    ("config", "MachineTypes.config.talos.dev"),
    ("network", "NodeAddresses.net.talos.dev"),
    ("network", "HostnameStatuses.net.talos.dev"),
    ("cluster", "Members.cluster.talos.dev"),
];

/// The certificates of the node, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    pub(crate) server: (String, Secret<String>),
    pub(crate) client: Option<(String, Secret<String>)>,
    pub(crate) accepted: Vec<String>,
}

/// All that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WatchedState {
    pub(crate) certificates: Option<Certificates>,
    pub(crate) node: NodeState,
}

/// Starts a watch for each type in `tasks`.
pub(crate) fn start(socket: &Path, tasks: &TaskSet) -> watch::Receiver<WatchedState> {
    transport::follow::state(socket, TYPES, tasks, take_up)
}

/// Folds the contents of a type into what was seen. What does not decode counts as absent.
fn take_up(seen: &mut WatchedState, kind: &str, contents: &Contents) {
    match kind {
        "ApiCertificates.secrets.talos.dev" => {
            seen.certificates = contents.get("api").and_then(certificates);
        }
        "MachineTypes.config.talos.dev" => {
            let spec = contents.get("machine-type").and_then(|form| MachineTypeSpec::decode(form.clone()).ok());
            seen.node.forwarding = match spec.map(|spec| spec.machine_type()) {
                Some(MachineType::ControlPlane | MachineType::Init) => Forwarding::Forwards,
                Some(MachineType::Worker | MachineType::Unknown) | None => Forwarding::Refuses,
            };
        }
        "NodeAddresses.net.talos.dev" => {
            let specs = contents.values().filter_map(|form| NodeAddressSpec::decode(form.clone()).ok());
            seen.node.addresses =
                specs.flat_map(|spec| spec.addresses).filter_map(|prefix| to_address(&prefix.ip)).collect();
        }
        "HostnameStatuses.net.talos.dev" => {
            let specs = contents.values().filter_map(|form| HostnameStatusSpec::decode(form.clone()).ok());
            seen.node.names = specs.flat_map(|spec| names(&spec)).collect();
        }
        "Members.cluster.talos.dev" => {
            let specs = contents
                .iter()
                .filter_map(|(id, form)| MemberSpec::decode(form.clone()).ok().map(|spec| (id.clone(), spec)));
            seen.node.members = by_name(specs.collect());
        }
        _ => {}
    }
}

/// Addresses of members by name. A member's own name, which no other member has, comes before all host names; a host name
/// that several members claim is that of the lowest node id, as it is with the names of members.
fn by_name(mut members: Vec<(String, MemberSpec)>) -> BTreeMap<String, Vec<IpAddr>> {
    members.sort_by(|(_, a), (_, b)| a.node_id.cmp(&b.node_id));
    let addresses =
        |spec: &MemberSpec| spec.addresses.iter().filter_map(|NetIp { ip }| to_address(ip)).collect::<Vec<_>>();
    let mut named: BTreeMap<_, _> = members.iter().map(|(id, spec)| (id.clone(), addresses(spec))).collect();
    for (_, spec) in members.iter().filter(|(_, spec)| !spec.hostname.is_empty()) {
        named.entry(spec.hostname.clone()).or_insert_with(|| addresses(spec));
    }
    named
}

fn certificates(proto: &Bytes) -> Option<Certificates> {
    let spec = ApiCertsSpec::decode(proto.clone()).ok()?;
    Some(Certificates {
        server: pair(spec.server?)?,
        client: spec.client.and_then(pair),
        accepted: spec.accepted_c_as.iter().filter_map(|ca| text(&ca.crt)).collect(),
    })
}

fn pair(pair: PemEncodedCertificateAndKey) -> Option<(String, Secret<String>)> {
    let certificate = text(&pair.crt).filter(|certificate| !certificate.is_empty())?;
    Some((certificate, Secret::new(text(&pair.key)?)))
}

fn text(bytes: &Bytes) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(ToOwned::to_owned)
}

fn to_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn names(spec: &HostnameStatusSpec) -> BTreeSet<String> {
    let mut names = BTreeSet::from([spec.hostname.clone()]);
    if !spec.domainname.is_empty() {
        names.insert(format!("{}.{}", spec.hostname, spec.domainname));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_planes_forward_and_what_does_not_decode_does_not() {
        let spec = |kind: MachineType| MachineTypeSpec { machine_type: kind.into() }.encode_to_vec();
        for (proto, forwarding) in [
            (spec(MachineType::ControlPlane), Forwarding::Forwards),
            (spec(MachineType::Init), Forwarding::Forwards),
            (spec(MachineType::Worker), Forwarding::Refuses),
            (spec(MachineType::Unknown), Forwarding::Refuses),
            (b"controlplane".to_vec(), Forwarding::Refuses),
        ] {
            let mut seen = WatchedState::default();
            let contents = Contents::from([("machine-type".to_owned(), Bytes::from(proto.clone()))]);
            take_up(&mut seen, "MachineTypes.config.talos.dev", &contents);
            assert_eq!(seen.node.forwarding, forwarding, "{proto:?}");
        }
    }

    #[test]
    fn a_name_that_two_members_claim_is_that_of_the_lowest_node_id() {
        let member = |id: &str, node_id: &str, hostname: &str, last: u8| {
            let addresses = vec![NetIp { ip: vec![10, 5, 0, last].into() }];
            (
                id.to_owned(),
                MemberSpec { node_id: node_id.into(), hostname: hostname.into(), addresses, ..Default::default() },
            )
        };
        let members = vec![
            member("node-bbb", "bbb", "node", 3),
            member("node", "aaa", "node", 2),
            member("other", "ccc", "node-bbb", 4),
            member("third", "ddd", "shared.example", 5),
            member("fourth", "aab", "shared.example", 6),
        ];
        let ip = |last: u8| vec![IpAddr::from([10, 5, 0, last])];
        for members in [members.clone(), members.into_iter().rev().collect()] {
            let named = by_name(members);
            assert_eq!((&named["node"], &named["node-bbb"]), (&ip(2), &ip(3)));
            assert_eq!((&named["shared.example"], &named["third"]), (&ip(6), &ip(5)));
        }
    }
}
