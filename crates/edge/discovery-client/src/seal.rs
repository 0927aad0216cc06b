//! Encryption with the cluster's secret.
//!
//! Data: AES-256-GCM, a random nonce of 12 bytes in front, no additional data. Endpoints: AES-256-ECB of a length byte,
//! the bytes, and zeros up to a multiple of 16, so that equal endpoints are equal to the service too and count once.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};

const BLOCK: usize = 16;
/// What fits the length byte and stays within the service's limit of 32 bytes.
const MAX_ENDPOINT: usize = 31;

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// The secret is not 32 bytes long.
    #[error("using the cluster's secret: it has {0} bytes, not 32")]
    KeyLength(usize),
    /// The library refused to encrypt.
    #[error("encrypting")]
    Encrypt,
    /// Another key, or altered bytes.
    #[error("decrypting {0} bytes: the key is another one or the bytes were altered")]
    Decrypt(usize),
    /// An endpoint longer than the service takes.
    #[error("encrypting an endpoint of {0} bytes")]
    EndpointLength(usize),
}

/// The cluster's key.
#[derive(Debug)]
pub struct Sealer {
    data: RandomizedNonceKey,
    encrypt: EncryptingKey,
    decrypt: DecryptingKey,
}

impl Sealer {
    /// A key of 32 bytes.
    pub fn new(key: &[u8]) -> Result<Self, SealError> {
        let wrong = |_| SealError::KeyLength(key.len());
        let cipher = || UnboundCipherKey::new(&AES_256, key).map_err(wrong);
        Ok(Self {
            data: RandomizedNonceKey::new(&AES_256_GCM, key).map_err(wrong)?,
            encrypt: EncryptingKey::ecb(cipher()?).map_err(wrong)?,
            decrypt: DecryptingKey::ecb(cipher()?).map_err(wrong)?,
        })
    }

    /// Seals data; each call gives other bytes.
    pub fn seal(&self, data: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut body = data.to_vec();
        let nonce = self.data.seal_in_place_append_tag(Aad::empty(), &mut body).map_err(|_| SealError::Encrypt)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.extend(body);
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) made.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let refused = || SealError::Decrypt(sealed.len());
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut body = body.to_vec();
        let opened = self.data.open_in_place(nonce, Aad::empty(), &mut body).map_err(|_| refused())?;
        Ok(opened.to_vec())
    }

    /// Seals an endpoint; equal endpoints give equal bytes.
    pub fn seal_endpoint(&self, endpoint: &[u8]) -> Result<Vec<u8>, SealError> {
        let too_long = || SealError::EndpointLength(endpoint.len());
        let length = u8::try_from(endpoint.len()).map_err(|_| too_long())?;
        if endpoint.len() > MAX_ENDPOINT {
            return Err(too_long());
        }
        let mut padded = vec![length];
        padded.extend(endpoint);
        padded.resize(padded.len().next_multiple_of(BLOCK), 0);
        self.encrypt.encrypt(&mut padded).map_err(|_| SealError::Encrypt)?;
        Ok(padded)
    }

    /// Opens what [`seal_endpoint`](Self::seal_endpoint) made.
    pub fn open_endpoint(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let refused = || SealError::Decrypt(sealed.len());
        if sealed.is_empty() || !sealed.len().is_multiple_of(BLOCK) {
            return Err(refused());
        }
        let mut padded = sealed.to_vec();
        let opened = self.decrypt.decrypt(&mut padded, DecryptionContext::None).map_err(|_| refused())?;
        let (length, rest) = opened.split_first().ok_or_else(refused)?;
        rest.get(..usize::from(*length)).map(<[u8]>::to_vec).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197, appendix C.3: AES-256 of one block.
    const FIPS_KEY: [u8; 32] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
        30, 31,
    ];

    #[test]
    fn a_block_is_encrypted_as_the_standard_says() {
        let sealer = Sealer::new(&FIPS_KEY).unwrap();
        let mut block: Vec<u8> = (0..16u8).map(|n| n << 4 | n).collect();
        sealer.encrypt.encrypt(&mut block).unwrap();
        let expected = [0x8e, 0xa2, 0xb7, 0xca, 0x51, 0x67, 0x45, 0xbf, 0xea, 0xfc, 0x49, 0x90, 0x4b, 0x49, 0x60, 0x89];
        assert_eq!(block, expected);
    }

    #[test]
    fn sealed_data_is_nonce_then_ciphertext_then_tag() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let (first, second) = (sealer.seal(b"hello").unwrap(), sealer.seal(b"hello").unwrap());
        assert_eq!(first.len(), 12 + 5 + 16);
        assert_ne!(first, second, "the nonce is random");
        assert_eq!(sealer.open(&first).unwrap(), b"hello");
        assert_eq!(sealer.open(&second).unwrap(), b"hello");
    }

    #[test]
    fn data_sealed_elsewhere_with_a_known_nonce_opens() {
        // Test case 15 of the GCM specification's 256-bit vectors, without its additional data: key and nonce of zeros,
        // one block of zeros (case 14).
        let tail = [0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19];
        let head = [0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18];
        let sealed = [[0; 12].as_slice(), &head, &tail].concat();
        assert_eq!(Sealer::new(&[0; 32]).unwrap().open(&sealed).unwrap(), [0; 16]);
    }

    #[test]
    fn endpoints_are_padded_to_blocks_and_equal_ones_are_equal() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        for (length, blocks) in [(0, 1), (15, 1), (16, 2), (31, 2)] {
            let endpoint = vec![9; length];
            let sealed = sealer.seal_endpoint(&endpoint).unwrap();
            assert_eq!(sealed.len(), blocks * 16, "{length}");
            assert_eq!(sealed, sealer.seal_endpoint(&endpoint).unwrap());
            assert_eq!(sealer.open_endpoint(&sealed).unwrap(), endpoint);
        }
        assert_eq!(sealer.seal_endpoint(&[0; 32]), Err(SealError::EndpointLength(32)));
    }

    #[test]
    fn another_key_altered_bytes_and_short_input_are_refused() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let mut sealed = sealer.seal(b"hello").unwrap();
        assert_eq!(Sealer::new(&[8; 32]).unwrap().open(&sealed), Err(SealError::Decrypt(33)));
        sealed[20] ^= 1;
        assert_eq!(sealer.open(&sealed), Err(SealError::Decrypt(33)));
        assert_eq!(sealer.open(&[1, 2, 3]), Err(SealError::Decrypt(3)));
        assert_eq!(sealer.open_endpoint(&[1; 15]), Err(SealError::Decrypt(15)));
        assert_eq!(Sealer::new(&[1; 16]).unwrap_err(), SealError::KeyLength(16));
    }
}
