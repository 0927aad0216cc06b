//! Cargo's own description of the workspace.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::step::command;

/// The output of `cargo metadata` for the packages of the workspace, without their dependencies.
pub(crate) fn read(root: &Path) -> anyhow::Result<Value> {
    let output = command("cargo")
        .current_dir(root)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("starting cargo")?;
    serde_json::from_slice(&output.stdout).context("reading cargo's metadata")
}
