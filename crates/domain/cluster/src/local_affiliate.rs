//! This node's own affiliate, for other nodes.

use async_trait::async_trait;
use config::v1alpha1::Config;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::MachineType;
use resources::cluster::{Affiliate, ControlPlane, DiscoveryConfig, Identity};
use resources::config::MachineConfig;
use resources::k8s::Nodename;
use resources::network::{HostnameStatus, NodeAddress};

/// Addresses without those of pods and services.
const ADDRESSES: &str = "routed-no-k8s";

/// Identity, names, addresses, type → the `Affiliate` of this node. None while discovery is off.
#[derive(Debug)]
pub struct LocalAffiliateController;

#[async_trait]
impl Controller for LocalAffiliateController {
    fn name(&self) -> &'static str {
        "cluster.LocalAffiliateController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<DiscoveryConfig>().id(DiscoveryConfig::ID),
            Input::weak::<Identity>().id(Identity::ID),
            Input::weak::<HostnameStatus>().id(HostnameStatus::ID),
            Input::weak::<Nodename>().id(Nodename::ID),
            Input::weak::<NodeAddress>().id(ADDRESSES),
            Input::weak::<MachineType>().id(MachineType::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<Affiliate>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let enabled = ctx.get::<DiscoveryConfig>(DiscoveryConfig::ID)?.is_some_and(|config| config.discovery_enabled);
        let parts = (
            ctx.get::<Identity>(Identity::ID)?,
            ctx.get::<HostnameStatus>(HostnameStatus::ID)?,
            ctx.get::<NodeAddress>(ADDRESSES)?,
            ctx.get::<MachineType>(MachineType::ID)?,
        );
        if let (true, (Some(identity), Some(hostname), Some(addresses), Some(machine_type))) = (enabled, parts) {
            let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
            let config = MachineConfig::root_of(active.as_deref())?;
            let affiliate = Affiliate {
                node_id: identity.node_id.clone(),
                addresses: addresses.addresses.iter().map(|net| net.addr()).collect(),
                hostname: hostname.fqdn(),
                nodename: ctx.get::<Nodename>(Nodename::ID)?.map(|name| name.nodename.clone()).unwrap_or_default(),
                operating_system: stdx::version::os_name(),
                machine_type: *machine_type,
                control_plane: control_plane(*machine_type, config),
                ..Affiliate::default()
            };
            ctx.put(&identity.node_id, affiliate)?;
        }
        ctx.keep_touched::<Affiliate>()
    }
}

fn control_plane(machine_type: MachineType, config: Option<&Config>) -> Option<ControlPlane> {
    let config = config.filter(|_| machine_type.is_control_plane())?;
    Some(ControlPlane { port: config.cluster().api_server_port().into() })
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_says_who_where_and_what_once_all_is_known() {
        let harness = Harness::with(LocalAffiliateController);
        let text = "version: v1alpha1\nmachine:\n  type: controlplane\ncluster:\n  id: abc\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        harness.put("cluster", DiscoveryConfig { discovery_enabled: true, ..Default::default() });
        harness.put("local", Identity { node_id: "me".into() });
        harness.put("hostname", HostnameStatus { hostname: "cp-1".into(), domainname: "example.org".into() });
        harness.put(ADDRESSES, NodeAddress { addresses: vec!["10.5.0.2/24".parse().unwrap()] });
        harness.settle().await;
        assert!(harness.ids::<Affiliate>().is_empty(), "the machine type is not known yet");
        harness.put(MachineType::ID, MachineType::ControlPlane);
        harness.put("nodename", Nodename { nodename: "cp-1".into(), ..Default::default() });
        harness.settle().await;
        let affiliate = harness.get::<Affiliate>("me").unwrap();
        assert_eq!((affiliate.hostname.as_str(), affiliate.nodename.as_str()), ("cp-1.example.org", "cp-1"));
        assert_eq!(affiliate.operating_system, "Talos (v1.7.0)");
        assert_eq!(affiliate.control_plane, Some(ControlPlane { port: 6443 }));
        assert_eq!(affiliate.addresses, ["10.5.0.2".parse::<std::net::IpAddr>().unwrap()]);

        harness.put("cluster", DiscoveryConfig::default());
        harness.settle().await;
        assert!(harness.ids::<Affiliate>().is_empty());
    }
}
