//! The few commands that sealing needs, in their order (TPM 2.0 library specification, part 3).

use std::io::{self, Read, Write};

use machine::encryption::TpmSealed;
use stdx::Secret;

use crate::TpmError;
use crate::codes::{self, Command};
use crate::digest::{DIGEST, Digest, sha256};
use crate::policy::{self, SECURE_BOOT, SYSTEM};
use crate::session::{self, DECRYPT, ENCRYPT, Point, Session, TpmVerifyError};
use crate::signed::SignedPolicy;
use crate::wire::{self, LARGEST, NO_SESSIONS, Reader, SESSIONS, WireError, Writer};

/// Of a sealed object (`MAX_SYM_DATA`).
const LARGEST_KEY: usize = 128;
/// A PCR may be extended by somebody else while a key is given back.
const ATTEMPTS: usize = 3;
/// An exponent of RSA that templates have as 0 or in full.
const F4: u32 = 65537;

/// A TPM at the other end of a stream: the device of the kernel's resource manager, or in tests the socket of a program.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
}

/// The storage root key.
struct Primary {
    handle: u32,
    name: Vec<u8>,
    point: Point,
}

/// What a command came to.
struct Answer {
    bytes: Secret<Vec<u8>>,
}

impl Answer {
    fn body(&self) -> Reader<'_> {
        Reader::new(self.bytes.expose().get(wire::HEADER..).unwrap_or_default())
    }
}

const fn answer(command: &Command) -> impl Fn(WireError) -> TpmError + use<> {
    let command = command.name;
    move |source| TpmError::Answer { command, source }
}

impl<S: Read + Write> Client<S> {
    pub const fn new(stream: S) -> Self {
        Self { stream }
    }

    /// The other end.
    #[cfg(feature = "testing")]
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// Seals a key, as [`crate::Tpm::seal`] says.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn seal(&mut self, key: &Secret<Vec<u8>>, signed: Option<&SignedPolicy>) -> Result<TpmSealed, TpmError> {
        if key.expose().len() > LARGEST_KEY {
            return Err(TpmError::Token);
        }
        let pcr = if signed.is_some() { SYSTEM } else { SECURE_BOOT };
        let policy = match signed {
            Some(signed) => {
                self.measured(SYSTEM)?;
                policy::authorized(&name_of(&signer(signed, signed.exponent)))
            }
            None => policy::EMPTY,
        };
        let policy = policy::with_pcr(&policy, SECURE_BOOT, &self.measured(SECURE_BOOT)?);
        let primary = self.primary()?;
        let sealed = self.create(&primary, key, &policy);
        self.flush(primary.handle);
        let (private, public) = sealed?;
        let key_name = Writer::default().sized(&primary.name).bytes();
        Ok(TpmSealed { private, public, pcrs: vec![pcr], policy: policy.to_vec(), key_name })
    }

    /// Gives a key back, as [`crate::Tpm::unseal`] says.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn unseal(&mut self, sealed: &TpmSealed, signed: Option<&SignedPolicy>) -> Result<Secret<Vec<u8>>, TpmError> {
        let signed = match sealed.pcrs.as_slice() {
            [SYSTEM] => Some(signed.ok_or(TpmError::Unsigned)?),
            [SECURE_BOOT] => None,
            _ => return Err(TpmError::Token),
        };
        let whole = |bytes: &'_ [u8]| wire::whole_sized(bytes).map(<[u8]>::to_vec).map_err(|_| TpmError::Token);
        let (private, public, name) = (whole(&sealed.private)?, whole(&sealed.public)?, whole(&sealed.key_name)?);
        let now = self.measured(SECURE_BOOT)?;
        let after = |before: &Digest| policy::with_pcr(before, SECURE_BOOT, &now).as_slice() == sealed.policy;
        let signer = match signed {
            Some(signed) => {
                let known = [signed.exponent, F4].into_iter().map(|exponent| self::signer(signed, exponent));
                let fits = |signer: &Vec<u8>| after(&policy::authorized(&name_of(signer)));
                Some(known.into_iter().find(fits).ok_or(TpmError::Measurements(SECURE_BOOT))?)
            }
            None if after(&policy::EMPTY) => None,
            None => return Err(TpmError::Measurements(SECURE_BOOT)),
        };
        let primary = self.primary()?;
        let opened = if primary.name == name {
            self.open(&primary, (&private, &public), signed.zip(signer.as_deref()))
        } else {
            Err(TpmError::OtherTpm)
        };
        self.flush(primary.handle);
        opened
    }

    /// Extends a register of the SHA-256 bank with the hash of a text.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn extend(&mut self, pcr: u32, text: &[u8]) -> Result<(), TpmError> {
        let digest = Writer::default().u32(1).u16(codes::ALG_SHA256).raw(&sha256(&[text])).bytes();
        self.with_password(&codes::PCR_EXTEND, pcr, &digest).map(drop)
    }

    /// A register of the SHA-256 bank.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn pcr(&mut self, pcr: u32) -> Result<[u8; DIGEST], TpmError> {
        let command = &codes::PCR_READ;
        let answer = self.send(command, NO_SESSIONS, &policy::selection(pcr))?;
        let read = || {
            let mut body = answer.body();
            body.u32()?;
            if body.take(policy::selection(pcr).len())? != policy::selection(pcr) || body.u32()? != 1 {
                return Err(WireError::Unexpected("the selection: there is no bank of SHA-256"));
            }
            let value = body.sized()?.try_into().map_err(|_| WireError::Unexpected("the length of the value"))?;
            body.end()?;
            Ok(value)
        };
        read().map_err(self::answer(command))
    }

    fn measured(&mut self, pcr: u32) -> Result<Digest, TpmError> {
        let value = self.pcr(pcr)?;
        if policy::is_measured(&value) { Ok(value) } else { Err(TpmError::Unmeasured { pcr }) }
    }

    /// Makes the storage root key, which is the same each time until the TPM is cleared.
    fn primary(&mut self) -> Result<Primary, TpmError> {
        let command = &codes::CREATE_PRIMARY;
        let template = [&root_key()[..], &Writer::default().sized(&[0; DIGEST]).sized(&[0; DIGEST]).bytes()].concat();
        let parameters = Writer::default()
            // No secret, no data of ours.
            .sized(&[0; 4])
            .sized(&template)
            .sized(&[])
            .u32(0)
            .bytes();
        let answer = self.with_password(command, codes::RH_OWNER, &parameters)?;
        let mut body = answer.body();
        let handle = body.u32().map_err(self::answer(command))?;
        let read = || {
            let (mut parameters, _) = wire::with_session(body.rest()).map(|(parts, end)| (Reader::new(parts), end))?;
            let public = parameters.sized()?;
            let mut unique = Reader::new(public);
            if unique.take(root_key().len())? != root_key() {
                return Err(WireError::Unexpected("the storage root key"));
            }
            let point = Point::new(unique.sized()?, unique.sized()?)?;
            unique.end()?;
            Ok(Primary { handle, name: name_of(public), point })
        };
        let made = read();
        if made.is_err() {
            self.flush(handle);
        }
        made.map_err(self::answer(command))
    }

    /// Private and public part of a new sealed object, each with its length in front.
    fn create(
        &mut self,
        primary: &Primary,
        key: &Secret<Vec<u8>>,
        policy: &Digest,
    ) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let command = &codes::CREATE;
        let mut session = self.start_session(primary, codes::SESSION_HMAC)?;
        let sensitive = Secret::new(Writer::default().sized(&[]).sized(key.expose()).bytes());
        let public = Writer::default()
            .u16(codes::ALG_KEYED_HASH)
            .u16(codes::ALG_SHA256)
            .u32(codes::FIXED_TPM | codes::FIXED_PARENT | codes::NO_DA)
            .sized(policy)
            .u16(codes::ALG_NULL)
            .sized(&[])
            .bytes();
        let others = Writer::default().sized(&public).sized(&[]).u32(0).bytes();
        let parameters = (Some(sensitive.expose().as_slice()), &others[..]);
        let answer = self.in_session(command, (primary.handle, &primary.name), &mut session, DECRYPT, parameters)?;
        let read = || {
            let mut body = Reader::new(answer.expose());
            let parts = (body.sized()?, body.sized()?);
            if parts.1 != public_with_unique(&public, parts.1) {
                return Err(WireError::Unexpected("the sealed object"));
            }
            Ok((Writer::default().sized(parts.0).bytes(), Writer::default().sized(parts.1).bytes()))
        };
        read().map_err(self::answer(command))
    }

    /// Loads a sealed object, and opens it.
    fn open(
        &mut self,
        primary: &Primary,
        (private, public): (&[u8], &[u8]),
        signed: Option<(&SignedPolicy, &[u8])>,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        let parameters = Writer::default().sized(private).sized(public).bytes();
        let loaded = self.with_password(&codes::LOAD, primary.handle, &parameters);
        let loaded = loaded.map_err(|error| match error {
            TpmError::Refused { code, .. } if codes::plain(code) == codes::RC_INTEGRITY => TpmError::Token,
            other => other,
        })?;
        let object = loaded.body().u32().map_err(answer(&codes::LOAD))?;
        let mut opened = Err(TpmError::Crypto);
        for _ in 0..ATTEMPTS {
            opened = self.open_object(primary, (object, &name_of(public)), signed);
            let is_changed = |code: &u32| codes::plain(*code) == codes::RC_PCR_CHANGED;
            if !matches!(&opened, Err(TpmError::Refused { code, .. }) if is_changed(code)) {
                break;
            }
        }
        self.flush(object);
        opened
    }

    fn open_object(
        &mut self,
        primary: &Primary,
        object: (u32, &[u8]),
        signed: Option<(&SignedPolicy, &[u8])>,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        let mut session = self.start_session(primary, codes::SESSION_POLICY)?;
        let satisfied = self.satisfy(session.handle, signed);
        if let Err(error) = satisfied {
            self.flush(session.handle);
            return Err(error);
        }
        let command = &codes::UNSEAL;
        let answer = self.in_session(command, object, &mut session, ENCRYPT, (None, &[]))?;
        let key = wire::whole_sized(answer.expose()).map_err(self::answer(command))?;
        Ok(Secret::new(key.to_vec()))
    }

    /// Shows a policy session that what has to hold does.
    fn satisfy(&mut self, session: u32, signed: Option<(&SignedPolicy, &[u8])>) -> Result<(), TpmError> {
        if let Some((signed, signer)) = signed {
            let approved = policy::with_pcr(&policy::EMPTY, SYSTEM, &self.measured(SYSTEM)?);
            let signature = signed.signatures.get(approved.as_slice()).ok_or(TpmError::NoSignature)?;
            self.policy_pcr(session, SYSTEM)?;
            let ticket = self.verify_signature(signer, &approved, signature)?;
            let parameters =
                Writer::default().u32(session).sized(&approved).sized(&[]).sized(&name_of(signer)).raw(&ticket).bytes();
            self.send(&codes::POLICY_AUTHORIZE, NO_SESSIONS, &parameters)?;
        }
        self.policy_pcr(session, SECURE_BOOT)
    }

    fn policy_pcr(&mut self, session: u32, pcr: u32) -> Result<(), TpmError> {
        let parameters = Writer::default().u32(session).sized(&[]).raw(&policy::selection(pcr)).bytes();
        self.send(&codes::POLICY_PCR, NO_SESSIONS, &parameters).map(drop)
    }

    /// The TPM's ticket for a policy that a key has signed.
    fn verify_signature(&mut self, signer: &[u8], approved: &Digest, signature: &[u8]) -> Result<Vec<u8>, TpmError> {
        let load = &codes::LOAD_EXTERNAL;
        let parameters = Writer::default().sized(&[]).sized(signer).u32(codes::RH_OWNER).bytes();
        let key = self.send(load, NO_SESSIONS, &parameters)?.body().u32().map_err(answer(load))?;
        let parameters = Writer::default()
            .u32(key)
            .sized(&sha256(&[approved]))
            .u16(codes::ALG_RSASSA)
            .u16(codes::ALG_SHA256)
            .sized(signature)
            .bytes();
        let ticket = self.send(&codes::VERIFY_SIGNATURE, NO_SESSIONS, &parameters);
        self.flush(key);
        match ticket {
            Ok(ticket) => Ok(ticket.body().rest().to_vec()),
            Err(TpmError::Refused { code, .. }) if codes::plain(code) == codes::RC_SIGNATURE => {
                Err(TpmError::NoSignature)
            }
            Err(error) => Err(error),
        }
    }

    /// A session whose key only the holder of the storage root key learns.
    fn start_session(&mut self, primary: &Primary, kind: u8) -> Result<Session, TpmError> {
        let command = &codes::START_AUTH_SESSION;
        let (salt, nonce) = (session::salt(&primary.point)?, session::nonce()?);
        let parameters = Writer::default()
            .u32(primary.handle)
            .u32(codes::RH_NULL)
            .sized(&nonce)
            .sized(&salt.sent)
            .u8(kind)
            .u16(codes::ALG_AES)
            .u16(128)
            .u16(codes::ALG_CFB)
            .u16(codes::ALG_SHA256)
            .bytes();
        let answer = self.send(command, NO_SESSIONS, &parameters)?;
        let read = || {
            let mut body = answer.body();
            let started = (body.u32()?, body.sized()?);
            body.end()?;
            Ok(started)
        };
        let (handle, of_tpm) = read().map_err(self::answer(command))?;
        Ok(Session::new(handle, &salt, nonce, of_tpm))
    }

    /// A command for an object whose use an own session authorizes, which ends with it. Gives the parameters of the response.
    fn in_session(
        &mut self,
        command: &Command,
        (handle, name): (u32, &[u8]),
        session: &mut Session,
        attributes: u8,
        parameters: (Option<&[u8]>, &[u8]),
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        let signed = session.sign(command.code, &[name], attributes, parameters)?;
        let answer = self.authorized(command, handle, &signed.area, &signed.parameters);
        let answer = answer.inspect_err(|_| self.flush(session.handle))?;
        let read = wire::with_session(answer.body().rest()).map_err(TpmVerifyError::Wire);
        let read = read.and_then(|(parameters, end)| session.verify(command.code, attributes, parameters, end));
        read.map_err(|error| match error {
            TpmVerifyError::Wire(source) => TpmError::Answer { command: command.name, source },
            TpmVerifyError::Tpm(error) => error,
        })
    }

    /// A command for a handle whose password is empty.
    fn with_password(&mut self, command: &Command, handle: u32, parameters: &[u8]) -> Result<Answer, TpmError> {
        let area = Writer::default().u32(codes::RS_PW).sized(&[]).u8(0).sized(&[]).bytes();
        self.authorized(command, handle, &area, parameters)
    }

    fn authorized(
        &mut self,
        command: &Command,
        handle: u32,
        area: &[u8],
        parameters: &[u8],
    ) -> Result<Answer, TpmError> {
        let length = u32::try_from(area.len()).unwrap_or(u32::MAX);
        let body = Writer::default().u32(handle).u32(length).raw(area).raw(parameters).bytes();
        self.send(command, SESSIONS, &body)
    }

    /// Lets an object or a session go. What is left goes when the device is closed.
    fn flush(&mut self, handle: u32) {
        drop(self.send(&codes::FLUSH_CONTEXT, NO_SESSIONS, &handle.to_be_bytes()));
    }

    fn send(&mut self, command: &Command, tag: u16, body: &[u8]) -> Result<Answer, TpmError> {
        let bytes = wire::command(tag, command.code, body);
        if bytes.len() > LARGEST {
            return Err(TpmError::Token);
        }
        self.stream.write_all(&bytes).and_then(|()| self.stream.flush()).map_err(TpmError::Io)?;
        let bytes = Secret::new(receive(&mut self.stream).map_err(TpmError::Io)?);
        match wire::code(bytes.expose(), tag).map_err(answer(command))? {
            0 => Ok(Answer { bytes }),
            code => Err(TpmError::Refused { command: command.name, code }),
        }
    }
}

/// One response, whose header says how long it is.
fn receive(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; LARGEST];
    let mut length = 0;
    loop {
        let received = stream.read(buffer.get_mut(length..).unwrap_or_default())?;
        length += received;
        let so_far = buffer.get(..length).unwrap_or_default();
        let size = so_far.get(2..6).and_then(|size| size.try_into().ok()).map(u32::from_be_bytes);
        let is_whole = size.is_some_and(|size| usize::try_from(size).is_ok_and(|size| size <= length));
        if received == 0 || length == LARGEST || (is_whole && length >= wire::HEADER) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

/// A name: the hash of a public area, with the algorithm in front.
fn name_of(public: &[u8]) -> Vec<u8> {
    Writer::default().u16(codes::ALG_SHA256).raw(&sha256(&[public])).bytes()
}

/// The template of the storage root key (TCG: ECC P-256) up to its point.
fn root_key() -> Vec<u8> {
    let attributes = codes::FIXED_TPM
        | codes::FIXED_PARENT
        | codes::SENSITIVE_DATA_ORIGIN
        | codes::USER_WITH_AUTH
        | codes::NO_DA
        | codes::RESTRICTED
        | codes::DECRYPT;
    Writer::default()
        .u16(codes::ALG_ECC)
        .u16(codes::ALG_SHA256)
        .u32(attributes)
        .sized(&[])
        .u16(codes::ALG_AES)
        .u16(128)
        .u16(codes::ALG_CFB)
        .u16(codes::ALG_NULL)
        .u16(codes::CURVE_P256)
        .u16(codes::ALG_NULL)
        .bytes()
}

/// The public area of the key that signs systems.
fn signer(signed: &SignedPolicy, exponent: u32) -> Vec<u8> {
    let bits = u16::try_from(signed.modulus.len() * 8).unwrap_or(u16::MAX);
    Writer::default()
        .u16(codes::ALG_RSA)
        .u16(codes::ALG_SHA256)
        .u32(codes::DECRYPT | codes::SIGN | codes::USER_WITH_AUTH)
        .sized(&[])
        .u16(codes::ALG_NULL)
        .u16(codes::ALG_NULL)
        .u16(bits)
        .u32(exponent)
        .sized(&signed.modulus)
        .bytes()
}

/// What was asked for, with the unique part that the TPM has added.
fn public_with_unique(asked: &[u8], made: &[u8]) -> Vec<u8> {
    let asked = asked.get(..asked.len().saturating_sub(2)).unwrap_or_default();
    let unique = made.get(asked.len()..).unwrap_or_default();
    if unique.len() == 2 + DIGEST { [asked, unique].concat() } else { Vec::new() }
}
