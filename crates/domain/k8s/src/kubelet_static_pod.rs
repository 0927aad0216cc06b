//! `k8s.KubeletStaticPodController`: the status of this node's static pods, as reported by the kubelet.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kube_edge::{Connect, KubeletApi};
use resources::k8s::{Nodename, StaticPodStatus};
use resources::secrets::KubernetesDynamicCerts;
use resources::values::CertificateAndKey;
use serde_json::{Value, json};
use sys::files;

use crate::Root;
use crate::kube_clients::object;

/// The kubelet's serving certificate: self-signed, for the node's name.
const SERVING_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet.crt";
const KUBELET: &str = "https://127.0.0.1:10250";
/// Source annotation of a pod; pods from the API server have `api`.
const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// While something is not ready, and when all is.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct KubeletStaticPodController {
    root: Root,
    connect: Arc<dyn Connect>,
    /// With the kubeconfig that it was made from.
    client: Option<(String, Arc<dyn KubeletApi>)>,
}

impl KubeletStaticPodController {
    #[must_use]
    pub fn new(root: Root, connect: Arc<dyn Connect>) -> Self {
        Self { root, connect, client: None }
    }

    async fn client(&mut self, kubeconfig: String) -> Result<Arc<dyn KubeletApi>, ReconcileError> {
        if let Some((known, client)) = &self.client
            && *known == kubeconfig
        {
            return Ok(Arc::clone(client));
        }
        let client = self.connect.connect_kubelet(&kubeconfig).await?;
        self.client = Some((kubeconfig, Arc::clone(&client)));
        Ok(client)
    }
}

#[async_trait]
impl Controller for KubeletStaticPodController {
    fn name(&self) -> &'static str {
        "k8s.KubeletStaticPodController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<Nodename>().id(Nodename::ID),
            Input::weak::<KubernetesDynamicCerts>().id(KubernetesDynamicCerts::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<StaticPodStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let nodename = ctx.get::<Nodename>(Nodename::ID)?;
        let certs = ctx.get::<KubernetesDynamicCerts>(KubernetesDynamicCerts::ID)?;
        let (Some(nodename), Some(certs)) = (nodename, certs) else {
            return ctx.keep_touched::<StaticPodStatus>();
        };
        let Some(identity) = &certs.api_server_kubelet_client else {
            return ctx.keep_touched::<StaticPodStatus>();
        };
        let Some(serving) = files::read_current(&self.root.at(SERVING_CERTIFICATE))? else {
            ctx.requeue_after(SOON);
            return Ok(());
        };
        let client = self.client(kubeconfig(&nodename.nodename, &serving, identity)).await?;
        let pods = match client.pods().await {
            Ok(pods) => pods,
            Err(error) => {
                tracing::debug!(error = %stdx::error_chain(&error), "status of static pods is not known");
                ctx.requeue_after(SOON);
                return Ok(());
            }
        };
        let mut all_ready = true;
        for pod in pods.iter().filter(|pod| is_static(pod)) {
            all_ready &= is_ready(pod);
            let status = StaticPodStatus { pod_status: object(&pod["status"]) };
            ctx.put(&id(pod), status)?;
        }
        ctx.requeue_after(if all_ready { LATER } else { SOON });
        ctx.keep_touched::<StaticPodStatus>()
    }
}

fn is_static(pod: &Value) -> bool {
    let source = pod["metadata"]["annotations"][SOURCE_ANNOTATION].as_str();
    matches!(source, Some("file" | "http"))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn id(pod: &Value) -> String {
    let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn kubeconfig(nodename: &str, serving: &[u8], identity: &CertificateAndKey) -> String {
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "kubelet", "cluster": {
            "server": KUBELET,
            "tls-server-name": nodename,
            "certificate-authority-data": base64(serving),
        } }],
        "users": [{ "name": "apiserver-kubelet-client", "user": {
            "client-certificate-data": base64(identity.crt.as_bytes()),
            "client-key-data": base64(identity.key.as_bytes()),
        } }],
        "contexts": [{ "name": "kubelet", "context": { "cluster": "kubelet", "user": "apiserver-kubelet-client" } }],
        "current-context": "kubelet",
    })
    .to_string()
}
