//! Receivers of logs.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// The way that messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// A message a line.
    Tcp,
    /// A message a packet.
    Udp,
}

/// A receiver: `tcp://host:port` or `udp://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub protocol: Protocol,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

/// A text that is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not tcp://host:port or udp://host:port")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError(text.to_owned());
        let url = Url::parse(text).map_err(|_| error())?;
        let protocol = match url.scheme() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(error()),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(error)?;
        let port = url.port().ok_or_else(error)?;
        Ok(Self { protocol, host: host.trim_matches(['[', ']']).to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_protocol_a_host_and_a_port() {
        for (text, shown) in [
            ("udp://10.7.0.1:5514", "udp://10.7.0.1:5514"),
            ("tcp://logs.example.org:5514/", "tcp://logs.example.org:5514"),
            ("tcp://[fd00::1]:1/", "tcp://[fd00::1]:1"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for text in ["http://a:1", "udp://10.7.0.1", "udp://:1", "10.7.0.1:5514", ""] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError(text.to_owned())));
        }
    }
}
