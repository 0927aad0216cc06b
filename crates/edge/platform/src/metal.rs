//! A machine with hardware of its own, physical or virtual, that nobody but its boot loader knows. `talos.config` of the kernel's
//! command line tells where its configuration is.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flate2::read::GzDecoder;
use futures::future::join_all;
use http_fetch::{Fetch, without_credentials};
use machine::cmdline::{self, Cmdline};
use machine::config_url::{self, Variable};
use resources::StringMap;
use resources::machine::{PlatformCapabilities, PlatformMode};
use resources::runtime::PlatformMetadata;
use sys::mounts::{self, MountFlags};
use tokio::sync::watch;

use crate::{HostMount, Inventory, Platform, PlatformError, PlatformNetwork};

/// The name of the platform.
pub(crate) const NAME: &str = "metal";

/// A configuration on a filesystem of the machine.
const ISO: &str = "metal-iso";
const ISO_FILE: &str = "config.yaml";
const ISO_MOUNT: &str = "/run/metal-iso";
/// How long variables of the URL are waited for (Talos 1.7); then it is asked for with those that are known.
const VARIABLES: Duration = Duration::from_secs(90);
/// Configurations are small; more than this is something else.
const SIZE_LIMIT: u64 = 16 << 20;

/// `talos.platform=metal`.
#[derive(Debug)]
pub struct Metal {
    command_line: Cmdline,
    fetch: Arc<dyn Fetch>,
    network: watch::Sender<PlatformNetwork>,
    metadata: watch::Sender<Option<PlatformMetadata>>,
}

impl Metal {
    /// The machine with this kernel command line.
    #[must_use]
    pub fn new(command_line: Cmdline, fetch: Arc<dyn Fetch>) -> Self {
        let metadata = PlatformMetadata { platform: NAME.to_owned(), ..PlatformMetadata::default() };
        Self { command_line, fetch, network: watch::Sender::default(), metadata: watch::Sender::new(Some(metadata)) }
    }

    async fn download(&self, source: &str, machine: &dyn Inventory) -> Result<String, PlatformError> {
        let url = fill(source, machine).await;
        tracing::info!(url = without_credentials(&url), "downloading the configuration");
        let body = self.fetch.fetch_bytes(&url, &StringMap::new()).await.map_err(unavailable)?;
        text(without_credentials(&url), &body)
    }

    async fn from_filesystem(machine: &dyn Inventory) -> Result<String, PlatformError> {
        let Some(found) = machine.filesystem(ISO).await else {
            return Err(PlatformError::NoFilesystem { label: ISO, file: ISO_FILE });
        };
        let device = found.device.display().to_string();
        let read = move || -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
            let target = Path::new(ISO_MOUNT);
            sys::files::ensure_directory(target, 0o700)?;
            let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mounts::mount(&device, target, &found.kind, flags, "")?;
            let read = sys::files::read(&target.join(ISO_FILE));
            mounts::detach(target)?;
            Ok(read?.ok_or_else(|| format!("{device} has no file {ISO_FILE}"))?)
        };
        // Reading waits for a disk.
        let read = tokio::task::spawn_blocking(read).await.map_err(unavailable)?;
        let bytes = read.map_err(|source| PlatformError::Unavailable { platform: NAME, source })?;
        text(format!("{ISO} ({})", found.device.display()), &bytes)
    }
}

/// The URL with the values of its variables, as far as they become known in time.
async fn fill(source: &str, machine: &dyn Inventory) -> String {
    let wanted = config_url::variables(source);
    let asked = wanted.iter().map(|variable| tokio::time::timeout(VARIABLES, machine.variable(*variable)));
    let values: Vec<Option<String>> = join_all(asked).await.into_iter().map(Result::ok).collect();
    let unknown: Vec<&str> =
        wanted.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(variable, _)| variable.name()).collect();
    if !unknown.is_empty() {
        tracing::warn!(variables = unknown.join(", "), "variables of talos.config are not known; they stay empty");
    }
    let value = |variable: Variable| {
        let known = wanted.iter().position(|wanted| *wanted == variable).and_then(|index| values.get(index));
        known.cloned().flatten().unwrap_or_default()
    };
    config_url::fill(source, value)
}

fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> PlatformError {
    PlatformError::Unavailable { platform: NAME, source: Box::new(source) }
}

/// The text of a configuration, which may be compressed.
fn text(origin: String, bytes: &[u8]) -> Result<String, PlatformError> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    let mut plain = Vec::new();
    if bytes.starts_with(GZIP) {
        let read = GzDecoder::new(bytes).take(SIZE_LIMIT + 1).read_to_end(&mut plain);
        if read.is_err() || plain.len() as u64 > SIZE_LIMIT {
            return Err(PlatformError::Content(origin));
        }
    } else {
        plain.extend_from_slice(bytes);
    }
    String::from_utf8(plain).map_err(|_| PlatformError::Content(origin))
}

#[async_trait]
impl Platform for Metal {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mode(&self) -> config::Mode {
        config::Mode::Metal
    }

    fn capabilities(&self) -> PlatformCapabilities {
        PlatformCapabilities::owning_all(PlatformMode::Metal)
    }

    fn host_mounts(&self) -> Vec<HostMount> {
        Vec::new()
    }

    async fn configuration(&self, machine: &dyn Inventory) -> Result<Option<String>, PlatformError> {
        let source = self.command_line.last(cmdline::CONFIG).unwrap_or_default();
        let scheme = source.split_once("://").map_or(source, |(scheme, _)| scheme);
        match scheme {
            "" | "none" => Ok(None),
            ISO => Self::from_filesystem(machine).await.map(Some),
            "http" | "https" => self.download(source, machine).await.map(Some),
            "file" => {
                let path = source.trim_start_matches("file://");
                let read = sys::files::read(Path::new(path)).map_err(unavailable)?;
                let bytes = read.ok_or_else(|| PlatformError::Source(source.to_owned()))?;
                text(source.to_owned(), &bytes).map(Some)
            }
            _ => Err(PlatformError::Source(source.to_owned())),
        }
    }

    fn network(&self) -> watch::Receiver<PlatformNetwork> {
        self.network.subscribe()
    }

    fn metadata(&self) -> watch::Receiver<Option<PlatformMetadata>> {
        self.metadata.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http_fetch::FetchError;
    use parking_lot::Mutex;

    use super::*;
    use crate::{FakeInventory, Filesystem};

    /// Answers each URL with the same bytes, or refuses.
    #[derive(Debug, Default)]
    struct FakeFetch {
        body: Option<Vec<u8>>,
        asked: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Fetch for FakeFetch {
        async fn fetch(&self, url: &str, headers: &StringMap) -> Result<String, FetchError> {
            Ok(String::from_utf8_lossy(&self.fetch_bytes(url, headers).await?).into_owned())
        }

        async fn fetch_bytes(&self, url: &str, _: &StringMap) -> Result<Vec<u8>, FetchError> {
            self.asked.lock().push(url.to_owned());
            self.body.clone().ok_or_else(|| FetchError::TooLarge { url: url.to_owned(), limit: 0 })
        }
    }

    fn metal(source: &str, body: Option<&[u8]>) -> (Metal, Arc<FakeFetch>) {
        let fetch = Arc::new(FakeFetch { body: body.map(<[u8]>::to_vec), ..FakeFetch::default() });
        (Metal::new(Cmdline::parse(source), Arc::clone(&fetch) as _), fetch)
    }

    async fn ask(source: &str, body: Option<&[u8]>) -> Result<Option<String>, PlatformError> {
        metal(source, body).0.configuration(&FakeInventory::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_source_there_is_no_configuration() {
        for source in ["", "talos.config=none", "talos.config="] {
            assert_eq!(ask(source, None).await.unwrap(), None, "{source}");
        }
        let error = ask("talos.config=ftp://a/b", None).await.unwrap_err();
        assert!(matches!(&error, PlatformError::Source(source) if source == "ftp://a/b"), "{error}");
        assert!(!error.is_retryable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_url_is_asked_with_what_is_known_in_time() {
        let (metal, fetch) = metal("talos.config=http://a/c?m=${mac}&h=${hostname}", Some(b"text"));
        let inventory = FakeInventory::default().with(Variable::Mac, "aa:bb");
        let begun = tokio::time::Instant::now();
        assert_eq!(metal.configuration(&inventory).await.unwrap().as_deref(), Some("text"));
        assert_eq!(begun.elapsed(), VARIABLES, "the host name was waited for");
        assert_eq!(*fetch.asked.lock(), ["http://a/c?m=aa:bb&h="]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_compressed_and_has_to_be_text() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"version: v1alpha1\n").unwrap();
        let compressed = encoder.finish().unwrap();
        let source = "talos.config=https://a/c";
        assert_eq!(ask(source, Some(&compressed)).await.unwrap().as_deref(), Some("version: v1alpha1\n"));
        for bad in [&compressed[..20], b"\xff\xfe"] {
            let error = ask(source, Some(bad)).await.unwrap_err();
            assert!(matches!(error, PlatformError::Content(_)), "{error}");
        }
        let error = ask(source, None).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_filesystem_is_named() {
        let error = ask("talos.config=metal-iso", None).await.unwrap_err();
        assert!(matches!(error, PlatformError::NoFilesystem { label: "metal-iso", .. }), "{error}");
        let device = Filesystem { device: "/dev/no-such-device".into(), kind: "iso9660".into() };
        let mut inventory = FakeInventory::default();
        inventory.filesystem = Some(device);
        let error = metal("talos.config=metal-iso", None).0.configuration(&inventory).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
}
