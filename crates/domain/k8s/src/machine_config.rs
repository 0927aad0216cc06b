//! Shared accessors of the machine configuration.

use config::v1alpha1::Config;

/// The URL through which components on the host network reach the API servers: the local balancer where it is on.
pub(crate) fn api_server_url(config: &Config) -> Option<String> {
    match config.machine().kubeprism_port() {
        Some(port) => Some(format!("https://127.0.0.1:{port}")),
        None => endpoint(config),
    }
}

/// The cluster's endpoint as written, without a slash at its end.
pub(crate) fn endpoint(config: &Config) -> Option<String> {
    config.cluster().endpoint().map(|url| url.as_str().trim_end_matches('/').to_owned())
}
