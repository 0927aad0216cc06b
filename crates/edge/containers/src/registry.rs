//! Reading from image registries: mirrors in order, then the reference's own host; anonymous, basic and bearer access.
//!
//! The endpoint list and the `?ns=` parameter follow containerd's, so that one mirror serves both it and this client.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use reqwest::StatusCode;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Client, Response};
use stdx::Secret;
use url::Url;

use crate::reference::Reference;

/// How long a registry may take to answer at all; a download may take longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest manifest or image configuration that is read, as it is held in memory. Registries refuse larger ones too.
pub(crate) const MAX_PIECE: usize = 4 << 20;

/// What this client calls itself where it exchanges tokens.
const CLIENT_ID: &str = "machined";

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Endpoints to ask in place of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    pub endpoints: Vec<Url>,
    /// The endpoint's path is complete: `/v2` is not appended.
    pub override_path: bool,
}

/// Client authentication.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    pub username: String,
    pub password: Option<Secret<String>>,
    /// Base64 of `username:password`, in place of both.
    pub auth: Option<Secret<String>>,
    /// Exchanged for an access token where a registry names a token server.
    pub identity_token: Option<Secret<String>>,
}

/// How one registry host is reached.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    pub credentials: Option<Credentials>,
    /// PEM of CAs to trust besides the usual ones.
    pub ca: Option<Vec<u8>>,
    /// PEM of a client certificate and its key.
    pub client_identity: Option<Secret<Vec<u8>>>,
    pub insecure_skip_verify: bool,
}

/// Mirrors by host (`*` for all others), and settings by the contacted host.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    pub mirrors: BTreeMap<String, Mirror>,
    pub hosts: BTreeMap<String, HostConfig>,
    pub proxy: Proxy,
}

/// Proxies in front of registries, as the variables `http_proxy`, `https_proxy` and `no_proxy` have them: addresses, and hosts
/// without a proxy separated by commas. Empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    pub http: String,
    pub https: String,
    pub except: String,
}

/// Failure at a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("setting up access to {host}")]
    Setup {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("asking {url}")]
    Request {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url} sent a manifest or configuration of more than {MAX_PIECE} bytes")]
    TooLarge { url: String },
    #[error("{url} gave no access token for the identity token")]
    NoToken { url: String },
    #[error("no endpoint has {reference}: {}", attempts.join("; "))]
    Exhausted {
        reference: String,
        attempts: Vec<String>,
        /// Another attempt at one of the endpoints may succeed.
        passes: bool,
        /// One of them has answered that it does not have the image, or does not give it to this machine.
        refused: bool,
    },
}

impl RegistryError {
    /// Whether another attempt may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Request { .. } => true,
            Self::Status { status, .. } => {
                !status.is_client_error()
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Exhausted { passes, .. } => *passes,
            Self::Setup { .. } | Self::TooLarge { .. } | Self::NoToken { .. } => false,
        }
    }

    /// Whether a registry has answered that it does not have the image, or does not give it to this machine.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Status { .. } | Self::NoToken { .. } => !self.is_retryable(),
            Self::Exhausted { refused, .. } => *refused,
            Self::Setup { .. } | Self::Request { .. } | Self::TooLarge { .. } => false,
        }
    }
}

/// A manifest as the registry sent it.
#[derive(Debug, Clone)]
pub struct RawManifest {
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// An endpoint base such as `http://10.5.0.1:5000/v2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    base: Url,
    /// The reference's host, where the endpoint stands in for it.
    namespace: Option<String>,
}

impl Registries {
    /// The endpoints for an image of `host`, in order: its mirrors (or those of `*`), then the host itself.
    pub fn endpoints(&self, host: &str) -> Vec<Endpoint> {
        let mirror = self.mirrors.get(host).or_else(|| self.mirrors.get("*"));
        let mut endpoints: Vec<Endpoint> = mirror
            .iter()
            .flat_map(|mirror| mirror.endpoints.iter().map(|url| (url, mirror.override_path)))
            .map(|(url, complete)| {
                let base = if complete { url.clone() } else { with_path(url, "v2") };
                Endpoint { base, namespace: Some(host.to_owned()) }
            })
            .collect();
        let own = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let scheme = if is_local(own) { "http" } else { "https" };
        if let Ok(base) = Url::parse(&format!("{scheme}://{own}/v2")) {
            endpoints.push(Endpoint { base, namespace: None });
        }
        endpoints
    }
}

/// Registries on this machine are plain HTTP by convention.
fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.starts_with("127.")
}

fn with_path(url: &Url, tail: &str) -> Url {
    let mut url = url.clone();
    let path = format!("{}/{tail}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// A client of one endpoint, with the token it was given.
pub struct Session {
    client: Client,
    endpoint: Endpoint,
    credentials: Option<Credentials>,
    token: tokio::sync::Mutex<Option<Secret<String>>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Session {
    /// Prepares access to an endpoint; nothing is sent yet.
    ///
    /// # Errors
    /// `Setup` when a CA or a client certificate of the configuration cannot be used.
    pub fn new(registries: &Registries, endpoint: Endpoint) -> Result<Self, RegistryError> {
        let host = authority(&endpoint.base);
        let config = registries.hosts.get(&host).cloned().unwrap_or_default();
        let client =
            build_client(&config, &registries.proxy).map_err(|source| RegistryError::Setup { host, source })?;
        Ok(Self { client, endpoint, credentials: config.credentials, token: tokio::sync::Mutex::new(None) })
    }

    /// The manifest that a tag or a digest names.
    ///
    /// # Errors
    /// `Request`, `Status`, `TooLarge`.
    pub async fn manifest(&self, repository: &str, selector: &str) -> Result<RawManifest, RegistryError> {
        let url = self.url(&format!("{repository}/manifests/{selector}"));
        let mut response = self.get(&url, repository).await?;
        let header = response.headers().get(reqwest::header::CONTENT_TYPE);
        let media_type = header.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        let failed = |source| RegistryError::Request { url: url.to_string(), source };
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_PIECE {
                return Err(RegistryError::TooLarge { url: url.to_string() });
            }
        }
        Ok(RawManifest { media_type, bytes })
    }

    /// The content of a blob, as it arrives.
    ///
    /// # Errors
    /// `Request`, `Status`.
    pub async fn blob(&self, repository: &str, digest: &str) -> Result<Response, RegistryError> {
        let url = self.url(&format!("{repository}/blobs/{digest}"));
        self.get(&url, repository).await
    }

    fn url(&self, tail: &str) -> Url {
        let mut url = with_path(&self.endpoint.base, tail);
        if let Some(namespace) = &self.endpoint.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    async fn get(&self, url: &Url, repository: &str) -> Result<Response, RegistryError> {
        let mut token = self.token.lock().await;
        let response = self.send(url, token.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return ok(response, url);
        }
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        *token = self.authorize(challenge, repository).await?;
        let response = self.send(url, token.as_ref()).await?;
        ok(response, url)
    }

    async fn send(&self, url: &Url, authorization: Option<&Secret<String>>) -> Result<Response, RegistryError> {
        let mut request = self.client.get(url.clone()).header(ACCEPT, MANIFEST_TYPES);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value.expose());
        }
        request.send().await.map_err(|source| RegistryError::Request { url: url.to_string(), source })
    }

    /// Answers a challenge: `Basic` with the credentials as they are, `Bearer` with a token from its realm.
    async fn authorize(&self, challenge: &str, repository: &str) -> Result<Option<Secret<String>>, RegistryError> {
        let basic = self.credentials.as_ref().and_then(basic_value);
        let Some(parameters) = challenge.strip_prefix("Bearer ").map(parse_parameters) else {
            return Ok(basic);
        };
        let Some(mut realm) = parameters.get("realm").and_then(|realm| Url::parse(realm).ok()) else {
            return Ok(basic);
        };
        let scope = parameters.get("scope").cloned().unwrap_or_else(|| format!("repository:{repository}:pull"));
        if let Some(token) = self.credentials.as_ref().and_then(|c| c.identity_token.as_ref()) {
            return self.exchange(&realm, parameters.get("service").map(String::as_str), &scope, token).await.map(Some);
        }
        realm.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = parameters.get("service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        let response = ok(self.send(&realm, basic.as_ref()).await?, &realm)?;
        Ok(access_token(response, &realm).await?.map(bearer))
    }

    /// Gets an access token for an identity token, which says who asks and opens nothing itself: it is a refresh token of
    /// OAuth 2 and is shown to the token server alone.
    async fn exchange(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        identity: &Secret<String>,
    ) -> Result<Secret<String>, RegistryError> {
        let body = {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
            form.append_pair("scope", scope).append_pair("refresh_token", identity.expose());
            if let Some(service) = service {
                form.append_pair("service", service);
            }
            form.finish()
        };
        let request = self.client.post(realm.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let sent = request.body(body).send().await;
        let response = sent.map_err(|source| RegistryError::Request { url: realm.to_string(), source })?;
        let token = access_token(ok(response, realm)?, realm).await?;
        token.map(bearer).ok_or_else(|| RegistryError::NoToken { url: realm.to_string() })
    }
}

fn bearer(token: String) -> Secret<String> {
    Secret::new(format!("Bearer {token}"))
}

/// The access token of an answer, which has either of two names.
async fn access_token(response: Response, realm: &Url) -> Result<Option<String>, RegistryError> {
    let failed = |source| RegistryError::Request { url: realm.to_string(), source };
    let body: TokenAnswer = serde_json::from_slice(&response.bytes().await.map_err(failed)?).unwrap_or_default();
    Ok(body.token.or(body.access_token))
}

#[derive(Default, serde::Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

fn basic_value(credentials: &Credentials) -> Option<Secret<String>> {
    use base64::Engine as _;
    if let Some(auth) = &credentials.auth {
        return Some(Secret::new(format!("Basic {}", auth.expose())));
    }
    let password = credentials.password.as_ref()?.expose();
    let pair = format!("{}:{password}", credentials.username);
    Some(Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))))
}

/// `realm="https://x",service="y"` as a map. Commas inside quotes stay.
fn parse_parameters(text: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    let mut rest = text.trim();
    while let Some((key, tail)) = rest.split_once('=') {
        let (value, next) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => tail.split_once(',').unwrap_or((tail, "")),
        };
        parameters.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        rest = next.trim_start_matches([',', ' ']);
    }
    parameters
}

fn ok(response: Response, url: &Url) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() { Ok(response) } else { Err(RegistryError::Status { url: url.to_string(), status }) }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn build_client(config: &HostConfig, proxy: &Proxy) -> Result<Client, reqwest::Error> {
    let mut builder = Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(Duration::from_secs(60));
    let except = || reqwest::NoProxy::from_string(&proxy.except);
    if !proxy.http.is_empty() {
        builder = builder.proxy(reqwest::Proxy::http(&proxy.http)?.no_proxy(except()));
    }
    if !proxy.https.is_empty() {
        builder = builder.proxy(reqwest::Proxy::https(&proxy.https)?.no_proxy(except()));
    }
    if let Some(ca) = &config.ca {
        for certificate in reqwest::Certificate::from_pem_bundle(ca)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(identity) = &config.client_identity {
        builder = builder.identity(reqwest::Identity::from_pem(identity.expose())?);
    }
    if config.insecure_skip_verify {
        builder = builder.danger_accept_invalid_certs(true);
    }
    builder.build()
}

/// Sessions for the endpoints that may have an image, in order.
///
/// # Errors
/// As [`Session::new`].
pub fn sessions(registries: &Registries, reference: &Reference) -> Result<Vec<Session>, RegistryError> {
    registries.endpoints(&reference.host).into_iter().map(|endpoint| Session::new(registries, endpoint)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(url: &str, override_path: bool) -> Mirror {
        Mirror { endpoints: vec![Url::parse(url).unwrap()], override_path }
    }

    fn bases(registries: &Registries, host: &str) -> Vec<String> {
        registries.endpoints(host).into_iter().map(|e| e.base.to_string()).collect()
    }

    #[test]
    fn mirrors_come_before_the_host_and_the_star_is_for_hosts_without_their_own() {
        let registries = Registries {
            mirrors: [
                ("docker.io".into(), mirror("http://10.5.0.1:5000", false)),
                ("*".into(), mirror("http://all.example/cache/v2", true)),
            ]
            .into(),
            ..Registries::default()
        };
        assert_eq!(bases(&registries, "docker.io"), ["http://10.5.0.1:5000/v2", "https://registry-1.docker.io/v2"]);
        assert_eq!(bases(&registries, "quay.io"), ["http://all.example/cache/v2", "https://quay.io/v2"]);
        assert_eq!(bases(&Registries::default(), "localhost:5000"), ["http://localhost:5000/v2"]);
    }

    #[test]
    fn a_mirror_is_told_which_host_it_stands_in_for() {
        let registries =
            Registries { mirrors: [("ghcr.io".into(), mirror("http://m", false))].into(), ..Registries::default() };
        let endpoint = registries.endpoints("ghcr.io").remove(0);
        let session = Session::new(&registries, endpoint).unwrap();
        assert_eq!(session.url("a/b/manifests/v1").as_str(), "http://m/v2/a/b/manifests/v1?ns=ghcr.io");
    }

    /// A registry and its token server on one port: answers by the request's path, and keeps what it was sent.
    async fn token_server() -> (String, std::sync::Arc<parking_lot::Mutex<Vec<String>>>, stdx::tasks::Task<()>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (kept, own) = (std::sync::Arc::clone(&requests), host.clone());
        let serving = stdx::tasks::spawn("token server", async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                // the whole request: with a body where there is one
                while !is_complete(&String::from_utf8_lossy(&request)) {
                    let read = stream.read(&mut buffer).await.unwrap();
                    request.extend_from_slice(&buffer[..read]);
                }
                let text = String::from_utf8(request).unwrap();
                let answer = if text.starts_with("POST /token") {
                    r#"HTTP/1.1 200 OK
Content-Length: 26

{"access_token": "access"}"#
                        .replace('\n', "\r\n")
                } else if text.to_lowercase().contains("authorization: bearer access") {
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()
                } else {
                    format!(
                        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer \
                         realm=\"http://{own}/token\",service=\"reg\"\r\n\r\n"
                    )
                };
                kept.lock().push(text);
                stream.write_all(answer.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
            }
        });
        (host, requests, serving)
    }

    fn is_complete(request: &str) -> bool {
        let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
        let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        body.len() >= length.unwrap_or(0)
    }

    #[tokio::test]
    async fn an_identity_token_is_exchanged_and_never_shown_to_the_registry() {
        let (host, requests, _serving) = token_server().await;
        let credentials =
            Credentials { identity_token: Some(Secret::new("identity".into())), ..Credentials::default() };
        let config = HostConfig { credentials: Some(credentials), ..HostConfig::default() };
        let registries = Registries { hosts: [(host.clone(), config)].into(), ..Registries::default() };
        let endpoint = registries.endpoints(&host).remove(0);
        let session = Session::new(&registries, endpoint).unwrap();
        let response = session.get(&session.url("a/b/manifests/v1"), "a/b").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let requests = requests.lock();
        let (exchange, others): (Vec<_>, Vec<_>) = requests.iter().partition(|text| text.starts_with("POST /token"));
        assert_eq!((exchange.len(), others.len()), (1, 2));
        let body = exchange[0].split_once("\r\n\r\n").unwrap().1;
        assert_eq!(
            body,
            "grant_type=refresh_token&client_id=machined&scope=repository%3Aa%2Fb%3Apull&refresh_token=identity&service=reg"
        );
        assert!(others.iter().all(|text| !text.contains("identity")), "{others:?}");
    }

    #[tokio::test]
    async fn a_proxy_is_asked_but_not_for_hosts_without_one() {
        let (proxy, requests, _serving) = token_server().await;
        let mirrors = [("images.invalid".into(), mirror("http://mirror.invalid:81", false))].into();
        let proxy = |except: &str| Proxy { http: format!("http://{proxy}"), except: except.into(), ..Proxy::default() };
        let manifest = async |proxy: Proxy| {
            let registries = Registries { mirrors: BTreeMap::clone(&mirrors), proxy, ..Registries::default() };
            let endpoint = registries.endpoints("images.invalid").remove(0);
            Session::new(&registries, endpoint).unwrap().manifest("a/b", "v1").await.map(drop)
        };
        manifest(proxy("other.invalid")).await.ok();
        let asked = requests.lock()[0].clone();
        assert!(
            asked.starts_with("GET http://mirror.invalid:81/v2/a/b/manifests/v1?ns=images.invalid HTTP"),
            "{asked}"
        );
        let before = requests.lock().len();
        let error = manifest(proxy("mirror.invalid")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Request { .. }), "{error}");
        assert_eq!(requests.lock().len(), before);
    }

    #[test]
    fn challenge_parameters_keep_commas_inside_quotes() {
        let parameters = parse_parameters(r#"realm="https://a/t",scope="repository:x:pull,push", service=s"#);
        assert_eq!(parameters["realm"], "https://a/t");
        assert_eq!(parameters["scope"], "repository:x:pull,push");
        assert_eq!(parameters["service"], "s");
    }
}
