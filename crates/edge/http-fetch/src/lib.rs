//! Small texts over HTTP and HTTPS, such as manifests that the configuration names by URL, and forms.
//!
//! URLs may carry credentials: errors show them without user, password and query.
//!
//! Nothing is cached or retried here: callers know their request rate. Images have a client of their own, in
//! `containers`.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use resources::StringMap;

/// Manifests and configurations are small; more than this is something else.
const SIZE_LIMIT: usize = 16 << 20;
/// Answers to forms are smaller.
const FORM_LIMIT: usize = 64 << 10;
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A failed download.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("downloading {url}")]
    Download {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url} answered {status}")]
    Status { url: String, status: u16 },
    #[error("{url} is larger than {limit} bytes")]
    TooLarge { url: String, limit: usize },
}

impl FetchError {
    /// Whether the server wants other credentials.
    #[must_use]
    pub const fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Status { status: 401, .. })
    }
}

/// What a server answered to a form, also where it refused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormAnswer {
    pub status: u16,
    /// At most 64 KiB.
    pub body: String,
}

/// The URL without what may be secret in it: user, password, query and fragment. What is no URL is not shown.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else { return "(not a URL)".to_owned() };
    // These fail for URLs that can have no credentials.
    url.set_password(None).ok();
    url.set_username("").ok();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// Gets small files from a URL.
#[async_trait]
pub trait Fetch: Debug + Send + Sync {
    /// The text at `url`, requested with `headers`. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// No answer within a minute, an answer with another status than success, or one that is too large.
    async fn fetch(&self, url: &str, headers: &StringMap) -> Result<String, FetchError>;

    /// What is at `url`, byte by byte.
    ///
    /// # Errors
    /// As [`Fetch::fetch`].
    async fn fetch_bytes(&self, url: &str, headers: &StringMap) -> Result<Vec<u8>, FetchError> {
        Ok(self.fetch(url, headers).await?.into_bytes())
    }
}

/// Sends forms to servers of tokens.
#[async_trait]
pub trait PostForm: Debug + Send + Sync {
    /// Sends a form, as `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// No answer within a minute, or one that is too large.
    async fn post_form(&self, url: &str, form: &[(String, String)]) -> Result<FormAnswer, FetchError>;
}

/// Over HTTP and HTTPS; at most 16 MiB within a minute.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpFetch;

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, url: &str, headers: &StringMap) -> Result<String, FetchError> {
        Ok(String::from_utf8_lossy(&self.fetch_bytes(url, headers).await?).into_owned())
    }

    async fn fetch_bytes(&self, url: &str, headers: &StringMap) -> Result<Vec<u8>, FetchError> {
        let failed = |source| failed(url, source);
        let client = reqwest::Client::builder().timeout(DOWNLOAD_TIMEOUT).build().map_err(failed)?;
        let request = headers.iter().fold(client.get(url), |request, (name, value)| request.header(name, value));
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(FetchError::Status { url: without_credentials(url), status: status.as_u16() });
        }
        read(url, response, SIZE_LIMIT).await
    }
}

#[async_trait]
impl PostForm for HttpFetch {
    async fn post_form(&self, url: &str, form: &[(String, String)]) -> Result<FormAnswer, FetchError> {
        let client =
            reqwest::Client::builder().timeout(DOWNLOAD_TIMEOUT).build().map_err(|error| failed(url, error))?;
        let body = form.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        let body = body.collect::<Vec<_>>().join("&");
        let request = client.post(url).header("Content-Type", "application/x-www-form-urlencoded").body(body);
        let response = request.send().await.map_err(|error| failed(url, error))?;
        let status = response.status().as_u16();
        let body = read(url, response, FORM_LIMIT).await?;
        Ok(FormAnswer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

fn failed(url: &str, source: reqwest::Error) -> FetchError {
    FetchError::Download { url: without_credentials(url), source: Box::new(source.without_url()) }
}

async fn read(url: &str, mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(url, error))? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Err(FetchError::TooLarge { url: without_credentials(url), limit });
        }
    }
    Ok(body)
}

/// A name or value of a form: all but letters, digits and `-._~` is escaped.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            write!(encoded, "%{byte:02X}").ok();
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        for (url, shown) in [
            ("https://a.example/x.yaml", "https://a.example/x.yaml"),
            ("https://user:secret@a.example:8443/x.yaml?token=secret#secret", "https://a.example:8443/x.yaml"),
            ("secret", "(not a URL)"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[tokio::test]
    async fn an_error_does_not_tell_the_credentials_of_its_url() {
        // Nobody listens on port 1.
        let error = HttpFetch.fetch("http://user:secret@127.0.0.1:1/x?secret", &StringMap::new()).await.unwrap_err();
        let told = stdx::error_chain(&error);
        assert!(told.contains("http://127.0.0.1:1/x") && !told.contains("secret"), "{told}");
    }
}
