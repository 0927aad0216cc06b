//! The answers of a DHCPv4 server (RFC 2131) that knows every machine of a cluster: an address is that of the slot of the
//! machine with this hardware address, always the same. There are no leases to remember. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _};
use ipnet::Ipv4Net;

use super::{IPXE_BIOS, IPXE_UEFI};
use crate::machines::{self, BootScript, MachineSettings, Media};
use crate::plan::{Plan, PlannedNode};

pub(crate) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// In seconds. Addresses never change, so it only says how soon a machine hears of new settings.
const LEASE: u32 = 300;
/// The shortest message: the fixed part and the magic number.
const SHORTEST: usize = 240;
/// The longest that a link carries.
pub(crate) const LONGEST: usize = 1500;
/// Position and value of the length of a hardware address: the decoder takes any.
const HARDWARE_LENGTH: (usize, u8) = (2, 6);
/// Room of the fixed field for the boot file's name.
const FILE_FIELD: usize = 127;

/// A message and its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) packet: Vec<u8>,
    pub(crate) to: SocketAddrV4,
}

/// The server of one cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) settings: &'a MachineSettings,
    /// Where the agent serves files by HTTP.
    pub(crate) http_port: u16,
}

impl Server<'_> {
    /// The answer to a packet; none to what is no request of a machine of the cluster.
    pub(crate) fn answer(&self, packet: &[u8]) -> Option<Reply> {
        let (position, length) = HARDWARE_LENGTH;
        if !(SHORTEST..=LONGEST).contains(&packet.len()) || packet.get(position) != Some(&length) {
            return None;
        }
        let request = Message::decode(&mut Decoder::new(packet)).ok()?;
        if request.opcode() != Opcode::BootRequest || !request.giaddr().is_unspecified() {
            return None;
        }
        let node = self.node(request.chaddr())?;
        let reply = match request.opts().msg_type()? {
            MessageType::Discover => self.grant(&request, node, MessageType::Offer),
            MessageType::Request => self.confirm(&request, node)?,
            // It has an address and asks for the rest.
            MessageType::Inform => self.settings(&request, node, MessageType::Ack),
            _ => return None,
        };
        let refused = reply.opts().msg_type() == Some(MessageType::Nak);
        let known = !refused && !request.ciaddr().is_unspecified();
        let to = if known { request.ciaddr() } else { Ipv4Addr::BROADCAST };
        Some(Reply { packet: reply.to_vec().ok()?, to: SocketAddrV4::new(to, CLIENT_PORT) })
    }

    fn node(&self, hardware: &[u8]) -> Option<&PlannedNode> {
        self.plan.nodes.iter().find(|node| machines::mac(self.plan, node) == hardware)
    }

    /// A request for an offer of ours, or for the address that a machine remembers.
    fn confirm(&self, request: &Message, node: &PlannedNode) -> Option<Message> {
        let options = request.opts();
        if let Some(DhcpOption::ServerIdentifier(server)) = options.get(OptionCode::ServerIdentifier)
            && *server != self.plan.gateway
        {
            return None;
        }
        let wanted = match options.get(OptionCode::RequestedIpAddress) {
            Some(DhcpOption::RequestedIpAddress(address)) => *address,
            _ => request.ciaddr(),
        };
        if wanted == node.address {
            return Some(self.grant(request, node, MessageType::Ack));
        }
        let mut refusal = self.begin(request, MessageType::Nak);
        refusal.set_ciaddr(Ipv4Addr::UNSPECIFIED);
        Some(refusal)
    }

    fn begin(&self, request: &Message, kind: MessageType) -> Message {
        let mut reply = Message::default();
        reply.set_opcode(Opcode::BootReply).set_xid(request.xid()).set_flags(request.flags());
        reply.set_chaddr(request.chaddr()).set_ciaddr(request.ciaddr());
        reply.opts_mut().insert(DhcpOption::MessageType(kind));
        reply.opts_mut().insert(DhcpOption::ServerIdentifier(self.plan.gateway));
        reply
    }

    /// Settings of the network.
    fn settings(&self, request: &Message, node: &PlannedNode, kind: MessageType) -> Message {
        let Plan { cidr, gateway, mtu, .. } = self.plan;
        let mut reply = self.begin(request, kind);
        let options = reply.opts_mut();
        options.insert(DhcpOption::SubnetMask(cidr.netmask()));
        options.insert(DhcpOption::BroadcastAddr(cidr.broadcast()));
        options.insert(DhcpOption::Router(vec![*gateway]));
        // Clients that take these ignore the router.
        options.insert(DhcpOption::ClasslessStaticRoute(vec![(Ipv4Net::default(), *gateway)]));
        if let Ok(mtu) = u16::try_from(*mtu) {
            options.insert(DhcpOption::InterfaceMtu(mtu));
        }
        let dhcp = &self.settings.dhcp;
        if !dhcp.resolvers.is_empty() {
            options.insert(DhcpOption::DomainNameServer(dhcp.resolvers.clone()));
        }
        if dhcp.hostnames {
            options.insert(DhcpOption::Hostname(node.name.clone()));
        }
        if let Some(file) = self.boot_file(request) {
            if file.len() <= FILE_FIELD {
                reply.set_fname_str(&file);
            }
            reply.set_siaddr(self.plan.gateway);
            let options = reply.opts_mut();
            options.insert(DhcpOption::TFTPServerName(self.plan.gateway.to_string().into_bytes()));
            options.insert(DhcpOption::BootfileName(file.into_bytes()));
        }
        reply
    }

    fn grant(&self, request: &Message, node: &PlannedNode, kind: MessageType) -> Message {
        let mut reply = self.settings(request, node, kind);
        reply.set_yiaddr(node.address);
        let options = reply.opts_mut();
        options.insert(DhcpOption::AddressLeaseTime(LEASE));
        options.insert(DhcpOption::Renewal(LEASE / 2));
        options.insert(DhcpOption::Rebinding(LEASE / 8 * 7));
        reply
    }

    /// The next program for firmware that boots from the network: iPXE, and for iPXE its script.
    fn boot_file(&self, request: &Message) -> Option<String> {
        let Media::Network(script) = &self.settings.media else { return None };
        let options = request.opts();
        let is_ipxe = matches!(options.get(OptionCode::UserClass), Some(DhcpOption::UserClass(class)) if class.ends_with(b"iPXE"));
        if is_ipxe {
            return Some(match script {
                BootScript::Url(url) => url.clone(),
                BootScript::Files { .. } => super::files::script_url(self.plan.gateway, self.http_port),
            });
        }
        let is_firmware = matches!(
            options.get(OptionCode::ClassIdentifier),
            Some(DhcpOption::ClassIdentifier(class)) if class.starts_with(b"PXEClient")
        );
        let architecture = match options.get(OptionCode::ClientSystemArchitecture) {
            Some(DhcpOption::ClientSystemArchitecture(architecture)) => u16::from(*architecture),
            _ => 0,
        };
        match (is_firmware, architecture) {
            (false, _) => None,
            (true, 0) => Some(IPXE_BIOS.0.to_owned()),
            // EFI on x86-64, by two numbers.
            (true, 7 | 9) => Some(IPXE_UEFI.0.to_owned()),
            (true, _) => None,
        }
    }
}

#[cfg(test)]
mod tests;
