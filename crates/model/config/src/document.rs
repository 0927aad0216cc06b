//! One document of a configuration, of any kind.

use crate::kinds::{
    EventSinkConfig, ExtensionServiceConfig, KmsgLogConfig, NetworkDefaultActionConfig, NetworkRuleConfig,
    SideroLinkConfig, UpgradeTrialConfig, WatchdogTimerConfig,
};
use crate::v1alpha1::Config;

/// One document.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    V1alpha1(Box<Config>),
    NetworkDefaultAction(NetworkDefaultActionConfig),
    NetworkRule(NetworkRuleConfig),
    ExtensionService(ExtensionServiceConfig),
    EventSink(EventSinkConfig),
    KmsgLog(KmsgLogConfig),
    WatchdogTimer(WatchdogTimerConfig),
    UpgradeTrial(UpgradeTrialConfig),
    SideroLink(SideroLinkConfig),
}

impl Document {
    /// The kind; `v1alpha1` for the root document.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::V1alpha1(_) => "v1alpha1",
            Self::NetworkDefaultAction(_) => "NetworkDefaultActionConfig",
            Self::NetworkRule(_) => "NetworkRuleConfig",
            Self::ExtensionService(_) => "ExtensionServiceConfig",
            Self::EventSink(_) => "EventSinkConfig",
            Self::KmsgLog(_) => "KmsgLogConfig",
            Self::WatchdogTimer(_) => "WatchdogTimerConfig",
            Self::UpgradeTrial(_) => "UpgradeTrialConfig",
            Self::SideroLink(_) => "SideroLinkConfig",
        }
    }

    /// The name, for kinds of which there may be several.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::NetworkRule(document) => Some(&document.name),
            Self::ExtensionService(document) => Some(&document.name),
            Self::KmsgLog(document) => Some(&document.name),
            _ => None,
        }
    }

    /// The root document, if this is it.
    #[must_use]
    pub fn as_root(&self) -> Option<&Config> {
        match self {
            Self::V1alpha1(config) => Some(config),
            _ => None,
        }
    }

    /// The document as an ordered tree, with the keys of the file.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        let value = match self {
            Self::V1alpha1(document) => serde_json::to_value(document),
            Self::NetworkDefaultAction(document) => serde_json::to_value(document),
            Self::NetworkRule(document) => serde_json::to_value(document),
            Self::ExtensionService(document) => serde_json::to_value(document),
            Self::EventSink(document) => serde_json::to_value(document),
            Self::KmsgLog(document) => serde_json::to_value(document),
            Self::WatchdogTimer(document) => serde_json::to_value(document),
            Self::UpgradeTrial(document) => serde_json::to_value(document),
            Self::SideroLink(document) => serde_json::to_value(document),
        };
        // these types have text keys and no floats, so that writing them into a tree cannot fail
        value.unwrap_or_default()
    }
}
