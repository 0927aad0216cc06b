//! Signed measurements of a UKI: which values of PCR 11 its maker vouches for (facts: as `systemd-measure` writes them).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::policy::SYSTEM;

/// Both files are small; of a larger one, nothing is read.
const LARGEST: u64 = 256 << 10;
const SIGNATURE: &str = "tpm2-pcr-signature.json";
const KEY: &str = "tpm2-pcr-public-key.pem";
/// Of RSA keys that TPMs know: 2048 to 4096 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=512;

/// Signed measurements that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    #[error("reading {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the file of signatures cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("the public key is not one of RSA with 2048 to 4096 bits, in PEM")]
    Key,
}

/// The key that signs systems, and what it has signed of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPolicy {
    pub(crate) modulus: Vec<u8>,
    /// 0 for 65537.
    pub(crate) exponent: u32,
    /// Signatures by the policies' digests.
    pub(crate) signatures: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    sha256: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    pcrs: Vec<u32>,
    pol: String,
    sig: String,
}

impl SignedPolicy {
    /// From the two files of a directory; `None` if neither is there, as after a start without a signed UKI.
    ///
    /// # Errors
    /// [`SignedError`], also where one of both is missing.
    pub fn read(directory: &Path) -> Result<Option<Self>, SignedError> {
        let read = |name: &str| {
            let file = directory.join(name);
            match read_small(&file) {
                Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(SignedError::Read { file, source }),
                Ok(text) => Ok(Some(text)),
            }
        };
        match (read(KEY)?, read(SIGNATURE)?) {
            (None, None) => Ok(None),
            (key, signatures) => Self::parse(&key.unwrap_or_default(), &signatures.unwrap_or_default()).map(Some),
        }
    }

    /// The same signatures, said to be another's.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_key_of(self, other: &Self) -> Self {
        Self { signatures: self.signatures, ..other.clone() }
    }

    /// From the texts of key and signatures.
    ///
    /// # Errors
    /// [`SignedError`].
    pub fn parse(key: &str, signatures: &str) -> Result<Self, SignedError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(key.as_bytes()).map_err(|_| SignedError::Key)?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&pem.contents).map_err(|_| SignedError::Key)?;
        let Ok(PublicKey::RSA(rsa)) = info.parsed() else { return Err(SignedError::Key) };
        let trimmed = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let (modulus, exponent) = (trimmed(rsa.modulus), trimmed(rsa.exponent));
        if !MODULUS.contains(&modulus.len()) || exponent.len() > 4 {
            return Err(SignedError::Key);
        }
        let exponent = exponent.iter().fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
        let exponent = if exponent == 65537 { 0 } else { exponent };
        let file: File = serde_json::from_str(signatures)?;
        let one = |entry: Entry| Some((unhex(&entry.pol)?, STANDARD.decode(entry.sig).ok()?));
        let of_system = file.sha256.into_iter().filter(|entry| entry.pcrs == [SYSTEM]);
        Ok(Self { modulus, exponent, signatures: of_system.filter_map(one).collect() })
    }
}

fn read_small(file: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    let length = std::fs::File::open(file)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if u64::try_from(length).is_ok_and(|length| length <= LARGEST) {
        Ok(text)
    } else {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {LARGEST} bytes")))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_both_files_has_no_signed_measurements_and_one_alone_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SignedPolicy::read(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join(SIGNATURE), "{}").unwrap();
        let error = SignedPolicy::read(folder.path()).unwrap_err();
        assert!(matches!(error, SignedError::Key), "{error}");
        std::fs::write(folder.path().join(KEY), vec![b'x'; 300 << 10]).unwrap();
        let error = SignedPolicy::read(folder.path()).unwrap_err();
        assert!(matches!(error, SignedError::Read { .. }), "{error}");
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(unhex("00fF"), Some(vec![0, 255]));
        assert_eq!((unhex("0"), unhex("0g")), (None, None));
    }
}
