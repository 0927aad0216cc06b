//! What an administrator does with the keys of an encrypted volume: looks at its slots, adds a recovery key, opens with it a
//! volume that does not open by itself, and seals the keys of the TPM anew.

use std::path::PathBuf;

use controller::{Ctx, ReconcileError};
use machine::encryption::{self, KeySource, SLOTS, Token};
use pki::token::random_key;
use resources::block::VolumeStatus;
use stdx::error_chain;
use tokio::sync::{mpsc, oneshot};

use super::seal::{self, TpmKeys};
use super::{Opening, Passphrase, SealError, VolumeController};

/// A request about keys is refused, or failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeKeysError {
    #[error("{0} is no encrypted volume of this machine")]
    NoVolume(String),
    #[error("volume {0} is not open: unlock it first")]
    Closed(String),
    #[error("volume {0} is open already")]
    Open(String),
    #[error("volume {volume} was not opened: {reason}")]
    NotOpened { volume: String, reason: String },
    #[error("volume {0} has no key that a TPM seals in its configuration")]
    NoTpmKey(String),
    #[error("all slots of volume {0} are taken")]
    Full(String),
    #[error("making a key")]
    Random(#[source] pki::PkiError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the controller of volumes does not answer")]
    Gone,
}

/// The slots of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSlots {
    /// Slots with what their key is: a kind of the configuration, `recovery-key`, or empty.
    pub slots: Vec<(u32, String)>,
    pub is_open: bool,
    /// What is wrong with the volume or its keys; empty for nothing.
    pub reason: String,
}

/// A new recovery key, which is nowhere else.
#[derive(Debug)]
pub struct RecoveryKey {
    pub slot: u32,
    pub key: Passphrase,
}

type Answer<T> = oneshot::Sender<Result<T, VolumeKeysError>>;

#[derive(Debug)]
enum Ask {
    Slots(Answer<VolumeSlots>),
    AddRecovery(Answer<RecoveryKey>),
    Unlock(Passphrase, Answer<()>),
    Rebind(Answer<Vec<u32>>),
}

/// A request about a volume.
#[derive(Debug)]
pub(super) struct KeyRequest {
    volume: String,
    ask: Ask,
}

/// Asks about keys; cheap to clone.
#[derive(Debug, Clone)]
pub struct VolumeKeys(pub(super) mpsc::Sender<KeyRequest>);

impl VolumeKeys {
    /// Slots of a volume, also of one that does not open.
    ///
    /// # Errors
    /// [`VolumeKeysError`].
    pub async fn slots(&self, volume: &str) -> Result<VolumeSlots, VolumeKeysError> {
        self.ask(volume, Ask::Slots).await
    }

    /// Adds a recovery key to an open volume.
    ///
    /// # Errors
    /// [`VolumeKeysError`]; nothing was added that stays.
    pub async fn add_recovery(&self, volume: &str) -> Result<RecoveryKey, VolumeKeysError> {
        self.ask(volume, Ask::AddRecovery).await
    }

    /// Opens a volume with a key of any of its slots. The key opens it again until this machine is switched off.
    ///
    /// # Errors
    /// [`VolumeKeysError`]; nothing has changed.
    pub async fn unlock(&self, volume: &str, key: Passphrase) -> Result<(), VolumeKeysError> {
        self.ask(volume, |answer| Ask::Unlock(key, answer)).await
    }

    /// Seals the TPM's keys of an open volume anew; their slots.
    ///
    /// # Errors
    /// [`VolumeKeysError`]; the volume opens as before or by what is new.
    pub async fn rebind(&self, volume: &str) -> Result<Vec<u32>, VolumeKeysError> {
        self.ask(volume, Ask::Rebind).await
    }

    async fn ask<T>(&self, volume: &str, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, VolumeKeysError> {
        let (answer, answered) = oneshot::channel();
        let request = KeyRequest { volume: volume.to_owned(), ask: ask(answer) };
        self.0.send(request).await.map_err(|_| VolumeKeysError::Gone)?;
        answered.await.map_err(|_| VolumeKeysError::Gone)?
    }
}

impl VolumeController {
    /// Takes the keys that were given for closed volumes: this pass tries them.
    pub(super) fn take_given(&mut self, requests: Vec<KeyRequest>) -> Vec<KeyRequest> {
        let mut left = Vec::new();
        for KeyRequest { volume, ask } in requests {
            match ask {
                Ask::Unlock(_, answer) if self.mounted.contains_key(&volume) => {
                    send(answer, Err(VolumeKeysError::Open(volume)));
                    continue;
                }
                Ask::Unlock(ref key, _) => drop(self.given.insert(volume.clone(), key.clone())),
                _ => {}
            }
            left.push(KeyRequest { volume, ask });
        }
        left
    }

    /// Carries out a request, after a pass over all volumes.
    pub(super) async fn answer(&mut self, ctx: &mut Ctx, request: KeyRequest) -> Result<(), ReconcileError> {
        let volume = request.volume;
        let opening = match self.places.of(&volume) {
            Some(place) => Some(self.opening(ctx, place.label, true)?),
            None => None,
        };
        let Some(Opening::Sealed(wanted)) = opening else {
            // A key for it would be kept for nothing.
            self.given.remove(&volume);
            refuse(request.ask, || VolumeKeysError::NoVolume(volume.clone()));
            return Ok(());
        };
        match request.ask {
            Ask::Slots(answer) => {
                let reason = ctx.get::<VolumeStatus>(&volume)?.map(|status| status.reason.clone()).unwrap_or_default();
                let device = match self.sealed.get(&volume) {
                    Some(sealed) => Some(sealed.device().to_owned()),
                    None => self.find(ctx, &volume)?.ok().map(|(_, found)| PathBuf::from(&found.device_path)),
                };
                send(answer, self.slots(&volume, device, &wanted, reason).await);
            }
            Ask::Unlock(_, answer) if self.mounted.contains_key(&volume) => send(answer, Ok(())),
            Ask::Unlock(_, answer) => {
                self.given.remove(&volume);
                let reason = ctx.get::<VolumeStatus>(&volume)?.map(|status| status.reason.clone()).unwrap_or_default();
                let reason = if reason.is_empty() { "this start has not asked for it yet".to_owned() } else { reason };
                send(answer, Err(VolumeKeysError::NotOpened { volume, reason }));
            }
            Ask::AddRecovery(answer) => send(answer, self.add_recovery(&volume, &wanted).await),
            Ask::Rebind(answer) => send(answer, self.rebind(&volume, &wanted).await),
        }
        Ok(())
    }

    async fn slots(
        &self,
        volume: &str,
        device: Option<PathBuf>,
        wanted: &seal::Wanted,
        reason: String,
    ) -> Result<VolumeSlots, VolumeKeysError> {
        let device = device.ok_or_else(|| VolumeKeysError::NoVolume(volume.to_owned()))?;
        let header = self.seal.luks.header(&device).await.map_err(SealError::from)?;
        let kind = |slot: u32| match header.tokens.get(&slot) {
            Some(Token::Recovery) => encryption::RECOVERY_TOKEN,
            Some(Token::Kms(_)) => "kms",
            Some(Token::Tpm(_)) => "tpm",
            Some(Token::Other) | None => {
                wanted.encryption.keys().iter().find(|key| key.slot == slot).map_or("", |key| key.source.name())
            }
        };
        let slots = header.slots.iter().map(|slot| (*slot, kind(*slot).to_owned())).collect();
        Ok(VolumeSlots { slots, is_open: self.sealed.contains_key(volume), reason })
    }

    async fn add_recovery(&self, volume: &str, wanted: &seal::Wanted) -> Result<RecoveryKey, VolumeKeysError> {
        let sealed = self.sealed.get(volume).ok_or_else(|| VolumeKeysError::Closed(volume.to_owned()))?;
        let header = self.seal.luks.header(sealed.device()).await.map_err(SealError::from)?;
        let is_free = |slot: &u32| {
            !header.slots.contains(slot)
                && !header.tokens.contains_key(slot)
                && wanted.encryption.keys().iter().all(|key| key.slot != *slot)
        };
        // One slot stays for the replacement of keys.
        let mut free = (0..SLOTS).filter(is_free);
        let slot = free.next().filter(|_| free.next().is_some());
        let slot = slot.ok_or_else(|| VolumeKeysError::Full(volume.to_owned()))?;
        let key = encryption::sealed_passphrase(&random_key().map_err(VolumeKeysError::Random)?);
        seal::add_recovery(&self.seal, sealed, slot, &key).await?;
        tracing::info!(volume, slot, "recovery key added");
        Ok(RecoveryKey { slot, key })
    }

    async fn rebind(&mut self, volume: &str, wanted: &seal::Wanted) -> Result<Vec<u32>, VolumeKeysError> {
        let keys = wanted.encryption.keys().iter().filter(|key| key.source == KeySource::Tpm);
        let slots: Vec<u32> = keys.map(|key| key.slot).collect();
        let sealed = self.sealed.get_mut(volume).ok_or_else(|| VolumeKeysError::Closed(volume.to_owned()))?;
        if slots.is_empty() {
            return Err(VolumeKeysError::NoTpmKey(volume.to_owned()));
        }
        sealed.applied = None;
        seal::sync(&self.seal, sealed, wanted, TpmKeys::Anew).await?;
        // It opens by itself again.
        self.given.remove(volume);
        tracing::info!(volume, "the keys of the TPM are sealed anew");
        Ok(slots)
    }
}

fn refuse(ask: Ask, error: impl Fn() -> VolumeKeysError) {
    match ask {
        Ask::Slots(answer) => send(answer, Err(error())),
        Ask::AddRecovery(answer) => send(answer, Err(error())),
        Ask::Unlock(_, answer) => send(answer, Err(error())),
        Ask::Rebind(answer) => send(answer, Err(error())),
    }
}

/// Whoever has gone meanwhile needs no answer.
fn send<T>(answer: Answer<T>, result: Result<T, VolumeKeysError>) {
    if let Err(error) = &result {
        tracing::warn!(error = error_chain(error), "a request about keys was refused");
    }
    drop(answer.send(result));
}
