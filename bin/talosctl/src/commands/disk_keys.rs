//! `disk-keys`: keys of encrypted volumes. Ours.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use client::Client;

use crate::command_error::CommandError;
use crate::local_file;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct DiskKeysArgs {
    #[command(subcommand)]
    command: DiskKeysCommand,
}

#[derive(Debug, Subcommand)]
enum DiskKeysCommand {
    /// Adds a recovery key to an open volume and prints it; the node keeps no copy
    AddRecovery(VolumeArgs),
    /// Lists the slots of a volume and the kinds of their keys
    List(MaybeInsecure),
    /// Seals the TPM's keys of an open volume anew, to this TPM and to what was measured at this start
    Rebind(VolumeArgs),
    /// Opens a volume with its recovery key
    Unlock(UnlockArgs),
}

#[derive(Debug, Args)]
struct VolumeArgs {
    volume: Volume,
}

#[derive(Debug, Args)]
struct MaybeInsecure {
    volume: Volume,
    /// Asks a node in maintenance mode, which accepts the client certificate of an administrator
    #[arg(short, long)]
    insecure: bool,
}

#[derive(Debug, Args)]
struct UnlockArgs {
    #[command(flatten)]
    at: MaybeInsecure,
    /// Fingerprints of server certificates to accept with --insecure (default: any)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    cert_fingerprint: Vec<String>,
    /// File with the key; - is the standard input
    #[arg(long, value_name = "string", default_value = "-")]
    key_file: PathBuf,
}

/// An encrypted volume.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Volume {
    #[value(name = "STATE")]
    State,
    #[value(name = "EPHEMERAL")]
    Ephemeral,
}

impl Volume {
    fn label(self) -> String {
        match self {
            Self::State => "STATE".to_owned(),
            Self::Ephemeral => "EPHEMERAL".to_owned(),
        }
    }
}

pub(crate) async fn run(args: DiskKeysArgs, session: &Session) -> Result<(), CommandError> {
    match args.command {
        DiskKeysCommand::AddRecovery(args) => add_recovery(args.volume, session).await,
        DiskKeysCommand::Rebind(args) => rebind(args.volume, session).await,
        DiskKeysCommand::List(args) if args.insecure => {
            session.on_insecure_nodes(&[], async |client| list(args.volume, client, session).await).await
        }
        DiskKeysCommand::List(args) => list(args.volume, session.client().await?, session).await,
        DiskKeysCommand::Unlock(args) => unlock(&args, session).await,
    }
}

async fn list(volume: Volume, client: Client, session: &Session) -> Result<(), CommandError> {
    let mut nodes = Replies::new(&session.out, &client);
    let mut table = Table::new(["NODE", "VOLUME", "OPEN", "SLOT", "KEY"]);
    let mut reasons = Vec::new();
    for (node, found) in nodes.take_all(client.volume_slots(volume.label()).await?) {
        for slot in &found.slots {
            let kind = if slot.kind.is_empty() { "unknown" } else { &slot.kind };
            let cells = [node.clone(), volume.label(), found.open.to_string(), slot.slot.to_string(), kind.to_owned()];
            table.row(cells);
        }
        if !found.reason.is_empty() {
            reasons.push(format!("{node}: {}", found.reason));
        }
    }
    nodes.print(&mut table)?;
    for reason in reasons {
        session.out.line(reason)?;
    }
    nodes.finish()
}

async fn add_recovery(volume: Volume, session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    for (node, added) in nodes.take_all(client.add_recovery_key(volume.label()).await?) {
        session.out.line(format!(
            "{node}: recovery key of {} (slot {}), shown this once:\n{}",
            volume.label(),
            added.slot,
            added.key
        ))?;
    }
    nodes.finish()
}

async fn rebind(volume: Volume, session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    for (node, rebound) in nodes.take_all(client.rebind_volume(volume.label()).await?) {
        let slots: Vec<String> = rebound.slots.iter().map(ToString::to_string).collect();
        session.out.line(format!("{node}: {} opens by its TPM again (slot {})", volume.label(), slots.join(", ")))?;
    }
    nodes.finish()
}

async fn unlock(args: &UnlockArgs, session: &Session) -> Result<(), CommandError> {
    if !args.cert_fingerprint.is_empty() && !args.at.insecure {
        return Err(CommandError::usage("--cert-fingerprint is for --insecure"));
    }
    let key = local_file::read(&args.key_file)?.trim().to_owned();
    if key.is_empty() {
        return Err(CommandError::usage("the key is empty"));
    }
    let open = async |client: Client| {
        let mut nodes = Replies::new(&session.out, &client);
        for (node, _) in nodes.take_all(client.unlock_volume(args.at.volume.label(), key.clone()).await?) {
            session.out.line(format!("{node}: {} is open", args.at.volume.label()))?;
        }
        nodes.finish()
    };
    if args.at.insecure {
        session.on_insecure_nodes(&args.cert_fingerprint, open).await
    } else {
        open(session.client().await?).await
    }
}
