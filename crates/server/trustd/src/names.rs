//! The names that a joining node may have in its certificate.
//!
//! A node asks for its own addresses and host names, and for what its operator listed. Whoever knows the machine token can
//! ask for anything, so names that serve to stand in for somebody else are left out: those of control planes, and
//! wildcards. They are left out and not refused, because an operator may list the name of the API's endpoint in the
//! configuration of every node; the certificate then lacks that name and is good for the others. A request with names that
//! no node can have is refused as a whole.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pki::{Sans, Subject};

/// How many names a certificate may be for. A node has a handful, an operator may add some.
const MAX_NAMES: usize = 256;
/// The longest name of DNS, and the longest part of one.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Names that workers cannot get: those of control planes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Host names, lower case.
    pub names: BTreeSet<String>,
}

impl Reserved {
    fn has_name(&self, name: &str) -> bool {
        self.names.contains(&name.trim_end_matches('.').to_ascii_lowercase())
    }

    fn has_address(&self, address: IpAddr) -> bool {
        // Every node is at its own loopback address.
        let address = address.to_canonical();
        !address.is_loopback() && self.addresses.contains(&address)
    }
}

/// The granted part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) common_name: Option<String>,
    pub(crate) sans: Sans,
    /// Names that were asked for and are left out.
    pub(crate) left_out: Vec<String>,
}

/// Sorts the names of a request.
///
/// # Errors
/// Description of the refused names.
pub(crate) fn grant(subject: &Subject, sans: &Sans, reserved: &Reserved) -> Result<Granted, String> {
    if sans.ips.len() + sans.dns.len() > MAX_NAMES {
        return Err(format!("more than {MAX_NAMES} alternative names"));
    }
    if let Some(ip) = sans.ips.iter().find(|ip| ip.is_unspecified() || ip.is_multicast() || is_broadcast(**ip)) {
        return Err(format!("{ip} cannot be a node address"));
    }
    let asked = sans.dns.iter().chain(&subject.common_name);
    if let Some(name) = asked.clone().find(|name| !is_host_name(name.strip_prefix("*.").unwrap_or(name))) {
        return Err(format!("{name:?} cannot be a host name"));
    }
    let may_have = |name: &str| !name.starts_with("*.") && !reserved.has_name(name);
    let mut left_out: Vec<String> = asked.filter(|name| !may_have(name)).cloned().collect();
    left_out.extend(sans.ips.iter().filter(|ip| reserved.has_address(**ip)).map(ToString::to_string));
    left_out.sort();
    left_out.dedup();
    let sans = Sans {
        ips: sans.ips.iter().copied().filter(|ip| !reserved.has_address(*ip)).collect(),
        dns: sans.dns.iter().filter(|name| may_have(name)).cloned().collect(),
    };
    if sans.is_empty() {
        return Err("no alternative name that a node can have".to_owned());
    }
    Ok(Granted { common_name: subject.common_name.clone().filter(|name| may_have(name)), sans, left_out })
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip.to_canonical(), IpAddr::V4(four) if four.is_broadcast())
}

/// Letters, digits and hyphens in labels; underscores too, which some networks have in host names.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=MAX_LABEL).contains(&label.len())
            && label.chars().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved() -> Reserved {
        Reserved {
            addresses: ["10.5.0.2", "fd00::2", "127.0.0.1"].map(|ip| ip.parse().unwrap()).into(),
            names: ["cp-1".to_owned(), "cp-1.example.org".to_owned()].into(),
        }
    }

    fn granted(common_name: &str, sans: &[&str]) -> Result<Granted, String> {
        grant(&Subject::common_name(common_name), &Sans::parse(sans), &reserved())
    }

    #[test]
    fn what_a_node_asks_for_itself_is_granted() {
        let own = ["10.5.0.3", "fd00::3", "127.0.0.1", "::1", "worker-1", "worker_1.example.org", "localhost", "a.b."];
        let granted = granted("worker-1", &own).unwrap();
        assert_eq!((granted.sans, granted.left_out), (Sans::parse(own), vec![]));
        assert_eq!(granted.common_name.as_deref(), Some("worker-1"));
    }

    #[test]
    fn names_of_control_planes_and_wildcards_are_left_out() {
        let asked =
            ["10.5.0.3", "10.5.0.2", "::ffff:10.5.0.2", "fd00::2", "CP-1", "cp-1.example.org.", "*.example.org", "w"];
        let granted = granted("cp-1", &asked).unwrap();
        assert_eq!((granted.common_name, granted.sans), (None, Sans::parse(["10.5.0.3", "w"])));
        let left_out = ["*.example.org", "10.5.0.2", "::ffff:10.5.0.2", "CP-1", "cp-1", "cp-1.example.org", "fd00::2"];
        assert_eq!(granted.left_out, left_out);
    }

    #[test]
    fn a_request_for_nothing_but_what_is_left_out_is_refused() {
        for asked in [&["10.5.0.2"][..], &["*.example.org"], &["cp-1"], &[]] {
            assert!(granted("worker-1", asked).is_err_and(|why| why.contains("no alternative name")), "{asked:?}");
        }
    }

    #[test]
    fn names_that_no_node_has_are_refused() {
        let many: Vec<String> = (0..300).map(|n| format!("n{n}")).collect();
        let (long, label) = (["n"; 128].join("."), "n".repeat(64));
        for (name, sans, why) in [
            ("w", &["0.0.0.0"][..], "0.0.0.0"),
            ("w", &["::"], "::"),
            ("w", &["224.0.0.1"], "224.0.0.1"),
            ("w", &["255.255.255.255"], "255.255.255.255"),
            ("w", &[&long], "n.n"),
            ("w", &[&label], "nnn"),
            ("w", &["a/b"], "a/b"),
            ("w", &["a..b"], "a..b"),
            ("w", &["-a"], "-a"),
            ("w", &["*"], "*"),
            ("w", &["a.*.b"], "a.*.b"),
            ("w", &["*.*.b"], "*.*.b"),
            ("a\nb", &["w"], "a\\nb"),
            ("w", &many.iter().map(String::as_str).collect::<Vec<_>>(), "256"),
        ] {
            assert!(granted(name, sans).is_err_and(|told| told.contains(why)), "{name} {why}");
        }
    }
}
