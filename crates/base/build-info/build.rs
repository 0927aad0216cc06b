//! Finds out the commit, its date and the compiler. The same commit gives the same values, whenever and wherever it is built.
//!
//! `BUILD_COMMIT` and `SOURCE_DATE_EPOCH` (seconds; <https://reproducible-builds.org/specs/source-date-epoch/>) win over what
//! git says. Sources without either are built all the same.

#[path = "src/date.rs"]
mod date;

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/date.rs");
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // It grows with each commit and checkout. Cargo takes a path that is not there for one that changed.
    if let Some(log) = run("git", &["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = variable("BUILD_COMMIT").or_else(|| run("git", &["rev-parse", "--short=12", "HEAD"]));
    let seconds = variable("SOURCE_DATE_EPOCH").or_else(|| run("git", &["log", "-1", "--format=%ct"]));
    let date = seconds.and_then(|seconds| seconds.parse().ok()).map(date::utc);
    let compiler = variable("RUSTC").and_then(|rustc| run(&rustc, &["--version"]));
    let compiler = compiler.map(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" "));
    let unknown = || "unknown".to_owned();
    for (name, value) in [("COMMIT", commit), ("DATE", date), ("COMPILER", compiler)] {
        println!("cargo::rustc-env=BUILT_{name}={}", value.unwrap_or_else(unknown));
    }
}

#[expect(clippy::disallowed_methods, reason = "a build script is told by its environment what to build")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a program printed, if it succeeded.
#[expect(clippy::disallowed_methods, reason = "a tool of the build, not on a node")]
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
