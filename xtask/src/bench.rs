//! `bench`: measures what the design has budgets for and keeps the table in the repository, with the machine it was
//! measured on. What cannot be measured says why in its row; nothing is estimated.
//!
//! Not here yet: the same Kubernetes processes started by hand for comparison, and calls through apid under load.
#![expect(clippy::disallowed_types, reason = "durations of real commands; no time is paused here")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::bundle::{self, Bundle};
use crate::cluster::RUN_PACKAGES;
use crate::host;
use crate::paths::Paths;
use crate::programs;
use crate::step::{Steps, command, say};

/// Name and network of the cluster that is made for measuring and removed afterwards.
const CLUSTER: &str = "bench";
const CIDR: &str = "10.99.0.0/24";

/// How long the cluster is left alone before memory is read.
const IDLE: Duration = Duration::from_secs(120);

/// How often a short command is run; the median counts.
const RUNS: usize = 9;

/// Our processes on a node: what they are called here, and their program inside the node.
const PROCESSES: &[(&str, &str)] =
    &[("machined", "usr/sbin/init"), ("apid", "usr/bin/apid"), ("trustd", "usr/bin/trustd")];

/// One line of the table.
#[derive(Debug)]
struct Row {
    what: String,
    budget: &'static str,
    measured: String,
}

/// Measures everything and writes `docs/benchmarks.md`.
pub(crate) fn bench(steps: &mut Steps, paths: &Paths) -> anyhow::Result<()> {
    if !host::is_root() {
        bail!("a cluster is made for measuring, which only root can: run this as root");
    }
    steps.run("packages for nodes", |step| host::install(step, RUN_PACKAGES))?;
    let programs = programs::build(steps, paths)?;
    programs::image(steps, paths, &programs)?;
    let bundle = bundle::build(steps, paths, &programs)?;
    let mut rows = vec![image_size(paths)?];
    rows.push(steps.run("gen config", |_| Ok(row("`gen config`", "100 ms", gen_config(&programs))))?);
    rows.extend(cluster(steps, paths, &programs, &bundle)?);
    for what in ["bare Kubernetes processes, for comparison", "API calls through apid at 1, 16 and 64 clients"] {
        rows.push(Row { what: what.to_owned(), budget: "", measured: "not measured yet".to_owned() });
    }
    let text = table(&rows, &machine());
    let path = paths.root.join("docs/benchmarks.md");
    std::fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
    say(&text);
    Ok(())
}

fn row(what: &str, budget: &'static str, measured: anyhow::Result<String>) -> Row {
    let measured = measured.unwrap_or_else(|error| format!("failed: {error:#}").replace('\n', " "));
    Row { what: what.to_owned(), budget, measured }
}

fn image_size(paths: &Paths) -> anyhow::Result<Row> {
    let image = paths.image();
    let size = std::fs::metadata(&image).with_context(|| format!("reading {}", image.display()))?.len();
    Ok(row("node image", "80 MB", Ok(format!("{}.{} MB", size / 1_000_000, size / 100_000 % 10))))
}

fn gen_config(programs: &Path) -> anyhow::Result<String> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        let output = command(programs.join("talosctl"))
            .args([
                "gen",
                "config",
                "bench",
                "https://10.0.0.1:6443",
                "--output",
                "-",
                "--output-types",
                "controlplane",
            ])
            .output()
            .context("starting talosctl")?;
        times.push(start.elapsed());
        if !output.status.success() {
            bail!("talosctl gen config: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    times.sort();
    Ok(format!("{} ms", times[RUNS / 2].as_millis()))
}

/// Makes a cluster, measures it and removes it, whatever happened.
fn cluster(steps: &mut Steps, paths: &Paths, programs: &Path, bundle: &Bundle) -> anyhow::Result<Vec<Row>> {
    let talosctl = programs.join("talosctl");
    let talosconfig = paths.out.join("bench-talosconfig");
    let start = Instant::now();
    let created = steps.run("create", |step| {
        step.show(
            command(&talosctl)
                .args(["cluster", "create", "--name", CLUSTER, "--cidr", CIDR, "--workers", "1", "--skip-kubeconfig"])
                .args(["--kubernetes-version", bundle::KUBERNETES])
                .arg("--image")
                .arg(paths.image())
                .arg("--bundle")
                .arg(&bundle.directory)
                .arg("--talosconfig")
                .arg(&talosconfig),
        )
    });
    let seconds = start.elapsed().as_secs_f64();
    let worked = created.is_ok();
    let mut rows = vec![row(
        "one control plane and one worker, to all nodes Ready",
        "42 s",
        created.map(|()| format!("{seconds:.1} s")),
    )];
    if worked {
        rows.extend(steps.run("two minutes idle", |_| {
            #[expect(clippy::disallowed_methods, reason = "measuring means waiting, and nothing else runs here")]
            std::thread::sleep(IDLE);
            Ok(memory())
        })?);
    }
    steps.run("destroy", |step| {
        step.show(command(&talosctl).args(["cluster", "destroy", "--name", CLUSTER]))?;
        let _ = std::fs::remove_file(&talosconfig);
        Ok(())
    })?;
    Ok(rows)
}

/// Resident memory of our processes, of all nodes on this machine: one row for each kind.
fn memory() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, program) in PROCESSES {
        let mut sizes: Vec<u64> = processes().filter(|(exe, _)| exe.ends_with(program)).map(|(_, kib)| kib).collect();
        sizes.sort_unstable();
        let found = sizes.iter().map(|kib| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024));
        let measured = found.collect::<Vec<_>>().join(", ");
        let measured = if measured.is_empty() { Err(anyhow::anyhow!("no such process")) } else { Ok(measured) };
        rows.push(row(&format!("{name}, resident, each node"), "40 MiB for all on a control plane", measured));
    }
    rows
}

/// Programs of all processes with their resident memory in KiB. Links of `/proc` name the program as its own node does.
fn processes() -> impl Iterator<Item = (std::path::PathBuf, u64)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let directory = entry.path();
        let exe = std::fs::read_link(directory.join("exe")).ok()?;
        let status = std::fs::read_to_string(directory.join("status")).ok()?;
        Some((exe, resident(&status)?))
    })
}

/// `VmRSS` of a process' status, in KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let processor = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({processor}), {memory} of memory, Linux {}", kernel.trim())
}

fn table(rows: &[Row], machine: &str) -> String {
    let mut text = format!(
        "# Benchmarks\n\nMeasured by `cargo xtask bench`, Kubernetes {}, on {machine}.\n\n\
         | what | budget | measured |\n|---|---|---|\n",
        bundle::KUBERNETES
    );
    for Row { what, budget, measured } in rows {
        let _ = writeln!(text, "| {what} | {budget} | {measured} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_a_status() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nThreads: 1\n"), Some(1234));
        assert_eq!(resident("Name:\tkernel thread\n"), None);
    }

    #[test]
    fn what_could_not_be_measured_says_why_in_its_row() {
        let rows = [row("a", "1 s", Err(anyhow::anyhow!("no\nroot"))), row("b", "", Ok("2 s".to_owned()))];
        let text = table(&rows, "a machine");
        assert!(text.contains("| a | 1 s | failed: no root |\n| b |  | 2 s |\n"), "{text}");
    }

    #[test]
    fn this_process_is_found_with_its_memory() {
        let own = std::env::current_exe().unwrap();
        assert!(processes().any(|(exe, kib)| exe == own && kib > 0));
    }
}
