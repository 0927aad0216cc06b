//! Encrypted volumes: opened with the keys that are configured, made where the partition is blank, and given other keys while
//! they are in use.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use block::luks::{Luks, LuksError, OpenVolume, Passphrase};
use block::{BlockDevices, Device};
use kms_client::{KeyService, KmsError};
use machine::encryption::{self, Check, Encryption, Header, Key, KeySource, Step, Token, UNFINISHED, WeakUuid};
use machine::layout::Label;
use machine::meta::tag;
use pki::PkiError;
use pki::token::random_key;
use stdx::{Secret, error_chain};
use tpm::{Tpm, TpmError};

use super::VolumeError;
use crate::meta::{MetaError, MetaHandle};

/// The edges that encrypted volumes need.
#[derive(Debug, Clone)]
pub struct SealEdges {
    pub luks: Arc<dyn Luks>,
    pub services: Arc<dyn KeyService>,
    pub tpm: Arc<dyn Tpm>,
    /// Keeps how STATE is encrypted, as the configuration is on it.
    pub meta: MetaHandle,
}

/// An encrypted volume cannot be opened, or its keys cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Luks(#[from] LuksError),
    #[error("no key opens {}: {}", device.display(), reasons.join("; "))]
    NoKey { device: std::path::PathBuf, reasons: Vec<String> },
    #[error("a key of {} cannot be had now: {}", device.display(), reasons.join("; "))]
    Away { device: std::path::PathBuf, reasons: Vec<String> },
    #[error("noting the encryption of STATE in META")]
    Meta(#[from] MetaError),
    #[error("noting the encryption of STATE in META")]
    Form(#[from] encryption::MetaError),
    #[error("{key} cannot be added")]
    Key {
        key: String,
        #[source]
        source: KeyError,
    },
}

/// A key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    Uuid(#[from] WeakUuid),
    #[error(transparent)]
    Service(#[from] KmsError),
    #[error("its slot has no token with a sealed key")]
    NoToken,
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error(transparent)]
    Random(#[from] PkiError),
}

impl KeyError {
    const fn is_away(&self) -> bool {
        match self {
            Self::Service(error) => error.is_away(),
            Self::Tpm(error) => error.is_away(),
            Self::Uuid(_) | Self::NoToken | Self::Random(_) => false,
        }
    }
}

/// How a volume is to be encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) label: &'static str,
    /// By the configuration; without one, by META.
    pub(super) encryption: Encryption,
    /// Other keys that may still open it: those that META has.
    pub(super) former: Option<Encryption>,
    /// The machine's.
    pub(super) uuid: String,
    /// What an administrator gave for this start.
    pub(super) given: Option<Passphrase>,
    /// Certificates of the API's authorities, PEM, where META does not have them yet: who may bring a key for STATE while it is
    /// closed.
    pub(super) authorities: Option<String>,
}

/// What becomes of keys that the TPM has sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TpmKeys {
    AsFound,
    /// They are sealed anew.
    Anew,
}

/// An open volume.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) name: String,
    pub(super) volume: OpenVolume,
    device: std::path::PathBuf,
    /// What opened it: it may be the only key that the header has and the configuration has no more.
    key: Passphrase,
    /// Keys that are known to be in their slots. Hashing one again takes seconds, and a TPM may not give its key a second time.
    proved: Vec<Key>,
    /// The keys that the header has; `None` while some could not be changed.
    pub(super) applied: Option<Wanted>,
}

/// Opens an encrypted volume; makes it where the partition is blank.
pub(super) async fn open(
    edges: &SealEdges,
    devices: &dyn BlockDevices,
    device: &Device,
    wanted: &Wanted,
) -> Result<Sealed, VolumeError> {
    let content = devices.probe(device).await?.content;
    let is_unfinished = |label: &str| label == UNFINISHED || label == block::UNFINISHED;
    match content.as_ref().map(|content| (content.name, is_unfinished(&content.label))) {
        None | Some(("luks" | "xfs", true)) => Ok(make(edges, &device.path, wanted).await?),
        Some(("luks", false)) => {
            let mut sealed = unlock(edges, &device.path, wanted).await?;
            // The volume can be used with what opened it.
            if let Err(error) = sync(edges, &mut sealed, wanted, TpmKeys::AsFound).await {
                tracing::warn!(
                    volume = wanted.label,
                    error = error_chain(&error),
                    "keys were not changed as configured"
                );
            }
            Ok(sealed)
        }
        Some((found, _)) => Err(VolumeError::Foreign { device: device.path.clone(), found, expected: "luks" }),
    }
}

/// The name of the open volume on a partition.
fn name_of(device: &Path) -> String {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}-encrypted")
}

/// Makes a volume with the first key that is to be had. Until all is in place it has a label that says so, and is made anew.
async fn make(edges: &SealEdges, device: &Path, wanted: &Wanted) -> Result<Sealed, SealError> {
    let mut failures = Failures::default();
    for key in wanted.encryption.keys() {
        let (passphrase, token) = match new_key(edges, key, wanted).await {
            Ok(new) => new,
            Err(error) => {
                failures.add(key, &error);
                continue;
            }
        };
        tracing::info!(volume = wanted.label, device = %device.display(), %key, "encrypting a volume");
        edges.luks.format(device, &wanted.encryption, key.slot, &passphrase).await?;
        if let Some(token) = token {
            edges.luks.set_token(device, key.slot, token.to_json(key.slot).as_deref()).await?;
        }
        let name = name_of(device);
        let options = &wanted.encryption.options;
        edges.luks.close(&name).await?;
        let volume = edges.luks.open(device, &name, &passphrase, Some(key.slot), options).await?;
        let Some(volume) = volume else {
            failures.reasons.push(format!("{key}: it does not open what was made with it"));
            break;
        };
        let proved = vec![key.clone()];
        let mut sealed = Sealed { name, volume, device: device.to_owned(), key: passphrase, proved, applied: None };
        let finished = async {
            if let Err(error) = sync(edges, &mut sealed, wanted, TpmKeys::AsFound).await {
                tracing::warn!(volume = wanted.label, error = error_chain(&error), "keys were not added");
            }
            note(edges, wanted).await?;
            Ok::<_, SealError>(edges.luks.set_label(device, "").await?)
        };
        if let Err(error) = finished.await {
            close(edges, &sealed).await;
            return Err(error);
        }
        return Ok(sealed);
    }
    Err(failures.into_error(device))
}

/// Opens a volume: each key in its own slot, then in any.
async fn unlock(edges: &SealEdges, device: &Path, wanted: &Wanted) -> Result<Sealed, SealError> {
    let header = edges.luks.header(device).await?;
    let name = name_of(device);
    // Left by an attempt that failed later.
    edges.luks.close(&name).await?;
    let mut failures = Failures::default();
    if let Some(given) = &wanted.given {
        if let Some(volume) = edges.luks.open(device, &name, given, None, &wanted.encryption.options).await? {
            tracing::info!(volume = wanted.label, device = %device.display(), "encrypted volume opened with a given key");
            let (device, key) = (device.to_owned(), given.clone());
            return Ok(Sealed { name, volume, device, key, proved: Vec::new(), applied: None });
        }
        failures.reasons.push("the given key: wrong key".to_owned());
    }
    let mut known = Vec::new();
    let former = wanted.former.iter().flat_map(Encryption::keys);
    let former = former.filter(|key| !wanted.encryption.keys().contains(key));
    for key in wanted.encryption.keys().iter().chain(former) {
        match passphrases(edges, key, wanted, &header).await {
            Ok(passphrases) => known.extend(passphrases.into_iter().map(|passphrase| (key, passphrase))),
            Err(error) => failures.add(key, &error),
        }
    }
    let options = &wanted.encryption.options;
    let own = known.iter().filter(|(key, _)| header.slots.contains(&key.slot));
    let own = own.map(|(key, passphrase)| (*key, passphrase, Some(key.slot)));
    let any = known.iter().map(|(key, passphrase)| (*key, passphrase, None));
    for (key, passphrase, slot) in own.chain(any) {
        match edges.luks.open(device, &name, passphrase, slot, options).await {
            Ok(Some(volume)) => {
                tracing::info!(volume = wanted.label, device = %device.display(), %key, "encrypted volume opened");
                let (device, passphrase) = (device.to_owned(), passphrase.clone());
                let proved = slot.map(|_| key.clone()).into_iter().collect();
                return Ok(Sealed { name, volume, device, key: passphrase, proved, applied: None });
            }
            Ok(None) if slot.is_none() => failures.reasons.push(format!("{key}: wrong key")),
            Ok(None) => {}
            // A busy machine; another key may be faster.
            Err(error @ LuksError::Slow { .. }) => {
                failures.is_away = true;
                failures.reasons.push(format!("{key}: {}", error_chain(&error)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(failures.into_error(device))
}

impl Sealed {
    /// The partition.
    pub(super) fn device(&self) -> &Path {
        &self.device
    }
}

/// Adds a recovery key. One without its token, as a power cut leaves it, is nobody's and goes at the next change of keys.
pub(super) async fn add_recovery(
    edges: &SealEdges,
    sealed: &Sealed,
    slot: u32,
    key: &Passphrase,
) -> Result<(), SealError> {
    edges.luks.add(&sealed.device, &sealed.key, slot, key).await?;
    if let Err(error) = edges.luks.set_token(&sealed.device, slot, Token::Recovery.to_json(slot).as_deref()).await {
        // Nobody was told of it.
        edges.luks.kill(&sealed.device, slot).await?;
        return Err(error.into());
    }
    Ok(())
}

/// Closes a volume that nothing uses.
pub(super) async fn close(edges: &SealEdges, sealed: &Sealed) {
    if let Err(error) = edges.luks.close(&sealed.name).await {
        tracing::warn!(volume = sealed.name, error = error_chain(&error), "an encrypted volume stays open");
    }
}

/// Changes the keys of the header to those that are wanted. While it changes them, old and new keys open the volume.
pub(super) async fn sync(
    edges: &SealEdges,
    sealed: &mut Sealed,
    wanted: &Wanted,
    tpm: TpmKeys,
) -> Result<(), SealError> {
    let device = sealed.device.clone();
    let header = edges.luks.header(&device).await?;
    let mut checks = BTreeMap::new();
    let mut unknown = Vec::new();
    let proved = std::mem::take(&mut sealed.proved);
    for key in wanted.encryption.keys() {
        if key.source == KeySource::Tpm && tpm == TpmKeys::Anew {
            checks.insert(key.slot, Check::Wrong);
            continue;
        }
        if header.slots.contains(&key.slot) && proved.contains(key) {
            checks.insert(key.slot, Check::Fits);
            continue;
        }
        let check = check(edges, &device, key, wanted, &header).await?;
        if let Err(error) = &check {
            unknown.push(format!("{key}: {}", error_chain(error)));
        }
        checks.insert(key.slot, check.unwrap_or(Check::Unknown));
    }
    let plan = encryption::plan(&header, &checks);
    let mut change = Change { edges, device: &device, wanted, tokens: header.tokens, new: BTreeMap::new() };
    for step in &plan.first {
        change.perform(*step, Some(&sealed.key)).await?;
    }
    note(edges, wanted).await?;
    for step in &plan.then {
        change.perform(*step, None).await?;
    }
    if let Some((passphrase, _)) = change.new.into_values().next() {
        sealed.key = passphrase;
    } else if !plan.then.is_empty() {
        // What opened it may have been deleted; a key that fits is as good.
        for key in wanted.encryption.keys().iter().filter(|key| checks.get(&key.slot) == Some(&Check::Fits)) {
            let header = edges.luks.header(&device).await?;
            if let Some(passphrase) = passphrases(edges, key, wanted, &header).await.ok().and_then(|mut all| all.pop())
            {
                sealed.key = passphrase;
                break;
            }
        }
    }
    let is_in_place = |key: &&Key| checks.get(&key.slot) != Some(&Check::Unknown);
    sealed.proved = wanted.encryption.keys().iter().filter(is_in_place).cloned().collect();
    if !unknown.is_empty() {
        return Err(SealError::Away { device, reasons: unknown });
    }
    sealed.applied = Some(wanted.clone());
    Ok(())
}

/// Whether a key is that of its slot.
async fn check(
    edges: &SealEdges,
    device: &Path,
    key: &Key,
    wanted: &Wanted,
    header: &Header,
) -> Result<Result<Check, KeyError>, SealError> {
    if !header.slots.contains(&key.slot) {
        return Ok(Ok(Check::Wrong));
    }
    let own = Header {
        slots: header.slots.clone(),
        tokens: header.tokens.iter().filter(|(id, _)| **id == key.slot).map(|(id, one)| (*id, one.clone())).collect(),
    };
    let passphrases = match passphrases(edges, key, wanted, &own).await {
        Ok(passphrases) => passphrases,
        Err(KeyError::NoToken) => return Ok(Ok(Check::Wrong)),
        Err(error) => return Ok(Err(error)),
    };
    for passphrase in &passphrases {
        if edges.luks.fits(device, key.slot, passphrase).await? {
            return Ok(Ok(Check::Fits));
        }
    }
    Ok(Ok(Check::Wrong))
}

/// Notes in META how STATE is encrypted, as it is configured.
async fn note(edges: &SealEdges, wanted: &Wanted) -> Result<(), SealError> {
    if wanted.label == Label::State.name() && wanted.former.as_ref() != Some(&wanted.encryption) {
        let value = wanted.encryption.to_meta()?;
        edges.meta.set(tag::STATE_ENCRYPTION, value.into_exposed().into_bytes()).await?;
    }
    if let Some(authorities) = &wanted.authorities {
        edges.meta.set(tag::API_AUTHORITIES, authorities.clone().into_bytes()).await?;
    }
    Ok(())
}

/// Changes of one header.
struct Change<'a> {
    edges: &'a SealEdges,
    device: &'a Path,
    wanted: &'a Wanted,
    tokens: BTreeMap<u32, Token>,
    /// Passphrases and tokens of added keys, by the slot of the key.
    new: BTreeMap<u32, (Passphrase, Option<Token>)>,
}

impl Change<'_> {
    /// With a passphrase that opens the volume; without one, the added key does by itself.
    async fn perform(&mut self, step: Step, with: Option<&Passphrase>) -> Result<(), SealError> {
        let luks = &self.edges.luks;
        match step {
            Step::Kill { slot } => {
                luks.kill(self.device, slot).await?;
                if self.tokens.remove(&slot).is_some() {
                    luks.set_token(self.device, slot, None).await?;
                }
                tracing::info!(volume = self.wanted.label, slot, "key deleted");
            }
            Step::Add { slot, key: of } => {
                let Some(key) = self.wanted.encryption.keys().iter().find(|key| key.slot == of) else { return Ok(()) };
                if !self.new.contains_key(&of) {
                    let new = new_key(self.edges, key, self.wanted).await;
                    let new = new.map_err(|source| SealError::Key { key: key.to_string(), source })?;
                    self.new.insert(of, new);
                }
                let Some((passphrase, token)) = self.new.get(&of) else { return Ok(()) };
                luks.add(self.device, with.unwrap_or(passphrase), slot, passphrase).await?;
                match token {
                    Some(token) => {
                        luks.set_token(self.device, slot, token.to_json(slot).as_deref()).await?;
                        self.tokens.insert(slot, token.clone());
                    }
                    None if self.tokens.remove(&slot).is_some() => luks.set_token(self.device, slot, None).await?,
                    None => {}
                }
                tracing::info!(volume = self.wanted.label, slot, %key, "key added");
            }
        }
        Ok(())
    }
}

/// The passphrases that a key may have on this header.
async fn passphrases(
    edges: &SealEdges,
    key: &Key,
    wanted: &Wanted,
    header: &Header,
) -> Result<Vec<Passphrase>, KeyError> {
    let mut found = Vec::new();
    let mut failed = None;
    let mut take = |opened: Result<Secret<Vec<u8>>, KeyError>| match opened {
        Ok(opened) => found.push(encryption::sealed_passphrase(opened.expose())),
        Err(error) => failed = failed.take().or(Some(error)),
    };
    match &key.source {
        KeySource::Kms(endpoint) => {
            for sealed in header.sealed(key.slot) {
                take(edges.services.unseal(endpoint, &wanted.uuid, sealed).await.map_err(KeyError::from));
            }
        }
        KeySource::Tpm => {
            for sealed in header.sealed_by_tpm(key.slot) {
                take(edges.tpm.unseal(sealed).await.map_err(KeyError::from));
            }
        }
        KeySource::Static(passphrase) => return Ok(vec![passphrase.clone()]),
        KeySource::NodeId => return Ok(vec![encryption::node_passphrase(&wanted.uuid, wanted.label)?]),
    }
    match failed {
        _ if !found.is_empty() => Ok(found),
        Some(error) => Err(error),
        None => Err(KeyError::NoToken),
    }
}

/// A passphrase for a new slot, with the slot's token.
async fn new_key(edges: &SealEdges, key: &Key, wanted: &Wanted) -> Result<(Passphrase, Option<Token>), KeyError> {
    let random = || Ok::<_, KeyError>(Secret::new(random_key()?.to_vec()));
    let (new, token) = match &key.source {
        KeySource::Static(passphrase) => return Ok((passphrase.clone(), None)),
        KeySource::NodeId => return Ok((encryption::node_passphrase(&wanted.uuid, wanted.label)?, None)),
        KeySource::Kms(endpoint) => {
            let new = random()?;
            let sealed = edges.services.seal(endpoint, &wanted.uuid, &new).await?;
            (new, Token::Kms(sealed))
        }
        KeySource::Tpm => {
            let new = random()?;
            let sealed = edges.tpm.seal(&new).await?;
            (new, Token::Tpm(sealed))
        }
    };
    Ok((encryption::sealed_passphrase(new.expose()), Some(token)))
}

/// Why keys did not open a volume.
#[derive(Default)]
struct Failures {
    reasons: Vec<String>,
    is_away: bool,
}

impl Failures {
    fn add(&mut self, key: &Key, error: &KeyError) {
        self.is_away |= error.is_away();
        self.reasons.push(format!("{key}: {}", error_chain(error)));
    }

    fn into_error(self, device: &Path) -> SealError {
        let (device, reasons) = (device.to_owned(), self.reasons);
        if self.is_away { SealError::Away { device, reasons } } else { SealError::NoKey { device, reasons } }
    }
}
