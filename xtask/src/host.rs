//! Prerequisites of the machine: Debian packages by `apt-get`, Rust targets by `rustup`. Nothing is done if all exist.

use anyhow::{Context as _, bail};

use crate::step::{Step, command};

/// Target of the programs on nodes and of our own tools: one build serves both.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";

/// Installs those of the Debian `packages` that are missing.
pub(crate) fn install(step: &mut Step, packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        step.note(format!("have {}", packages.join(" ")));
        return Ok(());
    }
    if !is_root() {
        bail!("these Debian packages are missing, and only root can install them: {}", missing.join(" "));
    }
    let install = |step: &Step| {
        step.call(
            command("apt-get")
                .args(["install", "--yes", "--no-install-recommends", "--quiet"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive")
                // Some packages would start a daemon; only their programs are wanted.
                .env("RUNLEVEL", "1")
                .env("SYSTEMD_OFFLINE", "1"),
        )
    };
    // Package lists may be missing or outdated; they are updated only then.
    if install(step).is_err() {
        step.call(command("apt-get").args(["update", "--quiet"]))?;
        install(step).with_context(|| format!("installing {}", missing.join(" ")))?;
    }
    step.note(format!("installed {}", missing.join(" ")));
    Ok(())
}

/// Adds the Rust target of the node if it is missing.
pub(crate) fn rust_target(step: &mut Step) -> anyhow::Result<()> {
    let have = command("rustup").args(["target", "list", "--installed"]).output().context("starting rustup")?;
    if String::from_utf8_lossy(&have.stdout).lines().any(|line| line == TARGET) {
        step.note(format!("have {TARGET}"));
        return Ok(());
    }
    step.call(command("rustup").args(["target", "add", TARGET]))?;
    step.note(format!("added {TARGET}"));
    Ok(())
}

fn installed(package: &str) -> bool {
    command("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;

    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
