//! A container on somebody else's kernel. Host name and network are set up from outside, the configuration comes in the
//! environment, volumes are mounted by the container's runtime.

use std::net::IpAddr;

use async_trait::async_trait;
use base64::Engine as _;
use resources::machine::{Ownership, PlatformCapabilities, PlatformMode};
use resources::runtime::{MountStatus, PlatformMetadata};
use tokio::sync::watch;

use crate::{HostMount, Inventory, Platform, PlatformError, PlatformNetwork};

/// The name of the platform.
pub(crate) const NAME: &str = "container";

/// `PLATFORM=container`.
#[derive(Debug)]
pub struct Container {
    user_data: Option<String>,
    network: watch::Sender<PlatformNetwork>,
    metadata: watch::Sender<Option<PlatformMetadata>>,
}

impl Container {
    /// Reads the host name and the resolvers that the container was started with; they are replaced later on.
    #[must_use]
    pub fn new(user_data: Option<String>, sku: Option<String>) -> Self {
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let network = PlatformNetwork { resolvers: resolvers(&resolv_conf), time_servers: Vec::new() };
        let metadata = PlatformMetadata {
            platform: NAME.to_owned(),
            hostname: sys::host::hostname(),
            instance_type: sku.unwrap_or_default(),
            ..PlatformMetadata::default()
        };
        Self {
            user_data: user_data.filter(|data| !data.trim().is_empty()),
            network: watch::Sender::new(network),
            metadata: watch::Sender::new(Some(metadata)),
        }
    }
}

#[async_trait]
impl Platform for Container {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mode(&self) -> config::Mode {
        config::Mode::Container
    }

    fn capabilities(&self) -> PlatformCapabilities {
        PlatformCapabilities {
            mode: PlatformMode::Container,
            kernel: Ownership::Host,
            network: Ownership::Host,
            clock: Ownership::Host,
            disks: Ownership::Host,
            power: Ownership::Host,
        }
    }

    fn host_mounts(&self) -> Vec<HostMount> {
        vec![
            HostMount { volume: MountStatus::STATE, target: "/system/state".into(), mode: 0o700 },
            HostMount { volume: MountStatus::EPHEMERAL, target: "/var".into(), mode: 0o755 },
        ]
    }

    async fn configuration(&self, _: &dyn Inventory) -> Result<Option<String>, PlatformError> {
        let Some(data) = &self.user_data else { return Ok(None) };
        let compact: String = data.split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(compact).map_err(PlatformError::UserData)?;
        String::from_utf8(bytes).map(Some).map_err(PlatformError::Encoding)
    }

    fn network(&self) -> watch::Receiver<PlatformNetwork> {
        self.network.subscribe()
    }

    fn metadata(&self) -> watch::Receiver<Option<PlatformMetadata>> {
        self.metadata.subscribe()
    }
}

/// The name servers of a `resolv.conf`, except those on loopback, which nothing serves in a container.
fn resolvers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|server| server.trim().parse().ok()).filter(|server: &IpAddr| !server.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn configuration(data: &str) -> Result<Option<String>, PlatformError> {
        Container::new(Some(data.into()), None).configuration(&crate::FakeInventory::default()).await
    }

    #[tokio::test]
    async fn user_data_is_base64_and_may_be_wrapped_or_absent() {
        assert_eq!(configuration("aGVs\nbG8=").await.unwrap().as_deref(), Some("hello"));
        assert_eq!(configuration("  ").await.unwrap(), None);
        assert!(matches!(configuration("%%%").await, Err(PlatformError::UserData(_))));
        assert!(matches!(configuration("/w==").await, Err(PlatformError::Encoding(_))));
        assert!(!configuration("%%%").await.unwrap_err().is_retryable());
    }

    #[test]
    fn the_kind_of_machine_comes_from_the_environment() {
        let metadata = Container::new(None, Some("small".into())).metadata().borrow().clone().unwrap();
        assert_eq!((metadata.platform.as_str(), metadata.instance_type.as_str()), ("container", "small"));
    }

    #[test]
    fn resolvers_of_the_container_are_taken_up_without_its_own_loopback() {
        let text = "# by the runtime\nnameserver 10.5.0.1\nnameserver 127.0.0.53\nsearch a.b\nnameserver fd00::1\n";
        assert_eq!(resolvers(text), ["10.5.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }
}
