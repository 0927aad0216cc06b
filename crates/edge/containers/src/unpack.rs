//! Unpacking an image into a directory while it is fetched, where no containerd runs or none is needed.
//!
//! A layer passes through once: nothing of it is kept compressed, and its digest is compared when its end has arrived. Whoever
//! uses the directory waits for that.

use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use reqwest::Response;
use tokio::sync::mpsc;

use crate::error::PullError;
use crate::layer::{self, Durability, LayerError};
use crate::oci_document::Descriptor;
use crate::reference::Reference;
use crate::registry::Registries;
use crate::source::{Attempts, Source, finish};

/// Size of the pieces that a thread unpacks, and how many wait for it: each handover wakes a thread.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

/// Unpacks an image into `directory`, which is made anew. Returns the variables of its containers: `NAME=VALUE`.
///
/// # Errors
/// Names the image and the step; `Registry` lists every endpoint that was tried.
pub async fn unpack(
    registries: &Registries,
    reference: &Reference,
    directory: &Path,
) -> Result<Vec<String>, PullError> {
    let mut attempts = Attempts::new(reference);
    for session in attempts.sessions(registries)? {
        match whole(&Source::new(reference, &session), directory).await {
            Ok(environment) => return Ok(environment),
            Err(error) => attempts.failed(error),
        }
    }
    Err(attempts.exhausted())
}

async fn whole(source: &Source<'_>, directory: &Path) -> Result<Vec<String>, PullError> {
    let failed = |source| PullError::Directory { path: directory.to_owned(), source };
    sys::files::remove_tree(directory).map_err(|error| failed(error.source))?;
    std::fs::create_dir_all(directory).map_err(failed)?;
    let resolved = source.resolve().await?;
    for layer in resolved.layers {
        fetch(source, &layer.descriptor, directory, Durability::Volatile).await?;
    }
    Ok(resolved.environment)
}

/// Fetches a layer and applies it to a directory.
pub(crate) async fn fetch(
    source: &Source<'_>,
    layer: &Descriptor,
    directory: &Path,
    durability: Durability,
) -> Result<(), PullError> {
    let response = source.blob(layer).await?;
    let (pieces, receiver) = mpsc::channel(WAITING);
    let blob = Blob { receiver, piece: Vec::new(), read: 0, left: layer.size, hash: Context::new(&SHA256) };
    let to = directory.to_owned();
    // A thread that is left behind ends with the sender.
    let applying = tokio::task::spawn_blocking(move || blob.apply(&to, durability));
    let (fetched, applied) = tokio::join!(hand_over(response, pieces), applying);
    fetched.map_err(source.download(layer))?;
    let failed =
        |error| PullError::Layer { reference: source.name.clone(), layer: layer.digest.to_string(), source: error };
    let digest =
        applied.map_err(|_| failed(LayerError::Archive(io::ErrorKind::Interrupted.into())))?.map_err(failed)?;
    source.check("a layer", layer.digest.as_str(), &digest)
}

async fn hand_over(mut response: Response, to: mpsc::Sender<Vec<u8>>) -> Result<(), reqwest::Error> {
    let mut piece = Vec::with_capacity(PIECE);
    while let Some(chunk) = response.chunk().await? {
        piece.extend_from_slice(&chunk);
        if piece.len() >= PIECE && to.send(std::mem::replace(&mut piece, Vec::with_capacity(PIECE))).await.is_err() {
            // Whoever unpacks has failed and says why.
            return Ok(());
        }
    }
    drop(to.send(piece).await);
    Ok(())
}

/// A layer as it arrives.
struct Blob {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    /// How much of the piece was read.
    read: usize,
    /// How much has to come, in bytes.
    left: u64,
    hash: Context,
}

impl Blob {
    /// Returns the digest of all that arrived.
    fn apply(mut self, directory: &Path, durability: Durability) -> Result<String, LayerError> {
        layer::apply(&mut self, directory, durability)?;
        // What follows the archive counts for the digest.
        io::copy(&mut self, &mut io::sink()).map_err(LayerError::Archive)?;
        Ok(finish(self.hash))
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            let Some(piece) = self.receiver.blocking_recv() else {
                return if self.left == 0 { Ok(0) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            };
            let more = || io::Error::new(io::ErrorKind::InvalidData, "more arrived than the manifest says");
            self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(more)?;
            self.hash.update(&piece);
            self.piece = piece;
            self.read = 0;
        }
        let unread = self.piece.get(self.read..).unwrap_or_default();
        let length = unread.len().min(buffer.len());
        let (Some(to), Some(from)) = (buffer.get_mut(..length), unread.get(..length)) else { return Ok(0) };
        to.copy_from_slice(from);
        self.read += length;
        Ok(length)
    }
}
