//! `k8s.ManifestApplyController`: creates missing objects of the manifests; changes none. A manifest
//! that is refused keeps no other back: it is reported, and tried again from time to time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use etcd_edge::ClusterLock;
use kube_edge::{Connect, KubeApi, ObjectRef, Outcome};
use resources::k8s::{Manifest, ManifestStatus};
use resources::secrets::KubernetesSecrets;
use serde_json::Value;
use state::Resource;
use stdx::Backoff;

use crate::kube_clients::Client;

/// Held while manifests are applied, so that control planes do not do it at the same time.
pub const MANIFEST_APPLY_LOCK: &str = "talos:v1:manifestApplyMutex";
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// Retry delay while the API server is not up yet: creation of a cluster waits for this.
const SERVER_POLL: Duration = Duration::from_millis(200);
/// Retry delay after a refusal: prerequisites that are missing in a new cluster, such as a namespace, appear soon.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

#[derive(Debug)]
pub struct ManifestApplyController {
    client: Client,
    lock: Arc<dyn ClusterLock>,
    /// Ids and versions of manifests that are known to be applied.
    applied: BTreeMap<String, u64>,
    failures: BTreeMap<String, Failure>,
    backoff: Backoff,
}

impl ManifestApplyController {
    #[must_use]
    pub fn new(connect: Arc<dyn Connect>, lock: Arc<dyn ClusterLock>) -> Self {
        Self {
            client: Client::new(connect),
            lock,
            applied: BTreeMap::new(),
            failures: BTreeMap::new(),
            backoff: Backoff::new(RETRY.0, RETRY.1),
        }
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
        self.applied.retain(|id, _| manifests.iter().any(|manifest| manifest.id() == id));
        let missing: Vec<&Resource<Manifest>> =
            manifests.iter().filter(|manifest| self.applied.get(manifest.id()) != Some(&version(manifest))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let kubeconfig = &secrets.localhost_admin_kubeconfig;
        let api = self.client.with_kubeconfig(kubeconfig).await?.api;
        if let Err(error) = api.version().await {
            tracing::debug!(error = %stdx::error_chain(&error), "manifests wait for the API server");
            ctx.requeue_after(SERVER_POLL);
            return Ok(());
        }
        let mut report = Report::default();
        let applying = async { report = apply(&*api, &missing).await };
        self.lock.run_locked(MANIFEST_APPLY_LOCK, LOCK_PATIENCE, Box::pin(applying)).await?;
        for manifest in missing.iter().filter(|manifest| !report.failures.contains_key(manifest.id())) {
            self.applied.insert(manifest.id().to_owned(), version(manifest));
        }
        let done = self.applied.keys().cloned().collect();
        ctx.put(ManifestStatus::ID, ManifestStatus { manifests_applied: done })?;
        if report.failures.is_empty() {
            self.failures.clear();
            self.backoff.reset();
            tracing::info!(manifests = missing.len(), created = report.created, "manifests are applied");
            return Ok(());
        }
        self.tell(report.failures);
        ctx.requeue_after(self.backoff.next_delay(stdx::backoff::random_jitter()));
        Ok(())
    }
}

impl ManifestApplyController {
    /// Reports permanent failures, once each.
    fn tell(&mut self, failures: BTreeMap<String, Failure>) {
        for (manifest, Failure { object, error, retryable }) in &failures {
            if self.failures.get(manifest).is_some_and(|known| known.error == *error) {
                continue;
            }
            let object = object.to_string();
            if *retryable {
                tracing::debug!(manifest, object, error, "manifest is not applied yet");
            } else {
                tracing::warn!(manifest, object, error, "manifest cannot be applied");
            }
        }
        self.failures = failures;
    }
}

/// Why a manifest is not applied: its first object that failed.
#[derive(Debug)]
struct Failure {
    object: ObjectRef,
    error: String,
    retryable: bool,
}

#[derive(Debug, Default)]
struct Report {
    created: usize,
    /// By the manifest's id.
    failures: BTreeMap<String, Failure>,
}

fn version(manifest: &Resource<Manifest>) -> u64 {
    manifest.metadata.version
}

/// Creates the missing objects of all of them; a failure does not block the others.
async fn apply(api: &dyn KubeApi, manifests: &[&Resource<Manifest>]) -> Report {
    let mut objects = Vec::new();
    let mut owners: BTreeMap<ObjectRef, Vec<&str>> = BTreeMap::new();
    for manifest in manifests {
        for item in &manifest.items {
            let object = Value::Object(item.object.clone());
            for reference in ObjectRef::all_of(&object) {
                owners.entry(reference).or_default().push(manifest.id());
            }
            objects.push(object);
        }
    }
    let mut report = Report::default();
    for applied in api.create_missing(&objects).await {
        let error = match applied.outcome {
            Ok(Outcome::Created) => {
                tracing::debug!(object = %applied.object, "created");
                report.created += 1;
                continue;
            }
            Ok(Outcome::AlreadyThere) => continue,
            Err(error) => error,
        };
        for id in owners.get(&applied.object).into_iter().flatten() {
            report.failures.entry((*id).to_owned()).or_insert_with(|| Failure {
                object: applied.object.clone(),
                error: stdx::error_chain(&error).to_string(),
                retryable: error.is_retryable(),
            });
        }
    }
    report
}
