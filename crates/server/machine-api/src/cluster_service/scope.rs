//! What a health check may reach.
//!
//! Every role may ask for a check, and a node makes it with its own reach and credentials. So a check goes to nodes of the
//! cluster and to the endpoint of its API and nowhere else, unless an administrator asks, who may send a node anywhere
//! anyway.

use std::collections::BTreeSet;
use std::net::IpAddr;

use resources::cluster::Member;
use resources::k8s::Endpoint;
use resources::network::NodeAddress;
use resources::secrets::KubernetesRootSecret;
use state::{StateError, Store};
use tonic::Status;
use url::{Host, Url};

use crate::access::quoted;

/// The most nodes that one check names.
const MAX_NODES: usize = 1024;

/// Whether the caller may name what the node does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Admin,
    Other,
}

/// What this node knows of its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Lower case.
    pub(super) names: BTreeSet<String>,
}

impl Known {
    /// From the members that discovery tells, the API servers, the cluster's endpoint, and the node itself.
    pub(super) fn of(store: &Store) -> Result<Self, StateError> {
        let mut known = Self::default();
        for member in store.list_as::<Member>()? {
            known.addresses.extend(member.addresses.iter().map(IpAddr::to_canonical));
            known.names.extend([member.hostname.to_lowercase(), member.id().to_lowercase()]);
        }
        for endpoint in store.list_as::<Endpoint>()? {
            known.addresses.extend(endpoint.addresses.iter().map(IpAddr::to_canonical));
        }
        for own in store.list_as::<NodeAddress>()? {
            known.addresses.extend(own.addresses.iter().map(|net| net.addr().to_canonical()));
        }
        if let Some(root) = store.get_as::<KubernetesRootSecret>(KubernetesRootSecret::ID)?
            && let Some(host) = Url::parse(&root.endpoint.0).ok().as_ref().and_then(Url::host)
        {
            known.add(&host);
        }
        Ok(known)
    }

    fn add(&mut self, host: &Host<&str>) {
        match host {
            Host::Domain(name) => drop(self.names.insert(name.to_lowercase())),
            Host::Ipv4(ip) => drop(self.addresses.insert((*ip).into())),
            Host::Ipv6(ip) => drop(self.addresses.insert(IpAddr::from(*ip).to_canonical())),
        }
    }

    fn has(&self, host: &Host<&str>) -> bool {
        match host {
            Host::Domain(name) => self.names.contains(&name.to_lowercase()),
            Host::Ipv4(ip) => self.addresses.contains(&IpAddr::from(*ip)),
            Host::Ipv6(ip) => self.addresses.contains(&IpAddr::from(*ip).to_canonical()),
        }
    }

    /// The nodes that a client named.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for texts that are no addresses, `PERMISSION_DENIED` for nodes that are not of the cluster.
    pub(super) fn nodes(&self, asker: Asker, named: &[String]) -> Result<Vec<IpAddr>, Status> {
        if named.len() > MAX_NODES {
            return Err(Status::invalid_argument(format!("a check names at most {MAX_NODES} nodes")));
        }
        let node = |text: &String| {
            let address: IpAddr = text
                .parse()
                .map_err(|_| Status::invalid_argument(format!("node {:?} is not an IP address", quoted(text))))?;
            if asker == Asker::Other && !self.addresses.contains(&address.to_canonical()) {
                return Err(Status::permission_denied(format!(
                    "{address} is not known as a node of this cluster: naming it needs role os:admin"
                )));
            }
            Ok(address)
        };
        named.iter().map(node).collect()
    }

    /// The endpoint of Kubernetes that a client named; nothing for an empty text.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what is no plain HTTPS URL, `PERMISSION_DENIED` for hosts that are not of the cluster.
    pub(super) fn endpoint(&self, asker: Asker, named: &str) -> Result<Option<String>, Status> {
        if named.is_empty() {
            return Ok(None);
        }
        let invalid = |why| Status::invalid_argument(format!("Kubernetes endpoint {:?}: {why}", quoted(named)));
        let url = Url::parse(named).map_err(|_| invalid("not a URL"))?;
        if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("not an HTTPS URL without credentials"));
        }
        let host = url.host().ok_or_else(|| invalid("no host"))?;
        if asker == Asker::Other && !self.has(&host) {
            return Err(Status::permission_denied(format!(
                "{} is not known as an endpoint of this cluster: naming it needs role os:admin",
                quoted(&host.to_string())
            )));
        }
        Ok(Some(named.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use resources::values::Url as EndpointUrl;
    use tonic::Code;

    use super::*;

    fn known() -> Known {
        let store = Store::new();
        let addresses = vec!["10.5.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        store.put("CP-1", Member { hostname: "CP-1".into(), addresses, ..Member::default() }, "").unwrap();
        store.put("kube-apiserver", Endpoint { addresses: vec!["10.5.0.4".parse().unwrap()] }, "").unwrap();
        store.put("routed", NodeAddress { addresses: vec!["10.5.0.3/24".parse().unwrap()] }, "").unwrap();
        let endpoint = EndpointUrl("https://k8s.example.org:6443".into());
        store.put(KubernetesRootSecret::ID, KubernetesRootSecret { endpoint, ..Default::default() }, "").unwrap();
        Known::of(&store).unwrap()
    }

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_reader_names_nodes_of_the_cluster_and_no_others() {
        let own = names(&["10.5.0.2", "10.5.0.3", "10.5.0.4", "fd00::2", "::ffff:10.5.0.2"]);
        assert_eq!(known().nodes(Asker::Other, &own).unwrap().len(), own.len());
        for foreign in ["192.0.2.1", "127.0.0.1", "169.254.169.254", "10.5.0.9"] {
            let refused = known().nodes(Asker::Other, &names(&["10.5.0.2", foreign])).unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{foreign}");
            assert_eq!(known().nodes(Asker::Admin, &names(&[foreign])).unwrap().len(), 1);
        }
        for asker in [Asker::Admin, Asker::Other] {
            for malformed in [names(&["cp-1"]), names(&[""]), vec!["10.5.0.2".to_owned(); 1025]] {
                assert_eq!(known().nodes(asker, &malformed).unwrap_err().code(), Code::InvalidArgument);
            }
        }
    }

    #[test]
    fn a_reader_names_endpoints_of_the_cluster_and_no_others() {
        assert_eq!(known().endpoint(Asker::Other, "").unwrap(), None);
        for own in ["https://10.5.0.2:6443", "https://[fd00::2]:6443", "https://cp-1:6443", "https://K8S.example.org"] {
            assert_eq!(known().endpoint(Asker::Other, own).unwrap().as_deref(), Some(own));
        }
        for foreign in ["https://192.0.2.1:6443", "https://attacker.example:443/x", "https://169.254.169.254"] {
            assert_eq!(
                known().endpoint(Asker::Other, foreign).unwrap_err().code(),
                Code::PermissionDenied,
                "{foreign}"
            );
            assert!(known().endpoint(Asker::Admin, foreign).unwrap().is_some());
        }
        for malformed in ["http://10.5.0.2:6443", "https://a:b@10.5.0.2", "file:///etc/passwd", "10.5.0.2:6443", "x"] {
            for asker in [Asker::Admin, Asker::Other] {
                assert_eq!(
                    known().endpoint(asker, malformed).unwrap_err().code(),
                    Code::InvalidArgument,
                    "{malformed}"
                );
            }
        }
    }
}
