//! One image at one endpoint: its documents, resolved for this machine and checked against their digests.

use aws_lc_rs::digest::{Context, SHA256, digest};
use reqwest::Response;
use stdx::{ErrorChain, hex};

use crate::error::PullError;
use crate::oci_document::{Configuration, Descriptor, Digest, Index, Manifest};
use crate::reference::Reference;
use crate::registry::{MAX_PIECE, RawManifest, Registries, RegistryError, Session, sessions};

/// What the endpoints of an image said, one after the other.
pub(crate) struct Attempts<'a> {
    reference: &'a Reference,
    failed: Vec<String>,
    /// Another attempt at an endpoint may succeed.
    passes: bool,
    /// An endpoint has refused the image.
    refused: bool,
    /// An endpoint has the image for other machines only.
    platform: Option<PullError>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(reference: &'a Reference) -> Self {
        Self { reference, failed: Vec::new(), passes: false, refused: false, platform: None }
    }

    fn at(&self, source: RegistryError) -> PullError {
        PullError::Registry { reference: self.reference.to_string(), source }
    }

    pub(crate) fn sessions(&self, registries: &Registries) -> Result<Vec<Session>, PullError> {
        sessions(registries, self.reference).map_err(|source| self.at(source))
    }

    pub(crate) fn failed(&mut self, error: PullError) {
        self.failed.push(ErrorChain(&error).to_string());
        self.passes |= error.is_retryable();
        self.refused |= error.is_refusal();
        if matches!(error, PullError::Platform { .. }) {
            self.platform = Some(error);
        }
    }

    /// The error when no endpoint is left: that of the image itself, or all that were tried.
    pub(crate) fn exhausted(self) -> PullError {
        let reference = self.reference.to_string();
        let (passes, refused) = (self.passes, self.refused);
        let source = RegistryError::Exhausted { reference: reference.clone(), attempts: self.failed, passes, refused };
        self.platform.unwrap_or(PullError::Registry { reference, source })
    }
}

pub(crate) struct Source<'a> {
    reference: &'a Reference,
    pub(crate) name: String,
    session: &'a Session,
}

/// A document as its registry sent it.
pub(crate) struct Document {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

/// An image for this machine.
pub(crate) struct Resolved {
    /// The index that the reference names, if it names one.
    pub(crate) index: Option<Document>,
    pub(crate) manifest: Document,
    pub(crate) configuration: Document,
    /// Variables of its containers: `NAME=VALUE`.
    pub(crate) environment: Vec<String>,
    /// The bottom one first.
    pub(crate) layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    /// The digest without compression.
    pub(crate) diff_id: Digest,
}

impl<'a> Source<'a> {
    pub(crate) fn new(reference: &'a Reference, session: &'a Session) -> Self {
        Self { reference, name: reference.to_string(), session }
    }

    pub(crate) async fn resolve(&self) -> Result<Resolved, PullError> {
        let top = self.manifest(self.reference.selector()).await?;
        if let Some(wanted) = &self.reference.digest {
            self.check("the manifest", wanted, &top.digest)?;
        }
        let (index, manifest) = self.select(top).await?;
        let described: Manifest = serde_json::from_slice(&manifest.bytes).map_err(self.malformed("the manifest"))?;
        let configuration = self.configuration(described.config).await?;
        let config: Configuration =
            serde_json::from_slice(&configuration.bytes).map_err(self.malformed("the configuration"))?;
        let (layers, diff_ids) = (described.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(PullError::LayerCount { reference: self.name.clone(), layers, diff_ids });
        }
        let pairs = described.layers.into_iter().zip(config.rootfs.diff_ids);
        let layers = pairs.map(|(descriptor, diff_id)| Layer { descriptor, diff_id }).collect();
        let environment = config.config.and_then(|start| start.env).unwrap_or_default();
        Ok(Resolved { index, manifest, configuration, environment, layers })
    }

    /// The manifest for this machine, and the index that it was chosen from.
    async fn select(&self, top: Document) -> Result<(Option<Document>, Document), PullError> {
        if !top.media_type.contains("index") && !top.media_type.contains("manifest.list") {
            return Ok((None, top));
        }
        let index: Index = serde_json::from_slice(&top.bytes).map_err(self.malformed("the index"))?;
        let architecture = sys::host::architecture();
        let suits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture)
        };
        let chosen = index.manifests.iter().find(suits);
        let chosen = chosen.ok_or_else(|| PullError::Platform { reference: self.name.clone(), architecture })?;
        let manifest = self.manifest(chosen.digest.as_str()).await?;
        self.check("the manifest", chosen.digest.as_str(), &manifest.digest)?;
        Ok((Some(top), manifest))
    }

    async fn manifest(&self, selector: &str) -> Result<Document, PullError> {
        let answer = self.session.manifest(&self.reference.repository, selector).await;
        let RawManifest { media_type, bytes } = answer.map_err(self.registry())?;
        Ok(Document { media_type, digest: sha256(&bytes), bytes })
    }

    async fn configuration(&self, descriptor: Descriptor) -> Result<Document, PullError> {
        let mut response = self.blob(&descriptor).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(self.download(&descriptor))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_PIECE {
                return Err(self.registry()(RegistryError::TooLarge { url: descriptor.digest.to_string() }));
            }
        }
        let digest = sha256(&bytes);
        self.check("the configuration", descriptor.digest.as_str(), &digest)?;
        Ok(Document { media_type: descriptor.media_type, digest, bytes })
    }

    pub(crate) async fn blob(&self, descriptor: &Descriptor) -> Result<Response, PullError> {
        self.session.blob(&self.reference.repository, descriptor.digest.as_str()).await.map_err(self.registry())
    }

    pub(crate) fn check(&self, what: &'static str, wanted: &str, actual: &str) -> Result<(), PullError> {
        if wanted == actual {
            return Ok(());
        }
        let (wanted, actual) = (wanted.to_owned(), actual.to_owned());
        Err(PullError::Digest { reference: self.name.clone(), what, wanted, actual })
    }

    fn registry(&self) -> impl FnOnce(RegistryError) -> PullError {
        let reference = self.name.clone();
        move |source| PullError::Registry { reference, source }
    }

    pub(crate) fn download(&self, descriptor: &Descriptor) -> impl FnOnce(reqwest::Error) -> PullError {
        let (reference, url) = (self.name.clone(), descriptor.digest.to_string());
        move |source| PullError::Registry { reference, source: RegistryError::Request { url, source } }
    }

    fn malformed<E: std::error::Error + Send + Sync + 'static>(
        &self,
        what: &'static str,
    ) -> impl FnOnce(E) -> PullError {
        let reference = self.name.clone();
        move |source| PullError::Malformed { reference, what, source: Box::new(source) }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    named(digest(&SHA256, bytes).as_ref())
}

/// The digest of what went through a context.
pub(crate) fn finish(context: Context) -> String {
    named(context.finish().as_ref())
}

fn named(digest: &[u8]) -> String {
    format!("sha256:{}", hex(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_as_registries_write_them() {
        assert_eq!(sha256(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
