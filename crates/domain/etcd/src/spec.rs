//! How etcd runs: name and addresses of this node chosen by the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use ipnet::IpNet;
use resources::{
    etcd::{EtcdConfig, EtcdSpec},
    network::{HostnameStatus, NodeAddress},
};

/// Addresses that others can route to.
const ROUTED: &str = "routed";

/// `etcd.SpecController`.
#[derive(Debug)]
pub struct SpecController;

/// A network of the configuration that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading network {text:?} of the etcd configuration")]
struct SubnetError {
    text: String,
    #[source]
    source: ipnet::AddrParseError,
}

#[async_trait]
impl Controller for SpecController {
    fn name(&self) -> &'static str {
        "etcd.SpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<EtcdConfig>().id(EtcdConfig::ID),
            Input::weak::<HostnameStatus>().id(HostnameStatus::ID),
            Input::weak::<NodeAddress>().id(ROUTED),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<EtcdSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(config) = ctx.get::<EtcdConfig>(EtcdConfig::ID)? else {
            ctx.destroy::<EtcdSpec>(EtcdSpec::ID)?;
            return Ok(());
        };
        let hostname = ctx.get::<HostnameStatus>(HostnameStatus::ID)?;
        let known = ctx.get::<NodeAddress>(ROUTED)?;
        // While name or addresses are away for a moment, etcd keeps running with those it has.
        if let (Some(hostname), Some(known)) = (hostname, known) {
            let addresses: Vec<IpAddr> = known.addresses.iter().map(IpNet::addr).collect();
            if let Some(spec) = etcd_spec(&config, &hostname.hostname, &addresses)? {
                ctx.put(EtcdSpec::ID, spec)?;
            }
        }
        Ok(())
    }
}

fn etcd_spec(config: &EtcdConfig, hostname: &str, addresses: &[IpAddr]) -> Result<Option<EtcdSpec>, SubnetError> {
    let mut advertised = chosen(addresses, &config.advertise_valid_subnets, &config.advertise_exclude_subnets)?;
    if config.advertise_valid_subnets.is_empty() {
        // Nobody said which one, so that one is as good as another, and one is enough.
        advertised.truncate(1);
    }
    if advertised.is_empty() || hostname.is_empty() {
        return Ok(None);
    }
    let (listen_peer, listen_client) = if config.listen_valid_subnets.is_empty() {
        // Everywhere; a node that has no IPv6 cannot listen on `::`.
        let only_v4 = advertised.iter().all(IpAddr::is_ipv4);
        let any = if only_v4 { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
        (vec![any], vec![any])
    } else {
        let peer = chosen(addresses, &config.listen_valid_subnets, &config.listen_exclude_subnets)?;
        let mut client = peer.clone();
        client.push(IpAddr::from(Ipv4Addr::LOCALHOST));
        (peer, client)
    };
    Ok(Some(EtcdSpec {
        name: hostname.to_owned(),
        advertised_addresses: advertised,
        listen_peer_addresses: listen_peer,
        listen_client_addresses: listen_client,
        image: config.image.clone(),
        extra_args: config.extra_args.clone(),
    }))
}

/// Addresses in one of `valid` (any where there is none) and in none of `excluded`. A network of `valid` that begins
/// with `!` excludes.
fn chosen(addresses: &[IpAddr], valid: &[String], excluded: &[String]) -> Result<Vec<IpAddr>, SubnetError> {
    let parse = |text: &str| text.parse::<IpNet>().map_err(|source| SubnetError { text: text.to_owned(), source });
    let mut within = Vec::new();
    let mut without = excluded.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    for text in valid {
        match text.strip_prefix('!') {
            Some(text) => without.push(parse(text)?),
            None => within.push(parse(text)?),
        }
    }
    let fits = |address: &&IpAddr| {
        (within.is_empty() || within.iter().any(|net| net.contains(*address)))
            && !without.iter().any(|net| net.contains(*address))
    };
    Ok(addresses.iter().filter(fits).copied().collect())
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn config(advertise: &[&str], listen: &[&str]) -> EtcdConfig {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        EtcdConfig {
            advertise_valid_subnets: strings(advertise),
            advertise_exclude_subnets: strings(&["10.244.0.0/16"]),
            listen_valid_subnets: strings(listen),
            listen_exclude_subnets: strings(&["10.244.0.0/16"]),
            ..EtcdConfig::default()
        }
    }

    #[test]
    fn one_address_is_advertised_unless_networks_are_given() {
        let addresses = ips(&["10.244.1.1", "10.5.0.2", "192.0.2.2", "fd00::2"]);
        let spec = etcd_spec(&config(&[], &[]), "cp", &addresses).unwrap().unwrap();
        assert_eq!(spec.advertised_addresses, ips(&["10.5.0.2"]));
        assert_eq!(spec.listen_client_addresses, ips(&["0.0.0.0"]));
        let spec = etcd_spec(&config(&["10.0.0.0/8", "fd00::/8"], &[]), "cp", &addresses).unwrap().unwrap();
        assert_eq!(spec.advertised_addresses, ips(&["10.5.0.2", "fd00::2"]));
        assert_eq!(spec.listen_peer_addresses, ips(&["::"]));
        let spec = etcd_spec(&config(&["!10.5.0.0/24"], &["192.0.2.0/24"]), "cp", &addresses).unwrap().unwrap();
        assert_eq!(spec.advertised_addresses, ips(&["192.0.2.2", "fd00::2"]));
        assert_eq!(spec.listen_peer_addresses, ips(&["192.0.2.2"]));
        assert_eq!(spec.listen_client_addresses, ips(&["192.0.2.2", "127.0.0.1"]));
    }

    #[test]
    fn a_bad_network_is_named() {
        let error = etcd_spec(&config(&["10.5.0.0/99"], &[]), "cp", &[]).unwrap_err();
        assert_eq!(error.text, "10.5.0.0/99");
    }

    #[tokio::test(start_paused = true)]
    async fn the_spec_stays_while_addresses_are_away_and_goes_with_the_configuration() {
        let harness = Harness::with(SpecController);
        harness.put(EtcdConfig::ID, config(&[], &[]));
        harness.put(HostnameStatus::ID, HostnameStatus { hostname: "cp".into(), domainname: String::new() });
        harness.settle().await;
        assert_eq!(harness.list::<EtcdSpec>(), []);
        harness.put(ROUTED, NodeAddress { addresses: vec!["10.5.0.2/24".parse().unwrap()] });
        harness.settle().await;
        assert_eq!(harness.get::<EtcdSpec>(EtcdSpec::ID).unwrap().name, "cp");
        harness.put(ROUTED, NodeAddress { addresses: vec![] });
        harness.settle().await;
        assert_eq!(harness.ids::<EtcdSpec>(), [EtcdSpec::ID]);
        harness.destroy::<EtcdConfig>(EtcdConfig::ID);
        harness.settle().await;
        assert_eq!(harness.list::<EtcdSpec>(), []);
    }
}
