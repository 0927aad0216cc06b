//! Pulling an image: from a registry into containerd's content store, and unpacked into snapshots.
//!
//! Downloaded content is kept under a lease until the image refers to it, so that containerd's garbage collector does
//! not remove it; a later pull resumes with the content already present.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256, digest};
use reqwest::Response;
use stdx::{ErrorChain, hex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::containerd::{Containerd, ContainerdError};
use crate::generated::containerd::services::content::v1::{InfoRequest, WriteAction, WriteContentRequest};
use crate::generated::containerd::services::diff::v1::ApplyRequest;
use crate::generated::containerd::services::images::v1::{
    CreateImageRequest, GetImageRequest, Image as ImageRecord, UpdateImageRequest,
};
use crate::generated::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use crate::generated::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use crate::generated::containerd::types::Descriptor as WireDescriptor;
use crate::oci_document::{Configuration, Descriptor, Digest, Index, Manifest};
use crate::reference::Reference;
use crate::registry::{MAX_PIECE, RawManifest, Registries, RegistryError, Session, sessions};

/// The snapshotter of the node.
pub const SNAPSHOTTER: &str = "overlayfs";

/// Size of the pieces in which content is handed to containerd, below its message limit.
const PIECE: usize = 1 << 20;

/// Failure of a pull.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("pulling {reference}")]
    Registry {
        reference: String,
        #[source]
        source: RegistryError,
    },
    #[error("storing {reference}")]
    Containerd {
        reference: String,
        #[source]
        source: ContainerdError,
    },
    #[error("reading {what} of {reference}")]
    Malformed {
        reference: String,
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{reference} has no image for linux/{architecture}")]
    Platform { reference: String, architecture: &'static str },
    #[error("{reference} has {layers} layers, but its configuration lists {diff_ids}")]
    LayerCount { reference: String, layers: usize, diff_ids: usize },
    #[error("{what} of {reference} has digest {actual}, not {wanted}")]
    Digest { reference: String, what: &'static str, wanted: String, actual: String },
}

/// An unpacked image.
#[derive(Debug, Clone)]
pub struct PulledImage {
    pub reference: String,
    /// The snapshot that a container's root starts from.
    pub snapshot: String,
}

/// Ensures that an image is present and unpacked; a present image is not pulled again.
///
/// # Errors
/// Names the image and the step; `Registry` lists every endpoint that was tried.
pub async fn ensure(
    containerd: &Containerd,
    registries: &Registries,
    reference: &Reference,
) -> Result<PulledImage, PullError> {
    let name = reference.to_string();
    if let Some(image) = existing(containerd, &name).await? {
        return Ok(image);
    }
    let mut attempts = Vec::new();
    let at = |source| PullError::Registry { reference: name.clone(), source };
    for session in sessions(registries, reference).map_err(at)? {
        match Pull::start(containerd, reference, &session).await {
            Ok(image) => return Ok(image),
            Err(error) => attempts.push(ErrorChain(&error).to_string()),
        }
    }
    Err(at(RegistryError::Exhausted { reference: name.clone(), attempts }))
}

/// The image as containerd has it, if it is complete.
async fn existing(containerd: &Containerd, name: &str) -> Result<Option<PulledImage>, PullError> {
    let at = |source| PullError::Containerd { reference: name.to_owned(), source };
    let answer = containerd.images().get(GetImageRequest { name: name.to_owned() }).await;
    let image = match answer.map_err(ContainerdError::call("looking up image", name)) {
        Ok(answer) => answer.into_inner().image.unwrap_or_default(),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(at(error)),
    };
    let Some(snapshot) = image.labels.get(SNAPSHOT_LABEL).cloned() else { return Ok(None) };
    let Some(config) = image.labels.get(CONFIG_LABEL) else { return Ok(None) };
    if !snapshot_exists(containerd, &snapshot).await.map_err(at)? {
        return Ok(None);
    }
    let complete = has_content(containerd, config).await.map_err(at)?;
    Ok(complete.then(|| PulledImage { reference: name.to_owned(), snapshot }))
}

/// Labels by which an image record leads to its snapshot and its configuration.
const SNAPSHOT_LABEL: &str = "talos.dev/snapshot";
const CONFIG_LABEL: &str = "talos.dev/config";

struct Pull<'a> {
    containerd: Containerd,
    reference: &'a Reference,
    name: String,
    session: &'a Session,
}

impl<'a> Pull<'a> {
    async fn start(
        containerd: &Containerd,
        reference: &'a Reference,
        session: &'a Session,
    ) -> Result<PulledImage, PullError> {
        let name = reference.to_string();
        let lease = format!("pull-{}", hex(digest(&SHA256, name.as_bytes()).as_ref()));
        let create = CreateRequest { id: lease.clone(), labels: HashMap::new() };
        if let Err(status) = containerd.leases().create(create).await
            && status.code() != tonic::Code::AlreadyExists
        {
            let source = ContainerdError::call("creating a lease for", &name)(status);
            return Err(PullError::Containerd { reference: name, source });
        }
        let pull = Self { containerd: containerd.with_lease(&lease), reference, name, session };
        let result = pull.run().await;
        if result.is_ok() {
            // From here on the image refers to all of it. A lease that stays only delays the garbage collector.
            drop(containerd.leases().delete(DeleteRequest { id: lease, sync: false }).await);
        }
        result
    }

    async fn run(&self) -> Result<PulledImage, PullError> {
        let top = self.manifest(self.reference.selector()).await?;
        let (top_descriptor, manifest_raw, index) = self.select(top).await?;
        let manifest: Manifest = serde_json::from_slice(&manifest_raw.bytes).map_err(self.malformed("the manifest"))?;
        let config_bytes = self.small_blob(&manifest.config).await?;
        let config: Configuration =
            serde_json::from_slice(&config_bytes).map_err(self.malformed("the configuration"))?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(PullError::LayerCount { reference: self.name.clone(), layers, diff_ids });
        }
        for layer in &manifest.layers {
            self.layer(layer).await?;
        }
        let chain = chain_ids(&config.rootfs.diff_ids);
        self.unpack(&manifest.layers, &chain).await?;
        let snapshot = chain.last().cloned().unwrap_or_default();
        let config_digest = manifest.config.digest.to_string();
        let gc = HashMap::from([(format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}"), snapshot.clone())]);
        self.store(&config_digest, config_bytes, gc).await?;
        let mut refs = HashMap::from([("containerd.io/gc.ref.content.config".to_owned(), config_digest.clone())]);
        for (n, layer) in manifest.layers.iter().enumerate() {
            refs.insert(format!("containerd.io/gc.ref.content.l.{n}"), layer.digest.to_string());
        }
        let manifest_digest = sha256(&manifest_raw.bytes);
        self.store(&manifest_digest, manifest_raw.bytes, refs).await?;
        if let Some(index) = index {
            let refs = HashMap::from([("containerd.io/gc.ref.content.m.0".to_owned(), manifest_digest)]);
            self.store(&top_descriptor.digest.clone(), index, refs).await?;
        }
        self.record(top_descriptor, &snapshot, &config_digest).await?;
        Ok(PulledImage { reference: self.name.clone(), snapshot })
    }

    /// Resolves the reference to the manifest for this machine. Returns the descriptor of the top, the manifest, and
    /// the bytes of the index if the top was one.
    async fn select(&self, top: RawManifest) -> Result<(WireDescriptor, RawManifest, Option<Vec<u8>>), PullError> {
        let descriptor = WireDescriptor {
            media_type: top.media_type.clone(),
            digest: sha256(&top.bytes),
            size: i64::try_from(top.bytes.len()).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        if let Some(wanted) = &self.reference.digest {
            self.check("the manifest", wanted, &descriptor.digest)?;
        }
        if !top.media_type.contains("index") && !top.media_type.contains("manifest.list") {
            return Ok((descriptor, top, None));
        }
        let index: Index = serde_json::from_slice(&top.bytes).map_err(self.malformed("the index"))?;
        let architecture = sys::host::architecture();
        let suits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture)
        };
        let chosen = index.manifests.iter().find(suits);
        let chosen = chosen.ok_or_else(|| PullError::Platform { reference: self.name.clone(), architecture })?;
        let manifest = self.manifest(chosen.digest.as_str()).await?;
        self.check("the manifest", chosen.digest.as_str(), &sha256(&manifest.bytes))?;
        Ok((descriptor, manifest, Some(top.bytes)))
    }

    async fn manifest(&self, selector: &str) -> Result<RawManifest, PullError> {
        self.session.manifest(&self.reference.repository, selector).await.map_err(self.registry())
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        let wanted = descriptor.digest.to_string();
        let mut response = self.session.blob(&self.reference.repository, &wanted).await.map_err(self.registry())?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(self.download(&wanted))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_PIECE {
                return Err(self.registry()(RegistryError::TooLarge { url: wanted }));
            }
        }
        self.check("the configuration", &wanted, &sha256(&bytes))?;
        Ok(bytes)
    }

    async fn layer(&self, descriptor: &Descriptor) -> Result<(), PullError> {
        let wanted = descriptor.digest.to_string();
        if self.has(&wanted).await? {
            return Ok(());
        }
        let response = self.session.blob(&self.reference.repository, &wanted).await.map_err(self.registry())?;
        let labels = HashMap::new();
        let (pieces, receiver) = mpsc::channel(4);
        let write = self.write(&wanted, ReceiverStream::new(receiver));
        let copy = copy_layer(response, pieces, &wanted, descriptor.size, labels);
        let (written, copied) = tokio::join!(write, copy);
        copied.map_err(self.download(&wanted))?;
        written
    }

    async fn has(&self, digest: &str) -> Result<bool, PullError> {
        has_content(&self.containerd, digest).await.map_err(|error| self.containerd_error(error))
    }

    async fn store(&self, digest: &str, bytes: Vec<u8>, labels: HashMap<String, String>) -> Result<(), PullError> {
        let total = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let commit = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: write_ref(digest),
            total,
            expected: digest.to_owned(),
            offset: 0,
            data: bytes,
            labels,
        };
        self.write(digest, tokio_stream::once(commit)).await
    }

    async fn write<S>(&self, digest: &str, pieces: S) -> Result<(), PullError>
    where
        S: tokio_stream::Stream<Item = WriteContentRequest> + Send + 'static,
    {
        let failed = |status| self.containerd_error(ContainerdError::call("writing content", digest)(status));
        let mut answers = match self.containerd.content().write(pieces).await {
            Ok(answers) => answers.into_inner(),
            Err(status) if status.code() == tonic::Code::AlreadyExists => return Ok(()),
            Err(status) => return Err(failed(status)),
        };
        loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) if status.code() == tonic::Code::AlreadyExists => return Ok(()),
                Err(status) => return Err(failed(status)),
            }
        }
    }

    /// Applies each layer on top of the previous one, unless its snapshot exists.
    async fn unpack(&self, layers: &[Descriptor], chain: &[String]) -> Result<(), PullError> {
        let mut parent = String::new();
        for (layer, chain_id) in layers.iter().zip(chain) {
            if !snapshot_exists(&self.containerd, chain_id).await.map_err(|e| self.containerd_error(e))? {
                self.apply(layer, chain_id, &parent).await.map_err(|e| self.containerd_error(e))?;
            }
            parent.clone_from(chain_id);
        }
        Ok(())
    }

    async fn apply(&self, layer: &Descriptor, chain_id: &str, parent: &str) -> Result<(), ContainerdError> {
        let key = format!("extract {chain_id}");
        let mut snapshots = self.containerd.snapshots();
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.clone() };
        // Left behind by an interrupted pull; normally absent.
        drop(snapshots.remove(remove).await);
        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let mounts = snapshots.prepare(prepare).await.map_err(ContainerdError::call("preparing snapshot", chain_id))?;
        let diff = WireDescriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest.to_string(),
            size: i64::try_from(layer.size).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        let apply = ApplyRequest { diff: Some(diff), mounts: mounts.into_inner().mounts };
        self.containerd
            .diff()
            .apply(apply)
            .await
            .map_err(ContainerdError::call("unpacking layer", layer.digest.to_string()))?;
        let commit = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            name: chain_id.to_owned(),
            key,
            labels: HashMap::new(),
        };
        match snapshots.commit(commit).await {
            Err(status) if status.code() != tonic::Code::AlreadyExists => {
                Err(ContainerdError::call("committing snapshot", chain_id)(status))
            }
            _ => Ok(()),
        }
    }

    async fn record(&self, target: WireDescriptor, snapshot: &str, config: &str) -> Result<(), PullError> {
        let labels = HashMap::from([
            (SNAPSHOT_LABEL.to_owned(), snapshot.to_owned()),
            (CONFIG_LABEL.to_owned(), config.to_owned()),
        ]);
        let image = ImageRecord { name: self.name.clone(), labels, target: Some(target), ..ImageRecord::default() };
        let mut images = self.containerd.images();
        let failed = |status| self.containerd_error(ContainerdError::call("recording image", &self.name)(status));
        match images.create(CreateImageRequest { image: Some(image.clone()) }).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                let update = UpdateImageRequest { image: Some(image), update_mask: None };
                images.update(update).await.map(drop).map_err(failed)
            }
            Err(status) => Err(failed(status)),
        }
    }

    fn check(&self, what: &'static str, wanted: &str, actual: &str) -> Result<(), PullError> {
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

    fn download(&self, digest: &str) -> impl FnOnce(reqwest::Error) -> PullError {
        let (reference, url) = (self.name.clone(), digest.to_owned());
        move |source| PullError::Registry { reference, source: RegistryError::Request { url, source } }
    }

    fn containerd_error(&self, source: ContainerdError) -> PullError {
        PullError::Containerd { reference: self.name.clone(), source }
    }

    fn malformed<E: std::error::Error + Send + Sync + 'static>(
        &self,
        what: &'static str,
    ) -> impl FnOnce(E) -> PullError {
        let reference = self.name.clone();
        move |source| PullError::Malformed { reference, what, source: Box::new(source) }
    }
}

async fn snapshot_exists(containerd: &Containerd, key: &str) -> Result<bool, ContainerdError> {
    let request = StatSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.to_owned() };
    match containerd.snapshots().stat(request).await.map_err(ContainerdError::call("looking up snapshot", key)) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn has_content(containerd: &Containerd, digest: &str) -> Result<bool, ContainerdError> {
    let answer = containerd.content().info(InfoRequest { digest: digest.to_owned() }).await;
    match answer.map_err(ContainerdError::call("looking up content", digest)) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Hands a layer to containerd piece by piece; the last message commits it against its digest.
async fn copy_layer(
    mut response: Response,
    to: mpsc::Sender<WriteContentRequest>,
    digest: &str,
    size: u64,
    labels: HashMap<String, String>,
) -> Result<(), reqwest::Error> {
    let total = i64::try_from(size).unwrap_or(i64::MAX);
    let mut offset = 0i64;
    let mut buffer = Vec::with_capacity(PIECE);
    let request = |action: WriteAction, offset, data: Vec<u8>, labels| WriteContentRequest {
        action: action.into(),
        r#ref: write_ref(digest),
        total,
        expected: digest.to_owned(),
        offset,
        data,
        labels,
    };
    loop {
        let chunk = response.chunk().await?;
        let done = chunk.is_none();
        buffer.extend_from_slice(&chunk.unwrap_or_default());
        if buffer.len() >= PIECE || (done && !buffer.is_empty()) {
            let length = i64::try_from(buffer.len()).unwrap_or(i64::MAX);
            let piece = request(WriteAction::Write, offset, std::mem::take(&mut buffer), HashMap::new());
            if to.send(piece).await.is_err() {
                // containerd has closed the stream; its response has the reason.
                return Ok(());
            }
            offset = offset.saturating_add(length);
        }
        if done {
            // As above: a closed stream is explained by its answer.
            drop(to.send(request(WriteAction::Commit, offset, Vec::new(), labels)).await);
            return Ok(());
        }
    }
}

/// The name of a write in progress. One per digest: a second writer of the same content has to wait.
fn write_ref(digest: &str) -> String {
    format!("talos-{digest}")
}

/// Names of the snapshots of a stack of layers, as the OCI image specification defines chain ids.
fn chain_ids(diff_ids: &[Digest]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let next = match chain.last() {
            None => id.to_string(),
            Some(parent) => sha256(format!("{parent} {id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

fn sha256(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    format!("sha256:{}", hex(context.finish().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_image_specification() {
        let (lower, upper) = (sha256(b"lower"), sha256(b"upper"));
        let digests = [&lower, &upper].map(|text| Digest::try_from(text.clone()).unwrap());
        let ids = chain_ids(&digests);
        assert_eq!(ids[0], lower);
        assert_eq!(ids[1], sha256(format!("{lower} {upper}").as_bytes()));
        assert!(chain_ids(&[]).is_empty());
    }

    #[test]
    fn digests_are_written_as_registries_write_them() {
        assert_eq!(sha256(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
