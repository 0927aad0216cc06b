//! Host names by layer: from the node's identity, the platform, and the configuration.

use std::net::IpAddr;

use async_trait::async_trait;
use aws_lc_rs::digest;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::cluster::Identity;
use resources::config::MachineConfig;
use resources::enums::ConfigLayer;
use resources::network::{CONFIG_NAMESPACE, HostnameSpec, NodeAddress};
use resources::runtime::PlatformMetadata;

use crate::arguments::Arguments;
use crate::node_address::DEFAULT_ID;

/// Configuration, identity, arguments of the kernel, platform → `HostnameSpec`, one a layer.
///
/// The default is stable (`talos-xxx-yyy` from the identity) unless the configuration says otherwise; then it follows
/// the default address (`talos-10-5-0-2`).
#[derive(Debug)]
pub struct HostnameConfigController {
    arguments: Arguments,
}

impl HostnameConfigController {
    /// With the arguments of the kernel.
    pub const fn new(arguments: Arguments) -> Self {
        Self { arguments }
    }
}

#[async_trait]
impl Controller for HostnameConfigController {
    fn name(&self) -> &'static str {
        "network.HostnameConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<Identity>().id(Identity::ID),
            Input::weak::<NodeAddress>().id(DEFAULT_ID),
            Input::weak::<PlatformMetadata>().id(PlatformMetadata::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<HostnameSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let machine = MachineConfig::root_of(active.as_deref())?.map(|config| config.machine());
        let default = if machine.is_none_or(|machine| machine.stable_hostname()) {
            ctx.get::<Identity>(Identity::ID)?.map(|identity| stable_hostname(&identity.node_id))
        } else {
            let address = ctx.get::<NodeAddress>(DEFAULT_ID)?;
            address.and_then(|address| address.addresses.first().map(|net| address_hostname(net.addr())))
        };
        put(ctx, ConfigLayer::Default, default)?;
        put(ctx, ConfigLayer::Cmdline, self.arguments.hostname().map(str::to_owned))?;
        let platform = ctx.get::<PlatformMetadata>(PlatformMetadata::ID)?;
        put(ctx, ConfigLayer::Platform, platform.map(|platform| platform.hostname.clone()))?;
        put(ctx, ConfigLayer::MachineConfiguration, machine.and_then(|machine| machine.hostname().map(str::to_owned)))?;
        ctx.keep_touched::<HostnameSpec>()
    }
}

fn put(ctx: &mut Ctx, layer: ConfigLayer, name: Option<String>) -> Result<(), ReconcileError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let (hostname, domainname) = name.split_once('.').unwrap_or((&name, ""));
    let spec = HostnameSpec { hostname: hostname.to_owned(), domainname: domainname.to_owned(), layer };
    ctx.put_in(CONFIG_NAMESPACE, &format!("{layer}/{}", HostnameSpec::ID), spec)?;
    Ok(())
}

/// `talos-xxx-yyy`, the same for the same identity: base 36 of its SHA-256.
pub fn stable_hostname(node_id: &str) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let hash = digest::digest(&digest::SHA256, node_id.as_bytes());
    let mut number = hash.as_ref().iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let mut digits = [0u8; 6];
    for digit in &mut digits {
        *digit = ALPHABET[usize::try_from(number % 36).unwrap_or_default()];
        number /= 36;
    }
    let text = String::from_utf8_lossy(&digits).into_owned();
    format!("talos-{}-{}", &text[..3], &text[3..])
}

fn address_hostname(address: IpAddr) -> String {
    format!("talos-{}", address.to_string().replace(['.', ':'], "-"))
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    fn spec(harness: &Harness, id: &str) -> Option<HostnameSpec> {
        harness.get_in::<HostnameSpec>(CONFIG_NAMESPACE, id).map(|spec| HostnameSpec::clone(&spec))
    }

    #[test]
    fn the_stable_name_depends_on_the_identity_alone_and_is_a_valid_label() {
        let name = stable_hostname("7x1SuC8Ege5BGXdAfTEff5iQnlWZLfv9h1LGMxA2pYkC");
        assert_eq!(name, stable_hostname("7x1SuC8Ege5BGXdAfTEff5iQnlWZLfv9h1LGMxA2pYkC"));
        assert_ne!(name, stable_hostname("another"));
        assert_eq!(name.len(), "talos-xxx-yyy".len());
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_layer_has_its_own_name() {
        let harness = Harness::with(HostnameConfigController::new(Arguments::default()));
        harness.put(Identity::ID, Identity { node_id: "abc".into() });
        harness
            .put(PlatformMetadata::ID, PlatformMetadata { hostname: "vm-7.example.org".into(), ..Default::default() });
        harness.settle().await;
        assert_eq!(spec(&harness, "default/hostname").unwrap().hostname, stable_hostname("abc"));
        let platform = spec(&harness, "platform/hostname").unwrap();
        assert_eq!((platform.hostname.as_str(), platform.domainname.as_str()), ("vm-7", "example.org"));
        assert_eq!(spec(&harness, "configuration/hostname"), None);

        let text = "version: v1alpha1\nmachine:\n  type: worker\n  network:\n    hostname: w-1\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.settle().await;
        let configured = spec(&harness, "configuration/hostname").unwrap();
        assert_eq!((configured.hostname.as_str(), configured.layer), ("w-1", ConfigLayer::MachineConfiguration));
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_stable_name_the_default_follows_the_address() {
        let harness = Harness::with(HostnameConfigController::new(Arguments::default()));
        let text = "version: v1alpha1\nmachine:\n  type: worker\n  features:\n    stableHostname: false\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.put(DEFAULT_ID, NodeAddress { addresses: vec!["10.5.0.3/24".parse().unwrap()] });
        harness.settle().await;
        assert_eq!(spec(&harness, "default/hostname").unwrap().hostname, "talos-10-5-0-3");
    }
}
