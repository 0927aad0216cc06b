//! Small texts over HTTP and HTTPS, such as manifests that the configuration names by URL.
//!
//! Nothing is cached or retried here: the callers know how often they may ask. Images have a client of their own, in
//! `containers`.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use resources::StringMap;

/// Manifests and configurations are small; more than this is something else.
const SIZE_LIMIT: usize = 16 << 20;
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The text at a URL could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("downloading {url}")]
    Download {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url} is larger than {limit} bytes")]
    TooLarge { url: String, limit: usize },
}

/// Gets text from a URL.
#[async_trait]
pub trait Fetch: Debug + Send + Sync {
    /// The text at `url`, asked for with `headers`. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// No answer within a minute, an answer with another status than success, or one that is too large.
    async fn fetch(&self, url: &str, headers: &StringMap) -> Result<String, FetchError>;
}

/// Over HTTP and HTTPS; at most 16 MiB within a minute.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpFetch;

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, url: &str, headers: &StringMap) -> Result<String, FetchError> {
        let failed = |source: reqwest::Error| FetchError::Download { url: url.to_owned(), source: Box::new(source) };
        let client = reqwest::Client::builder().timeout(DOWNLOAD_TIMEOUT).build().map_err(failed)?;
        let request = headers.iter().fold(client.get(url), |request, (name, value)| request.header(name, value));
        let mut response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > SIZE_LIMIT {
                return Err(FetchError::TooLarge { url: url.to_owned(), limit: SIZE_LIMIT });
            }
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
