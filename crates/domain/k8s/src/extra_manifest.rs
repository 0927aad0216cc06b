//! `k8s.ExtraManifestController`: manifests that the configuration adds, from URLs or inline.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use http_fetch::{Fetch, FetchError};
use kubernetes::yaml;
use resources::k8s::{ExtraManifest, ExtraManifestsConfig, Manifest};
use serde_json::Value;

use crate::manifest::resource;

#[derive(Debug)]
pub struct ExtraManifestController {
    fetch: Arc<dyn Fetch>,
    /// Downloads by URL, kept while the node runs.
    downloaded: BTreeMap<String, String>,
    /// The error of each manifest, so that it is reported once.
    failures: BTreeMap<String, String>,
}

impl ExtraManifestController {
    #[must_use]
    pub fn new(fetch: Arc<dyn Fetch>) -> Self {
        Self { fetch, downloaded: BTreeMap::new(), failures: BTreeMap::new() }
    }
}

#[async_trait]
impl Controller for ExtraManifestController {
    fn name(&self) -> &'static str {
        "k8s.ExtraManifestController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<ExtraManifestsConfig>().id(ExtraManifestsConfig::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<Manifest>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let config = ctx.get::<ExtraManifestsConfig>(ExtraManifestsConfig::ID)?;
        let wanted = config.map(|config| config.extra_manifests.clone()).unwrap_or_default();
        self.downloaded.retain(|url, _| wanted.iter().any(|manifest| manifest.url == *url));
        let mut failures = BTreeMap::new();
        for manifest in wanted {
            let id = format!("{}-{}", manifest.priority, manifest.name);
            // One that cannot be had or read does not keep the others back.
            match self.documents(&manifest).await {
                Ok(documents) => {
                    ctx.put(&id, resource(&documents))?;
                }
                Err(error) => {
                    failures.insert(id, stdx::error_chain(error.source()).to_string());
                }
            }
        }
        if failures.is_empty() {
            self.failures.clear();
            return ctx.keep_touched::<Manifest>();
        }
        for (manifest, error) in failures.iter().filter(|(id, error)| self.failures.get(*id) != Some(error)) {
            tracing::warn!(manifest, error, "extra manifest cannot be used");
        }
        let names = failures.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.failures = failures;
        Err(ReconcileError::msg(format!("extra manifests that cannot be used: {names}")))
    }
}

impl ExtraManifestController {
    async fn documents(&mut self, manifest: &ExtraManifest) -> Result<Vec<Value>, ReconcileError> {
        Ok(yaml::documents(&self.text(manifest).await?)?)
    }

    async fn text(&mut self, manifest: &ExtraManifest) -> Result<String, FetchError> {
        if manifest.url.is_empty() {
            return Ok(manifest.inline_manifest.clone());
        }
        if let Some(text) = self.downloaded.get(&manifest.url) {
            return Ok(text.clone());
        }
        let text = self.fetch.fetch(&manifest.url, &manifest.extra_headers).await?;
        self.downloaded.insert(manifest.url.clone(), text.clone());
        Ok(text)
    }
}
