//! The documents beside the root document, one type for each kind.
//!
//! Only shapes: checks are in `validate`, defaults in the accessors.

use serde::{Deserialize, Serialize};

use crate::scalar::PortRange;

/// Files and environment for the service of a system extension.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtensionServiceConfig {
    /// `v1alpha1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `ExtensionServiceConfig`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name, which must be the only one of its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Files for the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config_files: Vec<ExtensionConfigFile>,
    /// Environment of the service, as NAME=value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
}

/// Files for the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtensionConfigFile {
    /// Content of the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Where the service sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mount_path: String,
}

/// Default action for packets without a matching rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkDefaultActionConfig {
    /// `v1alpha1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `NetworkDefaultActionConfig`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// accept or block.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ingress: String,
}

/// Lets some networks reach some ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkRuleConfig {
    /// `v1alpha1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `NetworkRuleConfig`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name, which must be the only one of its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Which ports the rule is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_selector: Option<RulePortSelector>,
    /// Permitted sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
}

/// Which ports the rule is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RulePortSelector {
    /// Ports and ranges of ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// tcp, udp, icmp or icmpv6.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
}

/// Permitted sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct IngressRule {
    /// A network that may.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// A part of it that may not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub except: String,
}

/// Sends events elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EventSinkConfig {
    /// `v1alpha1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `EventSinkConfig`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// host:port of the receiver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// Sends the kernel's log elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KmsgLogConfig {
    /// `v1alpha1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `KmsgLogConfig`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name, which must be the only one of its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// tcp:// or udp:// with host and port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
}

/// Feeds a hardware watchdog, which resets a machine that hangs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchdogTimerConfig {
    /// `v1alpha1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `WatchdogTimerConfig`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Path of the watchdog.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Timeout after which it resets; at least 10s, default one minute.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timeout: String,
}

/// The trial of a version after an upgrade. A kind of ours: Talos 1.7 has no trials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeTrialConfig {
    /// `v1alpha1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `UpgradeTrialConfig`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// How long the node may take to show itself good; 1m to 24h, default 15m.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub limit: String,
}

/// A management tunnel to a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SideroLinkConfig {
    /// `v1alpha1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `SideroLinkConfig`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Address of the service, with its token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_url: String,
}
