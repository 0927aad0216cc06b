//! Revisions of the machine's configuration, and its applications by the API. These types are ours: clients of Talos 1.7
//! know only the configuration in force, `MachineConfig`.

use std::fmt;
use std::time::Duration;

use prost::encoding::WireType;
use serde_json::Value;

use ::config::revision as model;

use crate::field::{DecodeError, Field};
use crate::values::{Nanoseconds, Timestamp};

/// The text of a configuration, or one that quotes it; `Debug` says only how long it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConfigText(pub String);

impl fmt::Debug for ConfigText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigText({} bytes)", self.0.len())
    }
}

impl<T: Into<String>> From<T> for ConfigText {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Field for ConfigText {
    fn yaml(&self) -> Value {
        Value::from(self.0.as_str())
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        self.0.encode(number, out);
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        self.0.merge(wire_type, input)
    }
}

closed_enum! {
    /// How a configuration is to take effect; the numbers are those of the API.
    ApplyMode {
        Reboot = 0 "reboot",
        Auto = 1 "auto",
        NoReboot = 2 "no-reboot",
        Staged = 3 "staged",
        Try = 4 "try",
    }
}

impl ApplyMode {
    /// The mode of the state machine; `lasting` is for trials.
    #[must_use]
    pub fn to_model(self, lasting: Duration) -> model::ApplyMode {
        match self {
            Self::Reboot => model::ApplyMode::Reboot,
            Self::Auto => model::ApplyMode::Auto,
            Self::NoReboot => model::ApplyMode::NoReboot,
            Self::Staged => model::ApplyMode::Staged,
            Self::Try => model::ApplyMode::Try(lasting),
        }
    }
}

impl From<model::ApplyMode> for ApplyMode {
    fn from(mode: model::ApplyMode) -> Self {
        match mode {
            model::ApplyMode::Reboot => Self::Reboot,
            model::ApplyMode::Auto => Self::Auto,
            model::ApplyMode::NoReboot => Self::NoReboot,
            model::ApplyMode::Staged => Self::Staged,
            model::ApplyMode::Try(_) => Self::Try,
        }
    }
}

closed_enum! {
    /// The authority of the one who brings a configuration.
    ConfigCaller {
        Anonymous = 0 "anonymous",
        Administrator = 1 "administrator",
    }
}

closed_enum! {
    /// How the application of a configuration ended.
    ConfigOutcome {
        Applied = 0 "applied",
        NotValid = 1 "notValid",
        NotAllowed = 2 "notAllowed",
        NotSupported = 3 "notSupported",
        NotPossible = 4 "notPossible",
        Failed = 5 "failed",
    }
}

resource! {
    /// A revision of the configuration.
    MachineConfigRevision: "MachineConfigRevisions.config.talos.dev" in "config" sensitive,
    columns ["Revert At" => "{.revertAt}"],
    {
        config: ConfigText = 1 "config",
        /// Of a trial alone.
        revert_at: Timestamp = 2 "revertAt" omitempty,
    }
}

impl MachineConfigRevision {
    /// In force.
    pub const ACTIVE: &'static str = "active";
    /// On disk.
    pub const PERSISTENT: &'static str = "persistent";
    /// On disk, and in force from the next boot on.
    pub const STAGED: &'static str = "staged";
    /// In force until it reverts.
    pub const TRIAL: &'static str = "trial";
}

resource! {
    /// Asks for a configuration to be applied. Each has one result of the same id.
    MachineConfigRequest: "MachineConfigRequests.config.talos.dev" in "config" sensitive,
    columns ["Mode" => "{.mode}", "Caller" => "{.caller}"],
    {
        config: ConfigText = 1 "config",
        mode: ApplyMode = 2 "mode",
        /// Of a trial.
        lasting: Nanoseconds = 3 "lasting",
        caller: ConfigCaller = 4 "caller",
        /// Judge it, and change nothing but the timer of a trial.
        dry_run: bool = 5 "dryRun",
    }
}

resource! {
    /// How the application of a configuration ended.
    MachineConfigResult: "MachineConfigResults.config.talos.dev" in "config" sensitive,
    columns ["Outcome" => "{.outcome}", "Mode" => "{.mode}"],
    {
        outcome: ConfigOutcome = 1 "outcome",
        /// In effect.
        mode: ApplyMode = 2 "mode",
        /// For people; of a refusal its reason.
        details: ConfigText = 3 "details",
        warnings: Vec<String> = 4 "warnings",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec as _;

    #[test]
    fn no_text_of_a_configuration_is_in_debug_output() {
        let request = MachineConfigRequest { config: "token: secret".into(), ..MachineConfigRequest::default() };
        let text = format!("{request:?}");
        assert!(!text.contains("secret") && text.contains("13 bytes"), "{text}");
        assert!(request.to_yaml().to_string().contains("secret"));
    }
}
