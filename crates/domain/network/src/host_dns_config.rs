//! The configured DNS server of the host. None runs yet: `DNSResolveCaches` tells when one does.

use config::v1alpha1::Config;
use controller::{Controller, Projection};
use resources::network::HostDnsConfig;

/// Where it listens for this host's programs (Talos 1.7).
const LISTEN: &str = "127.0.0.53:53";
/// The cluster's DNS forwards to the address before its own in the subnet of Services (Talos 1.7).
const SERVICE_OFFSET: u32 = 9;

/// `network.HostDNSConfigController`.
pub(crate) fn controller() -> Box<dyn Controller> {
    Projection::boxed("network.HostDNSConfigController", |config| {
        vec![(HostDnsConfig::ID.to_owned(), host_dns(config))]
    })
}

fn host_dns(config: &Config) -> HostDnsConfig {
    let machine = config.machine();
    if !machine.host_dns_enabled() {
        return HostDnsConfig::default();
    }
    let settings = machine.features.as_ref().and_then(|features| features.host_dns.as_ref());
    let is_on = |setting: Option<bool>| setting.unwrap_or(false);
    let forwards = is_on(settings.and_then(|settings| settings.forward_kube_dns_to_host));
    let services = config.cluster().service_cidrs();
    let service =
        services.first().filter(|_| forwards).and_then(|net| config::v1alpha1::nth_address(net, SERVICE_OFFSET));
    HostDnsConfig {
        enabled: true,
        listen_addresses: LISTEN
            .parse()
            .into_iter()
            .chain(service.map(|address| std::net::SocketAddr::new(address, 53)))
            .collect(),
        service_host_dns_address: service,
        resolve_member_names: is_on(settings.and_then(|settings| settings.resolve_member_names)),
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::config::MachineConfig;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_settings_are_told_whether_it_is_on_or_not() {
        let harness = Harness::new();
        harness.runtime.register_boxed(controller()).unwrap();
        harness.runtime.start();
        let config = |features: &str| {
            MachineConfig::new(format!(
                "version: v1alpha1\nmachine:\n  type: worker\n  features:\n    hostDNS: {features}\n"
            ))
        };
        harness.put(MachineConfig::ACTIVE_ID, config("{enabled: false, resolveMemberNames: true}"));
        harness.settle().await;
        assert_eq!(*harness.get::<HostDnsConfig>(HostDnsConfig::ID).unwrap().spec, HostDnsConfig::default());
        harness.put(MachineConfig::ACTIVE_ID, config("{enabled: true, forwardKubeDNSToHost: true}"));
        harness.settle().await;
        let told = harness.get::<HostDnsConfig>(HostDnsConfig::ID).unwrap();
        let listen: Vec<String> = told.listen_addresses.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.53:53", "10.96.0.9:53"]);
        assert_eq!((told.enabled, told.resolve_member_names), (true, false));
    }
}
