//! etcd: its configuration, its member on this node, its certificates.

use std::net::IpAddr;

use crate::StringMap;

resource! {
    /// Configuration of etcd from the machine configuration.
    EtcdConfig: "EtcdConfigs.etcd.talos.dev" in "etcd",
    columns ["Image" => "{.image}"],
    {
        advertise_valid_subnets: Vec<String> = 1 "advertiseValidSubnets" omitempty,
        advertise_exclude_subnets: Vec<String> = 2 "advertiseExcludeSubnets",
        listen_valid_subnets: Vec<String> = 5 "listenValidSubnets" omitempty,
        listen_exclude_subnets: Vec<String> = 6 "listenExcludeSubnets",
        image: String = 3 "image",
        extra_args: StringMap = 4 "extraArgs",
    }
}

impl EtcdConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "etcd";
}

resource! {
    /// The etcd member of this node.
    EtcdMember: "EtcdMembers.etcd.talos.dev" in "etcd",
    columns ["Member ID" => "{.memberID}"],
    {
        member_id: String = 1 "memberID",
    }
}

impl EtcdMember {
    /// ID of the single instance.
    pub const ID: &'static str = "local";
}

resource! {
    /// Whether the etcd certificates are on disk.
    PkiStatus: "PKIStatuses.etcd.talos.dev" in "etcd",
    columns ["Ready" => "{.ready}", "Secrets Version" => "{.version}"],
    {
        ready: bool = 1 "ready",
        version: String = 2 "version",
    }
}

impl PkiStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "etcd";
}

resource! {
    /// Runtime settings of etcd with resolved addresses.
    EtcdSpec: "EtcdSpecs.etcd.talos.dev" in "etcd",
    columns [
        "Name" => "{.name}",
        "AdvertisedAddresses" => "{.advertisedAddresses}",
        "ListenPeerAddresses" => "{.listenPeerAddresses}",
        "ListenClientAddresses" => "{.listenClientAddresses}",
    ],
    {
        name: String = 1 "name",
        advertised_addresses: Vec<IpAddr> = 2 "advertisedAddresses",
        listen_peer_addresses: Vec<IpAddr> = 5 "listenPeerAddresses",
        listen_client_addresses: Vec<IpAddr> = 6 "listenClientAddresses",
        image: String = 3 "image",
        extra_args: StringMap = 4 "extraArgs",
    }
}

impl EtcdSpec {
    /// ID of the single instance.
    pub const ID: &'static str = "etcd";
}

resource! {
    /// Whether etcd may start here, and as what (ours). There is none while that is not decided.
    EtcdStart: "EtcdStarts.etcd.talos.dev" in "etcd",
    columns ["State" => "{.state}", "Initial Cluster" => "{.initialCluster}", "Waits For" => "{.waitsFor}"],
    {
        /// `new`: it founds a cluster; `existing`: it joins one; `data`: it goes on with what is on disk. Empty while it waits.
        state: String = 1 "state",
        /// `name=url` of all members, separated by commas; empty where it goes on.
        initial_cluster: String = 2 "initialCluster" omitempty,
        /// What it waits for; empty where it may start.
        waits_for: String = 3 "waitsFor" omitempty,
        /// It must not run while it waits.
        ends: bool = 4 "ends" omitempty,
    }
}

impl EtcdStart {
    /// ID of the single instance.
    pub const ID: &'static str = "etcd";
    /// State of a member that goes on with its data.
    pub const DATA: &'static str = "data";
}
