//! What `apid` follows on the state socket of this node, folded into one value.

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
use wire::talos::resource::definitions::cluster::MemberSpec;
use wire::talos::resource::definitions::network::{HostnameStatusSpec, NodeAddressSpec};
use wire::talos::resource::definitions::secrets::ApiCertsSpec;

use crate::node::{Forwarding, NodeState};

/// The types that `apid` reads, with their namespaces: what its state socket must show.
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
pub(crate) struct Seen {
    pub(crate) certificates: Option<Certificates>,
    pub(crate) node: NodeState,
}

/// Starts a watch for each type in `tasks`.
pub(crate) fn start(socket: &Path, tasks: &TaskSet) -> watch::Receiver<Seen> {
    let (sender, receiver) = watch::channel(Seen::default());
    let channel = transport::unix::channel(socket);
    for (namespace, kind) in TYPES {
        let (channel, sender) = (channel.clone(), sender.clone());
        transport::follow::spawn(tasks, channel, namespace, kind, move |contents| {
            sender.send_if_modified(|seen| {
                let mut next = seen.clone();
                take_up(&mut next, kind, contents);
                let changed = next != *seen;
                *seen = next;
                changed
            });
        });
    }
    receiver
}

/// Folds the contents of a type into what was seen. What does not decode counts as absent.
fn take_up(seen: &mut Seen, kind: &str, contents: &Contents) {
    match kind {
        "ApiCertificates.secrets.talos.dev" => {
            seen.certificates = contents.get("api").and_then(|form| certificates(&form.proto));
        }
        "MachineTypes.config.talos.dev" => {
            let kind = contents.get("machine-type").map(|form| form.yaml.trim());
            seen.node.forwarding = match kind {
                Some("controlplane" | "init") => Forwarding::Forwards,
                _ => Forwarding::Refuses,
            };
        }
        "NodeAddresses.net.talos.dev" => {
            let specs = contents.values().filter_map(|form| NodeAddressSpec::decode(form.proto.clone()).ok());
            seen.node.addresses =
                specs.flat_map(|spec| spec.addresses).filter_map(|prefix| to_address(&prefix.ip)).collect();
        }
        "HostnameStatuses.net.talos.dev" => {
            let specs = contents.values().filter_map(|form| HostnameStatusSpec::decode(form.proto.clone()).ok());
            seen.node.names = specs.flat_map(|spec| names(&spec)).collect();
        }
        "Members.cluster.talos.dev" => {
            let mut members = BTreeMap::new();
            for (id, form) in contents {
                let Ok(spec) = MemberSpec::decode(form.proto.clone()) else { continue };
                let addresses: Vec<_> = spec.addresses.iter().filter_map(|NetIp { ip }| to_address(ip)).collect();
                members.insert(id.clone(), addresses.clone());
                members.insert(spec.hostname, addresses);
            }
            seen.node.members = members;
        }
        _ => {}
    }
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
