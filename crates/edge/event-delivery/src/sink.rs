//! Receivers of events.

use std::fmt;
use std::str::FromStr;

/// A receiver: `host:port`, with brackets around an address of IPv6.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sink(String);

/// A text that is no receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port")]
pub struct SinkError(String);

impl FromStr for Sink {
    type Err = SinkError;

    fn from_str(text: &str) -> Result<Self, SinkError> {
        let error = || SinkError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port: u16 = port.parse().map_err(|_| error())?;
        let is_host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
            None => {
                let is_part = |character: char| character.is_ascii_alphanumeric() || ".-_".contains(character);
                !host.is_empty() && host.chars().all(is_part)
            }
        };
        if is_host && port != 0 { Ok(Self(text.to_owned())) } else { Err(error()) }
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_has_a_host_and_a_port() {
        for text in ["10.0.0.1:8080", "events.example.org:1", "[fd00::1]:8080"] {
            assert_eq!(text.parse::<Sink>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.1", ":80", "a:0", "a:70000", "fd00::1:80", "[a]:80", "http://a:80", "a/b:80", "a@b:80", ""]
        {
            assert_eq!(text.parse::<Sink>(), Err(SinkError(text.to_owned())));
        }
    }
}
