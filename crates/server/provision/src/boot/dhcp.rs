//! The answers of a DHCPv4 server (RFC 2131) that knows every machine of a cluster: an address is that of the slot of the
//! machine with this hardware address, always the same. There are no leases to remember. In side networks it gives addresses
//! and nothing else. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

use ::dhcp::{Code, Message, MessageType, Op};
use ipnet::Ipv4Net;

use super::{IPXE_BIOS, IPXE_UEFI};
use crate::machines::{self, BootScript, MachineSettings, Media};
use crate::plan::{Network, Plan, PlannedNode};

pub(crate) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// In seconds. Addresses never change, so it only says how soon a machine hears of new settings.
const LEASE: u32 = 300;
/// The longest that a link carries.
pub(crate) const LONGEST: usize = 1500;
/// Room of the fixed field for the boot file's name.
const FILE_FIELD: usize = 127;

/// A message and its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) packet: Vec<u8>,
    pub(crate) to: SocketAddrV4,
}

/// The server of one network of a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) network: &'a Network,
    pub(crate) settings: &'a MachineSettings,
    /// Where the agent serves files by HTTP.
    pub(crate) http_port: u16,
}

impl Server<'_> {
    /// The answer to a packet; none to what is no request of a machine of the cluster.
    pub(crate) fn answer(&self, packet: &[u8]) -> Option<Reply> {
        let request = Message::decode(packet).ok()?;
        if request.op != Op::Request || !request.giaddr.is_unspecified() {
            return None;
        }
        let node = self.node(request.chaddr)?;
        let reply = match request.kind()? {
            MessageType::Discover => self.grant(&request, node, MessageType::Offer),
            MessageType::Request => self.confirm(&request, node)?,
            // It has an address and asks for the rest.
            MessageType::Inform => self.settings(&request, node, MessageType::Ack),
            _ => return None,
        };
        let refused = reply.kind() == Some(MessageType::Nak);
        let known = !refused && !request.ciaddr.is_unspecified();
        let to = if known { request.ciaddr } else { Ipv4Addr::BROADCAST };
        Some(Reply { packet: reply.encode(), to: SocketAddrV4::new(to, CLIENT_PORT) })
    }

    fn node(&self, hardware: [u8; 6]) -> Option<&PlannedNode> {
        self.plan.nodes.iter().find(|node| machines::mac(self.plan, node, self.network) == hardware)
    }

    /// A request for an offer of ours, or for the address that a machine remembers.
    fn confirm(&self, request: &Message, node: &PlannedNode) -> Option<Message> {
        if request.address(Code::ServerId).is_some_and(|server| server != self.network.gateway) {
            return None;
        }
        let wanted = request.address(Code::RequestedAddress).unwrap_or(request.ciaddr);
        if wanted == self.network.address(node) {
            return Some(self.grant(request, node, MessageType::Ack));
        }
        Some(self.begin(request, MessageType::Nak))
    }

    fn begin(&self, request: &Message, kind: MessageType) -> Message {
        request.reply().of(kind).with_addresses(Code::ServerId, &[self.network.gateway])
    }

    /// Settings of the network.
    fn settings(&self, request: &Message, node: &PlannedNode, kind: MessageType) -> Message {
        let Network { number, cidr, gateway, .. } = self.network;
        let mut reply = self
            .begin(request, kind)
            .with_addresses(Code::SubnetMask, &[cidr.netmask()])
            .with_addresses(Code::Broadcast, &[cidr.broadcast()]);
        reply.ciaddr = request.ciaddr;
        if let Ok(mtu) = u16::try_from(self.plan.mtu) {
            reply = reply.with(Code::Mtu, mtu.to_be_bytes());
        }
        // The others lead nowhere.
        if *number > 0 {
            return reply;
        }
        reply = reply
            .with_addresses(Code::Router, &[*gateway])
            .with_addresses(Code::NtpServers, &[*gateway])
            // Clients that take these ignore the router.
            .with_classless_routes(&[(Ipv4Net::default(), *gateway)]);
        let dhcp = &self.settings.dhcp;
        if !dhcp.resolvers.is_empty() {
            reply = reply.with_addresses(Code::DnsServers, &dhcp.resolvers);
        }
        if dhcp.hostnames {
            reply = reply.with(Code::HostName, node.name.as_bytes());
        }
        if let Some(file) = self.boot_file(request) {
            if file.len() <= FILE_FIELD {
                reply.file = file.clone().into_bytes();
            }
            reply.siaddr = *gateway;
            reply = reply.with(Code::TftpServer, gateway.to_string()).with(Code::BootFile, file);
        }
        reply
    }

    fn grant(&self, request: &Message, node: &PlannedNode, kind: MessageType) -> Message {
        let mut reply = self
            .settings(request, node, kind)
            .with_number(Code::LeaseTime, LEASE)
            .with_number(Code::RenewalTime, LEASE / 2)
            .with_number(Code::RebindingTime, LEASE / 8 * 7);
        reply.yiaddr = self.network.address(node);
        reply
    }

    /// The next program for firmware that boots from the network: iPXE, and for iPXE its script.
    fn boot_file(&self, request: &Message) -> Option<String> {
        let Media::Network(script) = &self.settings.media else { return None };
        // Some clients put lengths between the parts of their class (RFC 3004), iPXE does not.
        let is_ipxe = request.option(Code::UserClass).is_some_and(|class| class.ends_with(b"iPXE"));
        if is_ipxe {
            return Some(match script {
                BootScript::Url(url) => url.clone(),
                BootScript::Files { .. } => super::files::script_url(self.plan.gateway, self.http_port),
            });
        }
        let is_firmware = request.option(Code::VendorClass).is_some_and(|class| class.starts_with(b"PXEClient"));
        let architecture = request.client_architecture().unwrap_or_default();
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
