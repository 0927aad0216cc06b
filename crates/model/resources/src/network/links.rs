//! Links: bonds, bridges, VLANs and WireGuard included.

use ipnet::IpNet;

use crate::enums::{
    AdSelect, ArpAllTargets, ArpValidate, BondMode, BondXmitHashPolicy, ConfigLayer, Duplex, FailOverMac, LacpRate,
    LinkFlags, LinkType, OperationalState, Port, PrimaryReselect, VlanProtocol,
};
use crate::values::{HardwareAddr, Nanoseconds};

resource! {
    /// Incremented for link changes that the kernel does not announce.
    LinkRefresh: "LinkRefreshes.net.talos.dev" in "network",
    {
        generation: i64 = 1 "generation",
    }
}

message! {
    /// Membership in a bond.
    BondSlave {
        master_name: String = 1 "masterName" omitempty,
        slave_index: i64 = 2 "slaveIndex" omitempty,
    }
}

message! {
    /// Membership in a bridge.
    BridgeSlave {
        master_name: String = 1 "masterName" omitempty,
    }
}

message! {
    /// Tag and protocol of a VLAN.
    Vlan {
        vlan_id: u16 = 1 "vlanID",
        vlan_protocol: VlanProtocol = 2 "vlanProtocol",
    }
}

message! {
    /// Settings of a bond.
    BondMaster {
        mode: BondMode = 1 "mode",
        xmit_hash_policy: BondXmitHashPolicy = 2 "xmitHashPolicy",
        lacp_rate: LacpRate = 3 "lacpRate",
        arp_validate: ArpValidate = 4 "arpValidate",
        arp_all_targets: ArpAllTargets = 5 "arpAllTargets",
        primary: u32 = 6 "primary" omitempty,
        primary_reselect: PrimaryReselect = 7 "primaryReselect",
        fail_over_mac: FailOverMac = 8 "failOverMac",
        ad_select: AdSelect = 9 "adSelect" omitempty,
        miimon: u32 = 10 "miimon" omitempty,
        updelay: u32 = 11 "updelay" omitempty,
        downdelay: u32 = 12 "downdelay" omitempty,
        arp_interval: u32 = 13 "arpInterval" omitempty,
        resend_igmp: u32 = 14 "resendIgmp" omitempty,
        min_links: u32 = 15 "minLinks" omitempty,
        lp_interval: u32 = 16 "lpInterval" omitempty,
        packets_per_slave: u32 = 17 "packetsPerSlave" omitempty,
        num_peer_notif: u8 = 18 "numPeerNotif" omitempty,
        tlb_logical_lb: u8 = 19 "tlbLogicalLb" omitempty,
        all_slaves_active: u8 = 20 "allSlavesActive" omitempty,
        use_carrier: bool = 21 "useCarrier" omitempty,
        ad_actor_sys_prio: u16 = 22 "adActorSysPrio" omitempty,
        ad_user_port_key: u16 = 23 "adUserPortKey" omitempty,
        peer_notify_delay: u32 = 24 "peerNotifyDelay" omitempty,
    }
}

message! {
    /// Spanning tree.
    Stp {
        enabled: bool = 1 "enabled",
    }
}

message! {
    /// Settings of a bridge.
    BridgeMaster {
        stp: Stp = 1 "stp" omitempty,
    }
}

message! {
    /// A peer of a WireGuard link.
    WireguardPeer {
        public_key: String = 1 "publicKey",
        preshared_key: String = 2 "presharedKey",
        endpoint: String = 3 "endpoint",
        persistent_keepalive_interval: Nanoseconds = 4 "persistentKeepaliveInterval",
        allowed_ips: Vec<IpNet> = 5 "allowedIPs",
    }
}

message! {
    /// Settings of a WireGuard link.
    Wireguard {
        private_key: String = 1 "privateKey" omitempty,
        public_key: String = 2 "publicKey" omitempty,
        listen_port: i64 = 3 "listenPort",
        firewall_mark: i64 = 4 "firewallMark",
        peers: Vec<WireguardPeer> = 5 "peers",
    }
}

resource! {
    /// A desired link and its settings.
    LinkSpec: "LinkSpecs.net.talos.dev" in "network" sensitive,
    {
        name: String = 1 "name",
        logical: bool = 2 "logical",
        up: bool = 3 "up",
        mtu: u32 = 4 "mtu",
        kind: String = 5 "kind",
        r#type: LinkType = 6 "type",
        parent_name: String = 7 "parentName" omitempty,
        bond_slave: BondSlave = 8 "" inline,
        bridge_slave: BridgeSlave = 9 "bridgeSlave" omitempty,
        vlan: Vlan = 10 "vlan" omitempty,
        bond_master: BondMaster = 11 "bondMaster" omitempty,
        bridge_master: BridgeMaster = 12 "bridgeMaster" omitempty,
        wireguard: Wireguard = 13 "wireguard" omitempty,
        layer: ConfigLayer = 14 "layer",
    }
}

resource! {
    /// A link as the kernel reports it. Every role may read it: the private key of its WireGuard part is never filled in.
    LinkStatus: "LinkStatuses.net.talos.dev" in "network", aliases ["link", "links"],
    columns [
        "Type" => "{.type}",
        "Kind" => "{.kind}",
        "Hw Addr" => "{.hardwareAddr}",
        "Oper State" => "{.operationalState}",
        "Link State" => "{.linkState}",
    ],
    {
        index: u32 = 1 "index",
        r#type: LinkType = 2 "type",
        link_index: u32 = 3 "linkIndex",
        flags: LinkFlags = 4 "flags",
        hardware_addr: HardwareAddr = 5 "hardwareAddr",
        permanent_addr: HardwareAddr = 30 "permanentAddr",
        broadcast_addr: HardwareAddr = 6 "broadcastAddr",
        mtu: u32 = 7 "mtu",
        queue_disc: String = 8 "queueDisc",
        master_index: u32 = 9 "masterIndex" omitempty,
        operational_state: OperationalState = 10 "operationalState",
        kind: String = 11 "kind",
        slave_kind: String = 12 "slaveKind",
        bus_path: String = 13 "busPath" omitempty,
        pci_id: String = 14 "pciID" omitempty,
        driver: String = 15 "driver" omitempty,
        driver_version: String = 16 "driverVersion" omitempty,
        firmware_version: String = 17 "firmwareVersion" omitempty,
        product_id: String = 18 "productID" omitempty,
        vendor_id: String = 19 "vendorID" omitempty,
        product: String = 20 "product" omitempty,
        vendor: String = 21 "vendor" omitempty,
        link_state: bool = 22 "linkState",
        speed_mbit: i64 = 23 "speedMbit" omitempty,
        port: Port = 24 "port",
        duplex: Duplex = 25 "duplex",
        vlan: Vlan = 26 "vlan" omitempty,
        bridge_master: BridgeMaster = 27 "bridgeMaster" omitempty,
        bond_master: BondMaster = 28 "bondMaster" omitempty,
        wireguard: Wireguard = 29 "wireguard" omitempty,
    }
}
