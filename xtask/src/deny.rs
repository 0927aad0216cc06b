//! Checks of dependencies with cargo-deny against `deny.toml`.
//!
//! Licences, bans and sources only need the package index and are part of `cargo xtask test`. Known vulnerabilities
//! need RustSec's database, a git repository on another host. They have a command of their own, which fails if the
//! database is unavailable instead of reporting a check that did not happen.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::paths::Paths;
use crate::step::{Step, Steps, command};

/// Built without optimisation: about a minute of CPU time once per machine, and a check takes seconds.
const VERSION: &str = "0.20.2";

/// cargo-deny's message for an unavailable database.
const NO_DATABASE: &str = "failed to fetch advisory database";

/// Checks licences, bans (including duplicate versions) and sources.
pub(crate) fn check(steps: &mut Steps, paths: &Paths) -> anyhow::Result<()> {
    steps.run("dependencies", |step| run(step, paths, &["licenses", "bans", "sources"]))
}

/// Checks for known vulnerabilities and yanked versions.
pub(crate) fn advisories(steps: &mut Steps, paths: &Paths) -> anyhow::Result<()> {
    steps.run("advisories", |step| {
        run(step, paths, &["advisories"]).map_err(|error| {
            if error.to_string().contains(NO_DATABASE) {
                error.context("the advisory database could not be fetched: nothing was checked")
            } else {
                error
            }
        })
    })
}

fn run(step: &mut Step, paths: &Paths, checks: &[&str]) -> anyhow::Result<()> {
    let program = program(step, paths)?;
    let mut deny = command(program);
    deny.current_dir(&paths.root).args(["--locked", "--color", "never", "check", "--hide-inclusion-graph"]);
    step.call(deny.args(checks))?;
    step.note(checks.join(", "));
    Ok(())
}

/// The program, built if this machine does not have the version.
fn program(step: &Step, paths: &Paths) -> anyhow::Result<PathBuf> {
    let root = paths.cache.join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin").join("cargo-deny");
    if !program.exists() {
        let version = format!("={VERSION}");
        let mut install = command("cargo");
        install.args(["install", "cargo-deny", "--locked", "--debug", "--version", &version, "--root"]).arg(&root);
        step.call(&mut install).context("building cargo-deny")?;
        if !program.exists() {
            bail!("{} is missing after its installation", program.display());
        }
    }
    Ok(program)
}
