//! Enumerations of specs: numbers on the wire, words in YAML.
//!
//! Kernel numbers are open (an unknown number prints as the number); our own numbers are closed.

closed_enum! {
    /// The role of a machine.
    MachineType {
        Unknown = 0 "unknown",
        Init = 1 "init",
        ControlPlane = 2 "controlplane",
        Worker = 3 "worker",
    }
}

impl MachineType {
    /// Whether it runs the control plane.
    pub fn is_control_plane(self) -> bool {
        matches!(self, Self::Init | Self::ControlPlane)
    }
}

closed_enum! {
    /// Source of a network setting; a later one wins.
    ConfigLayer {
        Default = 0 "default",
        Cmdline = 1 "cmdline",
        Platform = 2 "platform",
        Operator = 3 "operator",
        MachineConfiguration = 4 "configuration",
    }
}

closed_enum! {
    /// A dynamic configuration method of a link.
    Operator {
        Dhcp4 = 0 "dhcp4",
        Dhcp6 = 1 "dhcp6",
        Vip = 2 "vip",
    }
}

closed_enum! {
    /// Stage of the machine.
    MachineStage {
        Unknown = 0 "unknown",
        Booting = 1 "booting",
        Installing = 2 "installing",
        Maintenance = 3 "maintenance",
        Running = 4 "running",
        Rebooting = 5 "rebooting",
        ShuttingDown = 6 "shutting down",
        Resetting = 7 "resetting",
        Upgrading = 8 "upgrading",
    }
}

closed_enum! {
    /// Whether a mesh peer responds.
    PeerState {
        Unknown = 0 "unknown",
        Up = 1 "up",
        Down = 2 "down",
    }
}

closed_enum! {
    /// Comparison operator of a rule.
    MatchOperator {
        Equal = 0 "==",
        NotEqual = 1 "!=",
    }
}

closed_enum! {
    /// Netfilter hook of a chain.
    NfTablesChainHook {
        Prerouting = 0 "prerouting",
        Input = 1 "input",
        Forward = 2 "forward",
        Output = 3 "output",
        Postrouting = 4 "postrouting",
    }
}

closed_enum! {
    /// Verdict on a packet.
    NfTablesVerdict {
        Drop = 0 "drop",
        Accept = 1 "accept",
    }
}

open_enum! {
    /// The priority of a chain within its hook.
    NfTablesChainPriority {
        FIRST = -2_147_483_648 "first",
        CONNTRACK_DEFRAG = -400 "conntrack-defrag",
        RAW = -300 "raw",
        SELINUX_FIRST = -225 "selinux-first",
        CONNTRACK = -200 "conntrack",
        MANGLE = -150 "mangle",
        NAT_DEST = -100 "nat-dest",
        FILTER = 0 "filter",
        SECURITY = 50 "security",
        NAT_SOURCE = 100 "nat-source",
        SELINUX_LAST = 225 "selinux-last",
        CONNTRACK_HELPER = 300 "conntrack-helper",
        LAST = 2_147_483_647 "last",
    }
}

open_enum! {
    /// State of a tracked connection.
    ConntrackState {
        INVALID = 1 "invalid",
        ESTABLISHED = 2 "established",
        RELATED = 4 "related",
        NEW = 8 "new",
    }
}

open_enum! {
    /// A transport protocol.
    Protocol {
        ICMP = 1 "icmp",
        TCP = 6 "tcp",
        UDP = 17 "udp",
        ICMPV6 = 58 "icmpv6",
    }
}

open_enum! {
    /// An address family.
    Family {
        INET4 = 2 "inet4",
        INET6 = 10 "inet6",
    }
}

open_enum! {
    /// Scope of an address or route.
    Scope {
        GLOBAL = 0 "global",
        SITE = 200 "site",
        LINK = 253 "link",
        HOST = 254 "host",
        NOWHERE = 255 "nowhere",
    }
}

open_enum! {
    /// A routing table.
    RoutingTable {
        UNSPEC = 0 "unspec",
        DEFAULT = 253 "default",
        MAIN = 254 "main",
        LOCAL = 255 "local",
    }
}

open_enum! {
    /// Route type.
    RouteType {
        UNSPEC = 0 "unspec",
        UNICAST = 1 "unicast",
        LOCAL = 2 "local",
        BROADCAST = 3 "broadcast",
        ANYCAST = 4 "anycast",
        MULTICAST = 5 "multicast",
        BLACKHOLE = 6 "blackhole",
        UNREACHABLE = 7 "unreachable",
        PROHIBIT = 8 "prohibit",
        THROW = 9 "throw",
        NAT = 10 "nat",
        XRESOLVE = 11 "xresolve",
    }
}

open_enum! {
    /// Origin of a route.
    RouteProtocol {
        UNSPEC = 0 "unspec",
        REDIRECT = 1 "redirect",
        KERNEL = 2 "kernel",
        BOOT = 3 "boot",
        STATIC = 4 "static",
        RA = 9 "ra",
        MRT = 10 "mrt",
        ZEBRA = 11 "zebra",
        BIRD = 12 "bird",
        DNROUTED = 13 "dnrouted",
        XORP = 14 "xorp",
        NTK = 15 "ntk",
        DHCP = 16 "dhcp",
        MRTD = 17 "mrtd",
        KEEPALIVED = 18 "keepalived",
        BABEL = 42 "babel",
        OPENR = 99 "openr",
        BGP = 186 "bgp",
        ISIS = 187 "isis",
        OSPF = 188 "ospf",
        RIP = 189 "rip",
        EIGRP = 192 "eigrp",
    }
}

open_enum! {
    /// The hardware type of a link.
    LinkType {
        NETROM = 0 "netrom",
        ETHER = 1 "ether",
        EETHER = 2 "eether",
        AX25 = 3 "ax25",
        PRONET = 4 "pronet",
        CHAOS = 5 "chaos",
        IEEE802 = 6 "ieee802",
        ARCNET = 7 "arcnet",
        ATALK = 8 "atalk",
        DLCI = 15 "dlci",
        ATM = 19 "atm",
        METRICOM = 23 "metricom",
        IEEE1394 = 24 "ieee1394",
        EUI64 = 27 "eui64",
        INFINIBAND = 32 "infiniband",
        SLIP = 256 "slip",
        CSLIP = 257 "cslip",
        SLIP6 = 258 "slip6",
        CSLIP6 = 259 "cslip6",
        RSRVD = 260 "rsrvd",
        ADAPT = 264 "adapt",
        ROSE = 270 "rose",
        X25 = 271 "x25",
        HWX25 = 272 "hwx25",
        CAN = 280 "can",
        PPP = 512 "ppp",
        CISCO = 513 "cisco",
        LAPB = 516 "lapb",
        DDCMP = 517 "ddcmp",
        RAWHDLC = 518 "rawhdlc",
        TUNNEL = 768 "ipip",
        TUNNEL6 = 769 "tunnel6",
        FRAD = 770 "frad",
        SKIP = 771 "skip",
        LOOPBACK = 772 "loopback",
        LOCALTLK = 773 "ltalk",
        FDDI = 774 "fddi",
        BIF = 775 "bif",
        SIT = 776 "sit",
        IPDDP = 777 "ip/ddp",
        IPGRE = 778 "gre",
        PIMREG = 779 "pimreg",
        HIPPI = 780 "hippi",
        ASH = 781 "ash",
        ECONET = 782 "econet",
        IRDA = 783 "irda",
        FCPP = 784 "fcpp",
        FCAL = 785 "fcal",
        FCPL = 786 "fcpl",
        FCFABRIC = 787 "fcfb0",
        FCFABRIC1 = 788 "fcfb1",
        FCFABRIC2 = 789 "fcfb2",
        FCFABRIC3 = 790 "fcfb3",
        FCFABRIC4 = 791 "fcfb4",
        FCFABRIC5 = 792 "fcfb5",
        FCFABRIC6 = 793 "fcfb6",
        FCFABRIC7 = 794 "fcfb7",
        FCFABRIC8 = 795 "fcfb8",
        FCFABRIC9 = 796 "fcfb9",
        FCFABRIC10 = 797 "fcfb10",
        FCFABRIC11 = 798 "fcfb11",
        FCFABRIC12 = 799 "fcfb12",
        IEEE802TR = 800 "tr",
        IEEE80211 = 801 "ieee802.11",
        IEEE80211PRISM = 802 "ieee802.11/prism",
        IEEE80211RADIOTAP = 803 "ieee802.11/radiotap",
        IEEE802154 = 804 "ieee802.15.4",
        IEEE802154MONITOR = 805 "ieee802.15.4/monitor",
        PHONET = 820 "phonet",
        PHONETPIPE = 821 "phonet_pipe",
        CAIF = 822 "caif",
        IP6GRE = 823 "gre6",
        NETLINK = 824 "netlink",
        SIXLOWPAN = 825 "6lowpan",
        NONE = 65_534 "nohdr",
        VOID = 65_535 "void",
    }
}

open_enum! {
    /// State of a link by RFC 2863.
    OperationalState {
        UNKNOWN = 0 "unknown",
        NOT_PRESENT = 1 "notPresent",
        DOWN = 2 "down",
        LOWER_LAYER_DOWN = 3 "lowerLayerDown",
        TESTING = 4 "testing",
        DORMANT = 5 "dormant",
        UP = 6 "up",
    }
}

open_enum! {
    /// Port type of a network card.
    Port {
        TWISTED_PAIR = 0 "TwistedPair",
        AUI = 1 "AUI",
        MII = 2 "MII",
        FIBRE = 3 "Fibre",
        BNC = 4 "BNC",
        DIRECT_ATTACH = 5 "DirectAttach",
        NONE = 239 "None",
        OTHER = 255 "Other",
    }
}

open_enum! {
    /// Duplex mode.
    Duplex {
        HALF = 0 "Half",
        FULL = 1 "Full",
        UNKNOWN = 255 "Unknown",
    }
}

open_enum! {
    /// The tagging protocol of a VLAN.
    VlanProtocol {
        IEEE8021Q = 33_024 "802.1q",
        IEEE8021AD = 34_984 "802.1ad",
    }
}

open_enum! {
    /// Bonding mode.
    BondMode {
        ROUND_ROBIN = 0 "balance-rr",
        ACTIVE_BACKUP = 1 "active-backup",
        XOR = 2 "balance-xor",
        BROADCAST = 3 "broadcast",
        IEEE8023AD = 4 "802.3ad",
        TLB = 5 "balance-tlb",
        ALB = 6 "balance-alb",
    }
}

open_enum! {
    /// Transmit hash policy of a bond.
    BondXmitHashPolicy {
        LAYER2 = 0 "layer2",
        LAYER34 = 1 "layer3+4",
        LAYER23 = 2 "layer2+3",
        ENCAP23 = 3 "encap2+3",
        ENCAP34 = 4 "encap3+4",
    }
}

open_enum! {
    /// LACP rate.
    LacpRate {
        SLOW = 0 "slow",
        FAST = 1 "fast",
    }
}

open_enum! {
    /// ARP validation of a bond.
    ArpValidate {
        NONE = 0 "none",
        ACTIVE = 1 "active",
        BACKUP = 2 "backup",
        ALL = 3 "all",
    }
}

open_enum! {
    /// Number of ARP targets that must respond.
    ArpAllTargets {
        ANY = 0 "any",
        ALL = 1 "all",
    }
}

open_enum! {
    /// Reselection policy for the primary port.
    PrimaryReselect {
        ALWAYS = 0 "always",
        BETTER = 1 "better",
        FAILURE = 2 "failure",
    }
}

open_enum! {
    /// MAC address policy for bond ports.
    FailOverMac {
        NONE = 0 "none",
        ACTIVE = 1 "active",
        FOLLOW = 2 "follow",
    }
}

open_enum! {
    /// Aggregator selection policy.
    AdSelect {
        STABLE = 0 "stable",
        BANDWIDTH = 1 "bandwidth",
        COUNT = 2 "count",
    }
}

flags! {
    /// Flags of an address.
    AddressFlags {
        TEMPORARY = 0x1 "temporary",
        NO_DAD = 0x2 "nodad",
        OPTIMISTIC = 0x4 "optimistic",
        DAD_FAILED = 0x8 "dadfailed",
        HOME = 0x10 "homeaddress",
        DEPRECATED = 0x20 "deprecated",
        TENTATIVE = 0x40 "tentative",
        PERMANENT = 0x80 "permanent",
        MANAGEMENT_TEMP = 0x100 "mngmtmpaddr",
        NO_PREFIX_ROUTE = 0x200 "noprefixroute",
        MC_AUTO_JOIN = 0x400 "mcautojoin",
        STABLE_PRIVACY = 0x800 "stableprivacy",
    }
}

flags! {
    /// Flags of a link.
    LinkFlags {
        UP = 0x1 "UP",
        BROADCAST = 0x2 "BROADCAST",
        DEBUG = 0x4 "DEBUG",
        LOOPBACK = 0x8 "LOOPBACK",
        POINT_TO_POINT = 0x10 "POINTTOPOINT",
        NO_TRAILERS = 0x20 "NOTRAILERS",
        RUNNING = 0x40 "RUNNING",
        NO_ARP = 0x80 "NOARP",
        PROMISC = 0x100 "PROMISC",
        ALL_MULTI = 0x200 "ALLMULTI",
        MASTER = 0x400 "MASTER",
        SLAVE = 0x800 "SLAVE",
        MULTICAST = 0x1000 "MULTICAST",
        PORT_SELECT = 0x2000 "PORTSEL",
        AUTO_MEDIA = 0x4000 "AUTOMEDIA",
        DYNAMIC = 0x8000 "DYNAMIC",
        LOWER_UP = 0x1_0000 "LOWER_UP",
        DORMANT = 0x2_0000 "DORMANT",
        ECHO = 0x4_0000 "ECHO",
    }
}

flags! {
    /// Flags of a route.
    RouteFlags {
        NOTIFY = 0x100 "notify",
        CLONED = 0x200 "cloned",
        EQUALIZE = 0x400 "equalize",
        PREFIX = 0x800 "prefix",
        LOOKUP_TABLE = 0x1000 "lookup_table",
        FIB_MATCH = 0x2000 "fibmatch",
        OFFLOAD = 0x4000 "offload",
        TRAP = 0x8000 "trap",
    }
}
