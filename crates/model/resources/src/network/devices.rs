//! Types whose spec is not a list of fields on the wire: configured devices are YAML in a protobuf message, DNS upstreams
//! have no protobuf form.

use std::net::SocketAddr;

use prost::Message as _;
use serde_json::{Value, json};
use wire::resource::network as proto;

use crate::object::Object;
use crate::spec::{Column, Definition, Sensitivity, Spec};

/// A device of the configuration, with its selector resolved to a link.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceConfigSpec {
    /// The device in the configuration.
    pub device: Object,
}

impl Spec for DeviceConfigSpec {
    const DEFINITION: Definition = Definition {
        type_name: "DeviceConfigSpecs.net.talos.dev",
        namespace: super::NAMESPACE,
        aliases: &[],
        columns: &[],
        sensitivity: Sensitivity::Sensitive,
    };
    fn to_yaml(&self) -> Value {
        json!({ "device": self.device })
    }
    /// The device as YAML.
    fn to_proto(&self) -> Vec<u8> {
        let device = yaml::to_text(&Value::Object(self.device.clone()));
        proto::DeviceConfigSpecSpec { yaml_marshalled: device.into() }.encode_to_vec()
    }
}

/// A DNS server behind the local cache; the id is its address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsUpstream {
    /// Whether it responded lately.
    pub healthy: bool,
    /// Its listen address.
    pub address: Option<SocketAddr>,
}

impl Spec for DnsUpstream {
    const DEFINITION: Definition = Definition {
        type_name: "DNSUpstreams.net.talos.dev",
        namespace: super::NAMESPACE,
        aliases: &[],
        columns: &[
            Column { name: "Healthy", json_path: "{.healthy}" },
            Column { name: "Address", json_path: "{.addr}" },
        ],
        sensitivity: Sensitivity::NonSensitive,
    };
    fn to_yaml(&self) -> Value {
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        json!({ "healthy": self.healthy.to_string(), "addr": address })
    }
    fn to_proto(&self) -> Vec<u8> {
        Vec::new()
    }
}
