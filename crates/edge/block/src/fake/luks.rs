//! Encrypted volumes in memory. Content is not encrypted; it cannot be reached but through an open volume.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use machine::encryption::{self, Encryption, Header};
use sys::process::ProcessError;

use super::{FakeBlock, State};
use crate::device::Device;
use crate::luks::{Luks, LuksError, OpenVolume, Passphrase};

/// What a header takes of its device.
const DATA: u64 = 16 << 20;
/// Where a header has its label.
const LABEL: u64 = 24;
const LABEL_BYTES: usize = 48;

/// The keys of a header, and its tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeHeader {
    slots: BTreeMap<u32, Passphrase>,
    tokens: BTreeMap<u32, String>,
}

fn refused(action: &'static str, device: &Path, output: &str) -> LuksError {
    let status = std::process::ExitStatus::from_raw(1 << 8);
    let source = ProcessError::Failed { program: "cryptsetup".to_owned(), status };
    LuksError::Tool { action, device: device.to_owned(), output: output.to_owned(), source }
}

impl State {
    /// The device behind an open volume, as a device that begins after the header.
    pub(super) fn mapped(&self, path: &Path) -> Option<Device> {
        let under = self.open.get(path)?;
        let mut device = self.devices().into_iter().find(|device| device.path == *under)?;
        device.path = path.to_owned();
        device.size = device.size.saturating_sub(DATA);
        if let Some(of) = &mut device.partition {
            of.start += DATA;
        }
        Some(device)
    }

    pub(super) fn is_open(&self, device: &Path) -> bool {
        self.open.values().any(|under| under == device)
    }

    fn header(&mut self, action: &'static str, device: &Path) -> Result<&mut FakeHeader, LuksError> {
        let magic = self.read(device, 0, 6).map_err(|error| refused(action, device, &error.to_string()))?;
        if magic != b"LUKS\xba\xbe" {
            return Err(refused(action, device, "is not a valid LUKS device"));
        }
        self.headers.get_mut(device).ok_or_else(|| refused(action, device, "is not a valid LUKS device"))
    }

    fn write_label(&mut self, device: &Path, label: &str) -> io::Result<()> {
        let mut bytes = [0; LABEL_BYTES];
        let place = bytes.get_mut(..label.len()).ok_or(io::ErrorKind::InvalidInput)?;
        place.copy_from_slice(label.as_bytes());
        self.write(device, LABEL, &bytes)
    }
}

impl FakeBlock {
    /// The passphrases of a header, by their slots.
    #[must_use]
    pub fn luks_keys(&self, device: &str) -> BTreeMap<u32, String> {
        let state = self.state.lock();
        let header = state.headers.get(Path::new(device)).cloned().unwrap_or_default();
        header.slots.into_iter().map(|(slot, key)| (slot, key.into_exposed())).collect()
    }

    /// The power is cut: nothing is mounted and no volume is open.
    pub fn cut_power(&self) {
        let mut state = self.state.lock();
        state.mounts.clear();
        state.open.clear();
    }

    /// From the `nth` change of an encrypted volume on, counted from 1, each fails.
    pub fn fail_luks_from(&self, nth: usize) {
        let mut state = self.state.lock();
        state.luks_changes = 0;
        state.luks_fail_from = Some(nth);
    }

    /// Changes of encrypted volumes succeed again.
    pub fn heal_luks(&self) {
        self.state.lock().luks_fail_from = None;
    }

    /// One change of a header.
    fn change<T>(
        &self,
        action: &'static str,
        device: &Path,
        work: impl FnOnce(&mut State) -> Result<T, LuksError>,
    ) -> Result<T, LuksError> {
        let mut state = self.state.lock();
        state.luks_changes += 1;
        if state.luks_fail_from.is_some_and(|from| state.luks_changes >= from) {
            return Err(refused(action, device, "I/O error"));
        }
        let done = work(&mut state)?;
        drop(state);
        self.touch(device);
        Ok(done)
    }
}

#[async_trait]
impl Luks for FakeBlock {
    async fn format(&self, device: &Path, how: &Encryption, slot: u32, key: &Passphrase) -> Result<(), LuksError> {
        self.change("luksFormat", device, |state| {
            if state.is_open(device) || state.mounts.iter().any(|(_, plan)| plan.source == device) {
                return Err(refused("luksFormat", device, "is in use"));
            }
            let io = |error: io::Error| refused("luksFormat", device, &error.to_string());
            let size = state.device(device).map_err(io)?.size;
            // What was behind an old header cannot be read with another key.
            let content = usize::try_from(size.saturating_sub(DATA).min(1 << 20)).unwrap_or_default();
            state.write(device, DATA, &vec![0; content]).map_err(io)?;
            let mut head = vec![0; 4096];
            head[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
            state.write(device, 0, &head).map_err(io)?;
            state.write_label(device, encryption::UNFINISHED).map_err(io)?;
            let header = FakeHeader { slots: [(slot, key.clone())].into(), tokens: BTreeMap::new() };
            state.headers.insert(device.to_owned(), header);
            state.log.push(format!("luksFormat {} {}", how.cipher(), device.display()));
            Ok(())
        })
    }

    async fn header(&self, device: &Path) -> Result<Header, LuksError> {
        let mut state = self.state.lock();
        let header = state.header("luksDump", device)?;
        let slots: Vec<String> = header.slots.keys().map(|slot| format!("\"{slot}\":{{}}")).collect();
        let tokens: Vec<String> = header.tokens.iter().map(|(id, token)| format!("\"{id}\":{token}")).collect();
        let text = format!("{{\"keyslots\":{{{}}},\"tokens\":{{{}}}}}", slots.join(","), tokens.join(","));
        Header::parse(&text).map_err(|source| LuksError::Header { device: device.to_owned(), source })
    }

    async fn fits(&self, device: &Path, slot: u32, key: &Passphrase) -> Result<bool, LuksError> {
        let mut state = self.state.lock();
        Ok(state.header("open", device)?.slots.get(&slot) == Some(key))
    }

    async fn open(
        &self,
        device: &Path,
        name: &str,
        key: &Passphrase,
        slot: Option<u32>,
        _options: &[String],
    ) -> Result<Option<OpenVolume>, LuksError> {
        let mut state = self.state.lock();
        let path = PathBuf::from("/dev/mapper").join(name);
        if state.open.contains_key(&path) || state.is_open(device) {
            return Err(refused("open", device, "already exists or is in use"));
        }
        let slots = &state.header("open", device)?.slots;
        if !slots.iter().any(|(at, one)| one == key && slot.is_none_or(|slot| slot == *at)) {
            return Ok(None);
        }
        state.open.insert(path.clone(), device.to_owned());
        state.log.push(format!("open {name}"));
        let size = state.mapped(&path).map(|device| device.size).unwrap_or_default();
        Ok(Some(OpenVolume { path, size }))
    }

    async fn close(&self, name: &str) -> Result<(), LuksError> {
        let mut state = self.state.lock();
        let path = PathBuf::from("/dev/mapper").join(name);
        if state.mounts.iter().any(|(_, plan)| plan.source == path) {
            return Err(refused("close", &path, "is in use"));
        }
        if state.open.remove(&path).is_some() {
            state.log.push(format!("close {name}"));
        }
        Ok(())
    }

    async fn add(&self, device: &Path, with: &Passphrase, slot: u32, key: &Passphrase) -> Result<(), LuksError> {
        self.change("luksAddKey", device, |state| {
            let header = state.header("luksAddKey", device)?;
            if !header.slots.values().any(|one| one == with) {
                return Err(refused("luksAddKey", device, "No key available with this passphrase."));
            }
            if slot >= encryption::SLOTS || header.slots.contains_key(&slot) {
                return Err(refused("luksAddKey", device, "Key slot is full"));
            }
            header.slots.insert(slot, key.clone());
            state.log.push(format!("luksAddKey {slot}"));
            Ok(())
        })
    }

    async fn kill(&self, device: &Path, slot: u32) -> Result<(), LuksError> {
        self.change("luksKillSlot", device, |state| {
            let header = state.header("luksKillSlot", device)?;
            // Stricter than the tool, which deletes the last one as well.
            if header.slots.len() == 1 || header.slots.remove(&slot).is_none() {
                return Err(refused("luksKillSlot", device, "is the last slot, or has no key"));
            }
            state.log.push(format!("luksKillSlot {slot}"));
            Ok(())
        })
    }

    async fn set_token(&self, device: &Path, id: u32, token: Option<&str>) -> Result<(), LuksError> {
        self.change("token", device, |state| {
            let header = state.header("token", device)?;
            match token {
                Some(token) => drop(header.tokens.insert(id, token.to_owned())),
                None if header.tokens.remove(&id).is_none() => {
                    return Err(refused("token", device, "there is no such token"));
                }
                None => {}
            }
            Ok(())
        })
    }

    async fn set_label(&self, device: &Path, label: &str) -> Result<(), LuksError> {
        self.change("config", device, |state| {
            state.header("config", device)?;
            state.write_label(device, label).map_err(|error| refused("config", device, &error.to_string()))?;
            Ok(())
        })
    }
}
