//! Ports of the host that lead to the first control plane. Pure, but for the question whether a port is free.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use serde::{Deserialize, Serialize};

use crate::error::Problem;

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

/// A port of the host, and the port of the node that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// Address of the host; all of them if it is unspecified.
    pub host: Ipv4Addr,
    pub host_port: u16,
    pub node_port: u16,
    pub transport: Transport,
}

/// A text that is no exposed port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOSTPORT:NODEPORT or HOSTPORT:NODEPORT/tcp or /udp")]
pub struct ParseExposedPortError(String);

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl ExposedPort {
    /// `8080:80`, `8080:80/tcp` or `53:53/udp`, at an address of the host.
    ///
    /// # Errors
    /// The text, when it is something else.
    pub fn parse(text: &str, host: Ipv4Addr) -> Result<Self, ParseExposedPortError> {
        let invalid = || ParseExposedPortError(text.to_owned());
        let (ports, transport) = text.split_once('/').unwrap_or((text, "tcp"));
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(invalid()),
        };
        let (host_port, node_port) = ports.split_once(':').ok_or_else(invalid)?;
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or_else(invalid);
        Ok(Self { host, host_port: port(host_port)?, node_port: port(node_port)?, transport })
    }

    /// Whether both would take the same packets.
    fn collides(self, other: Self) -> bool {
        let any = |port: Self| port.host.is_unspecified();
        (self.host_port, self.transport) == (other.host_port, other.transport)
            && (self.host == other.host || any(self) || any(other))
    }

    /// Why the port cannot be exposed: a process has it, or the host is without the address.
    fn problem(self) -> Option<Problem> {
        let address = SocketAddrV4::new(self.host, self.host_port);
        let bound = match self.transport {
            Transport::Tcp => TcpListener::bind(address).map(drop),
            Transport::Udp => UdpSocket::bind(address).map(drop),
        };
        let transport = self.transport;
        let error = bound.err()?;
        let what = format!("port {address}/{transport} cannot be exposed: {error}");
        Some(Problem::new(what, "choose another port with --exposed-ports, or an address with --docker-host-ip"))
    }
}

/// Obstacles to exposing these ports: others of the list, those of other clusters by name, and processes of the host.
pub(crate) fn problems(ports: &[ExposedPort], others: &[(String, Vec<ExposedPort>)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let ExposedPort { host, host_port, transport, .. } = port;
        let taken = others.iter().find(|(_, theirs)| theirs.iter().any(|theirs| port.collides(*theirs)));
        if ports[..at].iter().any(|before| port.collides(*before)) {
            let what = format!("port {host}:{host_port}/{transport} is exposed twice");
            problems.push(Problem::new(what, "give it once"));
        } else if let Some((name, _)) = taken {
            let what = format!("port {host}:{host_port}/{transport} is exposed by cluster {name}");
            problems.push(Problem::new(what, "choose another port with --exposed-ports"));
        } else {
            problems.extend(port.problem());
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    #[test]
    fn ports_are_tcp_unless_they_say_otherwise() {
        let port = |transport| ExposedPort { host: ANY, host_port: 8080, node_port: 80, transport };
        assert_eq!(ExposedPort::parse("8080:80", ANY), Ok(port(Transport::Tcp)));
        assert_eq!(ExposedPort::parse("8080:80/tcp", ANY), Ok(port(Transport::Tcp)));
        assert_eq!(ExposedPort::parse("8080:80/udp", ANY), Ok(port(Transport::Udp)));
        for text in ["", "80", "0:80", "80:0", "80:70000", "a:b", "80:80/sctp", "80:80/", "1:2:3"] {
            assert_eq!(ExposedPort::parse(text, ANY), Err(ParseExposedPortError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_port_is_exposed_once() {
        let port = |text: &str, host: [u8; 4]| ExposedPort::parse(text, host.into()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        let whats = |ports: &[ExposedPort], others: &[(String, Vec<ExposedPort>)]| {
            problems(ports, others).into_iter().map(|problem| problem.what).collect::<Vec<_>>()
        };
        let [what] = &whats(&[port(&format!("{taken}:80"), [127, 0, 0, 1])], &[])[..] else { panic!("free") };
        assert!(what.starts_with(&format!("port 127.0.0.1:{taken}/tcp cannot be exposed: ")), "{what}");
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = port(&format!("{free}:80"), [127, 0, 0, 1]);
        assert_eq!(whats(&[here], &[]), Vec::<String>::new());
        let everywhere = port(&format!("{free}:81"), [0, 0, 0, 0]);
        assert_eq!(whats(&[here, everywhere], &[]), [format!("port 0.0.0.0:{free}/tcp is exposed twice")]);
        let others = [("other".to_owned(), vec![everywhere])];
        assert_eq!(whats(&[here], &others), [format!("port 127.0.0.1:{free}/tcp is exposed by cluster other")]);
        assert!(!here.collides(port(&format!("{free}:80/udp"), [127, 0, 0, 1])));
    }
}
