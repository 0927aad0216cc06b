//! Addresses by layer: the loopback's, the kernel's arguments, and the devices of the configuration.

use std::net::IpAddr;

use async_trait::async_trait;
use config::v1alpha1::Device;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use ipnet::IpNet;
use resources::enums::{AddressFlags, ConfigLayer, Family, Scope};
use resources::network::{AddressSpec, CONFIG_NAMESPACE, LinkStatus};

use crate::arguments::Arguments;
use crate::devices::{self, Devices};
use crate::link_config::LOOPBACK;

/// `network.AddressConfigController`: arguments, devices → `AddressSpec` of the layers `default`, `cmdline` and
/// `configuration`, where the network is the machine's own.
#[derive(Debug)]
pub struct AddressConfigController {
    arguments: Arguments,
}

impl AddressConfigController {
    /// With the arguments of the kernel.
    pub const fn new(arguments: Arguments) -> Self {
        Self { arguments }
    }
}

#[async_trait]
impl Controller for AddressConfigController {
    fn name(&self) -> &'static str {
        "network.AddressConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = devices::inputs();
        inputs.push(Input::weak::<LinkStatus>());
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<AddressSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if devices::are_own(ctx)? {
            let loopback = IpNet::new(LOCALHOST, 8)?;
            put(ctx, spec(LOOPBACK, loopback, ConfigLayer::Default))?;
            let devices = Devices::read(ctx)?;
            for link in self.arguments.resolved(&ctx.list::<LinkStatus>()?).links {
                if let Some(address) = link.address.filter(|_| !devices.ignores(&link.name)) {
                    put(ctx, spec(&link.name, address, ConfigLayer::Cmdline))?;
                }
            }
            for device in devices.in_force() {
                for address in addresses(device)? {
                    put(ctx, spec(&device.interface, address, ConfigLayer::MachineConfiguration))?;
                }
            }
        }
        ctx.keep_touched::<AddressSpec>()
    }
}

const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// The addresses of a device; one without a length is a single address.
fn addresses(device: &Device) -> Result<Vec<IpNet>, ReconcileError> {
    let read = |text: &String| match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => text.parse(),
    };
    Ok(device.addresses.iter().map(read).collect::<Result<_, _>>()?)
}

/// An address as the kernel has it for ever.
pub(crate) fn spec(link: &str, address: IpNet, layer: ConfigLayer) -> AddressSpec {
    let is_link_local = match address.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    AddressSpec {
        address: Some(address),
        link_name: link.to_owned(),
        family: if address.addr().is_ipv4() { Family::INET4 } else { Family::INET6 },
        scope: match address.addr() {
            address if address.is_loopback() => Scope::HOST,
            _ if is_link_local => Scope::LINK,
            _ => Scope::GLOBAL,
        },
        flags: AddressFlags::PERMANENT,
        announce_with_arp: false,
        layer,
    }
}

fn put(ctx: &mut Ctx, spec: AddressSpec) -> Result<(), ReconcileError> {
    let Some(address) = spec.address else { return Ok(()) };
    ctx.put_in(CONFIG_NAMESPACE, &format!("{}/{}/{address}", spec.layer, spec.link_name), spec).map(drop)
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::enums::LinkType;
    use resources::machine::{PlatformCapabilities, PlatformMode};
    use resources::network::DeviceConfigSpec;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_layer_has_its_addresses_and_those_of_a_removed_device_go() {
        let arguments = [("ip", "10.0.0.2::10.0.0.1:24::eth1"), ("ip", "10.0.1.2::::a")];
        let arguments = Arguments::read(|name| {
            let found: Vec<_> = arguments.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value).collect();
            found.into_iter()
        });
        let harness = Harness::with(AddressConfigController::new(arguments));
        harness.put("eth0", LinkStatus { r#type: LinkType::ETHER, ..Default::default() });
        harness.put("eth1", LinkStatus { r#type: LinkType::ETHER, ..Default::default() });
        harness.put("lo", LinkStatus { r#type: LinkType::LOOPBACK, ..Default::default() });
        let device =
            serde_json::json!({"interface": "eth0", "addresses": ["192.168.1.5/24", "fd00::5/64", "10.7.0.1"]});
        harness.put("eth0/000", DeviceConfigSpec { device: device.as_object().unwrap().clone() });
        harness.settle().await;
        let ids = || -> Vec<String> {
            let specs = harness.store.list_as_in::<AddressSpec>(CONFIG_NAMESPACE).unwrap();
            specs.iter().map(|spec| spec.id().to_owned()).collect()
        };
        assert!(ids().is_empty(), "the owner of the network is unknown");
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        let others = ["cmdline/eth0/10.0.1.2/32", "cmdline/eth1/10.0.0.2/24"];
        let configured =
            ["configuration/eth0/10.7.0.1/32", "configuration/eth0/192.168.1.5/24", "configuration/eth0/fd00::5/64"];
        assert_eq!(ids(), [&others[..], &configured, &["default/lo/127.0.0.1/8"]].concat());
        let loopback = harness.get_in::<AddressSpec>(CONFIG_NAMESPACE, "default/lo/127.0.0.1/8").unwrap();
        assert_eq!(loopback.scope, Scope::HOST);
        harness.destroy::<DeviceConfigSpec>("eth0/000");
        harness.settle().await;
        assert_eq!(ids(), [&others[..], &["default/lo/127.0.0.1/8"]].concat());
    }
}
