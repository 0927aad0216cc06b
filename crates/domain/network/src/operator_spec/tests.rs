use std::time::Duration;

use controller::testing::Harness;
use dhcp::{Code, FakeServer, FakeSockets};
use resources::enums::{ConfigLayer, LinkType};
use resources::network::{AddressSpec, Dhcp4Operator, LinkSpec, RouteSpec};
use resources::values::HardwareAddr;

use super::*;

fn link(state: OperationalState) -> LinkStatus {
    LinkStatus {
        index: 2,
        r#type: LinkType::ETHER,
        hardware_addr: HardwareAddr(vec![0x52, 0x54, 0, 0x12, 0x34, 0x56]),
        operational_state: state,
        ..Default::default()
    }
}

fn dhcp4(metric: u32) -> OperatorSpec {
    OperatorSpec {
        operator: Operator::Dhcp4,
        link_name: "eth0".into(),
        require_up: true,
        dhcp4: Dhcp4Operator { route_metric: metric, skip_hostname_request: false },
        ..Default::default()
    }
}

fn server(last: u8, options: &[(Code, &[u8])]) -> FakeServer {
    let common: [(Code, &[u8]); 3] =
        [(Code::SubnetMask, &[255, 255, 255, 0]), (Code::Router, &[10, 0, 2, 2]), (Code::DnsServers, &[10, 0, 2, 3])];
    let options = common.iter().chain(options).map(|(code, value)| (*code, value.to_vec())).collect();
    FakeServer { address: [10, 0, 2, last].into(), options, refuses: false }
}

fn machine() -> (FakeSockets, Harness) {
    let sockets = FakeSockets::default();
    let harness = Harness::with(OperatorSpecController::new(Arc::new(sockets.clone())));
    harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
    (sockets, harness)
}

fn ids<S: resources::Spec>(harness: &Harness) -> Vec<String> {
    let specs = harness.store.list_as_in::<S>(CONFIG_NAMESPACE).unwrap();
    specs.iter().map(|spec| spec.id().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_lease_becomes_specs_of_the_layer_operator_while_the_link_is_up() {
    let (sockets, harness) = machine();
    sockets.serve("eth0", server(15, &[(Code::NtpServers, &[10, 0, 2, 4]), (Code::Mtu, &[5, 120])]));
    harness.put("eth0", link(OperationalState::DOWN));
    harness.put("dhcp4/eth0", dhcp4(1024));
    harness.settle().await;
    assert!(sockets.heard().is_empty(), "the link is down");
    harness.put("eth0", link(OperationalState::UP));
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(ids::<AddressSpec>(&harness), ["dhcp4/eth0/eth0/10.0.2.15/24"]);
    assert_eq!(ids::<RouteSpec>(&harness), ["dhcp4/eth0/inet4/10.0.2.2//1024"]);
    assert_eq!(ids::<LinkSpec>(&harness), ["dhcp4/eth0/eth0"]);
    assert_eq!(ids::<ResolverSpec>(&harness), ["dhcp4/eth0/resolvers"]);
    assert_eq!(ids::<TimeServerSpec>(&harness), ["dhcp4/eth0/timeservers"]);
    assert!(ids::<HostnameSpec>(&harness).is_empty());
    harness.put("eth0", link(OperationalState::DOWN));
    harness.settle().await;
    assert!(ids::<AddressSpec>(&harness).is_empty() && ids::<RouteSpec>(&harness).is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_metric_restarts_the_client_and_an_operator_that_goes_takes_its_specs_away() {
    let (sockets, harness) = machine();
    sockets.serve("eth0", server(15, &[]));
    harness.put("eth0", link(OperationalState::UP));
    harness.put("dhcp4/eth0", dhcp4(1024));
    harness.advance(Duration::from_secs(1)).await;
    let before = sockets.heard().len();
    harness.put("dhcp4/eth0", OperatorSpec { layer: ConfigLayer::MachineConfiguration, ..dhcp4(1024) });
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(sockets.heard().len(), before, "the layer alone changes nothing");
    harness.put("dhcp4/eth0", dhcp4(7));
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(ids::<RouteSpec>(&harness), ["dhcp4/eth0/inet4/10.0.2.2//7"]);
    harness.destroy::<OperatorSpec>("dhcp4/eth0");
    harness.settle().await;
    assert!(ids::<AddressSpec>(&harness).is_empty() && ids::<ResolverSpec>(&harness).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_renews_ends() {
    let (sockets, harness) = machine();
    sockets.serve("eth0", server(15, &[]));
    harness.put("eth0", link(OperationalState::UP));
    harness.put("dhcp4/eth0", dhcp4(1024));
    harness.advance(Duration::from_secs(1)).await;
    sockets.silence("eth0");
    harness.advance(Duration::from_secs(590)).await;
    assert_eq!(ids::<AddressSpec>(&harness).len(), 1);
    harness.advance(Duration::from_secs(15)).await;
    assert!(ids::<AddressSpec>(&harness).is_empty());
    sockets.serve("eth0", server(16, &[]));
    harness.advance(Duration::from_secs(70)).await;
    assert_eq!(ids::<AddressSpec>(&harness), ["dhcp4/eth0/eth0/10.0.2.16/24"]);
}

#[tokio::test(start_paused = true)]
async fn the_server_names_the_host_until_it_has_another_name_which_the_server_is_told() {
    let (sockets, harness) = machine();
    sockets.serve("eth0", server(15, &[(Code::HostName, b"vm-1"), (Code::DomainName, b"lab")]));
    harness.put("eth0", link(OperationalState::UP));
    harness.put("dhcp4/eth0", dhcp4(1024));
    harness.advance(Duration::from_millis(100)).await;
    assert_eq!(ids::<HostnameSpec>(&harness), ["dhcp4/eth0/hostname"]);
    let name = |hostname: &str| HostnameStatus { hostname: hostname.into(), domainname: "lab".into() };
    harness.put(HostnameStatus::ID, name("vm-1"));
    harness.advance(Duration::from_secs(3)).await;
    assert_eq!(sockets.heard().len(), 2, "nothing to tell");
    harness.put(HostnameStatus::ID, name("cp-1"));
    harness.advance(Duration::from_secs(3)).await;
    let (_, last, _) = sockets.heard().pop().unwrap();
    assert_eq!(last.option(Code::HostName), Some(&b"cp-1"[..]));
    assert!(ids::<HostnameSpec>(&harness).is_empty(), "an answer to a told name names nobody");
    assert_eq!(ids::<AddressSpec>(&harness).len(), 1, "the address stayed");
}
