//! `k8s.ExtraManifestController`: manifests that the configuration adds, from URLs or inline.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::yaml;
use resources::StringMap;
use resources::k8s::{ExtraManifest, ExtraManifestsConfig, Manifest};

use crate::manifest::resource;

/// Manifests are small; more than this is something else.
const SIZE_LIMIT: usize = 16 << 20;
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("downloading manifests from {url}")]
    Download {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("manifests at {url} are larger than {limit} bytes")]
    TooLarge { url: String, limit: usize },
}

/// Gets text from a URL.
#[async_trait]
pub trait Fetch: Debug + Send + Sync {
    async fn fetch(&self, url: &str, headers: &StringMap) -> Result<String, FetchError>;
}

/// Over HTTP and HTTPS.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpFetch;

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, url: &str, headers: &StringMap) -> Result<String, FetchError> {
        let failed = |source: reqwest::Error| FetchError::Download { url: url.to_owned(), source: Box::new(source) };
        let client = reqwest::Client::builder().timeout(DOWNLOAD_TIMEOUT).build().map_err(failed)?;
        let request = headers.iter().fold(client.get(url), |request, (name, value)| request.header(name, value));
        let response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let mut response = response;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > SIZE_LIMIT {
                return Err(FetchError::TooLarge { url: url.to_owned(), limit: SIZE_LIMIT });
            }
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

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
