//! Kubernetes releases and the table of differences between them.

use std::fmt;
use std::str::FromStr;

/// A Kubernetes release. Pre-release and build suffixes are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

/// The newest release that this crate renders for; also assumed where an image names no version.
pub const NEWEST: Version = Version::new(1, 30, 0);

/// Minor releases (of major 1) that are rendered for, the oldest first; each has golden files.
pub const SUPPORTED_MINORS: &[u32] = &[25, 26, 27, 28, 29, 30];

/// A flag, field or API that not every supported release has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// The CRI socket is a kubelet flag.
    RuntimeEndpointFlag,
    /// The CRI socket is a field of `KubeletConfiguration`.
    RuntimeEndpointField,
    /// kube-apiserver knows `--cloud-provider`.
    ApiServerCloudProvider,
}

/// First minor release that has a feature, and first that no longer has it.
struct Span {
    feature: Feature,
    from: u32,
    until: u32,
}

const ALWAYS: u32 = 0;
const STILL: u32 = u32::MAX;

const TABLE: &[Span] = &[
    Span { feature: Feature::RuntimeEndpointFlag, from: ALWAYS, until: 27 },
    Span { feature: Feature::RuntimeEndpointField, from: 27, until: STILL },
    Span { feature: Feature::ApiServerCloudProvider, from: ALWAYS, until: 33 },
];

impl Version {
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Whether this release has the feature.
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        TABLE.iter().any(|span| span.feature == feature && (span.from..span.until).contains(&self.minor))
    }

    /// The release that an image reference names by its tag, if it names one.
    #[must_use]
    pub fn of_image(image: &str) -> Option<Self> {
        let name = image.split_once('@').map_or(image, |(name, _digest)| name);
        let last = name.rsplit_once('/').map_or(name, |(_path, last)| last);
        last.split_once(':').and_then(|(_name, tag)| tag.parse().ok())
    }

    /// The release of an image, or [`NEWEST`] where the reference has no tag that is a version.
    #[must_use]
    pub fn of_image_or_newest(image: &str) -> Self {
        Self::of_image(image).unwrap_or(NEWEST)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a Kubernetes version such as v1.30.0")]
pub struct VersionError {
    text: String,
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || VersionError { text: text.to_owned() };
        let bare = text.strip_prefix('v').unwrap_or(text);
        let release = bare.split(['-', '+', '_']).next().unwrap_or_default();
        let mut parts = release.split('.').map(|part| part.parse::<u32>().map_err(|_| error()));
        let major = parts.next().ok_or_else(error)??;
        let minor = parts.next().ok_or_else(error)??;
        let patch = parts.next().transpose()?.unwrap_or(0);
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self { major, minor, patch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_an_image_is_its_tag_without_registry_port_or_digest() {
        let cases = [
            ("registry.k8s.io/kube-apiserver:v1.25.4", Some(Version::new(1, 25, 4))),
            ("ghcr.io/siderolabs/kubelet:v1.30.0-rc.1", Some(Version::new(1, 30, 0))),
            ("127.0.0.1:5000/kubelet:v1.29.4@sha256:00", Some(Version::new(1, 29, 4))),
            ("127.0.0.1:5000/kubelet", None),
            ("kubelet:latest", None),
            ("kubelet", None),
        ];
        for (image, version) in cases {
            assert_eq!(Version::of_image(image), version, "{image}");
        }
        assert_eq!(Version::of_image_or_newest("kubelet:latest"), NEWEST);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "v1", "1.x", "v1.2.3.4", "latest"] {
            assert_eq!(text.parse::<Version>(), Err(VersionError { text: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn cri_socket_is_given_exactly_once_for_every_release() {
        for minor in 25..40 {
            let version = Version::new(1, minor, 0);
            assert_ne!(version.has(Feature::RuntimeEndpointFlag), version.has(Feature::RuntimeEndpointField));
        }
    }
}
