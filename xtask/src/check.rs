//! `test`: everything that CI runs. Every part runs even if an earlier one failed, so that one run tells all; the tools'
//! own output is shown as it is.

use std::path::Path;

use anyhow::bail;

use crate::bundle::{self, Kubernetes};
use crate::cluster::{MACHINE_PACKAGES, RUN_PACKAGES};
use crate::deny;
use crate::go_client;
use crate::host;
use crate::lints::{self, Tool};
use crate::paths::Paths;
use crate::programs;
use crate::step::{Steps, say};

/// Debian packages that tests start programs of.
const TEST_PACKAGES: &[&str] = &[
    "containerd",
    "containernetworking-plugins",
    "etcd-server",
    "etcd-client",
    "iptables",
    "squashfs-tools",
    "dosfstools",
    "e2fsprogs",
    "util-linux",
    "xfsprogs",
    "cryptsetup-bin",
    "xorriso",
    "busybox-static",
    // Clients of D-Bus.
    "systemd",
    "dbus-bin",
    "libglib2.0-bin",
];

/// Runs all checks and tests.
pub(crate) fn test(steps: &mut Steps, paths: &Paths) -> anyhow::Result<()> {
    if !host::is_root() {
        bail!("tests make namespaces, mounts and nodes: run this as root");
    }
    let mut failed = Vec::new();
    let mut part = |name: &str, result: anyhow::Result<()>| {
        if let Err(error) = result {
            say(&format!("{name}: {error:#}"));
            failed.push(name.to_owned());
        }
    };
    steps.run("packages", |step| host::install(step, programs::BUILD_PACKAGES))?;
    steps.run("packages for nodes", |step| host::install(step, RUN_PACKAGES))?;
    steps.run("packages for virtual machines", |step| host::install(step, MACHINE_PACKAGES))?;
    steps.run("packages for tests", |step| host::install(step, TEST_PACKAGES))?;
    part("format", format(steps, paths));
    part("dependencies", deny::check(steps, paths));
    let lints = lints::check(steps, paths);
    // What the lints compiled is what the tests run; without it they are compiled by the compiler alone.
    let tool = if lints.is_ok() { Tool::Linted } else { Tool::Plain };
    part("lints", lints);
    part("unit tests and layer check", unit_tests(steps, paths, tool));
    let built = programs::build(steps, paths)
        .and_then(|programs| programs::image(steps, paths, &programs).map(|()| programs))
        .map_err(|error| error.context("programs and image"));
    match built {
        Ok(programs) => {
            part("machine tests", machine_tests(steps, paths, &programs, tool, None));
            part("system tests", system_tests(steps, paths, &programs, tool));
        }
        Err(error) => part("system tests", Err(error)),
    }
    if failed.is_empty() {
        say("all checks passed");
        Ok(())
    } else {
        bail!("failed: {}", failed.join(", "))
    }
}

fn unit_tests(steps: &mut Steps, paths: &Paths, tool: Tool) -> anyhow::Result<()> {
    let mut cargo = tool.cargo(paths);
    cargo.args(["test", "--locked", "--workspace", "--exclude", "tests", "--no-fail-fast"]);
    steps.run("unit tests and layer check", |step| step.show(&mut cargo))
}

/// What loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CutOf {
    Install,
    Upgrade,
}

impl CutOf {
    /// Of the machine tests, the check that cuts it.
    const fn check(self) -> &'static str {
        match self {
            Self::Install => "installation_lost_power",
            Self::Upgrade => "upgrade_lost_power",
        }
    }
}

/// How often the installation or the upgrade of a machine loses power, and where.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct PowerCuts {
    /// What is cut
    #[arg(long, value_enum, default_value_t = CutOf::Install)]
    of: CutOf,
    /// How many cuts to try, one in each of equal parts of the writes
    #[arg(long, default_value_t = 100)]
    cuts: u64,
    /// Seed of the first one, which decides the write and what is left of those before it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first cut that is tried, counted from 0: a run that was ended goes on
    #[arg(long, default_value_t = 0)]
    from: u64,
}

/// Cuts the power of installations or upgrades, as the machine tests do, with what this builds.
pub(crate) fn power_cuts(steps: &mut Steps, paths: &Paths, cuts: PowerCuts) -> anyhow::Result<()> {
    steps.run("packages for virtual machines", |step| host::install(step, MACHINE_PACKAGES))?;
    steps.run("packages for tests", |step| host::install(step, TEST_PACKAGES))?;
    let programs = programs::build(steps, paths)?;
    programs::image(steps, paths, &programs)?;
    machine_tests(steps, paths, &programs, Tool::Plain, Some(cuts))
}

/// Tests on virtual machines, without Kubernetes. Of them the power cuts alone, if their number is asked for.
fn machine_tests(
    steps: &mut Steps,
    paths: &Paths,
    programs: &Path,
    tool: Tool,
    cuts: Option<PowerCuts>,
) -> anyhow::Result<()> {
    let mut cargo = tool.cargo(paths);
    cargo
        .args(["test", "--locked", "--workspace", "--test", "machine", "--no-fail-fast"])
        .env("TEST_PROGRAMS", programs)
        .env("TEST_BOOT", &paths.out);
    if let Some(cuts) = cuts {
        let PowerCuts { of, cuts, seed, from } = cuts;
        cargo.args(["--", of.check()]);
        for (name, value) in [("TEST_CUTS", cuts), ("TEST_CUT_SEED", seed), ("TEST_CUTS_FROM", from)] {
            cargo.env(name, value.to_string());
        }
    }
    steps.run("machine tests", |step| step.show(&mut cargo))
}

/// The system tests find what they test by these variables. They run with one version of Kubernetes: what differs in the
/// others is rendered and compared, and the oldest is run by hand (`docs/kubernetes-versions.md`).
fn system_tests(steps: &mut Steps, paths: &Paths, programs: &Path, tool: Tool) -> anyhow::Result<()> {
    let bundle = bundle::build(steps, paths, programs, Kubernetes::default())?;
    let go_client = go_client::build(steps, paths, programs)?;
    let mut cargo = tool.cargo(paths);
    cargo
        // The whole workspace again, as other features of the dependencies would mean to compile them again.
        .args(["test", "--locked", "--workspace", "--test", "system", "--no-fail-fast", "--", "--test-threads", "1"])
        .env("TEST_PROGRAMS", programs)
        .env("TEST_IMAGE", paths.image())
        .env("TEST_BOOT", &paths.out)
        .env("TEST_BUNDLE", &bundle.directory)
        .env("TEST_KUBECTL", &bundle.kubectl)
        .env("TEST_GO_CLIENT", &go_client);
    steps.run("system tests", |step| step.show(&mut cargo))
}

fn format(steps: &mut Steps, paths: &Paths) -> anyhow::Result<()> {
    steps.run("format", |step| step.show(Tool::Plain.cargo(paths).args(["fmt", "--all", "--check"])))
}
