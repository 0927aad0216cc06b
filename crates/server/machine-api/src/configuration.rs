//! What applying a configuration means: is it valid, what changes, can that be done while running.

use config::Documents;
use tonic::Status;
use wire::machine as api;
use wire::machine::apply_configuration_request::Mode;

use crate::machine::Machine;

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
        Some(current) => fixed_difference(current, &documents)?,
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

/// The fields that differ and cannot be taken up while running, as paths.
fn fixed_difference(current: &str, new: &Documents) -> Result<Vec<String>, Status> {
    let current = Documents::from_yaml(current.as_bytes()).map_err(invalid)?;
    let (Some(current), Some(new)) = (current.v1alpha1(), new.v1alpha1()) else { return Ok(Vec::new()) };
    Ok(config::diff::needs_reboot(current, new))
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
    let diff = config::diff::diff_texts(current, text);
    let diff = if diff.is_empty() { "No changes.\n".to_owned() } else { diff };
    format!("{how}\nConfig diff:\n{diff}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
