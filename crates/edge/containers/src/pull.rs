//! Pulling an image: from a registry into snapshots of containerd.
//!
//! A layer is unpacked into its snapshot while it is fetched; containerd gets the documents of the image alone, and the
//! compressed layer is kept nowhere. What was pulled is kept under a lease until the image refers to it, so that containerd's
//! garbage collector does not remove it; a later pull resumes with the layers that are there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use stdx::hex;
use sys::mounts::{MountError, MountFlags};

use crate::containerd::{Containerd, ContainerdError};
use crate::error::PullError;
use crate::generated::containerd::services::content::v1::{InfoRequest, WriteAction, WriteContentRequest};
use crate::generated::containerd::services::images::v1::{
    CreateImageRequest, GetImageRequest, Image as ImageRecord, UpdateImageRequest,
};
use crate::generated::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use crate::generated::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use crate::generated::containerd::types::{Descriptor as WireDescriptor, Mount};
use crate::layer::Durability;
use crate::oci_document::Descriptor;
use crate::reference::Reference;
use crate::registry::Registries;
use crate::source::{Attempts, Document, Layer, Resolved, Source, sha256};
use crate::unpack;

/// The snapshotter of the node.
pub const SNAPSHOTTER: &str = "overlayfs";

/// Where snapshots with layers below them are mounted while a layer is unpacked.
const PLACE: &str = "/run/unpack";
/// How many of them there were.
static PLACES: AtomicU64 = AtomicU64::new(0);

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
        let Resolved { index, manifest, configuration, layers, .. } = self.source.resolve().await?;
        let chain = chain_ids(&layers);
        self.unpack(&layers, &chain).await?;
        let snapshot = chain.last().cloned().unwrap_or_default();
        let gc = HashMap::from([(format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}"), snapshot.clone())]);
        let configuration = self.store(configuration, gc).await?.digest;
        let refs = HashMap::from([("containerd.io/gc.ref.content.config".to_owned(), configuration.clone())]);
        let mut top = self.store(manifest, refs).await?;
        if let Some(index) = index {
            let refs = HashMap::from([("containerd.io/gc.ref.content.m.0".to_owned(), top.digest)]);
            top = self.store(index, refs).await?;
        }
        self.record(top, &snapshot, &configuration).await?;
        Ok(PulledImage { reference: self.source.name.clone(), snapshot })
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
                let key = format!("extract {chain_id}");
                let mounts = self.prepare(&key, &parent).await.map_err(|e| self.containerd_error(e))?;
                self.fetch(&layer.descriptor, mounts).await?;
                self.commit(key, chain_id).await.map_err(|e| self.containerd_error(e))?;
            }
            parent.clone_from(chain_id);
        }
        Ok(())
    }

    /// Fetches a layer into the snapshot that these mounts show.
    async fn fetch(&self, layer: &Descriptor, mounts: Vec<Mount>) -> Result<(), PullError> {
        let unusable = || PullError::Snapshot { reference: self.source.name.clone() };
        let [mount] = mounts.as_slice() else { return Err(unusable()) };
        let failed = |source| PullError::Mount { reference: self.source.name.clone(), source };
        match mount.r#type.as_str() {
            "bind" => unpack::fetch(&self.source, layer, Path::new(&mount.source), Durability::Durable).await,
            "overlay" => {
                let shown = Shown::new(&mount.options.join(",")).map_err(failed)?;
                unpack::fetch(&self.source, layer, &shown.0, Durability::Durable).await
            }
            _ => Err(unusable()),
        }
    }

    async fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>, ContainerdError> {
        let mut snapshots = self.containerd.snapshots();
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.to_owned() };
        // Left behind by an interrupted pull; normally absent.
        drop(snapshots.remove(remove).await);
        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let prepared = snapshots.prepare(prepare).await.map_err(ContainerdError::call("preparing snapshot", key))?;
        Ok(prepared.into_inner().mounts)
    }

    async fn commit(&self, key: String, chain_id: &str) -> Result<(), ContainerdError> {
        let commit = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            name: chain_id.to_owned(),
            key,
            labels: HashMap::new(),
        };
        match self.containerd.snapshots().commit(commit).await {
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

/// A snapshot with layers below it, as one directory, until this is dropped.
struct Shown(PathBuf);

impl Shown {
    fn new(options: &str) -> Result<Self, MountError> {
        // Those of a process that was killed are gone with its machine or node.
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let place = Path::new(PLACE).join(format!("{}-{number}", std::process::id()));
        // A directory that is missing is the mount's error.
        drop(std::fs::create_dir_all(&place));
        sys::mounts::mount("overlay", &place, "overlay", MountFlags::empty(), options)?;
        Ok(Self(place))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Err(error) = sys::mounts::detach(&self.0) {
            tracing::warn!(error = stdx::error_chain(&error), "a snapshot stays mounted");
        }
        // Where it stays mounted, so does the directory.
        drop(std::fs::remove_dir(&self.0));
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
