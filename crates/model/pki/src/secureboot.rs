//! Variables of UEFI Secure Boot: lists of trusted certificates (UEFI specification 2.10, 32.4.1), signed so that a firmware
//! enrols them (8.2.2, `EFI_VARIABLE_AUTHENTICATION_2`).
//!
//! Only RSA keys with SHA-256: firmware verifies no others. Whether a certificate is valid in time is not checked, neither
//! here nor by firmware.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::certificate::Certificate;
use crate::der;
use crate::error::PkiError;
use crate::key::PrivateKey;

/// The variables that make up the trust of a firmware: the platform key, the keys that may change the database, and the
/// database of certificates whose programs may boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    PlatformKey,
    KeyExchangeKey,
    Database,
}

/// A GUID in the order of its text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Guid(u128);

const GLOBAL_VARIABLE: Guid = Guid(0x8be4_df61_93ca_11d2_aa0d_00e0_9803_2b8c);
const IMAGE_SECURITY_DATABASE: Guid = Guid(0xd719_b2cb_3d3a_4596_a3bc_dad0_0e67_656f);
const CERT_X509: Guid = Guid(0xa5c0_59a1_94e4_4aa7_87b5_ab15_5c2b_f072);
const CERT_TYPE_PKCS7: Guid = Guid(0x4aaf_d29d_68df_49ee_8aa9_347d_3756_65a7);
/// Name space of names that are certificates (RFC 4122, appendix C: X.500).
const NAMESPACE_X500: Guid = Guid(0x6ba7_b814_9dad_11d1_80b4_00c0_4fd4_30c8);

/// `NON_VOLATILE`, `BOOTSERVICE_ACCESS`, `RUNTIME_ACCESS`, `TIME_BASED_AUTHENTICATED_WRITE_ACCESS`.
const ATTRIBUTES: u32 = 0x01 | 0x02 | 0x04 | 0x20;

const OID_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const NULL: &[u8] = &[0x05, 0x00];

impl Variable {
    /// In the order in which they are enrolled: the platform key ends the setup mode, and comes last.
    pub const ALL: [Self; 3] = [Self::Database, Self::KeyExchangeKey, Self::PlatformKey];

    /// As firmware and files are named after it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PlatformKey => "PK",
            Self::KeyExchangeKey => "KEK",
            Self::Database => "db",
        }
    }

    fn vendor(self) -> Guid {
        match self {
            Self::PlatformKey | Self::KeyExchangeKey => GLOBAL_VARIABLE,
            Self::Database => IMAGE_SECURITY_DATABASE,
        }
    }
}

impl Guid {
    /// The owner of a certificate's entries: a name-based GUID (version 5), the same each time.
    #[must_use]
    pub fn of_certificate(certificate: &Certificate) -> Self {
        let name = [&NAMESPACE_X500.0.to_be_bytes()[..], certificate.der()].concat();
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &name);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_ref()[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x50;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(u128::from_be_bytes(bytes))
    }

    /// As firmware stores it: the first three groups in little-endian order.
    fn bytes(self) -> [u8; 16] {
        let mut bytes = self.0.to_be_bytes();
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        bytes
    }
}

impl std::fmt::Debug for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guid({:032x})", self.0)
    }
}

/// A list with one certificate.
#[must_use]
pub fn signature_list(certificate: &Certificate, owner: Guid) -> Vec<u8> {
    let der = certificate.der();
    let entry = [&owner.bytes()[..], der].concat();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    [&CERT_X509.bytes()[..], &length(28 + entry.len()), &[0; 4], &length(entry.len()), &entry].concat()
}

/// The content of an `.auth` file: the new value of a variable with its signature.
///
/// # Errors
/// [`PkiError::Key`] for a key that is not RSA, [`PkiError::KeyMismatch`] for one that is not the certificate's.
pub fn authenticated(
    variable: Variable,
    list: &[u8],
    signer: &Certificate,
    key: &PrivateKey,
    now: SystemTime,
) -> Result<Vec<u8>, PkiError> {
    if !key.is_rsa() {
        return Err(PkiError::Key { reason: "firmware verifies signatures of RSA keys only" });
    }
    if key.spki_der() != signer.spki_der() {
        return Err(PkiError::KeyMismatch { subject: signer.subject().to_string() });
    }
    let time = timestamp(now)?;
    let signed = signed_data(signer, key, &message(variable, &time, list))?;
    let length = u32::try_from(24 + signed.len()).unwrap_or(u32::MAX).to_le_bytes();
    // WIN_CERTIFICATE_UEFI_GUID: length, revision 2.0, type, and the kind of what follows.
    Ok([&time[..], &length, &[0x00, 0x02, 0xf1, 0x0e], &CERT_TYPE_PKCS7.bytes(), &signed, list].concat())
}

/// The bytes that the signature covers.
fn message(variable: Variable, time: &[u8; 16], list: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = variable.name().encode_utf16().flat_map(u16::to_le_bytes).collect();
    [&name[..], &variable.vendor().bytes(), &ATTRIBUTES.to_le_bytes(), time, list].concat()
}

/// `EFI_TIME` in UTC; of its parts below the second, time zone and daylight all must be zero.
fn timestamp(now: SystemTime) -> Result<[u8; 16], PkiError> {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map(|at| at.as_secs()).unwrap_or_default();
    let date = i64::try_from(seconds).ok().and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok());
    let date = date.ok_or_else(|| PkiError::Time { time: format!("{seconds} s after 1970") })?;
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&u16::try_from(date.year()).unwrap_or(u16::MAX).to_le_bytes());
    bytes[2..7].copy_from_slice(&[u8::from(date.month()), date.day(), date.hour(), date.minute(), date.second()]);
    Ok(bytes)
}

/// A detached signature: the `SignedData` of PKCS #7 without the `ContentInfo` around it, which older firmware does not
/// expect there, and without signed attributes.
fn signed_data(signer: &Certificate, key: &PrivateKey, message: &[u8]) -> Result<Vec<u8>, PkiError> {
    let sha256 = der::sequence(&[&der::oid(OID_SHA256), NULL]);
    let rsa = der::sequence(&[&der::oid(OID_RSA), NULL]);
    let version = der::unsigned(&[1]);
    let issuer_and_serial = der::sequence(&[signer.issuer_der(), &der::unsigned(signer.serial())]);
    let signature = der::octet_string(&key.sign(message)?);
    let signer_info = der::sequence(&[&version, &issuer_and_serial, &sha256, &rsa, &signature]);
    Ok(der::sequence(&[
        &version,
        &der::set(&[&sha256]),
        &der::sequence(&[&der::oid(OID_DATA)]),
        &der::explicit(0, signer.der()),
        &der::set(&[&signer_info]),
    ]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;
    use crate::{Algorithm, Authority, Subject, Validity};

    fn authority(algorithm: Algorithm) -> Authority {
        let validity = Validity::starting(SystemTime::UNIX_EPOCH, Duration::from_secs(3600));
        Authority::self_signed(&Subject::common_name("test"), algorithm, validity).unwrap()
    }

    /// 2024-02-29 12:34:56 UTC.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_210_096)
    }

    #[test]
    fn guids_are_stored_with_their_first_groups_reversed() {
        let expected = [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
        assert_eq!(GLOBAL_VARIABLE.bytes(), expected);
        let authority = authority(Algorithm::Ed25519);
        let owner = Guid::of_certificate(authority.certificate());
        assert_eq!(owner, Guid::of_certificate(authority.certificate()));
        assert_eq!((owner.0 >> 76 & 0xf, owner.0 >> 62 & 0b11), (5, 0b10), "a name-based GUID of RFC 4122");
    }

    #[test]
    fn a_list_has_the_lengths_that_firmware_reads() {
        let authority = authority(Algorithm::Ed25519);
        let der = authority.certificate().der();
        let list = signature_list(authority.certificate(), GLOBAL_VARIABLE);
        let number = |at: usize| u32::from_le_bytes(list[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(list[..16], CERT_X509.bytes());
        assert_eq!((number(16), number(20), number(24)), (list.len(), 0, 16 + der.len()));
        assert_eq!((&list[28..44], &list[44..]), (&GLOBAL_VARIABLE.bytes()[..], der));
    }

    #[test]
    fn the_signature_covers_the_name_the_time_and_the_list() {
        let authority = authority(Algorithm::Rsa2048);
        let (certificate, key) = (authority.certificate(), authority.key());
        let list = signature_list(certificate, Guid::of_certificate(certificate));
        let file = authenticated(Variable::Database, &list, certificate, key, now()).unwrap();
        assert_eq!(file[..16], [0xe8, 0x07, 2, 29, 12, 34, 56, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let length = u32::from_le_bytes(file[16..20].try_into().unwrap()) as usize;
        assert_eq!(file[20..24], [0x00, 0x02, 0xf1, 0x0e]);
        assert_eq!(file[24..40], CERT_TYPE_PKCS7.bytes());
        let signed = &file[40..16 + length];
        assert_eq!(&file[16 + length..], list);
        // Firmware looks for the digest at this place.
        assert_eq!(&signed[13..22], OID_SHA256);
        let signature = &signed[signed.len() - 256..];
        let public = key_bits(certificate.spki_der());
        let verify =
            |message: &[u8]| UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public).verify(message, signature);
        let time: [u8; 16] = file[..16].try_into().unwrap();
        let mut expected = b"d\0b\0".to_vec();
        expected.extend(IMAGE_SECURITY_DATABASE.bytes());
        expected.extend([0x27, 0, 0, 0]);
        expected.extend(time);
        expected.extend(&list);
        assert_eq!(message(Variable::Database, &time, &list), expected);
        verify(&expected).unwrap();
        assert!(verify(&message(Variable::PlatformKey, &time, &list)).is_err(), "another variable");
    }

    /// The key itself in a SubjectPublicKeyInfo.
    fn key_bits(spki: &[u8]) -> Vec<u8> {
        let (_, content, _) = der::read(spki).unwrap();
        let (_, _, rest) = der::read(content).unwrap();
        der::read(rest).unwrap().1[1..].to_vec()
    }

    #[test]
    fn keys_that_firmware_could_not_use_are_refused() {
        let (one, two, other) =
            (authority(Algorithm::Rsa2048), authority(Algorithm::Rsa2048), authority(Algorithm::Ed25519));
        let sign = |certificate: &Certificate, key: &PrivateKey| {
            authenticated(Variable::PlatformKey, &[], certificate, key, now()).unwrap_err()
        };
        assert!(matches!(sign(other.certificate(), other.key()), PkiError::Key { .. }));
        assert!(matches!(sign(one.certificate(), two.key()), PkiError::KeyMismatch { .. }));
    }
}
