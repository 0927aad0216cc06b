//! What applying a configuration means: is it valid, what changes, can that be done while running.

use config::Documents;
use tonic::Status;
use wire::machine as api;
use wire::machine::apply_configuration_request::Mode;

use crate::machine::Machine;

const NO_REBOOT_YET: &str = "needs a reboot, which waits for reboots through the API";

/// How much of a difference a refusal quotes: it travels in a header, of which clients take 16 KiB with everything in it
/// that is not a letter at three times its size.
const QUOTED: usize = 3 << 10;

/// Who brings a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody with the role for it.
    Admin,
    /// Somebody who came through the door of maintenance mode, which asks nobody who they are.
    Anybody,
}

/// Judges a configuration and applies it unless told not to. One at a time.
pub(crate) async fn apply(
    machine: &Machine,
    caller: Caller,
    request: api::ApplyConfigurationRequest,
) -> Result<api::ApplyConfiguration, Status> {
    let current = machine.config.current();
    // The door closes a moment after the first configuration came.
    if current.is_some() && caller == Caller::Anybody {
        return Err(Status::permission_denied("the machine has a configuration: changing it needs role os:admin"));
    }
    let mode = Mode::try_from(request.mode).map_err(|_| Status::invalid_argument("unknown mode"))?;
    let text = String::from_utf8(request.data.to_vec())
        .map_err(|_| Status::invalid_argument("the configuration is not UTF-8 text"))?;
    let documents = Documents::from_yaml(text.as_bytes()).map_err(invalid)?;
    let warnings = config::validate(&documents, machine.capabilities()?.mode.into()).into_result().map_err(invalid)?;
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    if documents.v1alpha1().is_none() {
        let why = "the configuration has no root document (version: v1alpha1), without which a machine cannot run";
        return Err(Status::invalid_argument(why));
    }

    let fixed = match &current {
        Some(current) => fixed_difference(current, &documents)?,
        None => Vec::new(),
    };
    let running = if current.is_some() { Running::Configured } else { Running::Maintenance };
    let chosen = choose(mode, &fixed, running);
    if request.dry_run {
        let details = describe(current.as_deref(), &text, &chosen, Done::NotYet);
        let mode = chosen.as_ref().map_or(Mode::Reboot, |mode| *mode);
        let summary = format!("Dry run summary:\n{details}");
        return Ok(api::ApplyConfiguration { mode: mode.into(), mode_details: summary, warnings, metadata: None });
    }
    let chosen = chosen.map_err(|refused| with_difference(&refused, current.as_deref(), &text))?;
    let details = describe(current.as_deref(), &text, &Ok(chosen), Done::Applied);
    machine.config.apply(text).await.map_err(|error| {
        Status::internal(format!("persisting the configuration: {}", stdx::error_chain(error.as_ref())))
    })?;
    tracing::info!(mode = ?chosen, "applied a configuration");
    for warning in &warnings {
        tracing::warn!(warning, "configuration");
    }
    Ok(api::ApplyConfiguration { mode: chosen.into(), mode_details: details, warnings, metadata: None })
}

/// A refusal of a change, with what would have changed.
fn with_difference(refused: &Status, current: Option<&str>, text: &str) -> Status {
    let difference = current.map(|current| config::diff::diff_texts(current, text)).unwrap_or_default();
    if difference.is_empty() || refused.code() != tonic::Code::InvalidArgument {
        return refused.clone();
    }
    let mut quoted = String::new();
    for line in difference.lines() {
        if quoted.len() + line.len() > QUOTED {
            quoted.push_str("...\n");
            break;
        }
        quoted.push_str(line);
        quoted.push('\n');
    }
    Status::new(refused.code(), format!("{}\nConfig diff:\n{quoted}", refused.message()))
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

/// What a configuration comes upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    /// A machine that waits for its first one.
    Maintenance,
    /// A machine that has one.
    Configured,
}

/// The mode that will be used, or why the one that was asked for cannot be.
fn choose(mode: Mode, fixed: &[String], running: Running) -> Result<Mode, Status> {
    match (running, mode) {
        // A node in maintenance mode has nothing running that would have to be restarted.
        (Running::Maintenance, Mode::Auto | Mode::Reboot) => Ok(Mode::NoReboot),
        (Running::Maintenance, Mode::NoReboot | Mode::Staged) => {
            let why = format!("mode {} is not there in maintenance mode: use auto, reboot or try", name(mode));
            Err(Status::invalid_argument(why))
        }
        (Running::Configured, Mode::Auto | Mode::NoReboot) if fixed.is_empty() => Ok(Mode::NoReboot),
        (Running::Configured, Mode::NoReboot) => {
            let why = format!("configuration cannot be applied without a reboot: {} changed", fixed.join(", "));
            Err(Status::invalid_argument(why))
        }
        (Running::Configured, Mode::Auto) => {
            Err(Status::unimplemented(format!("a change of {} {NO_REBOOT_YET}", fixed.join(", "))))
        }
        (Running::Configured, Mode::Reboot | Mode::Staged) => {
            Err(Status::unimplemented(format!("mode {} {NO_REBOOT_YET}", name(mode))))
        }
        (_, Mode::Try) => Err(Status::unimplemented("mode try waits for configurations that undo themselves")),
    }
}

fn name(mode: Mode) -> String {
    mode.as_str_name().to_lowercase().replace('_', "-")
}

/// Whether what is described was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Applied,
    NotYet,
}

fn describe(current: Option<&str>, text: &str, chosen: &Result<Mode, Status>, done: Done) -> String {
    let skipped = if done == Done::NotYet { " (skipped in dry-run)" } else { "" };
    let how = match chosen {
        Ok(_) if current.is_none() => format!("Applied configuration to a node in maintenance mode{skipped}"),
        Ok(_) => format!("Applied configuration without a reboot{skipped}"),
        Err(status) => format!("Refused: {}", status.message()),
    };
    let Some(current) = current else { return how };
    let diff = config::diff::diff_texts(current, text);
    let diff = if diff.is_empty() { "No changes.\n".to_owned() } else { diff };
    format!("{how}\nConfig diff:\n{diff}")
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn each_mode_is_chosen_or_refused_for_its_reason() {
        let fixed = ["machine.type".to_owned()];
        assert_eq!(choose(Mode::Auto, &[], Running::Configured).unwrap(), Mode::NoReboot);
        assert_eq!(choose(Mode::NoReboot, &[], Running::Configured).unwrap(), Mode::NoReboot);
        let code = |mode| choose(mode, &fixed, Running::Configured).unwrap_err().code();
        assert_eq!(code(Mode::NoReboot), Code::InvalidArgument);
        for mode in [Mode::Auto, Mode::Reboot, Mode::Staged, Mode::Try] {
            assert_eq!(code(mode), Code::Unimplemented);
        }
    }

    #[test]
    fn maintenance_mode_takes_auto_and_reboot() {
        assert_eq!(choose(Mode::Auto, &[], Running::Maintenance).unwrap(), Mode::NoReboot);
        assert_eq!(choose(Mode::Reboot, &[], Running::Maintenance).unwrap(), Mode::NoReboot);
        for (mode, expected) in [
            (Mode::NoReboot, Code::InvalidArgument),
            (Mode::Staged, Code::InvalidArgument),
            (Mode::Try, Code::Unimplemented),
        ] {
            assert_eq!(choose(mode, &[], Running::Maintenance).unwrap_err().code(), expected, "{mode:?}");
        }
    }

    #[test]
    fn a_dry_run_does_not_claim_to_have_applied_anything() {
        let of = |done| describe(Some("a\n"), "a\n", &Ok(Mode::NoReboot), done);
        let applied = "Applied configuration without a reboot";
        assert_eq!(of(Done::Applied), format!("{applied}\nConfig diff:\nNo changes.\n"));
        assert_eq!(of(Done::NotYet), format!("{applied} (skipped in dry-run)\nConfig diff:\nNo changes.\n"));
    }

    #[test]
    fn a_refusal_quotes_no_more_than_a_header_holds() {
        let refused = Status::invalid_argument("machine.type changed");
        let lines: String = (0..10_000).map(|n| format!("# {n} {n} {n}\n")).collect();
        let status = with_difference(&refused, Some("a\n"), &lines);
        assert!(status.message().starts_with("machine.type changed\nConfig diff:\n--- a\n"), "{status:?}");
        assert!(status.message().ends_with("...\n") && status.message().len() < 2 * QUOTED, "{status:?}");
    }
}
