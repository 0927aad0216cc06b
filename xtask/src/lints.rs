//! Lints, while the tests are compiled: clippy's driver stands in for the compiler, as `cargo clippy` has it, but for a build
//! instead of a check. A check would compile all dependencies once more, for nothing but their metadata.

use std::process::Command;

use crate::paths::Paths;
use crate::step::{Steps, command};

/// clippy's driver, a component of the toolchain.
const DRIVER: &str = "clippy-driver";
/// What `cargo clippy` gives its driver: arguments with this after each.
const ARGUMENTS: &str = "CLIPPY_ARGS";
const SEPARATOR: &str = "__CLIPPY_HACKERY__";
const DENY: [&str; 2] = ["--deny", "warnings"];

/// What compiles the workspace. What one has compiled is not used by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// The compiler with clippy's lints; a warning is an error.
    Linted,
    Plain,
}

impl Tool {
    /// `cargo` in the workspace.
    pub(crate) fn cargo(self, paths: &Paths) -> Command {
        let mut cargo = command("cargo");
        cargo.current_dir(&paths.root);
        if self == Self::Linted {
            let arguments: String = DENY.iter().flat_map(|argument| [argument, SEPARATOR]).collect();
            cargo.env("RUSTC_WORKSPACE_WRAPPER", DRIVER).env(ARGUMENTS, arguments);
        }
        cargo
    }
}

/// Compiles all programs and tests of the workspace with lints.
pub(crate) fn check(steps: &mut Steps, paths: &Paths) -> anyhow::Result<()> {
    let mut cargo = Tool::Linted.cargo(paths);
    cargo.args(["test", "--locked", "--workspace", "--no-run"]);
    steps.run("lints", |step| step.show(&mut cargo))
}
