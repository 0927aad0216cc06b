//! `/etc/hosts` and `/etc/resolv.conf`, rendered; another controller writes them.

use std::fmt::Write as _;
use std::net::IpAddr;

use async_trait::async_trait;
use config::v1alpha1::ExtraHost;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::files::EtcFileSpec;
use resources::network::{HostnameStatus, NodeAddress, ResolverStatus};

use crate::node_address::DEFAULT_ID;

/// The id of the table of names.
pub(crate) const HOSTS: &str = "hosts";
/// The id of the resolver's configuration.
pub(crate) const RESOLV_CONF: &str = "resolv.conf";

const MODE: u32 = 0o644;

/// Host name, default address, resolvers, configuration → `EtcFileSpec` `hosts` and `resolv.conf`.
#[derive(Debug)]
pub struct EtcFileController;

#[async_trait]
impl Controller for EtcFileController {
    fn name(&self) -> &'static str {
        "network.EtcFileController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<HostnameStatus>().id(HostnameStatus::ID),
            Input::weak::<NodeAddress>().id(DEFAULT_ID),
            Input::weak::<ResolverStatus>().id(ResolverStatus::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<EtcFileSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let machine = MachineConfig::root_of(active.as_deref())?.map(|config| config.machine());
        let network = machine.and_then(|machine| machine.network.as_ref());
        let hostname = ctx.get::<HostnameStatus>(HostnameStatus::ID)?;
        let hostname = hostname.as_deref();

        if let Some(resolvers) = ctx.get::<ResolverStatus>(ResolverStatus::ID)? {
            let search = !network.and_then(|network| network.disable_search_domain).unwrap_or(false);
            let domain = hostname.map(|name| name.domainname.as_str()).filter(|domain| search && !domain.is_empty());
            put(ctx, RESOLV_CONF, resolv_conf(&resolvers.dns_servers, domain))?;
        }
        if let Some(hostname) = hostname {
            let address = ctx.get::<NodeAddress>(DEFAULT_ID)?;
            let address = address.and_then(|address| address.addresses.first().map(|net| net.addr()));
            let extra = network.map(|network| network.extra_host_entries.as_slice()).unwrap_or_default();
            put(ctx, HOSTS, hosts(hostname, address, extra))?;
        }
        ctx.keep_touched::<EtcFileSpec>()
    }
}

fn put(ctx: &mut Ctx, id: &str, contents: String) -> Result<(), ReconcileError> {
    ctx.put(id, EtcFileSpec { contents: contents.into_bytes(), mode: MODE })?;
    Ok(())
}

/// At most three servers: the limit of the C library's resolver.
fn resolv_conf(servers: &[IpAddr], domain: Option<&str>) -> String {
    let mut text = String::new();
    for server in servers.iter().take(3) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    if let Some(domain) = domain {
        let _ = writeln!(text, "\nsearch {domain}");
    }
    text
}

fn hosts(hostname: &HostnameStatus, address: Option<IpAddr>, extra: &[ExtraHost]) -> String {
    let mut lines = vec![("127.0.0.1".to_owned(), "localhost".to_owned())];
    if let Some(address) = address {
        let short = &hostname.hostname;
        let full = hostname.fqdn();
        let names = if full == *short { full } else { format!("{full} {short}") };
        lines.push((address.to_string(), names));
    }
    lines.push(("::1".to_owned(), "localhost ip6-localhost ip6-loopback".to_owned()));
    lines.push(("ff02::1".to_owned(), "ip6-allnodes".to_owned()));
    lines.push(("ff02::2".to_owned(), "ip6-allrouters".to_owned()));
    lines.extend(extra.iter().map(|host| (host.ip.clone(), host.aliases.join(" "))));
    let width = lines.iter().map(|(address, _)| address.len()).max().unwrap_or_default() + 1;
    lines.iter().fold(String::new(), |mut text, (address, names)| {
        let _ = writeln!(text, "{address:width$}{names}");
        text
    })
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    fn text(harness: &Harness, id: &str) -> String {
        let file = harness.get::<EtcFileSpec>(id).unwrap_or_else(|| panic!("no {id}"));
        assert_eq!(file.mode, 0o644);
        String::from_utf8(file.contents.clone()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn both_files_follow_name_address_resolvers_and_configuration() {
        let harness = Harness::with(EtcFileController);
        harness.settle().await;
        assert!(harness.ids::<EtcFileSpec>().is_empty());
        harness.put("hostname", HostnameStatus { hostname: "cp-1".into(), domainname: "example.org".into() });
        harness.put(DEFAULT_ID, NodeAddress { addresses: vec!["10.5.0.2/24".parse().unwrap()] });
        let dns_servers = ["10.5.0.1", "1.1.1.1", "8.8.8.8", "9.9.9.9"].map(|text| text.parse().unwrap()).to_vec();
        harness.put("resolvers", ResolverStatus { dns_servers });
        harness.settle().await;
        assert_eq!(
            text(&harness, "hosts"),
            "127.0.0.1 localhost\n10.5.0.2  cp-1.example.org cp-1\n::1       localhost ip6-localhost ip6-loopback\n\
             ff02::1   ip6-allnodes\nff02::2   ip6-allrouters\n"
        );
        assert_eq!(
            text(&harness, "resolv.conf"),
            "nameserver 10.5.0.1\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n\nsearch example.org\n"
        );

        let config = "version: v1alpha1\nmachine:\n  type: worker\n  network:\n    disableSearchDomain: true\n    \
                      extraHostEntries:\n      - ip: 10.9.0.1\n        aliases: [registry, registry.local]\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(config));
        harness.settle().await;
        assert!(text(&harness, "hosts").ends_with("10.9.0.1  registry registry.local\n"));
        assert!(!text(&harness, "resolv.conf").contains("search"));
    }
}
