//! The forms themselves.

use ipnet::IpNet;
use machine::selector::SizeMatch;
use url::Url;

use super::address;

#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// `10.0.0.0/8`
    Cidr,
    /// An address, or an address with its prefix length.
    CidrOrIp,
    Ip,
    /// A prefix or an address with optional `!`.
    IpFilter,
    /// `host:port`
    HostPort,
    /// A URL with one of these schemes and a host, and what else it needs or may have.
    Url {
        schemes: &'static [&'static str],
        port: Port,
        path: Path,
    },
    Duration,
    OneOf(&'static [&'static str]),
    /// An absolute path.
    AbsolutePath,
    /// A DNS name or label.
    Dns,
    /// A name in a certificate: an address or a DNS name, also one with `*` for its first label.
    San,
    /// Six colon-separated bytes, `*` allowed as a pattern.
    MacPattern,
    /// 32 bytes in base64.
    Key32,
    /// A number in a range, both ends included.
    Range(u64, u64),
    /// A size after an optional comparison: `>= 1TB`.
    SizeMatch,
}

/// Whether a URL has to name a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Required,
    Optional,
}

/// Whether a URL may have a path, a query or a fragment: an address of a service that speaks gRPC, or of a socket, has
/// no use for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Allowed,
    Refused,
}

type Problem = (String, Option<String>);

impl Form {
    pub(super) fn check(self, text: &str) -> Result<(), Problem> {
        let ensure = |valid: bool, what: &str, example: &str| {
            if valid {
                Ok(())
            } else {
                Err((format!("{text:?} is not {what}"), Some(format!("for example {example}"))))
            }
        };
        let cidr = |text: &str| text.parse::<IpNet>().is_ok();
        match self {
            Self::Cidr => ensure(cidr(text), "a network in CIDR notation", "10.0.0.0/8"),
            Self::CidrOrIp => {
                ensure(cidr(text) || address(text).is_some(), "an address with its prefix length", "192.168.1.5/24")
            }
            Self::IpFilter => {
                let bare = text.strip_prefix('!').unwrap_or(text);
                ensure(cidr(bare) || address(bare).is_some(), "an address or a network", "10.0.0.0/8, !10.1.0.0/16")
            }
            Self::Ip => ensure(address(text).is_some(), "an IP address", "10.0.0.1"),
            Self::HostPort => ensure(host_port(text), "host:port", "192.168.1.1:51820"),
            Self::Url { schemes, port, path } => url(text, schemes, port, path),
            Self::Duration => stdx::duration::parse(text)
                .map(drop)
                .map_err(|error| (error.to_string(), Some("for example 1m30s".to_owned()))),
            Self::OneOf(words) => {
                if words.contains(&text) {
                    Ok(())
                } else {
                    Err((format!("{text:?} is not one of {}", words.join(", ")), None))
                }
            }
            Self::AbsolutePath => ensure(is_absolute(text), "an absolute path", "/var/etc/file"),
            Self::Dns => ensure(dns(text), "a DNS name", "cluster.local"),
            Self::San => {
                let name = text.strip_prefix("*.").unwrap_or(text);
                let name = name.strip_suffix('.').unwrap_or(name);
                ensure(address(text).is_some() || dns(name), "an address or a DNS name", "10.0.0.10, api.example.org")
            }
            Self::MacPattern => ensure(mac(text), "a hardware address", "00:1a:2b:3c:4d:5e, 00:1a:2b:*"),
            Self::SizeMatch => ensure(text.parse::<SizeMatch>().is_ok(), "a size", ">= 1TB, 500GiB"),
            // a key may be secret: the message does not repeat it
            Self::Key32 if key(text) => Ok(()),
            Self::Key32 => Err(("the key is not 32 bytes in base64".to_owned(), Some("use wg genkey".to_owned()))),
            Self::Range(low, high) => {
                let valid = text.parse::<u64>().is_ok_and(|value| (low..=high).contains(&value));
                // text that is not a number is reported by the type
                let number = text.bytes().all(|b| b.is_ascii_digit());
                if valid || !number { Ok(()) } else { Err((format!("{text} is not between {low} and {high}"), None)) }
            }
        }
    }
}

fn url(text: &str, schemes: &[&str], port: Port, path: Path) -> Result<(), Problem> {
    let example = format!("for example {}://10.5.0.1{}", schemes[0], if port == Port::Required { ":6443" } else { "" });
    let problem = |what: &str| Err((format!("{text:?} {what}"), Some(example.clone())));
    let Ok(url) = Url::parse(text) else {
        return if text.contains("://") { problem("is not a URL") } else { problem("has no scheme") };
    };
    if !schemes.contains(&url.scheme()) {
        // `host:port` parses as a scheme and a path
        if !text.contains("://") {
            return problem("has no scheme");
        }
        return problem(&format!(
            "must begin with {}",
            schemes.iter().map(|s| format!("{s}://")).collect::<Vec<_>>().join(" or ")
        ));
    }
    if url.host_str().unwrap_or_default().is_empty() {
        return problem("has no host");
    }
    if port == Port::Required && !has_port(text) {
        return problem("has no port");
    }
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if path == Path::Refused && !bare {
        return problem("has a path, which this address cannot have");
    }
    Ok(())
}

/// Without a way up: what is below a directory as text is below it on disk, too.
fn is_absolute(text: &str) -> bool {
    text.starts_with('/') && !text.contains('\0') && text.split('/').all(|part| part != "..")
}

/// Whether a port is written out, also where it is the scheme's own.
fn has_port(text: &str) -> bool {
    let authority =
        text.split_once("://").map_or(text, |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or_default();
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    after_host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

fn host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match bare {
        Some(v6) => address(v6).is_some(),
        None => !host.contains(':') && (address(host).is_some() || dns(host)),
    };
    host_ok && port.parse::<u16>().is_ok_and(|p| p > 0)
}

fn dns(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn mac(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    let pattern = text.contains(['*', '?', '[']);
    pattern || (parts.len() == 6 && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit())))
}

fn key(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}
