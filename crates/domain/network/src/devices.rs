//! The devices of the configuration as the controllers of links, addresses, routes and operators read them.

use config::v1alpha1::Device;
use controller::{Ctx, Input, ReconcileError};
use resources::machine::{Ownership, PlatformCapabilities};
use resources::network::DeviceConfigSpec;
use serde_json::Value;

/// Those of [`are_own`] and [`Devices::read`].
pub(crate) fn inputs() -> Vec<Input> {
    vec![Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID), Input::weak::<DeviceConfigSpec>()]
}

/// Whether this machine sets up its links itself.
pub(crate) fn are_own(ctx: &Ctx) -> Result<bool, ReconcileError> {
    let capabilities = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)?;
    Ok(capabilities.is_some_and(|capabilities| capabilities.network == Ownership::Machine))
}

/// All devices, with selectors resolved to names, in the order of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Devices(Vec<Device>);

impl Devices {
    pub(crate) fn read(ctx: &Ctx) -> Result<Self, ReconcileError> {
        let mut specs = ctx.list::<DeviceConfigSpec>()?;
        // Ids are LINK/PLACE.
        specs.sort_by_key(|spec| spec.id().split_once('/').map(|(_, place)| place.to_owned()));
        let devices = specs.iter().map(|spec| serde_json::from_value(Value::Object(spec.device.clone())));
        Ok(Self(devices.collect::<Result<_, _>>()?))
    }

    /// Whether a link is anywhere in the configuration, as a port of another one too.
    pub(crate) fn names(&self, link: &str) -> bool {
        self.0.iter().any(|device| {
            let bond = device.bond.as_ref().map(|bond| bond.interfaces.as_slice()).unwrap_or_default();
            let bridge = device.bridge.as_ref().map(|bridge| bridge.interfaces.as_slice()).unwrap_or_default();
            device.interface == link || bond.iter().chain(bridge).any(|port| port == link)
        })
    }

    /// Whether a link is to be left alone.
    pub(crate) fn ignores(&self, link: &str) -> bool {
        self.0.iter().any(|device| device.interface == link && device.ignore == Some(true))
    }

    /// Those that take effect: not ignored, and of a kind that this version can make.
    pub(crate) fn in_force(&self) -> impl Iterator<Item = &Device> {
        self.0.iter().filter(|device| device.ignore != Some(true) && !is_made(device))
    }
}

/// Whether the link is one that the machine would have to make.
fn is_made(device: &Device) -> bool {
    device.bond.is_some() || device.bridge.is_some() || device.wireguard.is_some() || device.dummy == Some(true)
}
