//! The state that `trustd` follows on its state socket, folded into one value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use bytes::Bytes;
use pki::{Authority, PemPair};
use prost::Message;
use stdx::Secret;
use stdx::tasks::TaskSet;
use tokio::sync::watch;
use transport::follow::Contents;
use wire::common::PemEncodedCertificateAndKey;
use wire::talos::resource::definitions::cluster::MemberSpec;
use wire::talos::resource::definitions::enums::MachineType;
use wire::talos::resource::definitions::k8s::EndpointSpec;
use wire::talos::resource::definitions::network::{HostnameStatusSpec, NodeAddressSpec};
use wire::talos::resource::definitions::secrets::{OsRootSpec, TrustdCertsSpec};

use crate::names::Reserved;

/// The types that `trustd` reads, with their namespaces: the content of its state socket.
pub const TYPES: &[(&str, &str)] = &[
    ("secrets", "TrustdCertificates.secrets.talos.dev"),
    ("secrets", "OSRootSecrets.secrets.talos.dev"),
    ("network", "NodeAddresses.net.talos.dev"),
    ("network", "HostnameStatuses.net.talos.dev"),
    ("controlplane", "Endpoints.kubernetes.talos.dev"),
    ("cluster", "Members.cluster.talos.dev"),
];

/// Number of types with control plane names.
const TELL_NAMES: usize = 4;

/// The part of the root secrets that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) authority: PemPair,
    pub(crate) accepted: Vec<String>,
    pub(crate) token: Secret<String>,
}

/// All that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WatchedState {
    pub(crate) server: Option<PemPair>,
    pub(crate) root: Option<Root>,
    /// Control plane names by type: this node's own, and those of the others.
    reserved: BTreeMap<&'static str, Reserved>,
}

impl WatchedState {
    /// Whether each type with control plane names has been read.
    pub(crate) fn has_reserved(&self) -> bool {
        self.reserved.len() == TELL_NAMES
    }

    /// Names that workers cannot get.
    pub(crate) fn reserved(&self) -> Reserved {
        let mut all = Reserved::default();
        for reserved in self.reserved.values() {
            all.addresses.extend(&reserved.addresses);
            all.names.extend(reserved.names.iter().cloned());
        }
        all
    }
}

/// Starts to follow each type in `tasks`.
pub(crate) fn start(socket: &Path, tasks: &TaskSet) -> watch::Receiver<WatchedState> {
    transport::follow::state(socket, TYPES, tasks, take_up)
}

fn take_up(seen: &mut WatchedState, kind: &'static str, contents: &Contents) {
    match kind {
        "TrustdCertificates.secrets.talos.dev" => {
            let spec = contents.get("trustd").and_then(|form| TrustdCertsSpec::decode(form.clone()).ok());
            seen.server = spec.and_then(|spec| pair(spec.server?));
        }
        "OSRootSecrets.secrets.talos.dev" => {
            let spec = contents.get("os").and_then(|form| OsRootSpec::decode(form.clone()).ok());
            seen.root = spec.and_then(root);
        }
        "NodeAddresses.net.talos.dev" => {
            let specs = decoded::<NodeAddressSpec>(contents).flat_map(|spec| spec.addresses);
            let addresses = specs.filter_map(|prefix| address(&prefix.ip)).collect();
            seen.reserved.insert(kind, Reserved { addresses, ..Reserved::default() });
        }
        "HostnameStatuses.net.talos.dev" => {
            let mut names = BTreeSet::new();
            for spec in decoded::<HostnameStatusSpec>(contents) {
                names.insert(format!("{}.{}", spec.hostname, spec.domainname));
                names.insert(spec.hostname);
            }
            seen.reserved.insert(kind, reserved(BTreeSet::new(), names));
        }
        "Endpoints.kubernetes.talos.dev" => {
            let specs = decoded::<EndpointSpec>(contents).flat_map(|spec| spec.addresses);
            let addresses = specs.filter_map(|one| address(&one.ip)).collect();
            seen.reserved.insert(kind, Reserved { addresses, ..Reserved::default() });
        }
        "Members.cluster.talos.dev" => {
            let (mut addresses, mut names) = (BTreeSet::new(), BTreeSet::new());
            for (id, form) in contents {
                let Ok(spec) = MemberSpec::decode(form.clone()) else { continue };
                if matches!(spec.machine_type(), MachineType::TypeInit | MachineType::TypeControlPlane) {
                    addresses.extend(spec.addresses.iter().filter_map(|one| address(&one.ip)));
                    names.extend([id.clone(), spec.hostname]);
                }
            }
            seen.reserved.insert(kind, reserved(addresses, names));
        }
        _ => {}
    }
}

/// The specs that decode; others count as absent.
fn decoded<M: Message + Default>(contents: &Contents) -> impl Iterator<Item = M> {
    contents.values().filter_map(|form| M::decode(form.clone()).ok())
}

fn reserved(addresses: BTreeSet<IpAddr>, names: BTreeSet<String>) -> Reserved {
    let names = names.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    Reserved { addresses, names: names.filter(|name| !name.is_empty()).collect() }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_canonical())
}

fn root(spec: OsRootSpec) -> Option<Root> {
    let authority = pair(spec.issuing_ca?)?;
    // A worker has the certificate of the authority without its key, and signs nothing.
    Authority::from_pair(&authority).ok()?;
    let accepted = spec.accepted_c_as.iter().filter_map(|ca| text(&ca.crt)).collect();
    Some(Root { authority, accepted, token: Secret::new(spec.token) })
}

fn pair(pair: PemEncodedCertificateAndKey) -> Option<PemPair> {
    Some(PemPair::new(text(&pair.crt)?, text(&pair.key)?)).filter(|pair| !pair.crt.is_empty())
}

fn text(bytes: &Bytes) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use wire::common::NetIp;

    use super::*;

    fn contents(of: &[(&str, Vec<u8>)]) -> Contents {
        let form = |proto: &Vec<u8>| Bytes::from(proto.clone());
        of.iter().map(|(id, proto)| ((*id).to_owned(), form(proto))).collect()
    }

    fn member(hostname: &str, last: u8, kind: MachineType) -> Vec<u8> {
        let mut spec = MemberSpec { hostname: hostname.into(), ..MemberSpec::default() };
        spec.addresses = vec![NetIp { ip: vec![10, 5, 0, last].into() }];
        spec.set_machine_type(kind);
        spec.encode_to_vec()
    }

    #[test]
    fn names_of_control_planes_are_reserved_and_follow_what_is_seen() {
        let mut seen = WatchedState::default();
        let members = [
            ("cp-2", member("CP-2.example.org", 12, MachineType::TypeControlPlane)),
            ("worker-1", member("worker-1", 13, MachineType::TypeWorker)),
        ];
        take_up(&mut seen, "Members.cluster.talos.dev", &contents(&members));
        let own = HostnameStatusSpec { hostname: "cp-1".into(), domainname: String::new() };
        take_up(&mut seen, "HostnameStatuses.net.talos.dev", &contents(&[("hostname", own.encode_to_vec())]));
        let api = EndpointSpec { addresses: vec![NetIp { ip: vec![10, 5, 0, 14].into() }] };
        take_up(&mut seen, "Endpoints.kubernetes.talos.dev", &contents(&[("kube-apiserver", api.encode_to_vec())]));
        let reserved = seen.reserved();
        assert_eq!(reserved.names, ["cp-1", "cp-2", "cp-2.example.org"].map(str::to_owned).into());
        assert_eq!(reserved.addresses, [[10, 5, 0, 12], [10, 5, 0, 14]].map(IpAddr::from).into());
        take_up(&mut seen, "Members.cluster.talos.dev", &Contents::new());
        assert_eq!(seen.reserved().addresses, [IpAddr::from([10, 5, 0, 14])].into());
    }
}
