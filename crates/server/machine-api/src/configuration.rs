//! What applying a configuration means: is it valid, what changes, can that be done while running.

use std::collections::BTreeMap;

use config::Documents;
use serde_json::Value;
use similar::TextDiff;
use tonic::Status;
use wire::machine as api;
use wire::machine::apply_configuration_request::Mode;

use crate::machine::Machine;

/// Fields of `machine` that controllers take up while running. `cluster` and `debug` are taken up as a whole.
const LIVE_MACHINE: &[&str] = &[
    "time",
    "ca",
    "acceptedCAs",
    "certSANs",
    "install",
    "network",
    "nodeLabels",
    "nodeTaints",
    "sysfs",
    "sysctls",
    "logging",
    "controlPlane",
    "kubelet",
    "kernel",
    "registries",
    "pods",
    "seccompProfiles",
];
/// Fields of `machine.features` that controllers take up while running.
const LIVE_FEATURES: &[&str] = &["kubernetesTalosAPIAccess", "kubePrism", "hostDNS"];

const NO_REBOOT_YET: &str = "needs a reboot, which waits for reboots through the API";

/// Judges a configuration and applies it unless told not to.
pub(crate) async fn apply(
    machine: &Machine,
    request: api::ApplyConfigurationRequest,
) -> Result<api::ApplyConfiguration, Status> {
    let mode = Mode::try_from(request.mode).map_err(|_| Status::invalid_argument("unknown mode"))?;
    let text = String::from_utf8(request.data.to_vec())
        .map_err(|_| Status::invalid_argument("the configuration is not UTF-8 text"))?;
    let documents = Documents::from_yaml(text.as_bytes()).map_err(invalid)?;
    let warnings = config::validate(&documents, machine.platform.mode).into_result().map_err(invalid)?;
    let warnings = warnings.iter().map(ToString::to_string).collect();

    let current = machine.config.current();
    let fixed = match &current {
        Some(current) => live_difference(current, &text)?,
        None => Vec::new(),
    };
    let chosen = choose(mode, &fixed, current.is_some());
    let details = describe(current.as_deref(), &text, &chosen);
    if request.dry_run {
        let mode = chosen.as_ref().map_or(Mode::Reboot, |mode| *mode);
        let summary = format!("Dry run summary:\n{details}");
        return Ok(api::ApplyConfiguration { mode: mode.into(), mode_details: summary, warnings, metadata: None });
    }
    let chosen = chosen?;
    machine.config.apply(text).await.map_err(|error| {
        Status::internal(format!("persisting the configuration: {}", stdx::error_chain(error.as_ref())))
    })?;
    tracing::info!(mode = ?chosen, "applied a configuration");
    Ok(api::ApplyConfiguration { mode: chosen.into(), mode_details: details, warnings, metadata: None })
}

fn invalid(errors: config::ConfigErrors) -> Status {
    Status::invalid_argument(format!("configuration is not valid: {errors}"))
}

/// The mode that will be used, or why the one that was asked for cannot be.
fn choose(mode: Mode, fixed: &[String], running: bool) -> Result<Mode, Status> {
    match mode {
        Mode::Auto | Mode::NoReboot if fixed.is_empty() => Ok(Mode::NoReboot),
        // A node in maintenance mode has nothing running that would have to be restarted.
        Mode::Reboot if !running => Ok(Mode::NoReboot),
        Mode::NoReboot => {
            let why = format!("configuration cannot be applied without a reboot: {} changed", fixed.join(", "));
            Err(Status::invalid_argument(why))
        }
        Mode::Auto => Err(Status::unimplemented(format!("a change of {} {NO_REBOOT_YET}", fixed.join(", ")))),
        Mode::Reboot => Err(Status::unimplemented(format!("mode reboot {NO_REBOOT_YET}"))),
        Mode::Staged => Err(Status::unimplemented(format!("mode staged {NO_REBOOT_YET}"))),
        Mode::Try => Err(Status::unimplemented("mode try waits for configurations that undo themselves")),
    }
}

fn describe(current: Option<&str>, text: &str, chosen: &Result<Mode, Status>) -> String {
    let how = match chosen {
        Ok(_) if current.is_none() => "Applied configuration to a node in maintenance mode".to_owned(),
        Ok(_) => "Applied configuration without a reboot".to_owned(),
        Err(status) => format!("Refused: {}", status.message()),
    };
    let Some(current) = current else { return how };
    let diff = TextDiff::from_lines(current, text);
    let diff = diff.unified_diff().context_radius(3).header("current", "new").to_string();
    let diff = if diff.is_empty() { "No changes.\n".to_owned() } else { diff };
    format!("{how}\nConfig diff:\n{diff}")
}

/// The fields that differ and cannot be taken up while running, as paths.
///
/// # Errors
/// One of the texts is not YAML.
pub fn live_difference(old: &str, new: &str) -> Result<Vec<String>, Status> {
    let (mut old, mut new) = (fixed_fields(old)?, fixed_fields(new)?);
    let mut paths: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| old.remove(path) != new.remove(path));
    Ok(paths)
}

/// The fields of the root document that are fixed while running, by path. Other documents are live.
fn fixed_fields(text: &str) -> Result<BTreeMap<String, Value>, Status> {
    let documents = config::yaml::to_values(text).map_err(invalid)?;
    let mut fields = BTreeMap::new();
    let is_root = |document: &&Value| document.get("kind").is_none();
    for (key, value) in documents.iter().find(is_root).and_then(Value::as_object).into_iter().flatten() {
        match key.as_str() {
            "cluster" | "debug" | "version" | "persist" => {}
            "machine" => machine_fields(value, &mut fields),
            _ => drop(fields.insert(key.clone(), value.clone())),
        }
    }
    Ok(fields)
}

fn machine_fields(machine: &Value, fields: &mut BTreeMap<String, Value>) {
    for (key, value) in machine.as_object().into_iter().flatten() {
        match key.as_str() {
            live if LIVE_MACHINE.contains(&live) => {}
            "features" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if !LIVE_FEATURES.contains(&key.as_str()) {
                        fields.insert(format!("machine.features.{key}"), value.clone());
                    }
                }
            }
            _ => drop(fields.insert(format!("machine.{key}"), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "version: v1alpha1\nmachine:\n  type: worker\n  token: a\n  kubelet: {}\n  features:\n    \
                        rbac: true\n    kubePrism: {enabled: true}\ncluster: {id: x}\n";

    #[test]
    fn live_fields_are_no_difference() {
        let new = BASE.replace("kubelet: {}", "kubelet: {image: y}").replace("enabled: true", "enabled: false");
        let new = format!("{}debug: true\n---\nkind: KmsgLogConfig\nname: a\n", new.replace("id: x", "id: z"));
        assert_eq!(live_difference(BASE, &new).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn fixed_fields_are_named_by_path() {
        let new = BASE.replace("type: worker", "type: controlplane").replace("rbac: true", "rbac: false");
        let new = new.replace("  token: a\n", "  env: {A: b}\n");
        let expected = ["machine.env", "machine.features.rbac", "machine.token", "machine.type"];
        assert_eq!(live_difference(BASE, &new).unwrap(), expected);
    }

    #[test]
    fn order_and_layout_are_no_difference() {
        let new = "cluster: {id: x}\nmachine: {features: {kubePrism: {enabled: true}, rbac: true}, kubelet: {}, \
                   token: a, type: worker}\nversion: v1alpha1\n";
        assert_eq!(live_difference(BASE, new).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn each_mode_is_chosen_or_refused_for_its_reason() {
        let fixed = ["machine.type".to_owned()];
        assert_eq!(choose(Mode::Auto, &[], true).unwrap(), Mode::NoReboot);
        assert_eq!(choose(Mode::NoReboot, &[], true).unwrap(), Mode::NoReboot);
        assert_eq!(choose(Mode::Reboot, &[], false).unwrap(), Mode::NoReboot);
        let code = |mode| choose(mode, &fixed, true).unwrap_err().code();
        assert_eq!(code(Mode::NoReboot), tonic::Code::InvalidArgument);
        for mode in [Mode::Auto, Mode::Reboot, Mode::Staged, Mode::Try] {
            assert_eq!(code(mode), tonic::Code::Unimplemented);
        }
    }
}
