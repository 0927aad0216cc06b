use controller::testing::Harness;
use resources::enums::LinkType;
use resources::network::{BondSlave, WireguardPeer};

use super::*;

#[tokio::test(start_paused = true)]
async fn the_higher_layer_wins_and_the_lower_returns_when_it_goes() {
    let harness = Harness::with(MergeController::hostname());
    let put = |id: &str, layer, name: &str| {
        let spec = HostnameSpec { hostname: name.into(), layer, ..Default::default() };
        harness.put_in(CONFIG_NAMESPACE, id, spec);
    };
    put("default/hostname", ConfigLayer::Default, "talos-abc-def");
    put("configuration/hostname", ConfigLayer::MachineConfiguration, "cp-1");
    put("platform/hostname", ConfigLayer::Platform, "vm-7");
    put("dhcp4/eth0/hostname", ConfigLayer::Operator, "first");
    put("dhcp4/eth1/hostname", ConfigLayer::Operator, "second");
    harness.settle().await;
    let merged = harness.get::<HostnameSpec>("hostname").unwrap();
    assert_eq!((merged.hostname.as_str(), merged.layer), ("cp-1", ConfigLayer::MachineConfiguration));
    for (id, next) in [("configuration/hostname", "first"), ("dhcp4/eth0/hostname", "second")] {
        harness.store.destroy(&state::Kind::of_in::<HostnameSpec>(CONFIG_NAMESPACE).key(id), "").unwrap();
        harness.settle().await;
        assert_eq!(harness.get::<HostnameSpec>("hostname").unwrap().hostname, next);
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_of_all_layers_are_there_and_the_higher_layer_wins_for_the_same_one() {
    let harness = Harness::with(MergeController::address());
    for (id, layer) in [
        ("default/lo/127.0.0.1/8", ConfigLayer::Default),
        ("cmdline/eth0/10.0.0.2/24", ConfigLayer::Cmdline),
        ("configuration/eth0/10.0.0.2/24", ConfigLayer::MachineConfiguration),
        ("dhcp4/eth0/eth0/10.0.0.3/24", ConfigLayer::Operator),
    ] {
        harness.put_in(CONFIG_NAMESPACE, id, AddressSpec { layer, ..Default::default() });
    }
    harness.settle().await;
    assert_eq!(harness.ids::<AddressSpec>(), ["eth0/10.0.0.2/24", "eth0/10.0.0.3/24", "lo/127.0.0.1/8"]);
    let layer = harness.get::<AddressSpec>("eth0/10.0.0.2/24").unwrap().layer;
    assert_eq!(layer, ConfigLayer::MachineConfiguration);
}

#[tokio::test(start_paused = true)]
async fn lists_of_one_layer_are_joined_and_replaced_by_a_higher_one() {
    let harness = Harness::with(MergeController::time_server());
    let put = |id: &str, layer, server: &str| {
        harness.put_in(CONFIG_NAMESPACE, id, TimeServerSpec { time_servers: vec![server.into()], layer });
    };
    put("default/timeservers", ConfigLayer::Default, "d");
    put("dhcp4/eth1/timeservers", ConfigLayer::Operator, "b");
    put("dhcp4/eth0/timeservers", ConfigLayer::Operator, "a");
    harness.settle().await;
    assert_eq!(harness.get::<TimeServerSpec>("timeservers").unwrap().time_servers, ["a", "b"]);
    put("configuration/timeservers", ConfigLayer::MachineConfiguration, "c");
    harness.settle().await;
    assert_eq!(harness.get::<TimeServerSpec>("timeservers").unwrap().time_servers, ["c"]);
}

#[test]
fn links_are_merged_by_field() {
    let lower = LinkSpec {
        name: "eth0".into(),
        up: true,
        mtu: 9000,
        r#type: LinkType::ETHER,
        bond_slave: BondSlave { master_name: "bond0".into(), slave_index: 1 },
        ..Default::default()
    };
    let higher = LinkSpec { name: "eth0".into(), mtu: 1400, layer: ConfigLayer::Operator, ..Default::default() };
    let merged = higher.over(&lower);
    assert_eq!(merged, LinkSpec { mtu: 1400, layer: ConfigLayer::Operator, ..lower });
}

#[test]
fn peers_of_a_tunnel_are_united_and_the_lower_form_of_a_peer_stays() {
    let peer = |key: &str, endpoint: &str| WireguardPeer {
        public_key: key.into(),
        endpoint: endpoint.into(),
        ..Default::default()
    };
    let lower = Wireguard { listen_port: 1, peers: vec![peer("a", "low")], ..Default::default() };
    let higher = Wireguard { peers: vec![peer("a", "high"), peer("b", "high")], ..Default::default() };
    let merged = tunnel_over(&higher, &lower);
    assert_eq!((merged.listen_port, merged.peers), (1, vec![peer("a", "low"), peer("b", "high")]));
}
