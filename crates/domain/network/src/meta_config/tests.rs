use controller::testing::Harness;
use proptest::prelude::*;
use resources::enums::ConfigLayer;
use resources::machine::{PlatformCapabilities, PlatformMode};
use resources::network::{AddressSpec, LinkSpec, RouteSpec};

use super::settings::SettingsError;
use super::*;

const TEXT: &str = "
addresses:
  - {address: 147.75.61.43/31, linkName: eth0, family: inet4, scope: global, flags: permanent, layer: platform}
links:
  - {name: eth0, logical: false, up: true, mtu: 1400, kind: '', type: netrom, layer: platform}
  - {name: bond0, logical: true, up: true, kind: bond, type: ether, layer: platform}
routes:
  - {family: inet4, dst: '', src: '', gateway: 147.75.61.42, outLinkName: eth0, table: main, priority: 1024, scope: global,
     type: unicast, flags: '', protocol: static, layer: platform}
hostnames:
  - {hostname: ci-1, domainname: example.org, layer: default}
resolvers:
  - {dnsServers: [9.9.9.9], layer: platform}
timeServers:
  - {timeServers: [ntp.example.org], layer: platform}
operators:
  - {operator: dhcp4, linkName: eth1, requireUp: true, dhcp4: {routeMetric: 77}, layer: default}
externalIPs: [1.2.3.4]
somethingNew: {a: 1}
";

fn ids<S: resources::Spec>(harness: &Harness) -> Vec<String> {
    let specs = harness.store.list_as_in::<S>(CONFIG_NAMESPACE).unwrap();
    specs.iter().map(|spec| spec.id().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn settings_in_meta_are_the_layer_platform_as_they_change() {
    let harness = Harness::with(MetaConfigController::default());
    harness.put(KEY, MetaKey { value: TEXT.into() });
    harness.settle().await;
    assert!(ids::<AddressSpec>(&harness).is_empty(), "the owner of the network is unknown");
    harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
    harness.settle().await;
    assert_eq!(ids::<AddressSpec>(&harness), ["platform/eth0/147.75.61.43/31"]);
    assert_eq!(ids::<RouteSpec>(&harness), ["platform/inet4/147.75.61.42//1024"]);
    assert_eq!(ids::<LinkSpec>(&harness), ["platform/eth0"]);
    assert_eq!(ids::<OperatorSpec>(&harness), ["platform/dhcp4/eth1"]);
    let name = harness.get_in::<HostnameSpec>(CONFIG_NAMESPACE, "platform/hostname").unwrap();
    assert_eq!((name.hostname.as_str(), name.layer), ("ci-1", ConfigLayer::Platform));
    let link = harness.get_in::<LinkSpec>(CONFIG_NAMESPACE, "platform/eth0").unwrap();
    assert_eq!((link.mtu, link.up), (1400, true));
    harness.put(KEY, MetaKey { value: "resolvers: [{dnsServers: [9.9.9.10]}]\n".into() });
    harness.settle().await;
    assert!(ids::<AddressSpec>(&harness).is_empty());
    assert_eq!(ids::<ResolverSpec>(&harness), ["platform/resolvers"]);
    harness.put(KEY, MetaKey { value: "resolvers: [{dnsServers: [nobody]}]\n".into() });
    harness.settle().await;
    assert!(ids::<ResolverSpec>(&harness).is_empty(), "what cannot be read sets nothing");
}

#[test]
fn what_has_no_effect_is_said_and_what_cannot_be_read_is_refused() {
    let read = Settings::read(TEXT).unwrap();
    assert_eq!(read.without_effect, ["logical link bond0", "externalIPs"]);
    let refused = |text: &str| Settings::read(text).unwrap_err();
    assert!(matches!(refused("addresses: 1"), SettingsError::Yaml(_)));
    assert!(matches!(refused("links: [{name: a/b}]"), SettingsError::Value { list: "links", .. }));
    assert!(matches!(refused("operators: [{operator: magic}]"), SettingsError::Value { list: "operators", .. }));
    let many = format!("routes: [{}]", "{outLinkName: a},".repeat(300));
    assert!(matches!(refused(&many), SettingsError::TooMany { list: "routes" }));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z0-9:\\[\\]{}, \\n-]{0,200}") {
        let _ = Settings::read(&text);
        let _ = Settings::read(&format!("addresses:\n  - address: {text}\n"));
    }
}
