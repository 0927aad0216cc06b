//! LUKS2 by cryptsetup. Passphrases go to it through its standard input alone.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use machine::encryption::{Encryption, Header, HeaderError};
use stdx::Secret;
use sys::process::{Command, ProcessError};

use crate::filesystem::load_module;
use crate::tool::{self, Failure};

const PROGRAM: &str = "cryptsetup";
/// Its exit status for a passphrase that opens nothing.
const NO_KEY: i32 = 2;
/// Of what it prints, an error shows this much of the end.
const SHOWN: usize = 512;
/// The metadata of a header are below this (LUKS2: 4 MiB at most).
const LARGEST_HEADER: usize = 4 << 20;
/// Measuring what this machine's processor can do, and hashing a passphrase.
const WORK: Duration = Duration::from_secs(120);
/// One attempt to open with one key (Talos 1.7).
pub const ATTEMPT: Duration = Duration::from_secs(10);

/// Work on an encrypted volume failed.
#[derive(Debug, thiserror::Error)]
pub enum LuksError {
    #[error("cryptsetup {action} failed on {}: {output}", device.display())]
    Tool {
        action: &'static str,
        device: PathBuf,
        output: String,
        #[source]
        source: ProcessError,
    },
    #[error("cryptsetup {action} did not end within {} s on {}", waited.as_secs(), device.display())]
    Slow { action: &'static str, device: PathBuf, waited: Duration },
    #[error("reading the LUKS2 header of {}", device.display())]
    Header {
        device: PathBuf,
        #[source]
        source: HeaderError,
    },
    #[error("the volume of {} was opened and cannot be seen", device.display())]
    Opened {
        device: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the kernel has no device mapper: {0}")]
    Kernel(String),
}

/// An open volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenVolume {
    pub path: PathBuf,
    pub size: u64,
}

/// A passphrase.
pub type Passphrase = Secret<String>;

/// Encrypted volumes of the machine.
#[async_trait]
pub trait Luks: std::fmt::Debug + Send + Sync {
    /// Makes a LUKS2 with the label [`machine::encryption::UNFINISHED`], whatever was on the device.
    ///
    /// # Errors
    /// The tool's, which refuses a device that is in use.
    async fn format(&self, device: &Path, how: &Encryption, slot: u32, key: &Passphrase) -> Result<(), LuksError>;

    /// Slots and tokens.
    ///
    /// # Errors
    /// There is no LUKS2, or it is damaged.
    async fn header(&self, device: &Path) -> Result<Header, LuksError>;

    /// Whether a passphrase is that of a slot.
    ///
    /// # Errors
    /// The tool's, other than a wrong passphrase.
    async fn fits(&self, device: &Path, slot: u32, key: &Passphrase) -> Result<bool, LuksError>;

    /// Opens the volume as `/dev/mapper/NAME`; `None` if the passphrase is that of no slot, or not of `slot`.
    ///
    /// # Errors
    /// The tool's, also for a name that is taken.
    async fn open(
        &self,
        device: &Path,
        name: &str,
        key: &Passphrase,
        slot: Option<u32>,
        options: &[String],
    ) -> Result<Option<OpenVolume>, LuksError>;

    /// Closes what is open under a name; nothing for a name that is not.
    ///
    /// # Errors
    /// The tool's, for one that is in use.
    async fn close(&self, name: &str) -> Result<(), LuksError>;

    /// Adds a key to an empty slot; `with` is a passphrase of another one.
    ///
    /// # Errors
    /// The tool's.
    async fn add(&self, device: &Path, with: &Passphrase, slot: u32, key: &Passphrase) -> Result<(), LuksError>;

    /// Deletes a slot. Whoever calls this leaves another one.
    ///
    /// # Errors
    /// The tool's.
    async fn kill(&self, device: &Path, slot: u32) -> Result<(), LuksError>;

    /// Writes a token in place of that with the same number; `None` deletes it.
    ///
    /// # Errors
    /// The tool's.
    async fn set_token(&self, device: &Path, id: u32, token: Option<&str>) -> Result<(), LuksError>;

    /// Gives the header a label.
    ///
    /// # Errors
    /// The tool's.
    async fn set_label(&self, device: &Path, label: &str) -> Result<(), LuksError>;
}

/// cryptsetup and the kernel of this machine.
#[derive(Debug, Clone, Default)]
pub struct Cryptsetup {
    /// Arguments where a key is added: how much work hashing is. Empty for the tool's own measure.
    work: Vec<String>,
}

impl Cryptsetup {
    /// One that hashes passphrases with little work, for tests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn weak() -> Self {
        let work = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        Self { work: work.map(str::to_owned).into() }
    }

    async fn run(&self, call: Call<'_>) -> Result<Option<String>, LuksError> {
        let (action, device) = (call.action, call.device.to_owned());
        let command = Command::new(PROGRAM)
            .env("LC_ALL", "C")
            // It makes the nodes itself: nothing waits for udevd, which may be gone when volumes are closed.
            .env("DM_DISABLE_UDEV", "1")
            .args(call.args)
            .input(Arc::from(call.input.expose().as_slice()));
        let (output, ended) = tool::run(command, LARGEST_HEADER, call.at_most).await;
        let failed = |source: ProcessError| {
            let text = tool::line(&output);
            let start = (text.len().saturating_sub(SHOWN)..text.len()).find(|at| text.is_char_boundary(*at));
            let output = text.get(start.unwrap_or_default()..).unwrap_or_default().to_owned();
            LuksError::Tool { action, device: device.clone(), output, source }
        };
        match ended {
            Ok(status) if status.success() => Ok(Some(String::from_utf8_lossy(&output).into_owned())),
            Ok(status) if status.code() == Some(NO_KEY) && call.may_be_wrong => Ok(None),
            Ok(status) => Err(failed(ProcessError::Failed { program: PROGRAM.to_owned(), status })),
            Err(Failure::Process(source)) => Err(failed(source)),
            Err(Failure::Slow) => Err(LuksError::Slow { action, device, waited: call.at_most }),
        }
    }
}

/// One run of the tool.
struct Call<'a> {
    action: &'static str,
    device: &'a Path,
    args: Vec<String>,
    input: Secret<Vec<u8>>,
    at_most: Duration,
    /// Whether a wrong passphrase is an answer.
    may_be_wrong: bool,
}

impl<'a> Call<'a> {
    /// `cryptsetup ACTION ARGS DEVICE`.
    fn new(action: &'static str, args: &[&str], device: &'a Path) -> Self {
        let mut all = vec![action.to_owned(), "--batch-mode".to_owned()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all.push(device.display().to_string());
        Self { action, device, args: all, input: Secret::default(), at_most: WORK, may_be_wrong: false }
    }

    fn key(mut self, keys: &[&Passphrase]) -> Self {
        self.input = Secret::new(keys.iter().flat_map(|key| key.expose().as_bytes()).copied().collect());
        self
    }

    fn attempt(self) -> Self {
        Self { at_most: ATTEMPT, may_be_wrong: true, ..self }
    }

    fn then(mut self, args: &[impl AsRef<str>]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        self
    }
}

/// The path of an open volume.
fn mapped(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

#[async_trait]
impl Luks for Cryptsetup {
    async fn format(&self, device: &Path, how: &Encryption, slot: u32, key: &Passphrase) -> Result<(), LuksError> {
        let (slot, size, sector) = (slot.to_string(), how.key_size().to_string(), how.block_size.to_string());
        let mut args = vec!["--type", "luks2", "--label", machine::encryption::UNFINISHED, "--key-file", "-"];
        args.extend(["--key-slot", &slot, "--cipher", how.cipher(), "--key-size", &size]);
        if how.block_size != 0 {
            args.extend(["--sector-size", &sector]);
        }
        args.extend(self.work.iter().map(String::as_str));
        self.run(Call::new("luksFormat", &args, device).key(&[key])).await.map(drop)
    }

    async fn header(&self, device: &Path) -> Result<Header, LuksError> {
        let text = self.run(Call::new("luksDump", &["--dump-json-metadata"], device)).await?.unwrap_or_default();
        Header::parse(&text).map_err(|source| LuksError::Header { device: device.to_owned(), source })
    }

    async fn fits(&self, device: &Path, slot: u32, key: &Passphrase) -> Result<bool, LuksError> {
        let slot = slot.to_string();
        let args = ["--type", "luks2", "--test-passphrase", "--key-slot", &slot, "--key-file", "-"];
        Ok(self.run(Call::new("open", &args, device).key(&[key]).attempt()).await?.is_some())
    }

    async fn open(
        &self,
        device: &Path,
        name: &str,
        key: &Passphrase,
        slot: Option<u32>,
        options: &[String],
    ) -> Result<Option<OpenVolume>, LuksError> {
        tokio::task::spawn_blocking(|| load_module("dm_mod"))
            .await
            .map_err(|error| LuksError::Kernel(error.to_string()))?
            .map_err(|error| LuksError::Kernel(stdx::error_chain(&error)))?;
        let slot = slot.map(|slot| slot.to_string());
        let options: Vec<String> = options.iter().map(|option| format!("--perf-{option}")).collect();
        let mut args = vec!["--type", "luks2", "--key-file", "-"];
        args.extend(slot.iter().flat_map(|slot| ["--key-slot", slot]));
        args.extend(options.iter().map(String::as_str));
        if self.run(Call::new("open", &args, device).then(&[name]).key(&[key]).attempt()).await?.is_none() {
            return Ok(None);
        }
        let path = mapped(name);
        let failed = |source| LuksError::Opened { device: device.to_owned(), source };
        let size = File::open(&path).and_then(|mut file| file.seek(SeekFrom::End(0))).map_err(failed)?;
        Ok(Some(OpenVolume { path, size }))
    }

    async fn close(&self, name: &str) -> Result<(), LuksError> {
        let path = mapped(name);
        if !path.exists() {
            return Ok(());
        }
        let mut call = Call::new("close", &[], &path);
        call.args.pop();
        self.run(call.then(&[name])).await.map(drop)
    }

    async fn add(&self, device: &Path, with: &Passphrase, slot: u32, key: &Passphrase) -> Result<(), LuksError> {
        let (slot, old, new) = (slot.to_string(), with.expose().len().to_string(), key.expose().len().to_string());
        let mut args = vec!["--key-slot", &slot, "--key-file", "-", "--keyfile-size", &old, "--new-keyfile-size", &new];
        args.extend(self.work.iter().map(String::as_str));
        self.run(Call::new("luksAddKey", &args, device).then(&["-"]).key(&[with, key])).await.map(drop)
    }

    async fn kill(&self, device: &Path, slot: u32) -> Result<(), LuksError> {
        // It asks for no passphrase in batch mode.
        self.run(Call::new("luksKillSlot", &[], device).then(&[slot.to_string()])).await.map(drop)
    }

    async fn set_token(&self, device: &Path, id: u32, token: Option<&str>) -> Result<(), LuksError> {
        let id = id.to_string();
        let call = match token {
            Some(token) => {
                let mut call = Call::new("token", &[], device);
                call.args = ["token", "import", "--token-replace", "--token-id", &id, "--json-file", "-"]
                    .map(str::to_owned)
                    .into();
                call.input = Secret::new(token.as_bytes().to_vec());
                call.then(&[device.display().to_string()])
            }
            None => {
                let mut call = Call::new("token", &[], device);
                call.args = ["token", "remove", "--token-id", &id].map(str::to_owned).into();
                call.then(&[device.display().to_string()])
            }
        };
        self.run(call).await.map(drop)
    }

    async fn set_label(&self, device: &Path, label: &str) -> Result<(), LuksError> {
        self.run(Call::new("config", &["--label", label], device)).await.map(drop)
    }
}
