//! The `machine.network` part.

use std::collections::HashSet;

use super::{Check, Mode, links};
use crate::scalar::MachineType;
use crate::v1alpha1::{Device, DeviceVip, DhcpOptions, Machine};

pub(super) fn check(check: &mut Check<'_>, machine: &Machine, mode: Mode) {
    if mode == Mode::Container {
        parts_of_the_host(check, machine);
    }
    let Some(network) = &machine.network else { return };
    links::ports(check, &network.interfaces);
    let mut names = HashSet::new();
    let worker = machine.r#type.unwrap_or(MachineType::Worker) == MachineType::Worker;
    for (index, device) in network.interfaces.iter().enumerate() {
        let base = format!("machine.network.interfaces[{index}]");
        match (device.interface.is_empty(), device.device_selector.is_none()) {
            (true, true) => check.error(&base, "a link needs interface or deviceSelector"),
            (false, false) => check.error(&base, "a link has either interface or deviceSelector"),
            _ => {}
        }
        if let Some(selector) = &device.device_selector {
            links::selector(check, &format!("{base}.deviceSelector"), selector);
        }
        if !device.interface.is_empty() && !names.insert(device.interface.as_str()) {
            let message = format!("{} has another entry: both take effect", device.interface);
            check.remark(&format!("{base}.interface"), message);
        }
        device_check(check, &base, device, worker);
    }
}

/// Links, disks and the clock of a container are its host's.
fn parts_of_the_host(check: &mut Check<'_>, machine: &Machine) {
    if machine.network.as_ref().is_some_and(|network| !network.interfaces.is_empty()) {
        check.remark("machine.network.interfaces", "has no effect in a container: its links are the host's");
    }
    let time = machine.time.as_ref();
    if time
        .is_some_and(|time| !time.servers.is_empty() || !time.boot_timeout.is_empty() || time.disabled == Some(false))
    {
        check.remark("machine.time", "has no effect in a container: its clock is the host's");
    }
    if machine.install.is_some() {
        check.remark("machine.install", "has no effect in a container: its disks are the host's");
    }
}

fn device_check(check: &mut Check<'_>, base: &str, device: &Device, worker: bool) {
    let kinds =
        [device.bond.is_some(), device.bridge.is_some(), device.wireguard.is_some(), device.dummy == Some(true)];
    if kinds.iter().filter(|kind| **kind).count() > 1 {
        check.error(base, "a link is at most one of bond, bridge, wireguard, dummy");
    }
    if let Some(bond) = &device.bond {
        links::bond(check, &format!("{base}.bond"), bond);
    }
    if let Some(wireguard) = &device.wireguard {
        if wireguard.private_key.is_empty() {
            check.error(&format!("{base}.wireguard.privateKey"), "the private key is missing");
        }
        for (index, peer) in wireguard.peers.iter().enumerate() {
            if peer.public_key.is_empty() {
                check.error(&format!("{base}.wireguard.peers[{index}].publicKey"), "the public key is missing");
            }
        }
    }
    dhcp(check, base, device.dhcp, device.dhcp_options.as_ref());
    vip(check, base, device.vip.as_ref(), worker);
    let mut ids = Vec::new();
    for (index, vlan) in device.vlans.iter().enumerate() {
        let base = format!("{base}.vlans[{index}]");
        match vlan.vlan_id {
            None => check.error(&format!("{base}.vlanId"), "the VLAN's number is missing"),
            Some(id) if ids.contains(&id) => {
                check.error(&format!("{base}.vlanId"), format!("duplicate VLAN {id}"));
            }
            Some(id) => ids.push(id),
        }
        dhcp(check, &base, vlan.dhcp, vlan.dhcp_options.as_ref());
        vip(check, &base, vlan.vip.as_ref(), worker);
    }
    for (index, route) in device.routes.iter().enumerate() {
        if route.network.is_empty() && route.gateway.is_empty() {
            check.error(&format!("{base}.routes[{index}]"), "a route needs a network or a gateway");
        }
    }
}

fn vip(check: &mut Check<'_>, base: &str, vip: Option<&DeviceVip>, worker: bool) {
    let Some(vip) = vip else { return };
    if worker {
        check.error(&format!("{base}.vip"), "a shared address works only on a control plane");
    }
    if vip.ip.is_empty() {
        check.error(&format!("{base}.vip.ip"), "the shared address is missing");
    }
}

fn dhcp(check: &mut Check<'_>, base: &str, enabled: Option<bool>, options: Option<&DhcpOptions>) {
    if options.is_some() && enabled != Some(true) {
        check.remark(&format!("{base}.dhcpOptions"), "options for DHCP have no effect without dhcp: true");
    }
}
