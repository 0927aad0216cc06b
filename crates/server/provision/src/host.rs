//! What the host has: capabilities, cgroups, limits, routes, listeners. Reads only, but for the switch for forwarding.

use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use rustix::process::{Resource, getrlimit};
use sys::capabilities::NAMES;

use crate::error::ProvisionError;

/// Which cgroup hierarchy has the controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroups {
    V1,
    V2,
}

/// What containers may be given here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) capabilities: Vec<&'static str>,
    pub(crate) cgroups: Cgroups,
    /// Hard limit of open files.
    pub(crate) open_files: u64,
}

impl Host {
    pub(crate) fn inspect() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
            capabilities: bounding(&status),
            cgroups: if unified { Cgroups::V2 } else { Cgroups::V1 },
            open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20),
        }
    }

    /// What nodes have to do without, a sentence each.
    fn lacks(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        let missing: Vec<_> = NAMES.iter().filter(|c| !self.capabilities.contains(c)).copied().collect();
        if !missing.is_empty() {
            let effect = if missing.contains(&"CAP_SYS_RESOURCE") {
                "; OOM scores cannot be lowered and limits cannot be raised"
            } else {
                ""
            };
            lacks.push(format!("this machine does not give {}{effect}", missing.join(", ")));
        }
        if self.cgroups == Cgroups::V1 {
            lacks.push("this machine has its cgroup controllers in version 1".to_owned());
        }
        if self.open_files < 65536 {
            lacks.push(format!("at most {} open files for each process of a node", self.open_files));
        }
        lacks
    }
}

/// What this machine lacks for nodes, a sentence each; nodes run in spite of it.
#[must_use]
pub fn notices() -> Vec<String> {
    let mut notices = Host::inspect().lacks();
    if !Path::new("/dev/kmsg").exists() {
        notices.push("this machine has no /dev/kmsg, kubelet will not start".to_owned());
    }
    notices
}

fn bounding(status: &str) -> Vec<&'static str> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NAMES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

/// Networks that the host has a route to, without the default route, each with its link.
pub(crate) fn routes() -> Vec<(Ipv4Net, String)> {
    parse_routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

fn parse_routes(table: &str) -> Vec<(Ipv4Net, String)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let address = |field: &str| Some(Ipv4Addr::from(u32::from_str_radix(field, 16).ok()?.swap_bytes()));
            let (link, network, mask) = (*fields.first()?, address(fields.get(1)?)?, address(fields.get(7)?)?);
            let network = Ipv4Net::with_netmask(network, mask).ok()?;
            (network.prefix_len() > 0).then(|| (network, link.to_owned()))
        })
        .collect()
}

/// Ports on which somebody listens on all addresses of the host.
pub(crate) fn wildcard_listeners() -> Vec<u16> {
    let mut ports = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        ports.extend(parse_listeners(&std::fs::read_to_string(table).unwrap_or_default()));
    }
    ports
}

fn parse_listeners(table: &str) -> Vec<u16> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (address, port) = fields.next()?.split_once(':')?;
            let state = fields.nth(1)?;
            (state == LISTEN && address.bytes().all(|b| b == b'0')).then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}

/// The switch for forwarding of IPv4, which clusters need, and the memory of how it was found.
///
/// The mark is the machine's, not a cluster's: clusters are made and removed in any order, by anybody, with their state
/// wherever they want it. It goes with the next boot, as the switch does.
pub(crate) struct Forwarding<'a> {
    switch: &'a Path,
    /// There while forwarding was off before the first cluster came.
    mark: &'a Path,
}

impl Forwarding<'static> {
    pub(crate) fn of_host() -> Self {
        let (switch, mark) = ("/proc/sys/net/ipv4/ip_forward", "/run/talos-clusters-forwarding-was-off");
        Self { switch: Path::new(switch), mark: Path::new(mark) }
    }
}

impl Forwarding<'_> {
    /// Lets the host forward, and remembers it where it did not.
    pub(crate) fn allow(&self) -> Result<(), ProvisionError> {
        let on = std::fs::read_to_string(self.switch).is_ok_and(|value| value.trim() != "0");
        if on {
            return Ok(());
        }
        std::fs::write(self.mark, "").map_err(ProvisionError::io("writing", self.mark))?;
        std::fs::write(self.switch, "1").map_err(ProvisionError::io("writing", self.switch))
    }

    /// Leaves the host as the first cluster found it; for when the last one has gone.
    pub(crate) fn restore(&self) -> Result<(), ProvisionError> {
        if !self.mark.exists() {
            return Ok(());
        }
        std::fs::write(self.switch, "0").map_err(ProvisionError::io("writing", self.switch))?;
        std::fs::remove_file(self.mark).map_err(ProvisionError::io("removing", self.mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_capabilities_of_the_bounding_set_are_asked_for() {
        let all = bounding("CapBnd:\t000001ffffffffff\n");
        assert_eq!(all.len(), 41);
        let here = bounding("CapEff:\t0\nCapBnd:\t000001fffeffffff\n");
        assert_eq!(here.len(), 40);
        assert!(!here.contains(&"CAP_SYS_RESOURCE"));
        let host = Host { capabilities: here, cgroups: Cgroups::V2, open_files: 1 << 20 };
        assert_eq!(
            host.lacks(),
            ["this machine does not give CAP_SYS_RESOURCE; OOM scores cannot be lowered and limits cannot be raised"]
        );
    }

    #[test]
    fn routes_are_read_with_their_links_and_without_the_default() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(parse_routes(table), [("192.0.2.0/24".parse().unwrap(), "eth0".to_owned())]);
    }

    #[test]
    fn forwarding_is_left_as_the_first_of_any_clusters_found_it() {
        let folder = tempfile::tempdir().unwrap();
        let (switch, mark) = (folder.path().join("switch"), folder.path().join("mark"));
        let forwarding = Forwarding { switch: &switch, mark: &mark };
        let is = || std::fs::read_to_string(&switch).unwrap().trim().to_owned();
        for found in ["0\n", "1\n"] {
            std::fs::write(&switch, found).unwrap();
            // The second of two clusters finds it on, whoever goes last.
            forwarding.allow().unwrap();
            forwarding.allow().unwrap();
            assert_eq!(is(), "1");
            forwarding.restore().unwrap();
            assert_eq!((is().as_str(), mark.exists()), (found.trim(), false));
        }
    }

    #[test]
    fn only_listeners_on_all_addresses_count() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 00000000:0BB8 00000000:0000 0A 0\n\
                     1: 0100007F:1388 00000000:0000 0A 0\n\
                     2: 00000000:1389 0100007F:9999 01 0\n";
        assert_eq!(parse_listeners(table), [3000]);
        let six = "  sl  local\n 0: 00000000000000000000000000000000:1388 0:0 0A 0\n";
        assert_eq!(parse_listeners(six), [5000]);
    }
}
