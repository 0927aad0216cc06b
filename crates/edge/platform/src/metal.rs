//! A machine with hardware of its own, physical or virtual, that nobody but its boot loader knows. `talos.config` of the kernel's
//! command line tells where its configuration is.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flate2::read::GzDecoder;
use futures::future::join_all;
use http_fetch::{Fetch, FetchError, PostForm, without_credentials};
use machine::cmdline::Cmdline;
use machine::config_url::{self, Variable};
use resources::StringMap;
use resources::machine::{PlatformCapabilities, PlatformMode};
use resources::runtime::PlatformMetadata;
use sys::mounts::{self, MountFlags};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::oauth::{Answer, DeviceCode, OauthError, Settings};
use crate::tftp::{self, TftpError};
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
const SIZE_LIMIT: usize = 16 << 20;

/// How long one question for the configuration waits for an operator who has to permit it; the next one goes on.
const PERMISSION: Duration = Duration::from_secs(150);

/// `talos.platform=metal`.
#[derive(Debug)]
pub struct Metal {
    command_line: Cmdline,
    fetch: Arc<dyn Fetch>,
    forms: Arc<dyn PostForm>,
    permission: Mutex<Permission>,
    network: watch::Sender<PlatformNetwork>,
    metadata: watch::Sender<Option<PlatformMetadata>>,
}

/// Whether an operator has permitted the download. It outlives a question for the configuration.
#[derive(Debug, Default)]
enum Permission {
    #[default]
    None,
    Asked {
        code: DeviceCode,
        until: Instant,
    },
    Granted(Token),
}

/// An access token.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Metal {
    /// The machine with this kernel command line.
    #[must_use]
    pub fn new(command_line: Cmdline, fetch: Arc<dyn Fetch>, forms: Arc<dyn PostForm>) -> Self {
        let metadata = PlatformMetadata { platform: NAME.to_owned(), ..PlatformMetadata::default() };
        Self {
            command_line,
            fetch,
            forms,
            permission: Mutex::default(),
            network: watch::Sender::default(),
            metadata: watch::Sender::new(Some(metadata)),
        }
    }

    async fn download(&self, source: &str, machine: &dyn Inventory) -> Result<String, PlatformError> {
        let mut headers = StringMap::new();
        if let Some(settings) = Settings::read(&self.command_line, source)? {
            let Token(token) = self.permitted(&settings, machine).await?;
            headers.insert("Authorization".to_owned(), format!("Bearer {token}"));
        }
        let url = fill(source, machine).await;
        tracing::info!(url = without_credentials(&url), "downloading the configuration");
        let body = self.fetch.fetch_bytes(&url, &headers).await;
        if body.as_ref().is_err_and(FetchError::is_unauthorized) {
            *self.permission.lock().await = Permission::None;
        }
        text(without_credentials(&url), &body.map_err(unavailable)?)
    }

    /// Waits for the operator's permission. Cancel-safe: a code that was shown stays the one that is asked about.
    async fn permitted(&self, settings: &Settings, machine: &dyn Inventory) -> Result<Token, PlatformError> {
        let give_up = Instant::now() + PERMISSION;
        let mut permission = self.permission.lock().await;
        loop {
            match &mut *permission {
                Permission::Granted(token) => return Ok(token.clone()),
                Permission::None => *permission = self.ask(settings, machine).await?,
                Permission::Asked { code, until } => {
                    let now = Instant::now();
                    if now >= *until {
                        *permission = Permission::None;
                        continue;
                    }
                    if now >= give_up {
                        let (address, code) = (code.address.clone(), code.user_code.clone());
                        return Err(unavailable(OauthError::Waiting { address, code }));
                    }
                    tokio::time::sleep(code.interval()).await;
                    let form = settings.token_form(code);
                    let answer = self.forms.post_form(&settings.token_url, &form).await.map_err(unavailable)?;
                    match code.answer(answer.status, &answer.body) {
                        Answer::Pending => {}
                        Answer::Granted(token) => *permission = Permission::Granted(Token(token)),
                        Answer::Expired => *permission = Permission::None,
                        Answer::Failed(error) => {
                            *permission = Permission::None;
                            return Err(unavailable(error));
                        }
                    }
                }
            }
        }
    }

    /// Asks for a code, and shows it to the operator.
    async fn ask(&self, settings: &Settings, machine: &dyn Inventory) -> Result<Permission, PlatformError> {
        let extra = join_all(settings.extra.iter().map(async |variable| {
            let value = tokio::time::timeout(VARIABLES, machine.variable(*variable)).await;
            (*variable, value.unwrap_or_default())
        }))
        .await;
        let form = settings.device_form(&extra);
        let answer = self.forms.post_form(&settings.device_url, &form).await.map_err(unavailable)?;
        let code = DeviceCode::parse(answer.status, &answer.body).map_err(unavailable)?;
        tracing::info!(
            address = code.address,
            code = code.user_code,
            "this machine may download its configuration when that is permitted: visit {} and enter the code {}",
            code.address,
            code.user_code,
        );
        let until = Instant::now() + code.valid;
        Ok(Permission::Asked { code, until })
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
        let read = GzDecoder::new(bytes).take(SIZE_LIMIT as u64 + 1).read_to_end(&mut plain);
        if read.is_err() || plain.len() > SIZE_LIMIT {
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
        let Some(source) = self.command_line.config_source() else { return Ok(None) };
        let scheme = source.split_once("://").map_or(source, |(scheme, _)| scheme);
        match scheme {
            ISO => Self::from_filesystem(machine).await.map(Some),
            "http" | "https" => self.download(source, machine).await.map(Some),
            "tftp" => {
                let url = fill(source, machine).await;
                tracing::info!(url, "downloading the configuration");
                let bytes = tftp::fetch(&url, SIZE_LIMIT).await.map_err(|error| match error {
                    TftpError::Url(_) => PlatformError::Source(source.to_owned()),
                    error => unavailable(error),
                })?;
                text(url, &bytes).map(Some)
            }
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

    use http_fetch::{FormAnswer, HttpFetch};
    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

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

    #[async_trait]
    impl PostForm for FakeFetch {
        async fn post_form(&self, url: &str, _: &[(String, String)]) -> Result<FormAnswer, FetchError> {
            Err(FetchError::TooLarge { url: url.to_owned(), limit: 0 })
        }
    }

    fn metal(source: &str, body: Option<&[u8]>) -> (Metal, Arc<FakeFetch>) {
        let fetch = Arc::new(FakeFetch { body: body.map(<[u8]>::to_vec), ..FakeFetch::default() });
        (Metal::new(Cmdline::parse(source), Arc::clone(&fetch) as _, Arc::clone(&fetch) as _), fetch)
    }

    /// A server on loopback that answers each request by its number.
    async fn server(
        listener: TcpListener,
        mut answer: impl FnMut(usize, &str) -> (u16, String),
        requests: usize,
    ) -> Vec<String> {
        let mut heard = Vec::new();
        for number in 0..requests {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let is_whole = |request: &[u8]| {
                let text = String::from_utf8_lossy(request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
                let length =
                    head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                body.len() >= length.unwrap_or(0)
            };
            while !is_whole(&request) {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the request ended early");
            }
            let request = String::from_utf8(request).unwrap();
            let (status, body) = answer(number, &request);
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            heard.push(request);
        }
        heard
    }

    #[tokio::test]
    async fn an_operator_permits_the_download_on_another_device() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let code =
            r#"{"device_code":"d c","user_code":"ABCD","verification_uri":"https://o/v","expires_in":60,"interval":1}"#;
        let answers = server(
            listener,
            |number, request| match number {
                0 => (200, code.to_owned()),
                1 => (400, r#"{"error":"authorization_pending"}"#.to_owned()),
                2 => (200, r#"{"access_token":"t0"}"#.to_owned()),
                // The token is refused once: the operator is asked again.
                3 => (401, String::new()),
                4 => (200, code.to_owned()),
                5 => (200, r#"{"access_token":"t1"}"#.to_owned()),
                _ if request.contains("Bearer t1") => (200, "version: v1alpha1\n".to_owned()),
                _ => (403, String::new()),
            },
            7,
        );
        let line = format!(
            "talos.config=http://{own}/c?uuid= talos.config.oauth.client_id=me talos.config.oauth.extra_variable=uuid"
        );
        let metal = Metal::new(Cmdline::parse(&line), Arc::new(HttpFetch), Arc::new(HttpFetch));
        let inventory = FakeInventory::default().with(Variable::Uuid, "1-2");
        let asked = async {
            let refused = metal.configuration(&inventory).await.unwrap_err();
            assert!(refused.is_retryable(), "{refused}");
            metal.configuration(&inventory).await.unwrap()
        };
        let both = async { tokio::join!(asked, answers) };
        let (configuration, heard) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        assert_eq!(configuration.as_deref(), Some("version: v1alpha1\n"));
        let ends = |number: usize, end: &str| assert!(heard[number].ends_with(end), "{}", heard[number]);
        assert!(heard[0].starts_with("POST /device/code HTTP/1.1"), "{}", heard[0]);
        ends(0, "client_id=me&uuid=1-2");
        assert!(heard[1].starts_with("POST /token HTTP/1.1"), "{}", heard[1]);
        ends(1, "client_id=me&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=d%20c");
        assert!(heard[6].starts_with("GET /c?uuid=1-2 HTTP/1.1"), "{}", heard[6]);
    }

    /// Answers forms that nobody ever permits anything.
    #[derive(Debug, Default)]
    struct Unpermitted(Mutex<Vec<String>>);

    #[async_trait]
    impl PostForm for Unpermitted {
        async fn post_form(&self, url: &str, _: &[(String, String)]) -> Result<FormAnswer, FetchError> {
            self.0.lock().push(url.to_owned());
            let code = r#"{"device_code":"d","user_code":"ABCD","verification_uri":"https://o/v","expires_in":200}"#;
            Ok(match url {
                "http://a/device/code" => FormAnswer { status: 200, body: code.to_owned() },
                _ => FormAnswer { status: 400, body: r#"{"error":"authorization_pending"}"#.to_owned() },
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_outlives_a_question_and_is_replaced_when_it_is_over() {
        let forms = Arc::new(Unpermitted::default());
        let line = Cmdline::parse("talos.config=http://a/c talos.config.oauth.client_id=me");
        let metal = Metal::new(line, Arc::new(FakeFetch::default()), Arc::clone(&forms) as _);
        let codes = || forms.0.lock().iter().filter(|url| url.ends_with("/device/code")).count();
        let error = metal.configuration(&FakeInventory::default()).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let PlatformError::Unavailable { source, .. } = &error else { panic!("{error}") };
        assert!(source.to_string().ends_with("visit https://o/v and enter the code ABCD"), "{source}");
        assert_eq!(codes(), 1);
        // A question that was dropped does not lose it either.
        let dropped =
            tokio::time::timeout(Duration::from_secs(20), metal.configuration(&FakeInventory::default())).await;
        assert!(dropped.is_err(), "{dropped:?}");
        assert_eq!(codes(), 1);
        metal.configuration(&FakeInventory::default()).await.unwrap_err();
        assert_eq!(codes(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_argument_leads_to_maintenance_and_not_to_questions() {
        let line = "talos.config=http://a/c talos.config.oauth.client_id=me talos.config.oauth.extra_variable=x";
        let error = ask(line, Some(b"text")).await.unwrap_err();
        assert!(matches!(error, PlatformError::Oauth(OauthError::Argument { .. })), "{error}");
        assert!(!error.is_retryable());
    }

    #[tokio::test]
    async fn a_configuration_comes_by_tftp() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let source = format!("talos.config=tftp://{}/m?mac=${{mac}}", socket.local_addr().unwrap());
        let served = async {
            let mut buffer = [0; 100];
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            assert!(buffer[..length].starts_with(b"\0\x01m?mac=aa:bb\0"));
            socket.send_to(b"\0\x03\0\x01text", client).await.unwrap();
        };
        let inventory = FakeInventory::default().with(Variable::Mac, "aa:bb");
        let (metal, _) = metal(&source, None);
        let (configuration, ()) = tokio::join!(metal.configuration(&inventory), served);
        assert_eq!(configuration.unwrap().as_deref(), Some("text"));
        let error = ask("talos.config=tftp://a", None).await.unwrap_err();
        assert!(matches!(error, PlatformError::Source(_)), "{error}");
    }

    async fn ask(source: &str, body: Option<&[u8]>) -> Result<Option<String>, PlatformError> {
        metal(source, body).0.configuration(&FakeInventory::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_source_there_is_no_configuration() {
        for source in ["", "talos.config=none", "talos.config=", "talos.config=http://a/c talos.config=none"] {
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
        assert!(error.is_retryable() && error.is_medium_absent(), "it may be attached later");
        let device = Filesystem { device: "/dev/no-such-device".into(), kind: "iso9660".into() };
        let mut inventory = FakeInventory::default();
        inventory.filesystem = Some(device);
        let error = metal("talos.config=metal-iso", None).0.configuration(&inventory).await.unwrap_err();
        assert!(error.is_retryable() && !error.is_medium_absent(), "{error}");
    }
}
