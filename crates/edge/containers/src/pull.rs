//! Pulling an image: from a registry into containerd's content store, and unpacked into snapshots.
//!
//! Downloaded content is kept under a lease until the image refers to it, so that containerd's garbage collector does
//! not remove it; a later pull resumes with the content already present.

use std::collections::HashMap;
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use reqwest::Response;
use stdx::hex;
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
use crate::layer::LayerError;
use crate::oci_document::Descriptor;
use crate::reference::Reference;
use crate::registry::{Registries, RegistryError};
use crate::source::{Attempts, Document, Layer, Resolved, Source, sha256};

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
    #[error("unpacking layer {layer} of {reference}")]
    Layer {
        reference: String,
        layer: String,
        #[source]
        source: LayerError,
    },
    #[error("preparing {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
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
    let mut attempts = Attempts::new(reference);
    for session in attempts.sessions(registries)? {
        match Pull::start(containerd, Source::new(reference, &session)).await {
            Ok(image) => return Ok(image),
            Err(error) => attempts.failed(error),
        }
    }
    Err(attempts.exhausted())
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
    source: Source<'a>,
}

impl Pull<'_> {
    async fn start(containerd: &Containerd, source: Source<'_>) -> Result<PulledImage, PullError> {
        let name = &source.name;
        let lease = format!("pull-{}", hex(digest(&SHA256, name.as_bytes()).as_ref()));
        let create = CreateRequest { id: lease.clone(), labels: HashMap::new() };
        if let Err(status) = containerd.leases().create(create).await
            && status.code() != tonic::Code::AlreadyExists
        {
            let source = ContainerdError::call("creating a lease for", name)(status);
            return Err(PullError::Containerd { reference: name.clone(), source });
        }
        let result = Pull { containerd: containerd.with_lease(&lease), source }.run().await;
        if result.is_ok() {
            // From here on the image refers to all of it. A lease that stays only delays the garbage collector.
            drop(containerd.leases().delete(DeleteRequest { id: lease, sync: false }).await);
        }
        result
    }

    async fn run(&self) -> Result<PulledImage, PullError> {
        let Resolved { index, manifest, configuration, layers } = self.source.resolve().await?;
        for layer in &layers {
            self.layer(&layer.descriptor).await?;
        }
        let chain = chain_ids(&layers);
        self.unpack(&layers, &chain).await?;
        let snapshot = chain.last().cloned().unwrap_or_default();
        let gc = HashMap::from([(format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}"), snapshot.clone())]);
        let configuration = self.store(configuration, gc).await?.digest;
        let mut refs = HashMap::from([("containerd.io/gc.ref.content.config".to_owned(), configuration.clone())]);
        for (n, layer) in layers.iter().enumerate() {
            refs.insert(format!("containerd.io/gc.ref.content.l.{n}"), layer.descriptor.digest.to_string());
        }
        let mut top = self.store(manifest, refs).await?;
        if let Some(index) = index {
            let refs = HashMap::from([("containerd.io/gc.ref.content.m.0".to_owned(), top.digest)]);
            top = self.store(index, refs).await?;
        }
        self.record(top, &snapshot, &configuration).await?;
        Ok(PulledImage { reference: self.source.name.clone(), snapshot })
    }

    async fn layer(&self, descriptor: &Descriptor) -> Result<(), PullError> {
        let wanted = descriptor.digest.to_string();
        if self.has(&wanted).await? {
            return Ok(());
        }
        let response = self.source.blob(descriptor).await?;
        let labels = HashMap::new();
        let (pieces, receiver) = mpsc::channel(4);
        let write = self.write(&wanted, ReceiverStream::new(receiver));
        let copy = copy_layer(response, pieces, &wanted, descriptor.size, labels);
        let (written, copied) = tokio::join!(write, copy);
        copied.map_err(self.source.download(descriptor))?;
        written
    }

    async fn has(&self, digest: &str) -> Result<bool, PullError> {
        has_content(&self.containerd, digest).await.map_err(|error| self.containerd_error(error))
    }

    /// Returns what leads to the document.
    async fn store(&self, document: Document, labels: HashMap<String, String>) -> Result<WireDescriptor, PullError> {
        let Document { media_type, digest, bytes } = document;
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let commit = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: write_ref(&digest),
            total: size,
            expected: digest.clone(),
            offset: 0,
            data: bytes,
            labels,
        };
        self.write(&digest, tokio_stream::once(commit)).await?;
        Ok(WireDescriptor { media_type, digest, size, annotations: HashMap::new() })
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
    async fn unpack(&self, layers: &[Layer], chain: &[String]) -> Result<(), PullError> {
        let mut parent = String::new();
        for (layer, chain_id) in layers.iter().zip(chain) {
            if !snapshot_exists(&self.containerd, chain_id).await.map_err(|e| self.containerd_error(e))? {
                self.apply(&layer.descriptor, chain_id, &parent).await.map_err(|e| self.containerd_error(e))?;
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
        let image =
            ImageRecord { name: self.source.name.clone(), labels, target: Some(target), ..ImageRecord::default() };
        let mut images = self.containerd.images();
        let failed =
            |status| self.containerd_error(ContainerdError::call("recording image", &self.source.name)(status));
        match images.create(CreateImageRequest { image: Some(image.clone()) }).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                let update = UpdateImageRequest { image: Some(image), update_mask: None };
                images.update(update).await.map(drop).map_err(failed)
            }
            Err(status) => Err(failed(status)),
        }
    }

    fn containerd_error(&self, source: ContainerdError) -> PullError {
        PullError::Containerd { reference: self.source.name.clone(), source }
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
fn chain_ids(layers: &[Layer]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(layers.len());
    for Layer { diff_id, .. } in layers {
        let next = match chain.last() {
            None => diff_id.to_string(),
            Some(parent) => sha256(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_image_specification() {
        let (lower, upper) = (sha256(b"lower"), sha256(b"upper"));
        let layers = [&lower, &upper].map(|text| {
            let descriptor = serde_json::json!({ "mediaType": "m", "digest": text, "size": 1 });
            let descriptor: Descriptor = serde_json::from_value(descriptor).unwrap();
            Layer { diff_id: descriptor.digest.clone(), descriptor }
        });
        let ids = chain_ids(&layers);
        assert_eq!(ids[0], lower);
        assert_eq!(ids[1], sha256(format!("{lower} {upper}").as_bytes()));
        assert!(chain_ids(&[]).is_empty());
    }
}
