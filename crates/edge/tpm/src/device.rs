//! The device of the kernel's resource manager, which keeps programs from each other and lets go what a closed file left.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use machine::encryption::TpmSealed;
use stdx::Secret;

use crate::client::Client;
use crate::signed::SignedPolicy;
use crate::{Tpm, TpmError};

/// The TPM of a machine.
pub const DEVICE: &str = "/dev/tpmrm0";
/// Some TPMs take seconds to make a key.
const ANSWERS: Duration = Duration::from_secs(60);
/// Its driver may be on its way when the machine has just started; waited for once.
const APPEARS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// The TPM behind a device.
#[derive(Debug, Clone)]
pub struct Device {
    path: PathBuf,
    /// Where a signed UKI has left its key and signatures.
    signed: PathBuf,
    has_waited: Arc<AtomicBool>,
}

impl Device {
    /// `path`: the device; `signed`: the directory of the measurements' signatures.
    pub fn new(path: impl Into<PathBuf>, signed: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), signed: signed.into(), has_waited: Arc::default() }
    }

    /// Does some commands in a thread that may wait.
    async fn with<T: Send + 'static>(
        &self,
        command: &'static str,
        work: impl FnOnce(Client<File>, Option<SignedPolicy>) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let until = tokio::time::Instant::now() + APPEARS;
        while !self.path.exists() && !self.has_waited.load(Ordering::Relaxed) && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        self.has_waited.store(true, Ordering::Relaxed);
        let (path, signed) = (self.path.clone(), self.signed.clone());
        let work = tokio::task::spawn_blocking(move || {
            let device = File::options().read(true).write(true).open(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => TpmError::Absent(path),
                _ => TpmError::Io(error),
            })?;
            work(Client::new(device), SignedPolicy::read(&signed)?)
        });
        match tokio::time::timeout(ANSWERS, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => Err(TpmError::Io(io::Error::other(panicked))),
            Err(_) => Err(TpmError::Silent { command }),
        }
    }
}

#[async_trait]
impl Tpm for Device {
    async fn seal(&self, key: &Secret<Vec<u8>>) -> Result<TpmSealed, TpmError> {
        let key = key.clone();
        self.with("sealing", move |mut client, signed| client.seal(&key, signed.as_ref())).await
    }

    async fn unseal(&self, sealed: &TpmSealed) -> Result<Secret<Vec<u8>>, TpmError> {
        let sealed = sealed.clone();
        self.with("unsealing", move |mut client, signed| client.unseal(&sealed, signed.as_ref())).await
    }
}
