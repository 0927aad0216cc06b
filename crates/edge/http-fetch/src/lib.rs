//! Small texts over HTTP and HTTPS, such as manifests that the configuration names by URL.
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
    #[error("{url} is larger than {limit} bytes")]
    TooLarge { url: String, limit: usize },
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

/// Over HTTP and HTTPS; at most 16 MiB within a minute.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpFetch;

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, url: &str, headers: &StringMap) -> Result<String, FetchError> {
        Ok(String::from_utf8_lossy(&self.fetch_bytes(url, headers).await?).into_owned())
    }

    async fn fetch_bytes(&self, url: &str, headers: &StringMap) -> Result<Vec<u8>, FetchError> {
        let failed = |source: reqwest::Error| FetchError::Download {
            url: without_credentials(url),
            source: Box::new(source.without_url()),
        };
        let client = reqwest::Client::builder().timeout(DOWNLOAD_TIMEOUT).build().map_err(failed)?;
        let request = headers.iter().fold(client.get(url), |request, (name, value)| request.header(name, value));
        let mut response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > SIZE_LIMIT {
                return Err(FetchError::TooLarge { url: without_credentials(url), limit: SIZE_LIMIT });
            }
        }
        Ok(body)
    }
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
