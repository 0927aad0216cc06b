//! `k8s.ManifestApplyController`: creates what the manifests name and the cluster does not have; changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kube_edge::{Connect, KubeApi, KubeError, Outcome};
use resources::k8s::{Manifest, ManifestStatus};
use resources::secrets::KubernetesSecrets;
use serde_json::Value;
use state::Resource;

use crate::cluster_lock::ClusterLock;
use crate::kube_clients::Client;

/// Held while manifests are applied, so that control planes do not do it at the same time.
pub const MANIFEST_APPLY_LOCK: &str = "talos:v1:manifestApplyMutex";
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// How soon to try again while the API server is not there yet: a new cluster waits for this.
const SERVER_POLL: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct ManifestApplyController {
    client: Client,
    lock: Arc<dyn ClusterLock>,
    /// Ids and versions of manifests that are known to be applied.
    applied: BTreeMap<String, u64>,
}

impl ManifestApplyController {
    #[must_use]
    pub fn new(connect: Arc<dyn Connect>, lock: Arc<dyn ClusterLock>) -> Self {
        Self { client: Client::new(connect), lock, applied: BTreeMap::new() }
    }
}

#[async_trait]
impl Controller for ManifestApplyController {
    fn name(&self) -> &'static str {
        "k8s.ManifestApplyController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<Manifest>(), Input::weak::<KubernetesSecrets>().id(KubernetesSecrets::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<ManifestStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let manifests = ctx.list::<Manifest>()?;
        let Some(secrets) = ctx.get::<KubernetesSecrets>(KubernetesSecrets::ID)? else { return Ok(()) };
        let wanted = versions(&manifests);
        if manifests.is_empty() || wanted == self.applied {
            return Ok(());
        }
        let kubeconfig = &secrets.localhost_admin_kubeconfig;
        let api = self.client.with_kubeconfig(kubeconfig).await?.api;
        if let Err(error) = api.version().await {
            tracing::debug!(error = %stdx::error_chain(&error), "manifests wait for the API server");
            ctx.requeue_after(SERVER_POLL);
            return Ok(());
        }
        let held = self.lock.acquire(MANIFEST_APPLY_LOCK, LOCK_PATIENCE).await?;
        let result = apply(&*api, &manifests).await;
        held.release().await;
        match result {
            Ok(created) => tracing::info!(manifests = manifests.len(), created, "manifests are applied"),
            Err(error) if error.is_retryable() => {
                tracing::debug!(error = %stdx::error_chain(&error), "some manifests are not applied yet");
                ctx.requeue_after(SERVER_POLL);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let manifests_applied = wanted.keys().cloned().collect();
        self.applied = wanted;
        ctx.put(ManifestStatus::ID, ManifestStatus { manifests_applied })?;
        Ok(())
    }
}

fn versions(manifests: &[Resource<Manifest>]) -> BTreeMap<String, u64> {
    manifests.iter().map(|manifest| (manifest.id().to_owned(), manifest.metadata.version)).collect()
}

/// How many objects were created; or the first error, after everything was tried.
async fn apply(api: &dyn KubeApi, manifests: &[Resource<Manifest>]) -> Result<usize, KubeError> {
    let objects: Vec<Value> =
        manifests.iter().flat_map(|manifest| &manifest.items).map(|item| Value::Object(item.object.clone())).collect();
    let mut created = 0;
    let mut failure = None;
    for applied in api.create_missing(&objects).await {
        match applied.outcome {
            Ok(Outcome::Created) => {
                tracing::debug!(object = %applied.object, "created");
                created += 1;
            }
            Ok(Outcome::AlreadyThere) => {}
            Err(error) => {
                tracing::debug!(object = %applied.object, error = %stdx::error_chain(&error), "not created");
                // What will not pass by itself is the one to tell of.
                let worse = failure.as_ref().is_none_or(|known: &KubeError| known.is_retryable());
                if worse {
                    failure = Some(error);
                }
            }
        }
    }
    failure.map_or(Ok(created), Err)
}
