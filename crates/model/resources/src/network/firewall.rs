//! Chains of the packet filter.

use ipnet::IpNet;

use crate::enums::{
    ConntrackState, MatchOperator, NfTablesChainHook, NfTablesChainPriority, NfTablesVerdict, Protocol,
};

message! {
    /// Compares the name of an interface.
    NfTablesIfNameMatch {
        interface_name: Vec<String> = 3 "interfaceName",
        operator: MatchOperator = 2 "operator",
    }
}

message! {
    /// Compares or sets the mark of a packet.
    NfTablesMark {
        mask: u32 = 1 "mask" omitempty,
        xor: u32 = 2 "xor" omitempty,
        value: u32 = 3 "value" omitempty,
    }
}

message! {
    /// Compares the state of the connection.
    NfTablesConntrackStateMatch {
        states: Vec<ConntrackState> = 1 "states",
    }
}

message! {
    /// Compares an address with subnets.
    NfTablesAddressMatch {
        include_subnets: Vec<IpNet> = 1 "includeSubnets" omitempty,
        exclude_subnets: Vec<IpNet> = 2 "excludeSubnets" omitempty,
        invert: bool = 3 "invert" omitempty,
    }
}

message! {
    /// Ports from `lo` to `hi`, both included.
    PortRange {
        lo: u16 = 1 "lo",
        hi: u16 = 2 "hi",
    }
}

message! {
    /// Compares a port with ranges.
    NfTablesPortMatch {
        ranges: Vec<PortRange> = 1 "ranges" omitempty,
    }
}

message! {
    /// Compares protocol and ports.
    NfTablesLayer4Match {
        protocol: Protocol = 1 "protocol",
        match_source_port: Option<NfTablesPortMatch> = 2 "matchSourcePort" omitempty,
        match_destination_port: Option<NfTablesPortMatch> = 3 "matchDestinationPort" omitempty,
    }
}

message! {
    /// Rate limit in packets per second.
    NfTablesLimitMatch {
        packet_rate_per_second: u64 = 1 "packetRatePerSecond",
    }
}

message! {
    /// Clamps the segment size to the MTU.
    NfTablesClampMss {
        mtu: u16 = 1 "mtu",
    }
}

message! {
    /// Conditions and the verdict.
    NfTablesRule {
        match_i_if_name: Option<NfTablesIfNameMatch> = 8 "matchIIfName" omitempty,
        match_o_if_name: Option<NfTablesIfNameMatch> = 1 "matchOIfName" omitempty,
        match_mark: Option<NfTablesMark> = 3 "matchMark" omitempty,
        match_conntrack_state: Option<NfTablesConntrackStateMatch> = 11 "matchConntrackState" omitempty,
        match_source_address: Option<NfTablesAddressMatch> = 5 "matchSourceAddress" omitempty,
        match_destination_address: Option<NfTablesAddressMatch> = 6 "matchDestinationAddress" omitempty,
        match_layer4: Option<NfTablesLayer4Match> = 7 "matchLayer4" omitempty,
        match_limit: Option<NfTablesLimitMatch> = 10 "matchLimit" omitempty,
        clamp_mss: Option<NfTablesClampMss> = 9 "clampMSS" omitempty,
        set_mark: Option<NfTablesMark> = 4 "setMark" omitempty,
        anonymous_counter: bool = 12 "anonymousCounter" omitempty,
        verdict: Option<NfTablesVerdict> = 2 "verdict" omitempty,
    }
}

resource! {
    /// A chain of firewall rules.
    NfTablesChain: "NfTablesChains.net.talos.dev" in "network", aliases ["chain", "chains"],
    columns [
        "Type" => "{.type}",
        "Hook" => "{.hook}",
        "Priority" => "{.priority}",
        "Policy" => "{.policy}",
    ],
    {
        r#type: String = 1 "type",
        hook: NfTablesChainHook = 2 "hook",
        priority: NfTablesChainPriority = 3 "priority",
        policy: NfTablesVerdict = 5 "policy",
        rules: Vec<NfTablesRule> = 4 "rules",
    }
}
