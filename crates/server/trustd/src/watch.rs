//! What `trustd` follows on its state socket, folded into one value.

use std::path::Path;

use bytes::Bytes;
use pki::{Authority, PemPair};
use prost::Message;
use stdx::Secret;
use stdx::tasks::TaskSet;
use tokio::sync::watch;
use transport::follow::Contents;
use wire::common::PemEncodedCertificateAndKey;
use wire::talos::resource::definitions::secrets::{OsRootSpec, TrustdCertsSpec};

/// The types that `trustd` reads, with their namespaces: what its state socket must show.
pub const TYPES: &[(&str, &str)] =
    &[("secrets", "TrustdCertificates.secrets.talos.dev"), ("secrets", "OSRootSecrets.secrets.talos.dev")];

/// The part of the root secrets that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) authority: PemPair,
    pub(crate) accepted: Vec<String>,
    pub(crate) token: Secret<String>,
}

/// All that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) server: Option<PemPair>,
    pub(crate) root: Option<Root>,
}

/// Starts to follow each type in `tasks`.
pub(crate) fn start(socket: &Path, tasks: &TaskSet) -> watch::Receiver<Seen> {
    let (sender, receiver) = watch::channel(Seen::default());
    let channel = transport::unix::channel(socket);
    for (namespace, kind) in TYPES {
        let sender = sender.clone();
        transport::follow::spawn(tasks, channel.clone(), namespace, kind, move |contents| {
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

fn take_up(seen: &mut Seen, kind: &str, contents: &Contents) {
    match kind {
        "TrustdCertificates.secrets.talos.dev" => {
            let spec = contents.get("trustd").and_then(|form| TrustdCertsSpec::decode(form.proto.clone()).ok());
            seen.server = spec.and_then(|spec| pair(spec.server?));
        }
        "OSRootSecrets.secrets.talos.dev" => {
            let spec = contents.get("os").and_then(|form| OsRootSpec::decode(form.proto.clone()).ok());
            seen.root = spec.and_then(root);
        }
        _ => {}
    }
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
