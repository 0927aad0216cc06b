//! Sending a machine configuration to nodes, for all commands that do.

use std::time::Duration;

use clap::ValueEnum;
use client::Client;
use wire::machine::apply_configuration_request::Mode as WireMode;
use wire::machine::{ApplyConfiguration, ApplyConfigurationRequest};

use crate::command_error::CommandError;
use crate::replies::Replies;
use crate::session::Session;

/// How a configuration takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Auto,
    NoReboot,
    Reboot,
    Staged,
    Try,
}

impl From<Mode> for WireMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::NoReboot => Self::NoReboot,
            Mode::Reboot => Self::Reboot,
            Mode::Staged => Self::Staged,
            Mode::Try => Self::Try,
        }
    }
}

/// Whether the change is only shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DryRun {
    Yes,
    No,
}

/// A request with a configuration's text. `try_timeout` is the time until mode `Try` is rolled back.
pub(crate) fn request(
    text: String,
    mode: WireMode,
    dry_run: DryRun,
    try_timeout: Duration,
) -> ApplyConfigurationRequest {
    ApplyConfigurationRequest {
        data: text.into_bytes().into(),
        mode: mode.into(),
        dry_run: dry_run == DryRun::Yes,
        try_mode_timeout: prost_types::Duration::try_from(try_timeout).ok(),
    }
}

/// Sends the configuration and prints the nodes' answers: warnings and, for a dry run, the difference.
pub(crate) async fn apply(
    client: &Client,
    request: ApplyConfigurationRequest,
    session: &Session,
) -> Result<(), CommandError> {
    let mut nodes = Replies::new(&session.out, client);
    let replies = nodes.take_all(client.apply_configuration(request).await?);
    let several = replies.len() > 1;
    for (node, reply) in replies {
        show(if several { Some(&node) } else { None }, &node, &reply, session);
    }
    nodes.finish()
}

/// A configuration that a node did not take.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Whether the configuration is to blame, so that another one may be taken.
    pub(crate) invalid: bool,
    pub(crate) error: CommandError,
}

/// Sends the configuration to the one node of the client.
pub(crate) async fn apply_to_one(
    client: &Client,
    node: &str,
    request: ApplyConfigurationRequest,
    session: &Session,
) -> Result<(), Refusal> {
    let invalid = |code| matches!(code, tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition);
    let replies = client.apply_configuration(request).await;
    let replies = replies.map_err(|error| Refusal { invalid: invalid(error.code()), error: error.into() })?;
    for reply in replies {
        match reply.result {
            Ok(reply) => show(None, node, &reply, session),
            Err(error) => {
                let refused = CommandError::failed("applying the configuration");
                return Err(Refusal { invalid: invalid(error.code), error: refused.caused_by(error) });
            }
        }
    }
    Ok(())
}

fn show(heading: Option<&str>, node: &str, reply: &ApplyConfiguration, session: &Session) {
    for warning in &reply.warnings {
        session.out.warning(format!("{node}: {warning}"));
    }
    if !reply.mode_details.is_empty() {
        let whose = heading.map(|node| format!("{node}:\n")).unwrap_or_default();
        // As the original does: standard output stays empty for scripts.
        session.out.note(format!("{whose}{}", reply.mode_details.trim_end()));
    }
}
