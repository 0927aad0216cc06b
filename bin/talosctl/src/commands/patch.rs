//! `patch`: patches the configuration of nodes.

use std::path::{Path, PathBuf};

use clap::Args;
use client::Client;
use config::{Documents, Patch};

use super::change::ChangeArgs;
use crate::applying::{self, DryRun};
use crate::command_error::CommandError;
use crate::patches;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Patch; JSON, YAML, or @file; may be repeated
    #[arg(short, long, value_name = "stringArray")]
    patch: Vec<String>,
    /// File with a patch, applied after the others
    #[arg(long, value_name = "string")]
    patch_file: Option<PathBuf>,
}

pub(crate) async fn run(args: PatchArgs, session: &Session) -> Result<(), CommandError> {
    let file = args.patch_file.as_deref().filter(|path| *path != Path::new(""));
    let mut patches = patches::read(&args.patch)?;
    if let Some(file) = file {
        patches.push(patches::read_file(file)?);
    }
    if patches.is_empty() {
        return Err(CommandError::usage("no patch to apply").hint("give it with --patch or --patch-file"));
    }
    session.on_each_node(async |client, node| patch(&args.change, &patches, &client, node, session).await).await
}

async fn patch(
    args: &ChangeArgs,
    patches: &[Patch],
    client: &Client,
    node: &str,
    session: &Session,
) -> Result<(), CommandError> {
    let found = args.read(&client.to_node(node)).await?;
    let patched = patched(&found.text, patches)?;
    // Sent in any case: it confirms a configuration on trial.
    let text = patched.clone().unwrap_or(found.text);
    let sent = applying::apply_to_one(&client.to_nodes([node]), node, args.request(text), session).await;
    sent.map_err(|refusal| refusal.error)?;
    match (patched, args.dry_run()) {
        (None, _) => session.out.note("Apply was skipped: no changes detected."),
        (Some(_), DryRun::Yes) => {}
        (Some(_), DryRun::No) => session.out.note(format!("patched {} at the node {node}", found.name)),
    }
    Ok(())
}

/// The patched configuration; none where the patches change nothing. The node judges its values.
fn patched(text: &str, patches: &[Patch]) -> Result<Option<String>, CommandError> {
    let documents = Documents::unjudged(text.as_bytes())
        .map_err(|errors| CommandError::failed("reading the configuration of the node").caused_by(errors))?;
    let patched = patches::apply(&documents, patches)?;
    if patched.values() == documents.values() {
        return Ok(None);
    }
    let text = String::from_utf8(patched.raw().to_vec());
    text.map(Some).map_err(CommandError::wrap("reading the patched configuration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_changes_nothing_is_told_apart() {
        let text = "# mine\nversion: v1alpha1\nmachine:\n    type: worker\n    network:\n        hostname: a\n";
        let patch = |text: &str| vec![Patch::parse(text).unwrap()];
        let changed = patched(text, &patch("machine: {network: {hostname: b}}")).unwrap().unwrap();
        assert!(changed.contains("hostname: b"), "{changed}");
        assert_eq!(patched(text, &patch("machine: {network: {hostname: a}}")).unwrap(), None);
    }
}
