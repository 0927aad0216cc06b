//! How etcd runs: name and addresses of this node chosen by the configuration.
//!
//! Where the configuration names no networks, one address is advertised: the one that the member has been advertised by
//! before, for as long as the node has it, also over a reboot; else the first IPv4 address in the order of `NodeAddress`,
//! else the first of IPv6. A lower address that a node gets later does not move its member.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use ipnet::IpNet;
use resources::subnets::{SubnetError, SubnetFilter};
use resources::{
    etcd::{EtcdConfig, EtcdSpec},
    network::{HostnameStatus, NodeAddress},
    runtime::MountStatus,
};
use sys::files::{self, Access, FileError};

/// Addresses that others can route to.
const ROUTED: &str = "routed";

/// The file that keeps the advertised address.
const ADDRESS_FILE: &str = "etcd-advertised-address";

/// `etcd.SpecController`. It says nothing before STATE is mounted, where the address is kept.
#[derive(Debug, Default)]
pub struct SpecController {
    /// The advertised address, once the file was read.
    sticky: Option<Option<IpAddr>>,
    /// It was reported that none of these addresses fits.
    reported: Vec<IpAddr>,
}

impl SpecController {
    /// The address that was advertised before. A file that holds none is as good as none.
    fn sticky(&mut self, file: &Path) -> Result<Option<IpAddr>, FileError> {
        if let Some(known) = self.sticky {
            return Ok(known);
        }
        let text = files::read(file)?.unwrap_or_default();
        let known = String::from_utf8_lossy(&text).trim().parse().ok();
        self.sticky = Some(known);
        Ok(known)
    }

    /// Reports once for each set of addresses; a node that has none yet is about to get one.
    fn report(&mut self, addresses: Vec<IpAddr>, config: &EtcdConfig) {
        if addresses.is_empty() || self.reported == addresses {
            return;
        }
        let has: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        tracing::warn!(
            addresses = has.join(", "),
            valid_subnets = config.advertise_valid_subnets.join(", "),
            exclude_subnets = config.advertise_exclude_subnets.join(", "),
            "no address of the node is in the advertised subnets: etcd has none to advertise"
        );
        self.reported = addresses;
    }

    fn keep(&mut self, file: &Path, address: IpAddr) -> Result<(), FileError> {
        if self.sticky != Some(Some(address)) {
            files::write_atomic(file, format!("{address}\n").as_bytes(), Access::SECRET)?;
            self.sticky = Some(Some(address));
        }
        Ok(())
    }
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
            Input::strong::<MountStatus>().id(MountStatus::STATE),
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
        let Some(state) = ctx.hold_while_running::<MountStatus>(MountStatus::STATE)? else { return Ok(()) };
        let file = Path::new(&state.target).join(ADDRESS_FILE);
        let hostname = ctx.get::<HostnameStatus>(HostnameStatus::ID)?;
        let known = ctx.get::<NodeAddress>(ROUTED)?;
        // While name or addresses are away for a moment, etcd keeps running with those it has.
        if let (Some(hostname), Some(known)) = (hostname, known) {
            let addresses: Vec<IpAddr> = known.addresses.iter().map(IpNet::addr).collect();
            let sticky = self.sticky(&file)?;
            if let Some(spec) = etcd_spec(&config, &hostname.hostname, &addresses, sticky)? {
                if let [address] = spec.advertised_addresses[..] {
                    self.keep(&file, address)?;
                }
                ctx.put(EtcdSpec::ID, spec)?;
                self.reported.clear();
            } else if !hostname.hostname.is_empty() {
                self.report(addresses, &config);
            }
        }
        Ok(())
    }
}

fn etcd_spec(
    config: &EtcdConfig,
    hostname: &str,
    addresses: &[IpAddr],
    sticky: Option<IpAddr>,
) -> Result<Option<EtcdSpec>, SubnetError> {
    let mut advertised = chosen(addresses, &config.advertise_valid_subnets, &config.advertise_exclude_subnets)?;
    if config.advertise_valid_subnets.is_empty() {
        let kept = sticky.filter(|address| advertised.contains(address));
        let first = || advertised.iter().find(|address| address.is_ipv4()).or(advertised.first()).copied();
        advertised = kept.or_else(first).into_iter().collect();
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

/// Addresses in one of `valid` (any where there is none) and in none of `excluded`.
fn chosen(addresses: &[IpAddr], valid: &[String], excluded: &[String]) -> Result<Vec<IpAddr>, SubnetError> {
    let filter = SubnetFilter::parse(valid, excluded)?;
    Ok(addresses.iter().filter(|address| filter.accepts(**address)).copied().collect())
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
        let spec = etcd_spec(&config(&[], &[]), "cp", &addresses, None).unwrap().unwrap();
        assert_eq!(spec.advertised_addresses, ips(&["10.5.0.2"]));
        assert_eq!(spec.listen_client_addresses, ips(&["0.0.0.0"]));
        let spec = etcd_spec(&config(&["10.0.0.0/8", "fd00::/8"], &[]), "cp", &addresses, None).unwrap().unwrap();
        assert_eq!(spec.advertised_addresses, ips(&["10.5.0.2", "fd00::2"]));
        assert_eq!(spec.listen_peer_addresses, ips(&["::"]));
        let spec = etcd_spec(&config(&["!10.5.0.0/24"], &["192.0.2.0/24"]), "cp", &addresses, None).unwrap().unwrap();
        assert_eq!(spec.advertised_addresses, ips(&["192.0.2.2", "fd00::2"]));
        assert_eq!(spec.listen_peer_addresses, ips(&["192.0.2.2"]));
        assert_eq!(spec.listen_client_addresses, ips(&["192.0.2.2", "127.0.0.1"]));
    }

    #[test]
    fn a_bad_network_is_named() {
        let error = etcd_spec(&config(&["10.5.0.0/99"], &[]), "cp", &[], None).unwrap_err();
        assert_eq!(error.text, "10.5.0.0/99");
    }

    fn with_state(state: &Path) -> Harness {
        let harness = Harness::with(SpecController::default());
        harness.put(MountStatus::STATE, MountStatus { target: state.display().to_string(), ..MountStatus::default() });
        harness
    }

    #[tokio::test(start_paused = true)]
    async fn the_spec_stays_while_addresses_are_away_and_goes_with_the_configuration() {
        let state = tempfile::tempdir().unwrap();
        let harness = with_state(state.path());
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

    #[tokio::test(start_paused = true)]
    async fn a_lower_address_does_not_move_the_member_and_neither_does_a_reboot() {
        let state = tempfile::tempdir().unwrap();
        let nets = |texts: &[&str]| NodeAddress { addresses: texts.iter().map(|text| text.parse().unwrap()).collect() };
        let boot = || {
            let harness = with_state(state.path());
            harness.put(EtcdConfig::ID, config(&[], &[]));
            harness.put(HostnameStatus::ID, HostnameStatus { hostname: "cp".into(), domainname: String::new() });
            harness
        };
        let advertised =
            |harness: &Harness| harness.get::<EtcdSpec>(EtcdSpec::ID).unwrap().advertised_addresses.clone();
        let harness = boot();
        harness.put(ROUTED, nets(&["10.5.0.2/24"]));
        harness.settle().await;
        harness.put(ROUTED, nets(&["10.1.0.9/24", "10.5.0.2/24", "fd00::1/64"]));
        harness.settle().await;
        assert_eq!(advertised(&harness), ips(&["10.5.0.2"]));
        drop(harness);
        let harness = boot();
        harness.put(ROUTED, nets(&["10.1.0.9/24", "10.5.0.2/24"]));
        harness.settle().await;
        assert_eq!(advertised(&harness), ips(&["10.5.0.2"]));
        harness.put(ROUTED, nets(&["fd00::1/64", "10.1.0.9/24"]));
        harness.settle().await;
        assert_eq!(advertised(&harness), ips(&["10.1.0.9"]), "it is gone: the first of IPv4");
    }
}
