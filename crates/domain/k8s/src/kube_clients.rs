//! Clients of the Kubernetes API with the node's two identities: the kubelet's and, on control planes, the local
//! administrator's. Recreated when the credentials change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use controller::{Ctx, ReconcileError};
use kube_edge::{Connect, KubeApi, NodeCache};
use kubernetes::{paths, yaml};
use serde_json::Value;
use sys::files;

use crate::Root;
use crate::render_secrets::fingerprint;

/// How often to look for the kubelet's kubeconfig while it has not joined yet.
pub(crate) const JOIN_POLL: Duration = Duration::from_millis(500);

/// A client that follows its credentials.
#[derive(Debug)]
struct Current {
    fingerprint: String,
    api: Arc<dyn KubeApi>,
}

/// One identity's client.
#[derive(Debug)]
pub(crate) struct Client {
    connect: Arc<dyn Connect>,
    current: Option<Current>,
}

/// A client, and whether it is another one than the last time.
pub(crate) struct Connected {
    pub(crate) api: Arc<dyn KubeApi>,
    pub(crate) is_new: bool,
}

impl Client {
    pub(crate) fn new(connect: Arc<dyn Connect>) -> Self {
        Self { connect, current: None }
    }

    /// With a kubeconfig that contains everything.
    pub(crate) async fn with_kubeconfig(&mut self, kubeconfig: &str) -> Result<Connected, ReconcileError> {
        self.connected(fingerprint(std::iter::once(kubeconfig.as_bytes())), kubeconfig).await
    }

    /// With the kubelet's identity; nothing until it has one.
    pub(crate) async fn of_kubelet(&mut self, root: &Root) -> Result<Option<Connected>, ReconcileError> {
        let Some(kubeconfig) = files::read(&root.at(paths::KUBELET_KUBECONFIG))? else { return Ok(None) };
        let kubeconfig = String::from_utf8_lossy(&kubeconfig).into_owned();
        let mut contents = vec![kubeconfig.clone().into_bytes()];
        // The kubelet renews its certificate in place.
        for path in named_files(&kubeconfig) {
            match files::read_current(&path)? {
                Some(content) => contents.push(content),
                None => return Ok(None),
            }
        }
        let fingerprint = fingerprint(contents.iter().map(Vec::as_slice));
        self.connected(fingerprint, &kubeconfig).await.map(Some)
    }

    async fn connected(&mut self, fingerprint: String, kubeconfig: &str) -> Result<Connected, ReconcileError> {
        if let Some(current) = &self.current
            && current.fingerprint == fingerprint
        {
            return Ok(Connected { api: Arc::clone(&current.api), is_new: false });
        }
        let api = self.connect.connect(kubeconfig).await?;
        self.current = Some(Current { fingerprint, api: Arc::clone(&api) });
        Ok(Connected { api, is_new: true })
    }

    /// The watch of all nodes, which wakes the controller; begun again with a new client. After a refused identity the next
    /// client is a new one.
    pub(crate) fn watch_nodes<'c>(
        &mut self,
        cache: &'c mut Option<NodeCache>,
        connected: &Connected,
        ctx: &Ctx,
    ) -> &'c NodeCache {
        if connected.is_new {
            *cache = None;
        }
        let cache = cache.get_or_insert_with(|| {
            let waker = ctx.waker();
            NodeCache::start(Arc::clone(&connected.api), None, move || waker.wake())
        });
        if cache.error().is_some_and(|error| error.is_unauthorized()) {
            self.forget();
        }
        cache
    }

    /// Makes the next client a new one.
    pub(crate) fn forget(&mut self) {
        self.current = None;
    }
}

/// Certificates and keys that a kubeconfig names by path.
fn named_files(kubeconfig: &str) -> Vec<PathBuf> {
    let documents = yaml::documents(kubeconfig).unwrap_or_default();
    let users = documents.iter().filter_map(|document| document["users"].as_array()).flatten();
    let mut files: Vec<PathBuf> = users
        .flat_map(|user| ["client-certificate", "client-key"].map(|key| user["user"][key].as_str().map(PathBuf::from)))
        .flatten()
        .collect();
    files.dedup();
    files
}

/// Text of a resource's version of an object's field, for statuses.
pub(crate) fn object(value: &Value) -> resources::object::Object {
    value.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_kubelet_kubeconfig_are_found_once() {
        let pem = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        let text = format!("users:\n- name: u\n  user:\n    client-certificate: {pem}\n    client-key: {pem}\n");
        assert_eq!(named_files(&text), [PathBuf::from(pem)]);
        assert_eq!(named_files("users: []"), Vec::<PathBuf>::new());
    }
}
