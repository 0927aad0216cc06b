//! Links that belong to others: ports of bonds and bridges, and options of bonds that need each other.

use std::collections::HashMap;

use super::Check;
use crate::v1alpha1::{Bond, Device, DeviceSelector};

const LACP: &[&str] = &["802.3ad"];
const WITH_PRIMARY: &[&str] = &["active-backup", "balance-tlb", "balance-alb"];
const WITHOUT_ARP: &[&str] = &["802.3ad", "balance-tlb", "balance-alb"];
const ROUND_ROBIN: &[&str] = &["balance-rr"];
/// The kernel's, where none is given.
const DEFAULT_MODE: &str = "balance-rr";

/// Where a link is a port.
struct Port<'a> {
    owner: &'a str,
    kind: &'static str,
}

/// A link may be a port of one bond or bridge, and then has no addresses of its own.
pub(super) fn ports(check: &mut Check<'_>, interfaces: &[Device]) {
    let mut taken: HashMap<&str, Port<'_>> = HashMap::new();
    for (index, device) in interfaces.iter().enumerate() {
        let bond = device.bond.iter().map(|bond| ("bond", &bond.interfaces));
        let bridge = device.bridge.iter().map(|bridge| ("bridge", &bridge.interfaces));
        for (kind, names) in bond.chain(bridge) {
            for (n, name) in names.iter().enumerate() {
                let path = format!("machine.network.interfaces[{index}].{kind}.interfaces[{n}]");
                if !device.interface.is_empty() && *name == device.interface {
                    check.error(&path, format!("{name} cannot be a port of itself"));
                } else if let Some(port) = taken.get(name.as_str()) {
                    // several entries of one link may repeat its ports
                    if !port.owner.is_empty() && port.owner == device.interface && port.kind == kind {
                        continue;
                    }
                    let first = format!("{} {}", port.kind, port.owner);
                    check.error(&path, format!("{name} is already a port of {}", first.trim_end()));
                } else {
                    taken.insert(name, Port { owner: &device.interface, kind });
                }
            }
        }
    }
    for (index, device) in interfaces.iter().enumerate() {
        let base = format!("machine.network.interfaces[{index}]");
        if let Some(port) = taken.get(device.interface.as_str()) {
            let own = (device.dhcp, device.addresses.as_slice(), device.vip.is_some());
            addresses_of_port(check, &base, &device.interface, port, own);
        }
        for (index, vlan) in device.vlans.iter().enumerate() {
            let name = format!("{}.{}", device.interface, vlan.vlan_id.unwrap_or_default());
            if let Some(port) = taken.get(name.as_str()) {
                let own = (vlan.dhcp, vlan.addresses.as_slice(), vlan.vip.is_some());
                addresses_of_port(check, &format!("{base}.vlans[{index}]"), &name, port, own);
            }
        }
    }
}

/// `own`: DHCP, static addresses, and whether there is a shared one.
fn addresses_of_port(
    check: &mut Check<'_>,
    base: &str,
    name: &str,
    port: &Port<'_>,
    (dhcp, addresses, shared): (Option<bool>, &[String], bool),
) {
    for (field, is_set) in [("dhcp", dhcp == Some(true)), ("addresses", !addresses.is_empty()), ("vip", shared)] {
        if is_set {
            let message = format!("{name} is a port of a {}, and cannot have addresses", port.kind);
            check.error(&format!("{base}.{field}"), message);
        }
    }
}

pub(super) fn bond(check: &mut Check<'_>, base: &str, bond: &Bond) {
    if !bond.interfaces.is_empty() && !bond.device_selectors.is_empty() {
        check.error(base, "a bond has either interfaces or deviceSelectors");
    }
    for (index, selector) in bond.device_selectors.iter().enumerate() {
        self::selector(check, &format!("{base}.deviceSelectors[{index}]"), selector);
    }
    modes(check, base, bond);
    delays(check, base, bond);
    if !bond.arp_ip_target.is_empty() {
        check.error(&format!("{base}.arpIPTarget"), "links cannot be watched by ARP targets: use miimon");
    }
    if !bond.ad_actor_system.is_empty() {
        check.error(&format!("{base}.adActorSystem"), "the system address of LACP cannot be set");
    }
}

/// Options that only some modes have.
fn modes(check: &mut Check<'_>, base: &str, bond: &Bond) {
    let mode = if bond.mode.is_empty() { DEFAULT_MODE } else { bond.mode.as_str() };
    let some = |value: Option<u32>| value.is_some_and(|value| value != 0);
    let of_modes = [
        ("lacpRate", !bond.lacp_rate.is_empty(), LACP),
        ("adSelect", !bond.ad_select.is_empty(), LACP),
        ("adActorSysPrio", some(bond.ad_actor_sys_prio.map(u32::from)), LACP),
        ("adUserPortKey", some(bond.ad_user_port_key.map(u32::from)), LACP),
        ("primary", !bond.primary.is_empty(), WITH_PRIMARY),
        ("primaryReselect", !bond.primary_reselect.is_empty(), WITH_PRIMARY),
        ("packetsPerSlave", bond.packets_per_slave.is_some_and(|packets| packets > 1), ROUND_ROBIN),
    ];
    for (field, is_set, modes) in of_modes {
        if is_set && !modes.contains(&mode) {
            let message = format!("{field} needs the mode {}, and this is {mode}", modes.join(", "));
            check.error(&format!("{base}.{field}"), message);
        }
    }
    let arp =
        [("arpInterval", some(bond.arp_interval)), ("arpValidate", !matches!(bond.arp_validate.as_str(), "" | "none"))];
    for (field, is_set) in arp {
        if is_set && WITHOUT_ARP.contains(&mode) {
            check.error(&format!("{base}.{field}"), format!("the mode {mode} has no monitoring by ARP"));
        }
    }
    if some(bond.arp_interval) && some(bond.miimon) {
        check.error(&format!("{base}.arpInterval"), "links are watched either by ARP or by their carrier (miimon)");
    }
}

/// Delays are counted in checks of the carrier.
fn delays(check: &mut Check<'_>, base: &str, bond: &Bond) {
    let delays =
        [("updelay", bond.updelay), ("downdelay", bond.downdelay), ("peerNotifyDelay", bond.peer_notify_delay)];
    let interval = bond.miimon.unwrap_or(0);
    for (field, delay) in delays.into_iter().filter_map(|(field, delay)| Some((field, delay.filter(|ms| *ms != 0)?))) {
        if interval == 0 {
            check.error(&format!("{base}.{field}"), format!("{field} has no effect without miimon"));
        } else if delay % interval != 0 {
            check.error(&format!("{base}.{field}"), format!("{delay} is not a multiple of miimon ({interval})"));
        }
    }
}

/// One that says nothing would fit every link.
pub(super) fn selector(check: &mut Check<'_>, path: &str, selector: &DeviceSelector) {
    if *selector == DeviceSelector::default() {
        check.error(
            path,
            "an empty selector fits every link: busPath, hardwareAddr, pciID, driver or physical is needed",
        );
    }
}
