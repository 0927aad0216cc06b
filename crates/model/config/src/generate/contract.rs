//! Which fields a version of the system knows: one table.

/// The version that determines the available fields: 1.7 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contract {
    pub major: u32,
    pub minor: u32,
}

impl Default for Contract {
    fn default() -> Self {
        Self { major: 1, minor: 7 }
    }
}

/// A field, or a value that is written by default, that not every version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    Rbac,
    Discovery,
    /// The API server's admission by pod security policies is off.
    NoPodSecurityPolicy,
    /// The API server's admission by pod security standards is configured.
    PodSecurityAdmission,
    StableHostname,
    DefaultSeccompProfile,
    /// `allowSchedulingOnControlPlanes`, which was `allowSchedulingOnMasters`.
    SchedulingOnControlPlanes,
    AuditPolicy,
    CheckExtKeyUsage,
    NoManifestsDirectory,
    /// Images of Kubernetes come from registry.k8s.io; before, from k8s.gcr.io, which is no longer served.
    NewKubernetesRegistry,
    DiskQuota,
    /// Discovery through Kubernetes is off.
    NoKubernetesDiscovery,
    KubePrism,
    HostDns,
}

/// The first version with each feature.
const SINCE: &[(Feature, (u32, u32))] = &[
    (Feature::Rbac, (0, 11)),
    (Feature::Discovery, (0, 14)),
    (Feature::NoPodSecurityPolicy, (1, 0)),
    (Feature::PodSecurityAdmission, (1, 1)),
    (Feature::StableHostname, (1, 2)),
    (Feature::DefaultSeccompProfile, (1, 2)),
    (Feature::SchedulingOnControlPlanes, (1, 2)),
    (Feature::AuditPolicy, (1, 3)),
    (Feature::CheckExtKeyUsage, (1, 3)),
    (Feature::NoManifestsDirectory, (1, 3)),
    (Feature::NewKubernetesRegistry, (1, 3)),
    (Feature::DiskQuota, (1, 5)),
    (Feature::NoKubernetesDiscovery, (1, 5)),
    (Feature::KubePrism, (1, 6)),
    (Feature::HostDns, (1, 7)),
];

impl Contract {
    pub(super) fn has(self, feature: Feature) -> bool {
        SINCE.iter().any(|(known, (major, minor))| *known == feature && self >= Self { major: *major, minor: *minor })
    }
}

impl std::str::FromStr for Contract {
    type Err = String;

    /// `v1.7`, `1.7` or `v1.7.0`.
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a version; for example v1.7");
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let mut number = || parts.next().and_then(|part| part.parse().ok());
        match (number(), number()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(invalid()),
        }
    }
}
