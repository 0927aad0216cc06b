//! Sessions that are salted with a key of the TPM: authorization, and encryption of the first parameter (part 1, 19 and 21).

use aws_lc_rs::agreement::{self, ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey};
use aws_lc_rs::cipher::{
    AES_128, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{self, SystemRandom};
use stdx::Secret;

use crate::TpmError;
use crate::digest::{DIGEST, sha256};
use crate::wire::{Authorized, WireError, Writer};

const AES_KEY: usize = 16;

/// Nothing is left of the session after the command.
const END: u8 = 0;
/// The first parameter of the command is encrypted.
pub(crate) const DECRYPT: u8 = 1 << 5;
/// The first parameter of the response is encrypted.
pub(crate) const ENCRYPT: u8 = 1 << 6;

/// A point of P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) x: [u8; DIGEST],
    pub(crate) y: [u8; DIGEST],
}

impl Point {
    fn uncompressed(&self) -> Vec<u8> {
        [&[4][..], &self.x, &self.y].concat()
    }

    /// Coordinates of at most their length; shorter ones have lost their zeros.
    pub(crate) fn new(x: &[u8], y: &[u8]) -> Result<Self, WireError> {
        let whole = |part: &[u8]| {
            let mut whole = [0; DIGEST];
            let start = DIGEST.checked_sub(part.len()).ok_or(WireError::Unexpected("the storage root key"))?;
            whole.get_mut(start..).ok_or(WireError::Short)?.copy_from_slice(part);
            Ok(whole)
        };
        Ok(Self { x: whole(x)?, y: whole(y)? })
    }
}

/// A secret that only the holder of a key of the TPM learns from what is sent.
pub(crate) struct Salt {
    secret: Secret<[u8; DIGEST]>,
    /// `TPMS_ECC_POINT`.
    pub(crate) sent: Vec<u8>,
}

/// Agrees with the holder of `key` on a salt (part 1, B.6 and C.6.1).
pub(crate) fn salt(key: &Point) -> Result<Salt, TpmError> {
    let own = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(|_| TpmError::Crypto)?;
    let public = own.compute_public_key().map_err(|_| TpmError::Crypto)?;
    let coordinates =
        public.as_ref().get(1..).and_then(|both| both.split_at_checked(DIGEST)).ok_or(TpmError::Crypto)?;
    let sent = Writer::default().sized(coordinates.0).sized(coordinates.1).bytes();
    let peer = UnparsedPublicKey::new(&ECDH_P256, key.uncompressed());
    // A point that is not on the curve is refused here.
    let secret = agreement::agree_ephemeral(own, peer, TpmError::Crypto, |shared| {
        let one = 1_u32.to_be_bytes();
        Ok(Secret::new(sha256(&[&one, shared, b"SECRET\0", coordinates.0, &key.x])))
    })?;
    Ok(Salt { secret, sent })
}

/// Random bytes for a session, from the kernel.
pub(crate) fn nonce() -> Result<[u8; DIGEST], TpmError> {
    let mut nonce = [0; DIGEST];
    rand::fill(&mut nonce).map_err(|_| TpmError::Crypto)?;
    Ok(nonce)
}

/// A started session.
pub(crate) struct Session {
    pub(crate) handle: u32,
    key: Secret<[u8; DIGEST]>,
    of_tpm: Vec<u8>,
    own: [u8; DIGEST],
}

/// A command that a session authorizes: the session's area, and the parameters as they are sent.
pub(crate) struct Signed {
    pub(crate) area: Vec<u8>,
    pub(crate) parameters: Vec<u8>,
}

impl Session {
    /// The session that was started with a salt and a nonce of ours.
    pub(crate) fn new(handle: u32, salt: &Salt, own: [u8; DIGEST], of_tpm: &[u8]) -> Self {
        let key = kdf(salt.secret.expose(), "ATH", of_tpm, &own);
        Self { handle, key: Secret::new(key), of_tpm: of_tpm.to_vec(), own }
    }

    /// Authorizes a command for objects with these names, whose secrets are empty. `first` is the first parameter without its
    /// length, and is encrypted if `attributes` say so.
    pub(crate) fn sign(
        &mut self,
        code: u32,
        names: &[&[u8]],
        attributes: u8,
        (first, others): (Option<&[u8]>, &[u8]),
    ) -> Result<Signed, TpmError> {
        self.own = nonce()?;
        let mut parameters = Vec::new();
        if let Some(first) = first {
            let mut first = first.to_vec();
            if attributes & DECRYPT != 0 {
                self.encrypt(&mut first)?;
            }
            parameters = Writer::default().sized(&first).bytes();
        }
        parameters.extend_from_slice(others);
        let attributes = attributes | END;
        let mut hashed = vec![code.to_be_bytes().to_vec()];
        hashed.extend(names.iter().map(|name| name.to_vec()));
        hashed.push(parameters.clone());
        let hash = sha256(&hashed.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let hmac = self.hmac(&hash, &self.own, &self.of_tpm, attributes);
        let area = Writer::default().u32(self.handle).sized(&self.own).u8(attributes).sized(hmac.as_ref()).bytes();
        Ok(Signed { area, parameters })
    }

    /// Proves that a response is the TPM's, and gives its parameters, of which the first is decrypted if `attributes` of the
    /// command say so.
    pub(crate) fn verify(
        &mut self,
        code: u32,
        attributes: u8,
        parameters: &[u8],
        authorized: Authorized<'_>,
    ) -> Result<Secret<Vec<u8>>, TpmVerifyError> {
        self.of_tpm = authorized.nonce.to_vec();
        let hash = sha256(&[&0_u32.to_be_bytes(), &code.to_be_bytes(), parameters]);
        let expected = self.signing_input(&hash, &self.of_tpm, &self.own, authorized.attributes);
        hmac::verify(&self.hmac_key(), &expected, authorized.hmac).map_err(|_| WireError::Forged)?;
        let mut parameters = parameters.to_vec();
        if attributes & ENCRYPT != 0 {
            let mut reader = crate::wire::Reader::new(&parameters);
            let length = reader.sized()?.len();
            let first = parameters.get_mut(2..2 + length).ok_or(WireError::Short)?;
            self.decrypt(first)?;
        }
        Ok(Secret::new(parameters))
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.key.expose())
    }

    fn signing_input(&self, hash: &[u8], newer: &[u8], older: &[u8], attributes: u8) -> Vec<u8> {
        [hash, newer, older, &[attributes]].concat()
    }

    fn hmac(&self, hash: &[u8], newer: &[u8], older: &[u8], attributes: u8) -> hmac::Tag {
        hmac::sign(&self.hmac_key(), &self.signing_input(hash, newer, older, attributes))
    }

    /// Key and initial vector of AES-128 in CFB mode.
    fn cipher(&self, newer: &[u8], older: &[u8]) -> Result<(UnboundCipherKey, FixedLength<AES_KEY>), TpmError> {
        let both = kdf(self.key.expose(), "CFB", newer, older);
        let (key, vector) = both.split_at(AES_KEY);
        let key = UnboundCipherKey::new(&AES_128, key).map_err(|_| TpmError::Crypto)?;
        let vector: [u8; AES_KEY] = vector.try_into().map_err(|_| TpmError::Crypto)?;
        Ok((key, FixedLength::from(vector)))
    }

    fn encrypt(&self, bytes: &mut [u8]) -> Result<(), TpmError> {
        let (key, vector) = self.cipher(&self.own, &self.of_tpm)?;
        let key = EncryptingKey::cfb128(key).map_err(|_| TpmError::Crypto)?;
        let context = EncryptionContext::Iv128(vector);
        key.less_safe_encrypt(bytes, context).map(drop).map_err(|_| TpmError::Crypto)
    }

    fn decrypt(&self, bytes: &mut [u8]) -> Result<(), TpmError> {
        let (key, vector) = self.cipher(&self.of_tpm, &self.own)?;
        let key = DecryptingKey::cfb128(key).map_err(|_| TpmError::Crypto)?;
        let context = DecryptionContext::Iv128(vector);
        key.decrypt(bytes, context).map(drop).map_err(|_| TpmError::Crypto)
    }
}

/// A response that a session does not accept.
#[derive(Debug)]
pub(crate) enum TpmVerifyError {
    Wire(WireError),
    Tpm(TpmError),
}

impl From<WireError> for TpmVerifyError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<TpmError> for TpmVerifyError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

/// `KDFa` for 256 bits: one block of SP 800-108 in counter mode (part 1, 11.4.10.2).
fn kdf(key: &[u8], label: &str, one: &[u8], other: &[u8]) -> [u8; DIGEST] {
    let bits = 256_u32.to_be_bytes();
    let input = [&1_u32.to_be_bytes()[..], label.as_bytes(), &[0], one, other, &bits].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &input);
    let mut block = [0; DIGEST];
    block.copy_from_slice(tag.as_ref());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_session_agree_and_a_changed_response_is_seen() {
        let secret = || Salt { secret: Secret::new([7; DIGEST]), sent: Vec::new() };
        let session = |own: u8| Session::new(1, &secret(), [own; DIGEST], &[2; DIGEST]);
        let mut ours = session(1);
        let mut bytes = b"key".to_vec();
        ours.encrypt(&mut bytes).unwrap();
        assert_ne!(bytes, b"key");
        // The other end has the nonces the other way round.
        let mut theirs = session(1);
        (theirs.own, theirs.of_tpm) = ([2; DIGEST], vec![1; DIGEST]);
        theirs.decrypt(&mut bytes).unwrap();
        assert_eq!(bytes, b"key");

        let parameters = Writer::default().sized(b"out").bytes();
        let hash = sha256(&[&0_u32.to_be_bytes(), &9_u32.to_be_bytes(), &parameters]);
        let tag = ours.hmac(&hash, &[5; DIGEST], &ours.own, 0);
        let authorized = |hmac| Authorized { nonce: &[5; DIGEST], attributes: 0, hmac };
        let read = ours.verify(9, 0, &parameters, authorized(tag.as_ref())).unwrap();
        assert_eq!(read.expose(), &parameters);
        for (code, hmac) in [(8, tag.as_ref()), (9, &[][..])] {
            let refused = ours.verify(code, 0, &parameters, authorized(hmac)).unwrap_err();
            assert!(matches!(refused, TpmVerifyError::Wire(WireError::Forged)), "{refused:?}");
        }
    }

    #[test]
    fn a_point_off_the_curve_gets_no_salt() {
        let off = Point { x: [1; DIGEST], y: [1; DIGEST] };
        assert!(matches!(salt(&off), Err(TpmError::Crypto)));
        assert_eq!(Point::new(&[0; 33], &[]), Err(WireError::Unexpected("the storage root key")));
        assert_eq!(Point::new(&[5], &[]).unwrap().x[DIGEST - 1], 5);
    }
}
