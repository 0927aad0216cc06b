//! The devices of the configuration, each with its link.
//!
//! They are told, not set up: the links of this machine are its platform's.

use async_trait::async_trait;
use config::v1alpha1::{Device, DeviceSelector};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::enums::LinkType;
use resources::network::{DeviceConfigSpec, LinkStatus};
use serde_json::Value;

/// `network.DeviceConfigController`: configuration and links → `DeviceConfigSpec`, by link and place in the configuration
/// (`eth0/000`). A device whose selector fits several links has one for each; one that fits none has none.
#[derive(Debug)]
pub struct DeviceConfigController;

#[async_trait]
impl Controller for DeviceConfigController {
    fn name(&self) -> &'static str {
        "network.DeviceConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID), Input::weak::<LinkStatus>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<DeviceConfigSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let machine = MachineConfig::root_of(active.as_deref())?.map(|config| config.machine());
        let network = machine.and_then(|machine| machine.network.as_ref());
        let devices = network.map(|network| network.interfaces.as_slice()).unwrap_or_default();
        let known = ctx.list::<LinkStatus>()?;
        let links: Vec<(&str, &LinkStatus)> = known.iter().map(|link| (link.id(), &*link.spec)).collect();
        for (place, device) in devices.iter().enumerate() {
            for link in links_of(device, &links) {
                let device = Device { interface: link.clone(), device_selector: None, ..device.clone() };
                let Value::Object(device) = serde_json::to_value(&device)? else { continue };
                ctx.put(&format!("{link}/{place:03}"), DeviceConfigSpec { device })?;
            }
        }
        ctx.keep_touched::<DeviceConfigSpec>()
    }
}

/// The names of the links that a device is.
fn links_of(device: &Device, links: &[(&str, &LinkStatus)]) -> Vec<String> {
    match &device.device_selector {
        Some(selector) if device.interface.is_empty() => {
            links.iter().filter(|(_, link)| fits(selector, link)).map(|(name, _)| (*name).to_owned()).collect()
        }
        _ => vec![device.interface.clone()],
    }
}

fn fits(selector: &DeviceSelector, link: &LinkStatus) -> bool {
    let is_physical = link.r#type == LinkType::ETHER && link.kind.is_empty();
    let patterns = [
        (&selector.bus_path, link.bus_path.as_str()),
        (&selector.hardware_addr, &link.hardware_addr.to_string()),
        (&selector.pci_id, &link.pci_id),
        (&selector.driver, &link.driver),
    ];
    selector.physical.is_none_or(|wanted| wanted == is_physical)
        && patterns.iter().all(|(pattern, value)| pattern.is_empty() || matches(pattern, value))
}

/// Whether a text has the parts between the stars of a pattern, in their order; case does not count.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("00:1C:*", "00:1c:42:00", true),
            ("*:42:*", "00:1c:42:00", true),
            ("*00", "00:1c:42:01", false),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_goes_by_its_link_and_place() {
        let harness = Harness::with(DeviceConfigController);
        let text = "version: v1alpha1\nmachine:\n  type: worker\n  network:\n    interfaces:\n      - interface: eth0\n        \
                    mtu: 1400\n      - deviceSelector: {hardwareAddr: '4e:*', physical: true}\n        dhcp: true\n";
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
        let link = |address: &str, kind: &str| LinkStatus {
            hardware_addr: address.parse().unwrap(),
            kind: kind.into(),
            r#type: LinkType::ETHER,
            ..LinkStatus::default()
        };
        harness.put("enp1", link("4e:95:8e:8f:e4:47", ""));
        harness.put("veth1", link("4e:95:8e:8f:e4:48", "veth"));
        harness.settle().await;
        let first = harness.get::<DeviceConfigSpec>("eth0/000").unwrap();
        assert_eq!(first.device["mtu"], 1400);
        let selected = harness.get::<DeviceConfigSpec>("enp1/001").unwrap();
        assert_eq!((&selected.device["interface"], &selected.device["dhcp"]), (&"enp1".into(), &true.into()));
        assert_eq!(harness.get::<DeviceConfigSpec>("veth1/001"), None);
    }
}
