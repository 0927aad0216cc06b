//! The allocation of pod subnets to nodes: the allocator, and the ranges that it allocates from.
//!
//! By default nodes get their subnets from the machine, not from kube-controller-manager, whose allocator delays the start of
//! all its controllers by 10 s. Flags that an operator set for kube-controller-manager keep their meaning. [`allocator`] is the
//! only decision: the flag of kube-controller-manager is rendered from it, and the machine's allocator runs by it.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// Flags of kube-controller-manager, without dashes in front.
type ExtraArgs = BTreeMap<String, String>;

pub(crate) const ALLOCATE_NODE_CIDRS: &str = "allocate-node-cidrs";
const CONTROLLERS: &str = "controllers";
const ALLOCATOR_TYPE: &str = "cidr-allocator-type";
/// The allocator type that the machine implements; others ask a cloud provider.
const RANGE_ALLOCATOR: &str = "RangeAllocator";
/// Names of the allocating controller; the second since 1.28.
const NODE_IPAM: &[&str] = &["nodeipam", "node-ipam-controller"];

/// Defaults of upstream.
const MASK_SIZE_V4: u8 = 24;
const MASK_SIZE_V6: u8 = 64;

/// The allocator of a cluster's pod subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocator {
    /// The control plane machines.
    Machine,
    /// kube-controller-manager, as the operator set it.
    ControllerManager,
    /// None: the operator disabled it, as pod networks with an allocation of their own ask for.
    None,
}

impl Allocator {
    /// As the resource has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::ControllerManager => "kube-controller-manager",
            Self::None => "none",
        }
    }

    /// Value of kube-controller-manager's flag.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::ControllerManager => "true",
            Self::Machine | Self::None => "false",
        }
    }
}

/// A range of pod subnets, and the size of a node's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeCidrRange {
    pub cluster: IpNet,
    /// Prefix length of a node's subnet; at least the range's.
    pub node_prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeCidrsError {
    #[error("pod subnet {text:?} is not a subnet")]
    Subnet { text: String },
    #[error("pod subnets {one} and {other} are of the same family")]
    SameFamily { one: IpNet, other: IpNet },
    #[error("argument {flag} of kube-controller-manager: {text:?} is not a mask size")]
    MaskSize { flag: &'static str, text: String },
    #[error("argument {flag} of kube-controller-manager cannot be used with these pod subnets or with {other}")]
    Conflict { flag: &'static str, other: &'static str },
    #[error("node subnets of /{node_prefix} do not fit into pod subnet {cluster}")]
    TooLarge { cluster: IpNet, node_prefix: u8 },
}

/// The allocator that follows from the operator's flags of kube-controller-manager. A flag that the program would refuse counts
/// as unset: the program says so itself.
#[must_use]
pub fn allocator(extra: &ExtraArgs) -> Allocator {
    let other_type = flag(extra, ALLOCATOR_TYPE).is_some_and(|kind| kind != RANGE_ALLOCATOR);
    match flag(extra, ALLOCATE_NODE_CIDRS) {
        Some(text) if is_true(text) => Allocator::ControllerManager,
        Some(_) => Allocator::None,
        None if !node_ipam_is_enabled(extra) => Allocator::None,
        None if other_type => Allocator::ControllerManager,
        None => Allocator::Machine,
    }
}

/// The ranges by family, in the order of the cluster's pod subnets.
///
/// # Errors
/// Combinations that kube-controller-manager refuses as well.
pub fn ranges(pod_cidrs: &[String], extra: &ExtraArgs) -> Result<Vec<NodeCidrRange>, NodeCidrsError> {
    let clusters = subnets(pod_cidrs, flag(extra, "cluster-cidr"))?;
    if let Some((one, other)) = same_family(&clusters) {
        return Err(NodeCidrsError::SameFamily { one, other });
    }
    let sizes = MaskSizes::of(&clusters, extra)?;
    clusters
        .into_iter()
        .map(|cluster| {
            let node_prefix = if cluster.addr().is_ipv4() { sizes.v4 } else { sizes.v6 };
            if node_prefix < cluster.prefix_len() || node_prefix > cluster.max_prefix_len() {
                return Err(NodeCidrsError::TooLarge { cluster, node_prefix });
            }
            Ok(NodeCidrRange { cluster, node_prefix })
        })
        .collect()
}

/// Subnets within the pods' that no node may get: those of Services.
///
/// # Errors
/// A text that is not a subnet.
pub fn reserved(service_cidrs: &[String], extra: &ExtraArgs) -> Result<Vec<IpNet>, NodeCidrsError> {
    subnets(service_cidrs, flag(extra, "service-cluster-ip-range"))
}

struct MaskSizes {
    v4: u8,
    v6: u8,
}

impl MaskSizes {
    fn of(clusters: &[IpNet], extra: &ExtraArgs) -> Result<Self, NodeCidrsError> {
        const COMMON: &str = "node-cidr-mask-size";
        const V4: &str = "node-cidr-mask-size-ipv4";
        const V6: &str = "node-cidr-mask-size-ipv6";
        let (common, v4, v6) = (mask_size(extra, COMMON)?, mask_size(extra, V4)?, mask_size(extra, V6)?);
        let has = |v4: bool| clusters.iter().any(|net| net.addr().is_ipv4() == v4);
        if common.is_some() {
            if clusters.len() > 1 {
                return Err(NodeCidrsError::Conflict { flag: COMMON, other: V4 });
            }
            for (size, other) in [(v4, V4), (v6, V6)] {
                if size.is_some() {
                    return Err(NodeCidrsError::Conflict { flag: COMMON, other });
                }
            }
        }
        for (size, flag, used) in [(v4, V4, has(true)), (v6, V6, has(false))] {
            if size.is_some() && !used {
                return Err(NodeCidrsError::Conflict { flag, other: COMMON });
            }
        }
        Ok(Self { v4: common.or(v4).unwrap_or(MASK_SIZE_V4), v6: common.or(v6).unwrap_or(MASK_SIZE_V6) })
    }
}

/// 0 is unset, as upstream has it.
fn mask_size(extra: &ExtraArgs, name: &'static str) -> Result<Option<u8>, NodeCidrsError> {
    let Some(text) = flag(extra, name) else { return Ok(None) };
    let size: u8 = text.parse().map_err(|_| NodeCidrsError::MaskSize { flag: name, text: text.to_owned() })?;
    Ok(Some(size).filter(|size| *size > 0))
}

/// The flag's value in force. The program takes underscores for dashes, and the last of several.
fn flag<'a>(extra: &'a ExtraArgs, name: &str) -> Option<&'a str> {
    extra.iter().filter(|(key, _)| key.replace('_', "-") == name).map(|(_, value)| value.as_str()).next_back()
}

/// As Go reads it.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The first element about a controller decides; our own list begins with `*`.
fn node_ipam_is_enabled(extra: &ExtraArgs) -> bool {
    let list = flag(extra, CONTROLLERS).unwrap_or_default();
    let mut about =
        list.split(',').map(str::trim).filter(|element| NODE_IPAM.contains(&element.trim_start_matches('-')));
    about.next().is_none_or(|element| !element.starts_with('-'))
}

fn subnets(configured: &[String], overriding: Option<&str>) -> Result<Vec<IpNet>, NodeCidrsError> {
    let read = |text: &str| -> Result<IpNet, NodeCidrsError> {
        let net: IpNet = text.trim().parse().map_err(|_| NodeCidrsError::Subnet { text: text.to_owned() })?;
        Ok(net.trunc())
    };
    match overriding {
        Some(list) => list.split(',').map(read).collect(),
        None => configured.iter().map(|text| read(text)).collect(),
    }
}

fn same_family(nets: &[IpNet]) -> Option<(IpNet, IpNet)> {
    nets.iter().enumerate().find_map(|(index, one)| {
        let other = nets[index + 1..].iter().find(|other| other.addr().is_ipv4() == one.addr().is_ipv4())?;
        Some((*one, *other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra(pairs: &[(&str, &str)]) -> ExtraArgs {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn sizes(pod_cidrs: &[&str], pairs: &[(&str, &str)]) -> Result<Vec<(String, u8)>, NodeCidrsError> {
        let pod_cidrs: Vec<String> = pod_cidrs.iter().map(|text| (*text).to_owned()).collect();
        let ranges = ranges(&pod_cidrs, &extra(pairs))?;
        Ok(ranges.into_iter().map(|range| (range.cluster.to_string(), range.node_prefix)).collect())
    }

    #[test]
    fn flags_of_the_operator_decide_who_allocates() {
        for (pairs, wanted) in [
            (&[][..], Allocator::Machine),
            (&[("allocate-node-cidrs", "true")], Allocator::ControllerManager),
            (&[("allocate_node_cidrs", "T")], Allocator::ControllerManager),
            (&[("allocate-node-cidrs", "false")], Allocator::None),
            (&[("allocate-node-cidrs", "0")], Allocator::None),
            (&[("allocate-node-cidrs", "false"), ("allocate_node_cidrs", "true")], Allocator::ControllerManager),
            (&[("controllers", "*, -nodeipam")], Allocator::None),
            (&[("controllers", "-node-ipam-controller,-ttl")], Allocator::None),
            (&[("controllers", "nodeipam,-nodeipam")], Allocator::Machine),
            (&[("controllers", "-ttl")], Allocator::Machine),
            (&[("cidr-allocator-type", "RangeAllocator")], Allocator::Machine),
            (&[("cidr-allocator-type", "CloudAllocator")], Allocator::ControllerManager),
            (&[("cidr-allocator-type", "CloudAllocator"), ("controllers", "-nodeipam")], Allocator::None),
            (&[("node-cidr-mask-size", "26")], Allocator::Machine),
        ] {
            assert_eq!(allocator(&extra(pairs)), wanted, "{pairs:?}");
        }
    }

    #[test]
    fn sizes_are_upstreams_unless_the_operator_sets_them() {
        let (v4, v6) = ("10.244.0.0/16", "fd00:244::/56");
        let of = |pairs| sizes(&[v4, v6], pairs).unwrap();
        assert_eq!(of(&[]), [(v4.to_owned(), 24), (v6.to_owned(), 64)]);
        assert_eq!(
            of(&[("node-cidr-mask-size-ipv4", "26"), ("node_cidr_mask_size_ipv6", "72")]),
            [(v4.to_owned(), 26), (v6.to_owned(), 72)]
        );
        assert_eq!(sizes(&[v6, v4], &[]).unwrap()[0].1, 64, "the cluster's order is kept");
        assert_eq!(sizes(&[v4], &[("node-cidr-mask-size", "28")]).unwrap()[0].1, 28);
        assert_eq!(sizes(&[v6], &[("node-cidr-mask-size", "60")]).unwrap()[0].1, 60);
        assert_eq!(sizes(&[v4], &[("node-cidr-mask-size", "0")]).unwrap()[0].1, 24);
        let overridden = sizes(&[v4], &[("cluster-cidr", "172.20.1.7/14")]).unwrap();
        assert_eq!(overridden, [("172.20.0.0/14".to_owned(), 24)]);
    }

    #[test]
    fn combinations_that_upstream_refuses_are_refused() {
        let (v4, v6) = ("10.244.0.0/16", "fd00:244::/56");
        let conflict = |result: Result<_, NodeCidrsError>| {
            assert!(matches!(result, Err(NodeCidrsError::Conflict { .. })), "{result:?}");
        };
        conflict(sizes(&[v4, v6], &[("node-cidr-mask-size", "26")]));
        conflict(sizes(&[v4], &[("node-cidr-mask-size", "26"), ("node-cidr-mask-size-ipv4", "26")]));
        conflict(sizes(&[v4], &[("node-cidr-mask-size-ipv6", "64")]));
        conflict(sizes(&[v6], &[("node-cidr-mask-size-ipv4", "24")]));
        let too_large = sizes(&["10.244.0.0/25"], &[]);
        assert!(matches!(too_large, Err(NodeCidrsError::TooLarge { node_prefix: 24, .. })), "{too_large:?}");
        let beyond = sizes(&[v4], &[("node-cidr-mask-size", "64")]);
        assert!(matches!(beyond, Err(NodeCidrsError::TooLarge { node_prefix: 64, .. })), "{beyond:?}");
        let text = sizes(&[v4], &[("node-cidr-mask-size", "/24")]);
        assert!(matches!(text, Err(NodeCidrsError::MaskSize { .. })), "{text:?}");
        let twice = sizes(&[v4, "10.245.0.0/16"], &[]);
        assert!(matches!(twice, Err(NodeCidrsError::SameFamily { .. })), "{twice:?}");
        assert_eq!(sizes(&["pods"], &[]), Err(NodeCidrsError::Subnet { text: "pods".to_owned() }));
    }
}
