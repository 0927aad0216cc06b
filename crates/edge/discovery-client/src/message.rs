//! Affiliates as the nodes of a cluster tell them to each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prost::Message as _;
use resources::MachineType;
use resources::cluster::{Affiliate, ControlPlane};
use wire::sidero::discovery::client as proto;

use crate::seal::{SealError, Sealer};

/// Why an affiliate of another node cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It is sealed with another key, or damaged.
    #[error("opening an affiliate")]
    Seal(#[from] SealError),
    /// What was sealed is not an affiliate.
    #[error("decoding an affiliate")]
    Decode(#[from] prost::DecodeError),
    /// It is about another node than the one that it was published for.
    #[error("affiliate is about node {0:?}")]
    OtherNode(String),
}

/// The sealed affiliate.
pub fn seal_affiliate(sealer: &Sealer, affiliate: &Affiliate) -> Result<Vec<u8>, SealError> {
    let control_plane = affiliate.control_plane.as_ref();
    let message = proto::Affiliate {
        node_id: affiliate.node_id.clone(),
        addresses: affiliate.addresses.iter().map(|address| address_bytes(*address).into()).collect(),
        hostname: affiliate.hostname.clone(),
        nodename: affiliate.nodename.clone(),
        machine_type: affiliate.machine_type.to_string(),
        operating_system: affiliate.operating_system.clone(),
        kubespan: None,
        control_plane: control_plane
            .map(|plane| proto::ControlPlane { api_server_port: u32::try_from(plane.port).unwrap_or_default() }),
    };
    sealer.seal(&message.encode_to_vec())
}

/// The affiliate `id` in sealed bytes. The id outside the seal is the service's word only, so it has to be the one inside:
/// the service, or anybody who may publish there, could otherwise give a node the address of another. What this system does not know of it is left out: addresses of another length, machine
/// types of another name.
pub fn open_affiliate(sealer: &Sealer, id: &str, sealed: &[u8]) -> Result<Affiliate, MessageError> {
    let message = proto::Affiliate::decode(sealer.open(sealed)?.as_slice())?;
    if message.node_id != id {
        return Err(MessageError::OtherNode(message.node_id));
    }
    Ok(Affiliate {
        node_id: message.node_id,
        addresses: message.addresses.iter().filter_map(|bytes| address(bytes)).collect(),
        hostname: message.hostname,
        nodename: message.nodename,
        operating_system: message.operating_system,
        machine_type: message.machine_type.parse().unwrap_or(MachineType::Unknown),
        control_plane: message.control_plane.map(|plane| ControlPlane { port: plane.api_server_port.into() }),
        ..Affiliate::default()
    })
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_affiliate_arrives_as_it_was_sent() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let affiliate = Affiliate {
            node_id: "abc".into(),
            addresses: vec!["10.5.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            hostname: "cp-1.example.org".into(),
            nodename: "cp-1".into(),
            operating_system: "Talos (v1.7.0)".into(),
            machine_type: MachineType::ControlPlane,
            control_plane: Some(ControlPlane { port: 6443 }),
            ..Affiliate::default()
        };
        let sealed = seal_affiliate(&sealer, &affiliate).unwrap();
        assert_eq!(open_affiliate(&sealer, "abc", &sealed).unwrap(), affiliate);
        let message = proto::Affiliate::decode(sealer.open(&sealed).unwrap().as_slice()).unwrap();
        assert_eq!(message.machine_type, "controlplane");
        assert_eq!((message.addresses[0].len(), message.addresses[1].len()), (4, 16));
    }

    #[test]
    fn what_is_unknown_is_left_out_and_another_key_is_refused() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let message = proto::Affiliate {
            node_id: "abc".into(),
            addresses: vec![vec![1, 2, 3].into(), vec![10, 5, 0, 2].into()],
            machine_type: "toaster".into(),
            ..proto::Affiliate::default()
        };
        let sealed = sealer.seal(&message.encode_to_vec()).unwrap();
        let affiliate = open_affiliate(&sealer, "abc", &sealed).unwrap();
        assert_eq!((affiliate.addresses.len(), affiliate.machine_type), (1, MachineType::Unknown));
        let misplaced = open_affiliate(&sealer, "victim", &sealed);
        assert!(matches!(misplaced, Err(MessageError::OtherNode(id)) if id == "abc"));
        let other = Sealer::new(&[8; 32]).unwrap();
        assert!(matches!(open_affiliate(&other, "abc", &sealed), Err(MessageError::Seal(SealError::Decrypt(_)))));
    }
}
