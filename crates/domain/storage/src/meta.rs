//! META: values in memory, and on the partition of the system disk as soon as there is one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use block::{BlockDevices, BlockError};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use machine::meta::{self, Assignment, Meta, SetError};
use resources::block::{DiscoveredVolume, SystemDisk};
use resources::runtime::{MetaKey, MetaLoad};
use tokio::sync::{mpsc, oneshot};

use crate::requests::Requests;

/// A foreign partition of this name may have any size.
const LARGEST: u64 = 16 << 20;

/// A value was not changed.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error(transparent)]
    Refused(#[from] SetError),
    #[error("META has no value under key {0:#04x}")]
    Absent(u8),
    #[error("META was not read yet")]
    NotLoaded,
    #[error("writing META")]
    Write(#[source] BlockError),
    #[error("the controller of META does not answer")]
    Gone,
}

/// A change of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Set(u8, Vec<u8>),
    Delete(u8),
}

type Request = (Change, oneshot::Sender<Result<(), MetaError>>);

/// Changes values; cheap to clone.
#[derive(Debug, Clone)]
pub struct MetaHandle {
    requests: mpsc::Sender<Request>,
}

impl MetaHandle {
    /// Sets a value; with a META partition it is durable on return.
    ///
    /// # Errors
    /// [`MetaError`]; nothing has changed then.
    pub async fn set(&self, tag: u8, value: Vec<u8>) -> Result<(), MetaError> {
        self.change(Change::Set(tag, value)).await
    }

    /// Deletes a value, as durably.
    ///
    /// # Errors
    /// [`MetaError`]; nothing has changed then.
    pub async fn delete(&self, tag: u8) -> Result<(), MetaError> {
        self.change(Change::Delete(tag)).await
    }

    async fn change(&self, change: Change) -> Result<(), MetaError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send((change, answer)).await.map_err(|_| MetaError::Gone)?;
        answered.await.map_err(|_| MetaError::Gone)?
    }
}

/// `runtime.MetaController`: `MetaKey` for each value, `MetaLoad` once it is known that these are all.
#[derive(Debug)]
pub struct MetaController {
    devices: Arc<dyn BlockDevices>,
    /// Values that the image brought, for a machine without META.
    preset: Vec<Assignment>,
    requests: Requests<Request>,
    meta: Meta,
    /// Changes before there was a partition; they win over its values.
    early: BTreeMap<u8, Option<Vec<u8>>>,
    partition: Option<Partition>,
    is_loaded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Partition {
    path: PathBuf,
    size: u64,
}

impl MetaController {
    /// Reads and writes META on `devices`.
    pub fn new(devices: Arc<dyn BlockDevices>, preset: Vec<Assignment>) -> (Self, MetaHandle) {
        let (requests, sender) = Requests::new();
        let controller = Self {
            devices,
            preset,
            requests,
            meta: Meta::default(),
            early: BTreeMap::new(),
            partition: None,
            is_loaded: false,
        };
        (controller, MetaHandle { requests: sender })
    }

    /// Takes the partition that there is now; reads a new one.
    async fn load(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let system = ctx.get::<SystemDisk>(SystemDisk::ID)?;
        let Some(system) = system else { return Ok(()) };
        let volumes = ctx.list::<DiscoveredVolume>()?;
        let label = machine::layout::Label::Meta.name();
        let found = volumes.iter().find(|one| one.parent == system.disk && one.partition_label == label);
        let found = found
            .filter(|_| system.installed)
            .map(|volume| Partition { path: PathBuf::from(&volume.device_path), size: volume.size });
        let Some(found) = found else {
            self.partition = None;
            if system.settled && !self.is_loaded {
                self.apply_preset();
                self.is_loaded = true;
            }
            return Ok(());
        };
        if self.partition.as_ref() == Some(&found) {
            return Ok(());
        }
        let length = usize::try_from(found.size.min(LARGEST)).unwrap_or_default();
        let bytes = self.devices.read_at(&found.path, 0, length).await?;
        let parsed = Meta::parse(&bytes);
        for (name, copy) in ["first", "second"].into_iter().zip(parsed.copies) {
            if let Err(error) = copy {
                tracing::warn!(copy = name, error = %error, "a copy of META is not used");
            }
        }
        let before = parsed.meta.clone();
        let mut meta = parsed.meta;
        for (tag, value) in &self.early {
            match value {
                Some(value) => meta.set(*tag, value)?,
                None => drop(meta.delete(*tag)),
            }
        }
        if meta != before {
            write(self.devices.as_ref(), &found, &before, &meta).await?;
            tracing::info!(values = self.early.len(), "values in memory written to META");
        }
        self.early.clear();
        (self.meta, self.partition, self.is_loaded) = (meta, Some(found), true);
        Ok(())
    }

    /// Values that the image brought count on a machine that has none of its own.
    fn apply_preset(&mut self) {
        for one in std::mem::take(&mut self.preset) {
            if let Err(error) = self.meta.set(one.key, one.value.as_bytes()) {
                tracing::warn!(key = meta::resource_id(one.key), error = %error, "value of the image is not kept");
            }
        }
    }

    /// Carries out requests in their order.
    async fn answer(&mut self) {
        let waiting = self.requests.take();
        for (change, answer) in waiting {
            let result = self.change(change).await;
            // The caller may have gone; the change stays.
            answer.send(result).ok();
        }
    }

    async fn change(&mut self, change: Change) -> Result<(), MetaError> {
        if !self.is_loaded {
            return Err(MetaError::NotLoaded);
        }
        let mut meta = self.meta.clone();
        match &change {
            Change::Set(tag, value) => meta.set(*tag, value)?,
            Change::Delete(tag) if meta.delete(*tag) => {}
            Change::Delete(tag) => return Err(MetaError::Absent(*tag)),
        }
        match &self.partition {
            Some(partition) => {
                let written = write(self.devices.as_ref(), partition, &self.meta, &meta).await;
                written.map_err(MetaError::Write)?;
            }
            None => match change {
                Change::Set(tag, value) => drop(self.early.insert(tag, Some(value))),
                Change::Delete(tag) => drop(self.early.insert(tag, None)),
            },
        }
        self.meta = meta;
        Ok(())
    }
}

/// Writes one copy after the other, so that one is whole at any time. The area of the older format only if it changed.
async fn write(devices: &dyn BlockDevices, to: &Partition, old: &Meta, new: &Meta) -> Result<(), BlockError> {
    let copy = new.encode_copy();
    devices.write_at(&to.path, 0, copy.clone()).await?;
    devices.write_at(&to.path, meta::SECOND_COPY as u64, copy).await?;
    let legacy = new.encode_legacy();
    if legacy != old.encode_legacy() && to.size >= meta::MINIMUM_SIZE as u64 && to.size <= LARGEST {
        devices.write_at(&to.path, to.size - meta::LEGACY_SIZE as u64, legacy.to_vec()).await?;
    }
    Ok(())
}

#[async_trait]
impl Controller for MetaController {
    fn name(&self) -> &'static str {
        "runtime.MetaController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<SystemDisk>().id(SystemDisk::ID), Input::weak::<DiscoveredVolume>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MetaKey>(), Output::exclusive::<MetaLoad>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.requests.listen(ctx, "requests to META");
        let loaded = self.load(ctx).await;
        self.answer().await;
        for (tag, value) in self.meta.values() {
            ctx.put(&meta::resource_id(tag), MetaKey { value: String::from_utf8_lossy(value).into_owned() })?;
        }
        ctx.keep_touched::<MetaKey>()?;
        if self.is_loaded {
            ctx.put(MetaLoad::ID, MetaLoad { done: true })?;
        }
        loaded
    }
}

#[cfg(test)]
mod tests;
