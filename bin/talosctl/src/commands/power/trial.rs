//! The trial of a version after an upgrade, as the node tells it.

use client::{CallError, Client};
use serde_json::Value;

use crate::command_error::CommandError;

const TRIAL: [&str; 3] = ["runtime", "UpgradeTrials.runtime.talos.dev", "trial"];
const MACHINE_TYPE: [&str; 3] = ["config", "MachineTypes.config.talos.dev", "machine-type"];

/// A node that came back as it was: its upgrade was not performed.
const UNCHANGED: &str = "the node has booted without a new version: its upgrade has failed (see its log)";

/// What the node says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// What it waits for.
    Open(String),
    /// The version has its slot, or the node knows no trials.
    Passed(String),
    /// The node runs the former version again.
    Failed(String),
}

/// The last trial of the node. `before` is what it told before the upgrade.
pub(super) async fn of(client: &Client, before: Option<&Value>) -> Result<Trial, CommandError> {
    Ok(compare(told(client).await?.as_ref(), before))
}

fn compare(told: Option<&Value>, before: Option<&Value>) -> Trial {
    match told {
        Some(told) if Some(told) == before => Trial::Failed(UNCHANGED.to_owned()),
        Some(told) => judge(told),
        // A node of Talos 1.7, or one that keeps no record.
        None => Trial::Passed("upgraded".to_owned()),
    }
}

/// What the node tells of its last trial; none where it knows none.
pub(super) async fn told(client: &Client) -> Result<Option<Value>, CommandError> {
    let [namespace, kind, id] = TRIAL;
    match client.state().get(namespace, kind, id).await {
        Ok(resource) => Ok(Some(resource.spec)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_absent(error: &CallError) -> bool {
    matches!(error.code(), tonic::Code::NotFound | tonic::Code::Unimplemented)
}

fn judge(spec: &Value) -> Trial {
    let text = |name: &str| spec.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, former) = (text("version"), text("formerVersion"));
    match text("phase").as_str() {
        "good" => Trial::Passed(format!("{version} has shown itself good")),
        "failed" => Trial::Failed(format!("the node is back at {former}: {}", text("reason"))),
        _ => Trial::Open(format!("{version} is on trial")),
    }
}

/// What a node is for its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    ControlPlane,
    Other,
}

/// The role of a node.
pub(super) async fn role(client: &Client) -> Result<Role, CommandError> {
    let [namespace, kind, id] = MACHINE_TYPE;
    let found = client.state().get(namespace, kind, id).await?;
    Ok(match found.spec.as_str() {
        Some("controlplane" | "init") => Role::ControlPlane,
        _ => Role::Other,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_came_back_as_it_was_has_not_been_upgraded() {
        let before = json!({"version": "v1", "formerVersion": "v0", "phase": "good", "slot": "A"});
        let after = json!({"version": "v2", "formerVersion": "v1", "phase": "good", "slot": "B"});
        assert!(matches!(compare(Some(&before), Some(&before)), Trial::Failed(_)));
        assert_eq!(compare(Some(&after), Some(&before)), Trial::Passed("v2 has shown itself good".into()));
        assert!(matches!(compare(None, None), Trial::Passed(_)));
    }

    #[test]
    fn a_version_that_lost_its_slot_is_a_failure_with_its_reason() {
        let of =
            |phase: &str| judge(&json!({"version": "v2", "formerVersion": "v1", "phase": phase, "reason": "no API"}));
        assert_eq!(of("good"), Trial::Passed("v2 has shown itself good".into()));
        assert_eq!(of("running"), Trial::Open("v2 is on trial".into()));
        assert_eq!(of("failed"), Trial::Failed("the node is back at v1: no API".into()));
    }
}
