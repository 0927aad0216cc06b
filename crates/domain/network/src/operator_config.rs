//! Operators by layer: DHCP on physical links that nobody sets up, by the kernel's arguments, and by the configuration.

use async_trait::async_trait;
use config::v1alpha1::Device;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::enums::{ConfigLayer, Operator};
use resources::network::{CONFIG_NAMESPACE, Dhcp4Operator, LinkSpec, LinkStatus, OperatorSpec};

use crate::arguments::Arguments;
use crate::devices::{self, Devices};
use crate::link_config::is_physical;
use crate::route_config::METRIC;

/// `network.OperatorConfigController`: arguments, devices, links → `OperatorSpec` of the layers `default`, `cmdline` and
/// `configuration`, where the network is the machine's own.
///
/// By default a physical link asks by DHCP for IPv4 if it has no `LinkSpec` of the layers `cmdline`, `platform` and
/// `configuration`.
#[derive(Debug)]
pub struct OperatorConfigController {
    arguments: Arguments,
}

impl OperatorConfigController {
    /// With the arguments of the kernel.
    pub const fn new(arguments: Arguments) -> Self {
        Self { arguments }
    }
}

#[async_trait]
impl Controller for OperatorConfigController {
    fn name(&self) -> &'static str {
        "network.OperatorConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = devices::inputs();
        inputs.extend([Input::weak::<LinkStatus>(), Input::weak::<LinkSpec>().namespace(CONFIG_NAMESPACE)]);
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<OperatorSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if devices::are_own(ctx)? {
            let links = ctx.list::<LinkStatus>()?;
            let arguments = self.arguments.resolved(&links);
            let devices = Devices::read(ctx)?;
            let set_up = ctx.list_in::<LinkSpec>(CONFIG_NAMESPACE)?;
            let is_set_up = |link: &str| {
                let counts = |layer| !matches!(layer, ConfigLayer::Default | ConfigLayer::Operator);
                set_up.iter().any(|spec| spec.name == link && counts(spec.layer))
            };
            for link in links.iter().filter(|link| is_physical(link)) {
                let name = link.id();
                if !is_set_up(name) && !devices.names(name) && !arguments.names(name) {
                    put(ctx, dhcp4(name, METRIC, ConfigLayer::Default))?;
                }
            }
            for link in &arguments.links {
                if link.dhcp && !devices.ignores(&link.name) && !arguments.ignores(&link.name) {
                    put(ctx, dhcp4(&link.name, METRIC, ConfigLayer::Cmdline))?;
                }
            }
            for device in devices.in_force().filter(|device| asks_for_ipv4(device)) {
                let metric = device.dhcp_options.as_ref().and_then(|options| options.route_metric);
                let metric = metric.filter(|metric| *metric != 0).unwrap_or(METRIC);
                put(ctx, dhcp4(&device.interface, metric, ConfigLayer::MachineConfiguration))?;
            }
        }
        ctx.keep_touched::<OperatorSpec>()
    }
}

fn asks_for_ipv4(device: &Device) -> bool {
    let options = device.dhcp_options.as_ref();
    device.dhcp == Some(true) && options.and_then(|options| options.ipv4).unwrap_or(true)
}

fn dhcp4(link: &str, route_metric: u32, layer: ConfigLayer) -> OperatorSpec {
    OperatorSpec {
        operator: Operator::Dhcp4,
        link_name: link.to_owned(),
        require_up: true,
        dhcp4: Dhcp4Operator { route_metric, skip_hostname_request: false },
        layer,
        ..OperatorSpec::default()
    }
}

fn put(ctx: &mut Ctx, spec: OperatorSpec) -> Result<(), ReconcileError> {
    let id = format!("{}/{}/{}", spec.layer, spec.operator, spec.link_name);
    ctx.put_in(CONFIG_NAMESPACE, &id, spec).map(drop)
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::enums::LinkType;
    use resources::machine::{PlatformCapabilities, PlatformMode};
    use resources::network::DeviceConfigSpec;

    use super::*;

    fn ids(harness: &Harness) -> Vec<String> {
        let specs = harness.store.list_as_in::<OperatorSpec>(CONFIG_NAMESPACE).unwrap();
        specs.iter().map(|spec| spec.id().to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn physical_links_ask_by_dhcp_until_somebody_sets_them_up() {
        let arguments = Arguments::read(|name| {
            let found: &[&str] = match name {
                "ip" => &["eth2:dhcp"],
                "talos.network.interface.ignore" => &["eth3"],
                _ => &[],
            };
            found.iter().copied()
        });
        let harness = Harness::with(OperatorConfigController::new(arguments));
        for (name, kind) in [("eth0", ""), ("eth1", ""), ("eth2", ""), ("eth3", ""), ("veth0", "veth")] {
            harness.put(name, LinkStatus { r#type: LinkType::ETHER, kind: kind.into(), ..Default::default() });
        }
        harness.settle().await;
        assert!(ids(&harness).is_empty(), "the owner of the network is unknown");
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        assert_eq!(ids(&harness), ["cmdline/dhcp4/eth2", "default/dhcp4/eth0", "default/dhcp4/eth1"]);
        let platform = LinkSpec { name: "eth1".into(), layer: ConfigLayer::Platform, ..Default::default() };
        harness.put_in(CONFIG_NAMESPACE, "platform/eth1", platform);
        let device = |value: serde_json::Value| DeviceConfigSpec { device: value.as_object().unwrap().clone() };
        let options = serde_json::json!({"interface": "eth0", "dhcp": true, "dhcpOptions": {"routeMetric": 7}});
        harness.put("eth0/000", device(options));
        harness.put("eth2/001", device(serde_json::json!({"interface": "eth2", "ignore": true})));
        harness.settle().await;
        assert_eq!(ids(&harness), ["configuration/dhcp4/eth0"]);
        let spec = harness.get_in::<OperatorSpec>(CONFIG_NAMESPACE, "configuration/dhcp4/eth0").unwrap();
        assert_eq!(spec.dhcp4.route_metric, 7);
        harness.put("eth0/000", device(serde_json::json!({"interface": "eth0", "dhcp": false})));
        harness.settle().await;
        assert!(ids(&harness).is_empty());
    }
}
