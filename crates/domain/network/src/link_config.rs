//! Links by layer: the loopback and physical links, the kernel's arguments, and the devices of the configuration.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::enums::{ConfigLayer, LinkType};
use resources::network::{CONFIG_NAMESPACE, LinkSpec, LinkStatus};

use crate::arguments::{Arguments, ResolvedLink};
use crate::devices::{self, Devices};
use crate::merge::Layered as _;

/// The name of the loopback.
pub(crate) const LOOPBACK: &str = "lo";

/// `network.LinkConfigController`: arguments, devices, links → `LinkSpec` of the layers `default`, `cmdline` and
/// `configuration`.
///
/// Where the network is the machine's own, physical links that nobody names are up.
#[derive(Debug)]
pub struct LinkConfigController {
    arguments: Arguments,
}

impl LinkConfigController {
    /// With the arguments of the kernel.
    pub const fn new(arguments: Arguments) -> Self {
        Self { arguments }
    }
}

/// Whether it is hardware.
pub(crate) fn is_physical(link: &LinkStatus) -> bool {
    link.r#type == LinkType::ETHER && link.kind.is_empty()
}

#[async_trait]
impl Controller for LinkConfigController {
    fn name(&self) -> &'static str {
        "network.LinkConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = devices::inputs();
        inputs.push(Input::weak::<LinkStatus>());
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<LinkSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let loopback = LinkSpec { r#type: LinkType::LOOPBACK, ..up(LOOPBACK, ConfigLayer::Default) };
        put(ctx, loopback)?;
        if devices::are_own(ctx)? {
            let links = ctx.list::<LinkStatus>()?;
            let arguments = self.arguments.resolved(&links);
            let devices = Devices::read(ctx)?;
            for link in links.iter().filter(|link| is_physical(link)) {
                if !devices.names(link.id()) && !arguments.names(link.id()) {
                    put(ctx, LinkSpec { r#type: LinkType::ETHER, ..up(link.id(), ConfigLayer::Default) })?;
                }
            }
            for ResolvedLink { name, .. } in &arguments.links {
                if !devices.ignores(name) {
                    put(ctx, up(name, ConfigLayer::Cmdline))?;
                }
            }
            for spec in configured(&devices) {
                put(ctx, spec)?;
            }
        }
        ctx.keep_touched::<LinkSpec>()
    }
}

fn up(name: &str, layer: ConfigLayer) -> LinkSpec {
    LinkSpec { name: name.to_owned(), up: true, layer, ..LinkSpec::default() }
}

fn put(ctx: &mut Ctx, spec: LinkSpec) -> Result<(), ReconcileError> {
    ctx.put_in(CONFIG_NAMESPACE, &format!("{}/{}", spec.layer, spec.name), spec).map(drop)
}

/// One for each link; several devices of one link are merged in their order.
fn configured(devices: &Devices) -> Vec<LinkSpec> {
    let mut specs: Vec<LinkSpec> = Vec::new();
    for device in devices.in_force() {
        let spec = LinkSpec {
            mtu: device.mtu.unwrap_or_default(),
            ..up(&device.interface, ConfigLayer::MachineConfiguration)
        };
        match specs.iter_mut().find(|known| known.name == spec.name) {
            Some(known) => *known = spec.over(known),
            None => specs.push(spec),
        }
    }
    specs
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::machine::{PlatformCapabilities, PlatformMode};
    use resources::network::DeviceConfigSpec;

    use super::*;

    fn link(kind: &str) -> LinkStatus {
        LinkStatus { r#type: LinkType::ETHER, kind: kind.into(), ..Default::default() }
    }

    fn ids(harness: &Harness) -> Vec<String> {
        let specs = harness.store.list_as_in::<LinkSpec>(CONFIG_NAMESPACE).unwrap();
        specs.iter().map(|spec| spec.id().to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_loopback_is_set_up_where_the_network_is_the_hosts() {
        let harness = Harness::with(LinkConfigController::new(Arguments::default()));
        harness.put("eth0", link(""));
        harness.settle().await;
        assert_eq!(ids(&harness), ["default/lo"]);
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.settle().await;
        assert_eq!(ids(&harness), ["default/lo"]);
    }

    #[tokio::test(start_paused = true)]
    async fn physical_links_are_up_unless_somebody_names_them() {
        let harness = Harness::with(LinkConfigController::new(Arguments::default()));
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        for name in ["eth0", "eth1", "eth2", "eth3"] {
            harness.put(name, link(""));
        }
        harness.put("veth0", link("veth"));
        let device = |value: serde_json::Value| DeviceConfigSpec { device: value.as_object().unwrap().clone() };
        harness.put("eth1/000", device(serde_json::json!({"interface": "eth1", "mtu": 1400})));
        harness.put("eth2/001", device(serde_json::json!({"interface": "eth2", "ignore": true})));
        let bond = serde_json::json!({"interface": "bond0", "bond": {"interfaces": ["eth3"], "mode": "802.3ad"}});
        harness.put("bond0/002", device(bond));
        harness.settle().await;
        assert_eq!(ids(&harness), ["configuration/eth1", "default/eth0", "default/lo"]);
        let eth1 = harness.get_in::<LinkSpec>(CONFIG_NAMESPACE, "configuration/eth1").unwrap();
        assert_eq!((eth1.mtu, eth1.up, eth1.logical), (1400, true, false));
    }
}
