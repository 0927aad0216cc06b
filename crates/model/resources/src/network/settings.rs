//! Host name, resolvers, time servers, the local DNS cache and network readiness.

use std::net::{IpAddr, SocketAddr};

use crate::enums::ConfigLayer;

resource! {
    /// State of the local DNS cache.
    DnsResolveCache: "DNSResolveCaches.net.talos.dev" in "network",
    columns ["Status" => "{.status}"],
    {
        status: String = 1 "status",
    }
}

resource! {
    /// Listen addresses of the local DNS cache.
    HostDnsConfig: "HostDNSConfigs.net.talos.dev" in "network",
    columns ["Enabled" => "{.enabled}"],
    {
        enabled: bool = 1 "enabled",
        listen_addresses: Vec<SocketAddr> = 2 "listenAddresses" omitempty,
        service_host_dns_address: Option<IpAddr> = 3 "serviceHostDNSAddress" omitempty,
        resolve_member_names: bool = 4 "resolveMemberNames" omitempty,
    }
}

impl HostDnsConfig {
    /// ID of the single instance.
    pub const ID: &'static str = "config";
}

resource! {
    /// The desired host name.
    HostnameSpec: "HostnameSpecs.net.talos.dev" in "network",
    {
        hostname: String = 1 "hostname",
        domainname: String = 2 "domainname",
        layer: ConfigLayer = 3 "layer",
    }
}

impl HostnameSpec {
    /// ID of the single instance.
    pub const ID: &'static str = "hostname";
}

resource! {
    /// The current host name.
    HostnameStatus: "HostnameStatuses.net.talos.dev" in "network", aliases ["hostname"],
    columns ["Hostname" => "{.hostname}", "Domainname" => "{.domainname}"],
    {
        hostname: String = 1 "hostname",
        domainname: String = 2 "domainname",
    }
}

impl HostnameStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "hostname";

    /// The name with its domain, where it has one.
    #[must_use]
    pub fn fqdn(&self) -> String {
        if self.domainname.is_empty() {
            return self.hostname.clone();
        }
        format!("{}.{}", self.hostname, self.domainname)
    }
}

resource! {
    /// Desired DNS servers.
    ResolverSpec: "ResolverSpecs.net.talos.dev" in "network",
    {
        dns_servers: Vec<IpAddr> = 1 "dnsServers",
        layer: ConfigLayer = 2 "layer",
    }
}

impl ResolverSpec {
    /// ID of the single instance.
    pub const ID: &'static str = "resolvers";
}

resource! {
    /// DNS servers in use.
    ResolverStatus: "ResolverStatuses.net.talos.dev" in "network", aliases ["resolvers"],
    columns ["Resolvers" => "{.dnsServers}"],
    {
        dns_servers: Vec<IpAddr> = 1 "dnsServers",
    }
}

impl ResolverStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "resolvers";
}

resource! {
    /// Readiness of the network.
    NetworkStatus: "NetworkStatuses.net.talos.dev" in "network", aliases ["netstatus", "netstatuses"],
    columns [
        "Address" => "{.addressReady}",
        "Connectivity" => "{.connectivityReady}",
        "Hostname" => "{.hostnameReady}",
        "Etc" => "{.etcFilesReady}",
    ],
    {
        address_ready: bool = 1 "addressReady",
        connectivity_ready: bool = 2 "connectivityReady",
        hostname_ready: bool = 3 "hostnameReady",
        etc_files_ready: bool = 4 "etcFilesReady",
    }
}

impl NetworkStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "status";
}

resource! {
    /// Desired time servers.
    TimeServerSpec: "TimeServerSpecs.net.talos.dev" in "network",
    {
        time_servers: Vec<String> = 1 "timeServers",
        layer: ConfigLayer = 2 "layer",
    }
}

impl TimeServerSpec {
    /// ID of the single instance.
    pub const ID: &'static str = "timeservers";
}

resource! {
    /// Time servers in use.
    TimeServerStatus: "TimeServerStatuses.net.talos.dev" in "network", aliases ["timeserver", "timeservers"],
    columns ["Timeservers" => "{.timeServers}"],
    {
        time_servers: Vec<String> = 1 "timeServers",
    }
}

impl TimeServerStatus {
    /// ID of the single instance.
    pub const ID: &'static str = "timeservers";
}
