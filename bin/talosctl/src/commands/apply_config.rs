//! `apply-config`: hands a machine configuration to nodes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ApplyConfigArgs {
    /// Fingerprints of server certificates to accept with --insecure (default: any)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    cert_fingerprint: Vec<String>,
    /// Patches to apply to the configuration before it is sent; JSON, YAML, or @file
    #[arg(short = 'p', long, value_name = "strings")]
    config_patch: Vec<String>,
    /// Checks and shows what would change without applying it
    #[arg(long)]
    dry_run: bool,
    /// File with the configuration
    #[arg(short, long, value_name = "string")]
    file: Option<PathBuf>,
    /// Applies to a node in maintenance mode, without client certificate
    #[arg(short, long)]
    insecure: bool,
    /// How the configuration takes effect
    #[arg(short, long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Time until a configuration applied with --mode=try is rolled back
    #[arg(long, value_name = "duration", default_value = "1m0s", value_parser = crate::cli::duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Auto,
    Interactive,
    NoReboot,
    Reboot,
    Staged,
    Try,
}

pub(crate) async fn run(_args: ApplyConfigArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::not_available("`talosctl apply-config`"))
}
