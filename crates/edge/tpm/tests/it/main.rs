//! Sealing with a real TPM in a program (`swtpm`, package swtpm): its commands by a socket, without a machine around it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]
#![expect(clippy::disallowed_methods, reason = "a tool on a host, not on a node: there is no reaper to disturb")]
#![expect(clippy::disallowed_types, reason = "a real process is waited for; no time is paused here")]

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use machine::encryption::TpmSealed;
use stdx::Secret;
use tpm::{Client, SignedPolicy, TpmError};

const SECURE_BOOT: u32 = 7;
const SYSTEM: u32 = 11;
const KEY: &[u8] = b"thirty-two bytes of a volume key";

/// A running TPM; its state is in a folder.
struct Swtpm {
    process: Child,
    client: Client<Watched>,
}

/// All bytes to and from the TPM.
#[derive(Debug)]
struct Watched {
    stream: UnixStream,
    seen: Vec<u8>,
}

impl std::io::Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.seen.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

impl std::io::Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.seen.extend_from_slice(bytes);
        std::io::Write::write(&mut self.stream, bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Swtpm {
    /// Switches a TPM on. What was measured before is gone.
    fn start(folder: &Path) -> Self {
        let socket = folder.join("socket");
        std::fs::remove_file(&socket).ok();
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.display()))
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .args(["--ctrl", &format!("type=unixio,path={}", folder.join("control").display())])
            .stderr(Stdio::inherit())
            .spawn()
            .expect("swtpm (package swtpm)");
        let started = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(30), "{error}"),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { process, client: Client::new(Watched { stream, seen: Vec::new() }) }
    }

    /// One whose firmware has measured.
    fn measured(folder: &Path, firmware: &str) -> Self {
        let mut tpm = Self::start(folder);
        tpm.client.extend(SECURE_BOOT, firmware.as_bytes()).unwrap();
        tpm
    }

    fn seal(&mut self, signed: Option<&SignedPolicy>) -> Result<TpmSealed, TpmError> {
        self.client.seal(&Secret::new(KEY.to_vec()), signed)
    }

    fn unseal(&mut self, sealed: &TpmSealed, signed: Option<&SignedPolicy>) -> Result<Vec<u8>, TpmError> {
        self.client.unseal(sealed, signed).map(Secret::into_exposed)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_key_is_given_back_to_the_same_firmware_after_a_start_and_to_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut tpm = Swtpm::measured(folder.path(), "firmware");
    let sealed = tpm.seal(None).unwrap();
    assert_eq!((&sealed.pcrs[..], sealed.policy.len(), sealed.key_name.len()), (&[SECURE_BOOT][..], 32, 36));
    assert_eq!(tpm.unseal(&sealed, None).unwrap(), KEY);
    drop(tpm);

    let mut tpm = Swtpm::measured(folder.path(), "firmware");
    // Nothing is left in it that would fill it.
    for _ in 0..10 {
        assert_eq!(tpm.unseal(&sealed, None).unwrap(), KEY);
    }
    drop(tpm);

    let mut tpm = Swtpm::measured(folder.path(), "firmware with another dbx");
    let refused = tpm.unseal(&sealed, None).unwrap_err();
    assert!(matches!(refused, TpmError::Measurements(SECURE_BOOT)), "{refused:?}");
    // The TPM refuses by itself, whatever the token says of the policy.
    let mut other = tpm.seal(None).unwrap();
    assert_eq!(tpm.unseal(&other, None).unwrap(), KEY);
    (other.private, other.public) = (sealed.private.clone(), sealed.public.clone());
    let refused = tpm.unseal(&other, None).unwrap_err();
    assert!(matches!(refused, TpmError::Refused { command: "Unseal", code: 0x99d }), "{refused:?}");
    for _ in 0..10 {
        tpm.unseal(&other, None).unwrap_err();
    }
    assert_eq!(tpm.seal(None).unwrap().policy, other.policy, "refusals leave no session behind");
}

#[test]
fn another_tpm_and_a_start_without_measurements_say_so() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sealed = Swtpm::measured(one.path(), "firmware").seal(None).unwrap();
    let refused = Swtpm::measured(other.path(), "firmware").unseal(&sealed, None).unwrap_err();
    assert!(matches!(refused, TpmError::OtherTpm), "{refused:?}");

    let mut tpm = Swtpm::start(one.path());
    for refused in [tpm.unseal(&sealed, None).unwrap_err(), tpm.seal(None).unwrap_err()] {
        assert!(matches!(refused, TpmError::Unmeasured { pcr: SECURE_BOOT }), "{refused:?}");
    }
    tpm.client.extend(SECURE_BOOT, b"firmware").unwrap();
    assert_eq!(tpm.unseal(&sealed, None).unwrap(), KEY);

    // Damage of the token is no reason to believe in another machine.
    let mut damaged = sealed.clone();
    damaged.private[20] ^= 1;
    let refused = tpm.unseal(&damaged, None).unwrap_err();
    assert!(matches!(refused, TpmError::Token), "{refused:?}");
    for bytes in [&[][..], &[0, 9, 1], &[0xff; 40]] {
        let refused = tpm.unseal(&TpmSealed { private: bytes.to_vec(), ..sealed.clone() }, None).unwrap_err();
        assert!(matches!(refused, TpmError::Token), "{refused:?}");
    }
    assert_eq!(tpm.unseal(&sealed, None).unwrap(), KEY);
}

#[test]
fn the_key_never_crosses_the_bus_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let mut tpm = Swtpm::measured(folder.path(), "firmware");
    let sealed = tpm.seal(None).unwrap();
    assert_eq!(tpm.unseal(&sealed, None).unwrap(), KEY);
    let seen = &tpm.client.stream().seen;
    assert!(seen.len() > 1000 && !seen.windows(KEY.len()).any(|bytes| bytes == KEY));
}

/// A key that signs systems, and its signature over what PCR 11 is after some phases.
struct Signer(KeyPair);

impl Signer {
    fn new() -> Self {
        Self(KeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn sign(&self, phases: &[&str]) -> SignedPolicy {
        let hash = |parts: &[&[u8]]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &parts.concat());
        let mut pcr = vec![0; 32];
        for phase in phases {
            pcr = hash(&[&pcr, hash(&[phase.as_bytes()]).as_ref()]).as_ref().to_vec();
        }
        // PolicyPCR of register 11 in the bank of SHA-256, written out.
        let selection = [0, 0, 0, 1, 0, 0x0b, 3, 0, 8, 0];
        let policy = hash(&[&[0; 32], &[0, 0, 1, 0x7f], &selection, hash(&[&pcr]).as_ref()]);
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), policy.as_ref(), &mut signature).unwrap();
        let hex: String = policy.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let signatures = format!(
            r#"{{"sha256":[{{"pcrs":[11],"pkfp":"","pol":"{hex}","sig":"{}"}}]}}"#,
            STANDARD.encode(&signature)
        );
        let key: aws_lc_rs::encoding::PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        let key = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(key.as_ref()));
        SignedPolicy::parse(&key, &signatures).unwrap()
    }
}

#[test]
fn a_signed_system_opens_what_an_earlier_one_of_its_signer_has_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, other) = (Signer::new(), Signer::new());
    let start = |phases: &[&str]| {
        let mut tpm = Swtpm::measured(folder.path(), "firmware");
        for phase in phases {
            tpm.client.extend(SYSTEM, phase.as_bytes()).unwrap();
        }
        tpm
    };
    let (old, new) = (["1.7.0", "enter-machined"], ["1.7.1", "enter-machined"]);
    let sealed = start(&old).seal(Some(&signer.sign(&old))).unwrap();
    assert_eq!(sealed.pcrs, [SYSTEM]);
    assert_eq!(start(&old).unseal(&sealed, Some(&signer.sign(&old))).unwrap(), KEY);
    let mut tpm = start(&new);
    assert_eq!(tpm.unseal(&sealed, Some(&signer.sign(&new))).unwrap(), KEY, "an upgrade");

    let refused = tpm.unseal(&sealed, Some(&other.sign(&new))).unwrap_err();
    assert!(matches!(refused, TpmError::Measurements(_)), "another signer: {refused:?}");
    let refused = tpm.unseal(&sealed, Some(&signer.sign(&old))).unwrap_err();
    assert!(matches!(refused, TpmError::NoSignature), "a signature of another system: {refused:?}");
    let refused = tpm.unseal(&sealed, None).unwrap_err();
    assert!(matches!(refused, TpmError::Unsigned), "{refused:?}");
    // A signature that its key has not made, for the right policy.
    let forged = other.sign(&new).with_key_of(&signer.sign(&new));
    let refused = tpm.unseal(&sealed, Some(&forged)).unwrap_err();
    assert!(matches!(refused, TpmError::NoSignature), "{refused:?}");
    tpm.client.extend(SYSTEM, b"start-the-world").unwrap();
    let refused = tpm.unseal(&sealed, Some(&signer.sign(&new))).unwrap_err();
    assert!(matches!(refused, TpmError::NoSignature), "past its start: {refused:?}");
}

#[test]
fn what_is_no_answer_of_a_tpm_is_an_error_and_never_a_key() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let sealed = Swtpm::measured(folder.path(), "firmware").seal(None).unwrap();
    for answer in
        [&[][..], &[0; 10], &[0xff; 4096], &[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0], &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ours);
        theirs.write_all(answer).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let error = client.unseal(&sealed, None).unwrap_err();
        assert!(matches!(error, TpmError::Answer { command: "PCR_Read", .. }), "{error:?}");
        drop(client);
        theirs.read_to_end(&mut Vec::new()).unwrap();
    }
}
