//! Bytes of commands and of responses (TPM 2.0 library specification, part 1, 18, and part 2). Responses are untrusted.

/// Commands and responses are not larger (the kernel's buffer for them).
pub(crate) const LARGEST: usize = 4096;
/// Tag, size, and code.
pub(crate) const HEADER: usize = 10;

pub(crate) const NO_SESSIONS: u16 = 0x8001;
pub(crate) const SESSIONS: u16 = 0x8002;

/// A response that is not what its command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it ends before its last field")]
    Short,
    #[error("there are bytes behind its last field")]
    Trailing,
    #[error("its size is not that of what was received")]
    Size,
    #[error("its tag is not one of a response to this command")]
    Tag,
    #[error("{0} is not what was asked for")]
    Unexpected(&'static str),
    #[error("its authentication is wrong: it was not made by the TPM, or changed on its way")]
    Forged,
}

/// Bytes that are read in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Bytes behind their length of two bytes (`TPM2B`).
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) const fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}

/// Bytes that are written in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// With its length of two bytes in front. What is longer does not fit into a command, and is refused there.
    pub(crate) fn sized(self, bytes: &[u8]) -> Self {
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).raw(bytes)
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A whole command: header, and what comes behind it.
pub(crate) fn command(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    Writer::default().u16(tag).u32(size).u32(code).raw(body).bytes()
}

/// The code of the response to a command with a tag, whose header it fits. A TPM that refuses answers without sessions.
pub(crate) fn code(bytes: &[u8], tag: u16) -> Result<u32, WireError> {
    let mut reader = Reader::new(bytes);
    let (found, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    if usize::try_from(size) != Ok(bytes.len()) || bytes.len() > LARGEST {
        return Err(WireError::Size);
    }
    // One of TPM 1.2 answers with a tag of its own.
    if found != if code == 0 { tag } else { NO_SESSIONS } {
        return Err(WireError::Tag);
    }
    Ok(code)
}

/// The parts of a successful response with one session: parameters, and the session's area.
pub(crate) fn with_session(body: &[u8]) -> Result<(&[u8], Authorized<'_>), WireError> {
    let mut reader = Reader::new(body);
    let length = usize::try_from(reader.u32()?).map_err(|_| WireError::Short)?;
    let parameters = reader.take(length)?;
    let authorized = Authorized { nonce: reader.sized()?, attributes: reader.u8()?, hmac: reader.sized()? };
    reader.end()?;
    Ok((parameters, authorized))
}

/// The area of a session in a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authorized<'a> {
    pub(crate) nonce: &'a [u8],
    pub(crate) attributes: u8,
    pub(crate) hmac: &'a [u8],
}

/// A value with its length of two bytes in front, whole.
pub(crate) fn whole_sized(bytes: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(bytes);
    let value = reader.sized()?;
    reader.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_response_is_as_long_as_it_says_and_has_the_tag_of_its_command() {
        let good = command(NO_SESSIONS, 0, &[0, 2, 7, 8]);
        assert_eq!(code(&good, NO_SESSIONS), Ok(0));
        assert_eq!(code(&good, SESSIONS), Err(WireError::Tag));
        assert_eq!(code(&good[..13], NO_SESSIONS), Err(WireError::Size));
        assert_eq!(code(&good[..9], NO_SESSIONS), Err(WireError::Short));
        let refused = command(NO_SESSIONS, 0x921, &[]);
        assert_eq!(code(&refused, SESSIONS), Ok(0x921));
    }

    #[test]
    fn the_parts_of_a_session_end_where_the_response_does() {
        let body = Writer::default().u32(2).raw(&[1, 2]).sized(&[3]).u8(1).sized(&[]).bytes();
        let (parameters, authorized) = with_session(&body).unwrap();
        assert_eq!((parameters, authorized.nonce, authorized.attributes), (&[1, 2][..], &[3][..], 1));
        assert_eq!(with_session(&[&body[..], &[0]].concat()).unwrap_err(), WireError::Trailing);
        assert_eq!(with_session(&[0xff; 4]).unwrap_err(), WireError::Short);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error_or_lie_within_what_was_received(
            of_tpm in prop_oneof![Just(0_u32), any::<u32>()],
            body in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0..12_usize,
        ) {
            let mut bytes = command(SESSIONS, of_tpm, &body);
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Ok(code) = code(&bytes, SESSIONS) {
                prop_assert_eq!((cut, code), (0, of_tpm));
                if let Ok((parameters, authorized)) = with_session(&body) {
                    prop_assert_eq!(parameters.len() + authorized.nonce.len() + authorized.hmac.len() + 9, body.len());
                }
            }
            if let Ok(value) = whole_sized(&body) {
                prop_assert_eq!(value.len() + 2, body.len());
            }
        }
    }
}
