//! The kernel's arguments about the network, with the links that they mean.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use machine::network::NetworkArguments;
use resources::enums::LinkType;
use resources::network::LinkStatus;
use state::Resource;

/// The arguments, read once.
#[derive(Debug, Clone, Default)]
pub struct Arguments(Arc<NetworkArguments>);

impl Arguments {
    /// Reads them from the values of each argument. If any cannot be read, none counts, and the log says why.
    pub fn read<'a, I: Iterator<Item = &'a str>>(values: impl Fn(&'static str) -> I) -> Self {
        let arguments = NetworkArguments::read(values).unwrap_or_else(|error| {
            tracing::error!(error = stdx::error_chain(&error), "network arguments of the kernel are ignored");
            NetworkArguments::default()
        });
        for argument in &arguments.unsupported {
            tracing::error!(argument, "kernel argument without effect: bonds and VLANs are not supported yet");
        }
        Self(Arc::new(arguments))
    }

    pub(crate) fn hostname(&self) -> Option<&str> {
        self.0.hostname.as_deref()
    }

    pub(crate) fn dns_servers(&self) -> &[IpAddr] {
        &self.0.dns_servers
    }

    pub(crate) fn time_servers(&self) -> &[String] {
        &self.0.time_servers
    }

    /// With the names of the links that they mean. An argument whose link is absent is left out.
    pub(crate) fn resolved(&self, links: &[Resource<LinkStatus>]) -> Resolved {
        let by_name = |name: &str| links.iter().find(|link| link.id() == name);
        let by_address = |address: &str| links.iter().find(|link| hex(link) == address);
        let first = || links.iter().find(|link| link.r#type != LinkType::LOOPBACK);
        let mut resolved = Resolved { links: Vec::new(), ignored: self.0.ignored.clone() };
        for (index, argument) in self.0.links.iter().enumerate() {
            let found = match argument.device.as_deref() {
                None => first(),
                Some(name) => by_name(name).or_else(|| by_address(name.strip_prefix("enx")?)),
            };
            if let Some(link) = found {
                let name = link.id().to_owned();
                let (address, gateway, dhcp) = (argument.address, argument.gateway, argument.dhcp);
                resolved.links.push(ResolvedLink { name, address, gateway, dhcp, index });
            }
        }
        resolved
    }
}

/// The Ethernet address of a link as in the names that udev makes of it.
fn hex(link: &LinkStatus) -> String {
    link.hardware_addr.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Arguments about links that exist.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) links: Vec<ResolvedLink>,
    ignored: Vec<String>,
}

/// One `ip=`.
#[derive(Debug)]
pub(crate) struct ResolvedLink {
    pub(crate) name: String,
    pub(crate) address: Option<IpNet>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) dhcp: bool,
    /// The place among the arguments.
    pub(crate) index: usize,
}

impl Resolved {
    /// Whether a link is to be left alone.
    pub(crate) fn ignores(&self, link: &str) -> bool {
        self.ignored.iter().any(|ignored| ignored == link)
    }

    /// Whether any argument is about a link.
    pub(crate) fn names(&self, link: &str) -> bool {
        self.ignores(link) || self.links.iter().any(|known| known.name == link)
    }
}
