//! Network settings among the kernel's arguments: `ip=`, `talos.hostname=`, `talos.network.interface.ignore=`, and what there is of
//! `bond=` and `vlan=`.
//!
//! Only reading: devices are named as they are in the argument, or not at all.

use std::net::IpAddr;

use ipnet::IpNet;

/// More `ip=` arguments are refused; the kernel's command line holds not many more.
const MAX_LINKS: usize = 64;
/// The words of `ip=` that ask for automatic configuration in the kernel's own way, or for none. They name no device, so
/// that the machine's own defaults hold.
const WORDS: [&str; 9] = ["dhcp", "on", "any", "off", "none", "both", "bootp", "rarp", ""];

/// Arguments that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkArgumentError {
    #[error("ip={argument}: {value:?} is not an address")]
    Address { argument: String, value: String },
    #[error("ip={argument}: {value:?} is not a netmask; use a length or a mask such as 255.255.255.0")]
    Mask { argument: String, value: String },
    #[error("ip={argument}: {value:?} is not the name of a link")]
    Device { argument: String, value: String },
    #[error("ip={argument}: unknown word; use dhcp, a device and dhcp, or an address")]
    Word { argument: String },
    #[error("ip={argument}: at most ten fields are separated by colons")]
    Fields { argument: String },
    #[error("{0:?} is not a host name")]
    Hostname(String),
    #[error("more than {MAX_LINKS} arguments ip=")]
    TooMany,
}

/// One `ip=`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkArgument {
    /// The device; `None` means the first one.
    pub device: Option<String>,
    pub address: Option<IpNet>,
    pub gateway: Option<IpAddr>,
    /// Whether the link asks for its settings by DHCP.
    pub dhcp: bool,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkArguments {
    /// In their order.
    pub links: Vec<LinkArgument>,
    /// The first name.
    pub hostname: Option<String>,
    pub dns_servers: Vec<IpAddr>,
    pub time_servers: Vec<String>,
    /// Links to be left alone.
    pub ignored: Vec<String>,
    /// `bond=` and `vlan=`, which this version reads and does not make.
    pub unsupported: Vec<String>,
}

impl NetworkArguments {
    /// Reads them; `values` gives all values of an argument in their order.
    ///
    /// # Errors
    /// [`NetworkArgumentError`]: then nothing of them is to be used.
    pub fn read<'a, I: Iterator<Item = &'a str>>(
        values: impl Fn(&'static str) -> I,
    ) -> Result<Self, NetworkArgumentError> {
        let mut read = Self::default();
        // It beats the names of `ip=`.
        if let Some(name) = values("talos.hostname").next().filter(|name| !name.is_empty()) {
            read.hostname = Some(hostname(name)?);
        }
        for argument in values("ip") {
            read.ip(argument)?;
            if read.links.len() > MAX_LINKS {
                return Err(NetworkArgumentError::TooMany);
            }
        }
        read.ignored =
            values("talos.network.interface.ignore").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        for name in ["bond", "vlan"] {
            read.unsupported.extend(values(name).map(|value| format!("{name}={value}")));
        }
        Ok(read)
    }

    fn ip(&mut self, argument: &str) -> Result<(), NetworkArgumentError> {
        let fields = split(argument);
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        match fields.as_slice() {
            [word] if WORDS.contains(word) => return Ok(()),
            [device, "dhcp"] => {
                let device = Some(name_of_device(argument, device)?);
                self.links.push(LinkArgument { device, dhcp: true, ..LinkArgument::default() });
                return Ok(());
            }
            [word] if address(argument, word).is_err() => {
                return Err(NetworkArgumentError::Word { argument: argument.to_owned() });
            }
            fields if fields.len() > 10 => {
                return Err(NetworkArgumentError::Fields { argument: argument.to_owned() });
            }
            _ => {}
        }
        let own = address(argument, field(0))?;
        let device = match field(5) {
            "" => None,
            device => Some(name_of_device(argument, device)?),
        };
        let link = LinkArgument {
            device,
            address: own.map(|own| prefix(argument, own, field(3))).transpose()?,
            gateway: address(argument, field(2))?,
            dhcp: field(6) == "dhcp",
        };
        if !field(4).is_empty() && self.hostname.is_none() {
            self.hostname = Some(hostname(field(4))?);
        }
        for server in [field(7), field(8)] {
            self.dns_servers.extend(address(argument, server)?);
        }
        self.time_servers.extend(address(argument, field(9))?.map(|server| server.to_string()));
        self.links.push(link);
        Ok(())
    }
}

/// The fields between colons that are not within brackets.
fn split(argument: &str) -> Vec<&str> {
    let mut inside = false;
    let separators = move |letter: char| {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
        letter == ':' && !inside
    };
    argument.split(separators).collect()
}

/// An address, in brackets or not; nothing is none.
fn address(argument: &str, text: &str) -> Result<Option<IpAddr>, NetworkArgumentError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.is_empty() {
        return Ok(None);
    }
    let read = bare.parse();
    read.map(Some).map_err(|_| NetworkArgumentError::Address { argument: argument.to_owned(), value: text.to_owned() })
}

/// The address with its mask; without one it is a single address.
fn prefix(argument: &str, own: IpAddr, mask: &str) -> Result<IpNet, NetworkArgumentError> {
    let refused = || NetworkArgumentError::Mask { argument: argument.to_owned(), value: mask.to_owned() };
    let length = match (mask.parse::<u8>(), address(argument, mask)) {
        (Ok(length), _) => length,
        (_, Ok(None)) => IpNet::from(own).prefix_len(),
        (_, Ok(Some(mask))) => ipnet::ip_mask_to_prefix(mask).map_err(|_| refused())?,
        (_, Err(_)) => return Err(refused()),
    };
    IpNet::new(own, length).map_err(|_| refused())
}

/// The kernel's rule for names of links.
fn name_of_device(argument: &str, name: &str) -> Result<String, NetworkArgumentError> {
    // `enx` and the address of a link may be longer than a name.
    let is_name = !name.is_empty()
        && name.len() <= 15
        && name.chars().all(|letter| letter.is_ascii_graphic() && letter != '/')
        && name != "."
        && name != "..";
    if is_name {
        Ok(name.to_owned())
    } else {
        Err(NetworkArgumentError::Device { argument: argument.to_owned(), value: name.to_owned() })
    }
}

fn hostname(name: &str) -> Result<String, NetworkArgumentError> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if name.len() <= 253 && name.split('.').all(is_label) {
        Ok(name.to_owned())
    } else {
        Err(NetworkArgumentError::Hostname(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(arguments: &[(&str, &str)]) -> Result<NetworkArguments, NetworkArgumentError> {
        NetworkArguments::read(|name| {
            let found: Vec<&str> =
                arguments.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value).collect();
            found.into_iter()
        })
    }

    fn ip(value: &str) -> NetworkArguments {
        read(&[("ip", value)]).unwrap()
    }

    #[test]
    fn a_static_link_has_address_gateway_names_and_servers() {
        let read = ip("172.20.0.2::172.20.0.1:255.255.255.0:cp-1.example.org:eth1::10.0.0.1:10.0.0.2:10.0.0.3");
        assert_eq!(
            read.links,
            [LinkArgument {
                device: Some("eth1".into()),
                address: Some("172.20.0.2/24".parse().unwrap()),
                gateway: Some("172.20.0.1".parse().unwrap()),
                dhcp: false,
            }]
        );
        assert_eq!(read.hostname.as_deref(), Some("cp-1.example.org"));
        assert_eq!(read.dns_servers, ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!(read.time_servers, ["10.0.0.3"]);
    }

    #[test]
    fn every_form_of_the_argument_is_read() {
        let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
        for (value, address, device, dhcp) in [
            ("172.20.0.2::172.20.0.1", net("172.20.0.2/32"), None, false),
            ("172.20.0.2", net("172.20.0.2/32"), None, false),
            ("172.20.0.2::172.20.0.1:25::eth1", net("172.20.0.2/25"), Some("eth1"), false),
            ("[fd00::2]::[fd00::1]:64::eth1", net("fd00::2/64"), Some("eth1"), false),
            (":::::eth0:dhcp", None, Some("eth0"), true),
            ("::::cp-1:eth0:dhcp::", None, Some("eth0"), true),
            ("eth0:dhcp", None, Some("eth0"), true),
            (":::::enx001122aabbcc:dhcp", None, Some("enx001122aabbcc"), true),
            ("10.0.0.2::10.0.0.1:24::eth0:off", net("10.0.0.2/24"), Some("eth0"), false),
        ] {
            let links = ip(value).links;
            let [link] = &links[..] else { panic!("{value}: {links:?}") };
            assert_eq!((link.address, link.device.as_deref(), link.dhcp), (address, device, dhcp), "{value}");
        }
        for word in ["dhcp", "on", "any", "off", "none"] {
            assert!(ip(word).links.is_empty(), "{word}");
        }
    }

    #[test]
    fn several_links_are_kept_in_order_and_the_first_name_counts() {
        let arguments = [
            ("ip", "10.0.0.2::10.0.0.1:24:a:eth0"),
            ("ip", "10.1.0.2:::24:b:eth1"),
            ("talos.network.interface.ignore", "eth2"),
            ("talos.network.interface.ignore", "eth3"),
            ("vlan", "eth0.5:eth0"),
            ("bond", "bond0:eth0,eth1"),
        ];
        let all = read(&arguments).unwrap();
        let devices: Vec<_> = all.links.iter().filter_map(|link| link.device.as_deref()).collect();
        assert_eq!((devices, all.hostname.as_deref()), (vec!["eth0", "eth1"], Some("a")));
        assert_eq!(all.ignored, ["eth2", "eth3"]);
        assert_eq!(all.unsupported, ["bond=bond0:eth0,eth1", "vlan=eth0.5:eth0"]);
        let named = read(&[("ip", "10.0.0.2::::a:eth0"), ("talos.hostname", "b")]).unwrap();
        assert_eq!(named.hostname.as_deref(), Some("b"));
    }

    #[test]
    fn an_argument_that_cannot_be_read_is_refused_with_its_value() {
        let refused = |value: &str| read(&[("ip", value)]).unwrap_err();
        assert!(
            matches!(refused("10.0.0.256::10.0.0.1"), NetworkArgumentError::Address { value, .. } if value == "10.0.0.256")
        );
        assert!(matches!(refused("10.0.0.2::10.0.0.1:255.0.255.0"), NetworkArgumentError::Mask { .. }));
        assert!(matches!(refused("10.0.0.2::10.0.0.1:33"), NetworkArgumentError::Mask { .. }));
        assert!(matches!(refused("10.0.0.2::10.0.0.1:24::a/b"), NetworkArgumentError::Device { .. }));
        assert!(matches!(refused("quickly"), NetworkArgumentError::Word { .. }));
        assert!(matches!(refused("10.0.0.2::::a:eth0:dhcp:::::"), NetworkArgumentError::Fields { .. }));
        assert!(matches!(refused("10.0.0.2::::a_b:eth0"), NetworkArgumentError::Hostname(_)));
        assert_eq!(read(&[("ip", "eth0:dhcp"); 65]).unwrap_err(), NetworkArgumentError::TooMany);
    }

    proptest! {
        #[test]
        fn no_argument_panics(value in "[0-9a-f:.\\[\\]dhcpet/]{0,60}", other in ".{0,60}") {
            let _ = read(&[("ip", &value), ("ip", &other), ("talos.hostname", &other), ("bond", &other)]);
        }
    }
}
