//! `k8s.ExtraManifestController`: manifests that the configuration adds, from URLs or inline.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use http_fetch::{Fetch, FetchError};
use kubernetes::yaml;
use resources::k8s::{ExtraManifest, ExtraManifestsConfig, Manifest};

use crate::manifest::resource;

#[derive(Debug)]
pub struct ExtraManifestController {
    fetch: Arc<dyn Fetch>,
    /// What was downloaded, by URL: not fetched again while the node runs.
    downloaded: BTreeMap<String, String>,
}

impl ExtraManifestController {
    #[must_use]
    pub fn new(fetch: Arc<dyn Fetch>) -> Self {
        Self { fetch, downloaded: BTreeMap::new() }
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
        let mut failure = None;
        for manifest in wanted {
            // One that cannot be had does not keep the others back.
            match self.text(&manifest).await {
                Ok(text) => {
                    let id = format!("{}-{}", manifest.priority, manifest.name);
                    ctx.put(&id, resource(&yaml::documents(&text)?))?;
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error.into()),
            None => ctx.keep_touched::<Manifest>(),
        }
    }
}

impl ExtraManifestController {
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
