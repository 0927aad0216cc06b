//! The YAML of network settings: lists of specs as they are shown. The layer in them does not count, and unknown keys do not
//! either.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use resources::enums::{ConfigLayer, Operator, RouteProtocol, RouteType, RoutingTable, Scope};
use resources::network::{AddressSpec, Dhcp4Operator, HostnameSpec, LinkSpec, OperatorSpec, RouteSpec};
use serde::Deserialize;

use crate::{address_config, route_config};

pub(super) const LAYER: ConfigLayer = ConfigLayer::Platform;
/// More of any list is refused.
const MAX_LIST: usize = 256;

/// Settings that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("reading network settings")]
    Yaml(#[source] yaml::ReadError),
    #[error("{list}: {value:?} is not valid")]
    Value { list: &'static str, value: String },
    #[error("{list}: more than {MAX_LIST} elements")]
    TooMany { list: &'static str },
}

/// As they are used.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) addresses: Vec<AddressSpec>,
    pub(super) routes: Vec<RouteSpec>,
    pub(super) links: Vec<LinkSpec>,
    pub(super) operators: Vec<OperatorSpec>,
    /// The first one.
    pub(super) hostname: Option<HostnameSpec>,
    pub(super) resolvers: Vec<IpAddr>,
    pub(super) time_servers: Vec<String>,
    /// Parts that this version reads and does nothing with.
    pub(super) without_effect: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    addresses: Vec<Address>,
    routes: Vec<Route>,
    links: Vec<Link>,
    hostnames: Vec<Hostname>,
    resolvers: Vec<Resolver>,
    time_servers: Vec<TimeServer>,
    operators: Vec<OperatorOfLink>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<serde_json::Value>,
    probes: Vec<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Address {
    address: String,
    link_name: String,
    scope: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Route {
    dst: String,
    src: String,
    gateway: String,
    out_link_name: String,
    table: String,
    priority: u32,
    scope: String,
    r#type: String,
    protocol: String,
    mtu: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Link {
    name: String,
    logical: bool,
    up: bool,
    mtu: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Hostname {
    hostname: String,
    domainname: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resolver {
    dns_servers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TimeServer {
    time_servers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OperatorOfLink {
    operator: String,
    link_name: String,
    require_up: bool,
    dhcp4: Dhcp4,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Dhcp4 {
    route_metric: u32,
    skip_hostname_request: bool,
}

impl Settings {
    pub(super) fn read(text: &str) -> Result<Self, SettingsError> {
        let document: Document = yaml::from_str(text).map_err(SettingsError::Yaml)?;
        let mut read = Self::default();
        for address in bounded("addresses", document.addresses)? {
            read.addresses.push(address.spec()?);
        }
        for route in bounded("routes", document.routes)? {
            read.routes.push(route.spec()?);
        }
        for link in bounded("links", document.links)? {
            if link.logical {
                read.without_effect.push(format!("logical link {}", link.name));
                continue;
            }
            let Link { name, up, mtu, .. } = link;
            read.links.push(LinkSpec {
                name: name_of_link("links", name)?,
                up,
                mtu,
                layer: LAYER,
                ..LinkSpec::default()
            });
        }
        for operator in bounded("operators", document.operators)? {
            match parse::<Operator>("operators", &operator.operator)? {
                Operator::Dhcp4 => read.operators.push(operator.spec()?),
                other => read.without_effect.push(format!("operator {other} of {}", operator.link_name)),
            }
        }
        read.hostname = document.hostnames.into_iter().next().map(|name| HostnameSpec {
            hostname: name.hostname,
            domainname: name.domainname,
            layer: LAYER,
        });
        for resolver in bounded("resolvers", document.resolvers)? {
            for server in resolver.dns_servers {
                read.resolvers.push(parse("resolvers", &server)?);
            }
        }
        let servers = document.time_servers.into_iter().flat_map(|list| list.time_servers);
        read.time_servers = bounded("timeServers", servers.collect())?;
        if !document.external_ips.is_empty() {
            read.without_effect.push("externalIPs".to_owned());
        }
        if !document.probes.is_empty() {
            read.without_effect.push("probes".to_owned());
        }
        Ok(read)
    }
}

impl Address {
    fn spec(self) -> Result<AddressSpec, SettingsError> {
        let link = name_of_link("addresses", self.link_name)?;
        // An address without a length is a single one.
        let single = self.address.parse::<IpAddr>().map(IpNet::from);
        let address = single.or_else(|_| parse("addresses", &self.address))?;
        let mut spec = address_config::spec(&link, address, LAYER);
        if !self.scope.is_empty() {
            spec.scope = parse("addresses", &self.scope)?;
        }
        Ok(spec)
    }
}

impl Route {
    fn spec(self) -> Result<RouteSpec, SettingsError> {
        let list = "routes";
        let link = name_of_link(list, self.out_link_name)?;
        let destination: Option<IpNet> = optional(list, &self.dst)?;
        let gateway: Option<IpAddr> = optional(list, &self.gateway)?;
        let mut spec = RouteSpec {
            src: optional(list, &self.src)?,
            priority: self.priority,
            mtu: self.mtu,
            layer: LAYER,
            ..route_config::normal(&link, destination, gateway)
        };
        spec.table = optional::<RoutingTable>(list, &self.table)?.unwrap_or(spec.table);
        spec.scope = optional::<Scope>(list, &self.scope)?.unwrap_or(spec.scope);
        spec.r#type = optional::<RouteType>(list, &self.r#type)?.unwrap_or(spec.r#type);
        spec.protocol = optional::<RouteProtocol>(list, &self.protocol)?.unwrap_or(spec.protocol);
        Ok(spec)
    }
}

impl OperatorOfLink {
    fn spec(self) -> Result<OperatorSpec, SettingsError> {
        let Dhcp4 { route_metric, skip_hostname_request } = self.dhcp4;
        Ok(OperatorSpec {
            operator: Operator::Dhcp4,
            link_name: name_of_link("operators", self.link_name)?,
            require_up: self.require_up,
            dhcp4: Dhcp4Operator { route_metric, skip_hostname_request },
            layer: LAYER,
            ..OperatorSpec::default()
        })
    }
}

fn bounded<T>(list: &'static str, values: Vec<T>) -> Result<Vec<T>, SettingsError> {
    if values.len() > MAX_LIST { Err(SettingsError::TooMany { list }) } else { Ok(values) }
}

fn parse<T: FromStr>(list: &'static str, text: &str) -> Result<T, SettingsError> {
    text.parse().map_err(|_| SettingsError::Value { list, value: text.to_owned() })
}

fn optional<T: FromStr>(list: &'static str, text: &str) -> Result<Option<T>, SettingsError> {
    (!text.is_empty()).then(|| parse(list, text)).transpose()
}

/// Ids are made of it.
fn name_of_link(list: &'static str, name: String) -> Result<String, SettingsError> {
    let is_name = !name.is_empty() && name.len() <= 15 && !name.contains(|c: char| c == '/' || c.is_whitespace());
    if is_name { Ok(name) } else { Err(SettingsError::Value { list, value: name }) }
}
