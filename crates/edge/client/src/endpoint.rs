//! Addresses of API endpoints: `host`, `host:port`, IPv6 with or without brackets. Nothing is resolved here.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Port of the machine API.
pub const DEFAULT_PORT: u16 = 50000;

/// One address where the machine API may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// Why a text is not an endpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseEndpointError {
    #[error("endpoint is empty")]
    Empty,
    #[error("endpoint {0:?} has an invalid port")]
    Port(String),
    #[error("endpoint {0:?} is neither an IP address nor a DNS name")]
    Host(String),
}

impl Endpoint {
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name that the server's certificate must carry.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, ParseEndpointError> {
        ServerName::try_from(self.host.clone()).map_err(|_| ParseEndpointError::Host(self.host.clone()))
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        if bare.is_empty() {
            return Err(ParseEndpointError::Empty);
        }
        let port_of = |port: &str| port.parse::<u16>().map_err(|_| ParseEndpointError::Port(text.to_owned()));
        let (host, port) = if bare.parse::<IpAddr>().is_ok() {
            (bare, DEFAULT_PORT)
        } else if let Some(rest) = bare.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(|| ParseEndpointError::Host(text.to_owned()))?;
            match after.strip_prefix(':') {
                Some(port) => (host, port_of(port)?),
                None if after.is_empty() => (host, DEFAULT_PORT),
                None => return Err(ParseEndpointError::Host(text.to_owned())),
            }
        } else {
            match bare.split_once(':') {
                Some((_, rest)) if rest.contains(':') => return Err(ParseEndpointError::Host(text.to_owned())),
                Some((host, port)) => (host, port_of(port)?),
                None => (bare, DEFAULT_PORT),
            }
        };
        let endpoint = Self { host: host.to_owned(), port };
        endpoint.server_name().map_err(|_| ParseEndpointError::Host(text.to_owned()))?;
        Ok(endpoint)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_50000_unless_given() {
        let shown = |text: &str| text.parse::<Endpoint>().map(|e| e.to_string());
        assert_eq!(shown("10.5.0.2"), Ok("10.5.0.2:50000".to_owned()));
        assert_eq!(shown("cp.example.org:443"), Ok("cp.example.org:443".to_owned()));
        assert_eq!(shown("fd00::1"), Ok("[fd00::1]:50000".to_owned()));
        assert_eq!(shown("[fd00::1]:51000"), Ok("[fd00::1]:51000".to_owned()));
        assert_eq!(shown("https://10.5.0.2/"), Ok("10.5.0.2:50000".to_owned()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert_eq!("".parse::<Endpoint>(), Err(ParseEndpointError::Empty));
        assert_eq!("a:b".parse::<Endpoint>(), Err(ParseEndpointError::Port("a:b".to_owned())));
        assert_eq!("a b".parse::<Endpoint>(), Err(ParseEndpointError::Host("a b".to_owned())));
        for text in ["[::1", "fe80::1%eth0", "fd00::1::2"] {
            assert_eq!(text.parse::<Endpoint>(), Err(ParseEndpointError::Host(text.to_owned())));
        }
    }
}
