//! `apply-config`: sends a machine configuration to nodes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use config::Documents;
use wire::machine::apply_configuration_request::Mode as WireMode;

use crate::applying::{self, DryRun};
use crate::command_error::CommandError;
use crate::local_file;
use crate::patches;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ApplyConfigArgs {
    /// Fingerprints of server certificates to accept with --insecure (default: any)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    cert_fingerprint: Vec<String>,
    /// Patches to apply to the configuration before it is sent; JSON, YAML, or @file
    #[arg(short = 'p', long, value_name = "strings")]
    config_patch: Vec<String>,
    /// Validates and shows the changes without applying them
    #[arg(long)]
    dry_run: bool,
    /// File with the configuration
    #[arg(short, long, value_name = "string")]
    file: Option<PathBuf>,
    /// Applies to a node in maintenance mode, without a client certificate
    #[arg(short, long)]
    insecure: bool,
    /// How the configuration takes effect
    #[arg(short, long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Time until a configuration applied with --mode=try is rolled back
    #[arg(long, value_name = "duration", default_value = "1m0s", value_parser = crate::arguments::duration)]
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

pub(crate) async fn run(args: ApplyConfigArgs, session: &Session) -> Result<(), CommandError> {
    let mode = match args.mode {
        Mode::Auto => WireMode::Auto,
        Mode::NoReboot => WireMode::NoReboot,
        Mode::Reboot => WireMode::Reboot,
        Mode::Staged => WireMode::Staged,
        Mode::Try => WireMode::Try,
        Mode::Interactive => return Err(CommandError::not_available("the interactive mode of apply-config")),
    };
    if !args.cert_fingerprint.is_empty() && !args.insecure {
        return Err(CommandError::usage("--cert-fingerprint is for --insecure"));
    }
    let path = args.file.as_deref().ok_or_else(|| {
        CommandError::usage("no configuration to apply").hint("give the file with --file; `-` reads standard input")
    })?;
    let data = patched(local_file::read(path)?, path, &args.config_patch)?;
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let request = applying::request(data, mode, dry_run, args.timeout);
    if !args.insecure {
        return applying::apply(&session.client().await?, request, session).await;
    }
    session
        .on_insecure_nodes(&args.cert_fingerprint, async |client| {
            applying::apply(&client, request.clone(), session).await
        })
        .await
}

/// The file unchanged, or with patches applied; the node judges the result.
fn patched(text: String, path: &Path, patches: &[String]) -> Result<String, CommandError> {
    if patches.is_empty() {
        return Ok(text);
    }
    let documents = Documents::unjudged(text.as_bytes())
        .map_err(|errors| CommandError::usage(format!("reading {}", path.display())).caused_by(errors))?;
    let patched = patches::apply(&documents, &patches::read(patches)?)?;
    String::from_utf8(patched.raw().to_vec()).map_err(CommandError::wrap("reading the patched configuration"))
}
