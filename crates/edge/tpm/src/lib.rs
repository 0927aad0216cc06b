//! The machine's TPM 2.0: seals keys to the machine and to what it was started with, and gives them back.
//!
//! The formats are those of Talos 1.7 (`machine::encryption::TpmSealed`). A key is sealed below the storage root key of the
//! owner's hierarchy, which is made anew from its template each time and is never kept in the TPM. What goes to and from the
//! TPM is encrypted by a session that is salted with that key: a probe on the bus sees no secret.
//!
//! Nothing here decides which keys there are, or what becomes of a volume.

mod client;
mod codes;
mod device;
mod digest;
#[cfg(feature = "testing")]
mod fake;
mod policy;
mod session;
mod signed;
mod wire;

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use machine::encryption::TpmSealed;
use stdx::Secret;

pub use client::Client;
pub use device::{DEVICE, Device};
#[cfg(feature = "testing")]
pub use fake::FakeTpm;
pub use signed::{SignedError, SignedPolicy};
pub use wire::WireError;

/// A TPM cannot do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    #[error("the machine has no TPM 2.0 ({} is missing)", .0.display())]
    Absent(PathBuf),
    #[error("talking to the TPM")]
    Io(#[source] io::Error),
    #[error("the TPM did not answer {command}")]
    Silent { command: &'static str },
    #[error("the TPM's answer to {command} cannot be used")]
    Answer {
        command: &'static str,
        #[source]
        source: WireError,
    },
    #[error("the TPM refuses {command}: {}", codes::Explained(*.code))]
    Refused { command: &'static str, code: u32 },
    #[error(
        "the measurements of this start cannot be used: PCR {pcr} was never extended; the firmware does not measure"
    )]
    Unmeasured { pcr: u32 },
    #[error(
        "it was sealed by another TPM, or by this one before it was cleared: open the volume with another key, and seal anew"
    )]
    OtherTpm,
    #[error(
        "PCR {0} is not as it was when the key was sealed: settings or keys of the firmware (Secure Boot, db, dbx) have \
         changed, or another key signs the system"
    )]
    Measurements(u32),
    #[error("it was sealed for a system with signed measurements, and this start has none (not a signed UKI)")]
    Unsigned,
    #[error(
        "no signature is valid for what was measured in PCR 11: another system was started, or it is past its start"
    )]
    NoSignature,
    #[error("what the token of its slot says cannot be used")]
    Token,
    #[error("the signed measurements of this start cannot be used")]
    Signed(#[from] SignedError),
    #[error("the cryptography failed")]
    Crypto,
}

impl TpmError {
    /// Whether the same may work a moment later.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Silent { .. })
    }
}

/// A TPM that seals keys.
#[async_trait]
pub trait Tpm: std::fmt::Debug + Send + Sync {
    /// Seals a key of at most 128 bytes: to this TPM, to the firmware's state of today, and where the start was one of a signed
    /// system to systems that the same key signs.
    ///
    /// # Errors
    /// [`TpmError`].
    async fn seal(&self, key: &Secret<Vec<u8>>) -> Result<TpmSealed, TpmError>;

    /// The key that was sealed.
    ///
    /// # Errors
    /// [`TpmError`]; nothing was changed.
    async fn unseal(&self, sealed: &TpmSealed) -> Result<Secret<Vec<u8>>, TpmError>;
}
