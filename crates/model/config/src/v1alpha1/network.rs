//! Host name, links, addresses, routes and resolvers of a node.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use serde::{Deserialize, Serialize};

use crate::scalar::SecretString;

/// Host name, links and resolvers of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// Name of the machine; otherwise it comes from the platform or from DHCP.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Links and their addresses. Without any, every physical link uses DHCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Device>,
    /// DNS servers; default 1.1.1.1 and 8.8.8.8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// More lines for /etc/hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_host_entries: Vec<ExtraHost>,
    /// Encrypted tunnels between all machines of the cluster (WireGuard).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubespan: Option<KubeSpan>,
    /// Writes no search domain into the resolver's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_search_domain: Option<bool>,
}

/// Links and their addresses. Without any, every physical link uses DHCP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Name of the link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Chooses the link by its hardware in place of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_selector: Option<DeviceSelector>,
    /// Static addresses with their prefix length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Static routes over this link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Makes the link a bond of several others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
    /// Makes the link a bridge of several others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
    /// VLANs on the link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<Vlan>,
    /// Largest packet on the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Asks for an address by DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Leaves the link alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<bool>,
    /// Makes the link a dummy, which leads nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dummy: Option<bool>,
    /// Settings of DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp_options: Option<DhcpOptions>,
    /// Makes the link a WireGuard tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<Wireguard>,
    /// Address that control planes share: one of them at a time answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<DeviceVip>,
}

/// Chooses the link by its hardware in place of its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceSelector {
    /// Place on the bus, with * as wildcard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bus_path: String,
    /// Hardware address, with * as wildcard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hardware_addr: String,
    /// Vendor and product id on the PCI bus.
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
    /// Name of the kernel's driver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Only links that are hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical: Option<bool>,
}

/// Static routes over this link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Destination; nothing means the default route.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Next hop; nothing means directly on the link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Source address of packets that take this route.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Route metric: the smallest wins; default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Largest packet on this route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// VLANs on the link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Vlan {
    /// Static addresses with their prefix length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Static routes over the VLAN.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Asks for an address by DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Number of the VLAN, 1 to 4094.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_id: Option<u16>,
    /// Largest packet on the VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Address that control planes share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<DeviceVip>,
    /// Settings of DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp_options: Option<DhcpOptions>,
}

/// Makes the link a bond of several others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Bond {
    /// Links of the bond by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Links of the bond by hardware.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_selectors: Vec<DeviceSelector>,
    /// Addresses to watch by ARP.
    #[serde(rename = "arpIPTarget", skip_serializing_if = "Vec::is_empty")]
    pub arp_ip_target: Vec<String>,
    /// How packets are spread: balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb or balance-
    /// alb.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Bond transmit hash policy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xmit_hash_policy: String,
    /// LACP rate: slow or fast.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lacp_rate: String,
    /// System address in LACP packets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ad_actor_system: String,
    /// Which ARP answers count.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub arp_validate: String,
    /// Whether any or all watched addresses must answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub arp_all_targets: String,
    /// Preferred link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub primary: String,
    /// When to go back to the preferred link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub primary_reselect: String,
    /// MAC address policy on failover.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fail_over_mac: String,
    /// Which aggregator is used.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ad_select: String,
    /// Milliseconds between checks of the carrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miimon: Option<u32>,
    /// Milliseconds before a link that came up is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updelay: Option<u32>,
    /// Milliseconds before a link that went down is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downdelay: Option<u32>,
    /// Milliseconds between ARP checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp_interval: Option<u32>,
    /// How many membership reports follow a change of links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resend_igmp: Option<u32>,
    /// How many links must be up for the bond to be up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_links: Option<u32>,
    /// Seconds between learning packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lp_interval: Option<u32>,
    /// Packets on one link before the next is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_per_slave: Option<u32>,
    /// How many notifications follow a change of links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_peer_notif: Option<u8>,
    /// Whether balance-tlb moves flows by load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlb_dynamic_lb: Option<u8>,
    /// Whether duplicate frames on inactive links are delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_slaves_active: Option<u8>,
    /// Whether the driver's carrier state is trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_carrier: Option<bool>,
    /// System priority in LACP packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_actor_sys_prio: Option<u16>,
    /// User part of the port key in LACP packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_user_port_key: Option<u16>,
    /// Milliseconds between notifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_notify_delay: Option<u32>,
}

/// Makes the link a bridge of several others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Bridge {
    /// Links of the bridge by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Spanning tree protocol on the bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stp: Option<Stp>,
}

/// Spanning tree protocol on the bridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Stp {
    /// Switches it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Settings of DHCP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DhcpOptions {
    /// Metric of the routes that DHCP brings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_metric: Option<u32>,
    /// DHCP for IPv4; default on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// DHCP for IPv6; default off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// Client identifier for DHCP for IPv6, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub duidv6: String,
}

/// Address that control planes share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceVip {
    /// The shared address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Moves the address through Equinix Metal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equinix_metal: Option<VipEquinixMetal>,
    /// Moves the address through Hetzner Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hcloud: Option<VipHCloud>,
}

/// Moves the address through Equinix Metal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VipEquinixMetal {
    /// Token for its API.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub api_token: SecretString,
}

/// Moves the address through Hetzner Cloud.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VipHCloud {
    /// Token for its API.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub api_token: SecretString,
}

/// Makes the link a WireGuard tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Wireguard {
    /// Private key, base64 of 32 bytes.
    #[serde(skip_serializing_if = "SecretString::is_empty")]
    pub private_key: SecretString,
    /// Port to listen on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Mark of the tunnel's packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<u32>,
    /// The other ends of the tunnel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<WireguardPeer>,
}

/// The other ends of the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct WireguardPeer {
    /// Public key, base64 of 32 bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub public_key: String,
    /// Where to find the peer: host:port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// How often to send something, so that address translation stays open.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub persistent_keepalive_interval: String,
    /// Networks behind the peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_i_ps: Vec<String>,
}

/// More lines for /etc/hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraHost {
    /// The address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Its names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// Encrypted tunnels between all machines of the cluster (WireGuard).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeSpan {
    /// Switches the tunnels on; needs discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Sends pods' traffic through the tunnels as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_kubernetes_networks: Option<bool>,
    /// Sends packets around a tunnel that is down, unencrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_down_peer_bypass: Option<bool>,
    /// Learns more addresses of peers from running tunnels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harvest_extra_endpoints: Option<bool>,
    /// MTU of a tunnel, at least 1280; default 1420.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Filters for advertised endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<KubeSpanFilters>,
}

/// Filters for advertised endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeSpanFilters {
    /// Subnets whose addresses are advertised to peers; a subnet with ! is excluded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
}
