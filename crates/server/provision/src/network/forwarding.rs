//! The host's switch for forwarding of IPv4, which clusters need, and the table that keeps the host from becoming a router.
//!
//! The switch is for all links. Where it was off, a table of ours drops the packets that would have been dropped before: packets that
//! arrive on a link that was there, neither for a cluster nor an answer nor by a translation of somebody else (such as a
//! published port of a container engine that came later, whose own links were not there).

use std::path::Path;

use crate::command::NFT;
use crate::error::{HostError, Operation as _};

/// No cluster's table: those have an underscore there.
const TABLE: &str = "talosforwarding";

/// Switch and memory of how it was found.
///
/// The mark is the machine's, not a cluster's: clusters are made and removed in any order, by anybody, with their state
/// wherever they want it. It goes with the next boot, as the switch does.
pub(super) struct Forwarding<'a> {
    switch: &'a Path,
    /// There while forwarding was off before the first cluster came.
    mark: &'a Path,
}

impl Forwarding<'static> {
    pub(super) fn of_host() -> Self {
        let (switch, mark) = ("/proc/sys/net/ipv4/ip_forward", "/run/talos-clusters-forwarding-was-off");
        Self { switch: Path::new(switch), mark: Path::new(mark) }
    }

    /// Lets the host forward for clusters, and remembers it where it did not.
    pub(super) fn allow(&self) -> Result<(), HostError> {
        if !self.is_on() {
            let links: Vec<String> = super::host_links().into_iter().filter(|link| !is_of_cluster(link)).collect();
            // Before the switch: there is no moment without it.
            NFT.run_with_input(["-f", "-"], &rules(&links)).operation(|| format!("making nftables table {TABLE}"))?;
        }
        self.switch_on()
    }

    /// Leaves the host as the first cluster found it; for when the last one has gone.
    pub(super) fn restore(&self) -> Result<(), HostError> {
        self.switch_back()?;
        if NFT.run(["list", "table", "inet", TABLE]).is_err() {
            return Ok(());
        }
        let removed = NFT.run(["delete", "table", "inet", TABLE]).map(drop);
        removed.operation(|| format!("removing nftables table {TABLE}"))
    }
}

impl Forwarding<'_> {
    fn is_on(&self) -> bool {
        std::fs::read_to_string(self.switch).is_ok_and(|value| value.trim() != "0")
    }

    fn switch_on(&self) -> Result<(), HostError> {
        if self.is_on() {
            return Ok(());
        }
        std::fs::write(self.mark, "").map_err(HostError::io("writing", self.mark))?;
        std::fs::write(self.switch, "1").map_err(HostError::io("writing", self.switch))
    }

    fn switch_back(&self) -> Result<(), HostError> {
        if !self.mark.exists() {
            return Ok(());
        }
        std::fs::write(self.switch, "0").map_err(HostError::io("writing", self.switch))?;
        std::fs::remove_file(self.mark).map_err(HostError::io("removing", self.mark))
    }
}

fn is_of_cluster(link: &str) -> bool {
    super::is_bridge(link) || link.starts_with("tn")
}

/// Drops packets that the host did not forward before. Recreated after an interrupted create.
fn rules(links: &[String]) -> String {
    let names: Vec<String> = links.iter().map(|link| format!("\"{link}\"")).collect();
    let names = names.join(", ");
    format!(
        r#"table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
	set links {{
		type ifname
		elements = {{ {names} }}
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		meta nfproto != ipv4 accept
		iifname != @links accept
		oifname "talos*" accept
		ct state established,related accept
		ct status dnat accept
		drop
	}}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_is_left_as_the_first_of_any_clusters_found_it() {
        let folder = tempfile::tempdir().unwrap();
        let (switch, mark) = (folder.path().join("switch"), folder.path().join("mark"));
        let forwarding = Forwarding { switch: &switch, mark: &mark };
        let is = || std::fs::read_to_string(&switch).unwrap().trim().to_owned();
        for found in ["0\n", "1\n"] {
            std::fs::write(&switch, found).unwrap();
            // The second of two clusters finds it on, whoever goes last.
            forwarding.switch_on().unwrap();
            forwarding.switch_on().unwrap();
            assert_eq!(is(), "1");
            forwarding.switch_back().unwrap();
            assert_eq!((is().as_str(), mark.exists()), (found.trim(), false));
        }
    }

    #[test]
    fn only_links_that_were_there_are_guarded() {
        assert!(is_of_cluster("talos7692c3ad") && is_of_cluster("tn7692c3adn1") && !is_of_cluster("talosnet"));
        let rules = rules(&["lo".to_owned(), "eth0".to_owned()]);
        assert!(rules.contains("elements = { \"lo\", \"eth0\" }"), "{rules}");
    }
}
