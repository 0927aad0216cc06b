//! `bench`: measures everything with a budget and keeps the table in the repository, with the machine that it was
//! measured on. A failed measurement shows its reason in its row; nothing is estimated.
#![expect(clippy::disallowed_types, reason = "durations of real commands; no time is paused here")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::bundle::{self, Bundle, Kubernetes};
use crate::cluster::{MACHINE_PACKAGES, RUN_PACKAGES, state};
use crate::host;
use crate::paths::Paths;
use crate::programs;
use crate::step::{Step, Steps, command, say};

mod installation;
mod memory;
mod virtual_machine;

/// The measured version.
const KUBERNETES: Kubernetes = Kubernetes::V1_30;

/// Name and network of the cluster that is made for measuring and removed afterwards.
const CLUSTER: &str = "bench";
const CIDR: &str = "10.9.0.0/24";

/// What `create --timings` says when these are reached.
const ALL_READY: &str = "all nodes Ready";
const DNS_ANSWERS: &str = "cluster DNS";

/// How long the cluster is left alone before memory is read.
const IDLE: Duration = Duration::from_secs(120);

/// How often a short command is run; the median counts. One search for primes takes a third of it, another three times it.
const RUNS: usize = 41;

/// How long each load is put on the API, in seconds.
const LOAD: &str = "5";

/// Debian packages for starting Kubernetes by hand, and for measurements in comparison.
const BARE_PACKAGES: &[&str] = &["containerd", "etcd-server", "openssl", "iproute2", "iptables", "util-linux"];

const BARE: &str = include_str!("../bench/bare.sh");

/// Directories that the programs started by hand expect.
const BARE_DIRECTORIES: &[&str] = &["/etc/cni", "/var/lib/cni", "/var/lib/kubelet"];

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
    let bundle = bundle::build(steps, paths, &programs, KUBERNETES)?;
    let mut rows = vec![image_size(paths)?];
    steps.run("packages for comparisons", |step| host::install(step, BARE_PACKAGES))?;
    steps.run("packages for virtual machines", |step| host::install(step, MACHINE_PACKAGES))?;
    rows.extend(steps.run("gen config", |_| Ok(gen_config(&programs)))?);
    let bare = steps.run("the same processes by hand", |step| Ok(bare(step, paths, &bundle)))?;
    let ready_by_hand = bare.as_ref().ok().map(|times| times.ready);
    let by_hand = bare.map(|times| times.to_string());
    rows.push(row("the same Kubernetes processes started by hand, one node, to Ready", "", by_hand));
    rows.extend(cluster(steps, paths, &programs, &bundle, ready_by_hand)?);
    let mut booted = virtual_machine::rows(steps, paths, &programs)?;
    booted.extend(installation::rows(steps, paths, &programs, &bundle)?);
    let text = table(&rows, &booted, &machine());
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

/// Most of it is the search for the primes of one RSA key: the same search by another program says how fast the machine is.
fn gen_config(programs: &Path) -> [Row; 2] {
    let mut talosctl = command(programs.join("talosctl"));
    talosctl.args(["gen", "config", "bench", "https://10.0.0.1:6443", "--output", "-"]);
    talosctl.args(["--output-types", "controlplane"]);
    let mut openssl = command("openssl");
    openssl.args(["genrsa", "2048"]);
    let name = |what: &str| format!("{what} (median of {RUNS})");
    [
        row(&name("`gen config`"), "100 ms", median(talosctl)),
        row(&name("`openssl genrsa 2048`, for comparison"), "", median(openssl)),
    ]
}

fn median(mut program: std::process::Command) -> anyhow::Result<String> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        let output = program.output().with_context(|| format!("starting {program:?}"))?;
        times.push(start.elapsed());
        if !output.status.success() {
            bail!("{program:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    times.sort();
    Ok(format!("{} ms", times[RUNS / 2].as_millis()))
}

/// Creates a cluster, measures it and removes it in any case.
fn cluster(
    steps: &mut Steps,
    paths: &Paths,
    programs: &Path,
    bundle: &Bundle,
    ready_by_hand: Option<f64>,
) -> anyhow::Result<Vec<Row>> {
    let talosctl = programs.join("talosctl");
    let talosconfig = paths.out.join("bench-talosconfig");
    let created = steps.run("create", |step| {
        step.call(
            command(&talosctl)
                .args(["cluster", "create", "--name", CLUSTER, "--cidr", CIDR, "--workers", "1", "--skip-kubeconfig"])
                .args(["--kubernetes-version", bundle.version, "--timings"])
                .arg("--image")
                .arg(paths.image())
                .arg("--bundle")
                .arg(&bundle.directory)
                .arg("--talosconfig")
                .arg(&talosconfig),
        )
    });
    if let Err(error) = &created {
        say(&format!("{error:#}"));
    }
    let worked = created.is_ok();
    let output = created.unwrap_or_else(|error| format!("{error:#}"));
    let ready = reached(&output, ALL_READY);
    let mut rows = vec![
        row(
            "one control plane and one worker, create to all nodes Ready",
            "15 s, 0.6 times by hand",
            ready.map(|seconds| match ready_by_hand {
                Some(by_hand) => format!("{seconds:.1} s, {:.1} times", seconds / by_hand),
                None => format!("{seconds:.1} s"),
            }),
        ),
        row(
            "the same, create to answers of the cluster's DNS",
            "20 s",
            reached(&output, DNS_ANSWERS).map(|seconds| format!("{seconds:.1} s")),
        ),
    ];
    if worked {
        rows.extend(steps.run("two minutes idle", |_| {
            #[expect(clippy::disallowed_methods, reason = "measuring means waiting, and nothing else runs here")]
            std::thread::sleep(IDLE);
            Ok(memory::rows(CLUSTER))
        })?);
        rows.extend(steps.run("API calls", |step| {
            Ok(api(step, programs, &talosconfig)
                .unwrap_or_else(|error| vec![row("API calls through apid", "p99 2 ms", Err(error))]))
        })?);
    }
    // A cluster that was refused left nothing.
    if state(CLUSTER)?.exists() {
        steps.run("destroy", |step| step.show(command(&talosctl).args(["cluster", "destroy", "--name", CLUSTER])))?;
    }
    let _ = std::fs::remove_file(&talosconfig);
    Ok(rows)
}

/// When `create --timings` says that something was reached, in seconds.
fn reached(output: &str, event: &str) -> anyhow::Result<f64> {
    let lines = output.lines().filter(|line| line.trim_end().ends_with(event));
    let mut times = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
    times.next().with_context(|| format!("create did not say when it reached {event:?}: {output}"))
}

/// Starts Kubernetes by hand in namespaces that end with the script.
fn bare(step: &Step, paths: &Paths, bundle: &Bundle) -> anyhow::Result<BareTimes> {
    let script = paths.out.join("bare.sh");
    std::fs::write(&script, BARE).with_context(|| format!("writing {}", script.display()))?;
    let work = paths.out.join("bare");
    let missing: Vec<&&str> = BARE_DIRECTORIES.iter().filter(|path| !Path::new(path).exists()).collect();
    let programs = bundle.programs.as_path();
    let output = step.call(
        command("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts", "--ipc"])
            .arg("bash")
            .arg(&script)
            .arg(programs)
            .arg(&work),
    );
    for path in missing {
        // Directories made for the script, empty now that its mounts are removed.
        let _ = std::fs::remove_dir(path);
    }
    let _ = std::fs::remove_dir(&work);
    bare_times(&output?)
}

/// Seconds until something was so, for the processes started by hand.
#[derive(Debug, PartialEq)]
struct BareTimes {
    api: f64,
    registered: f64,
    ready: f64,
}

impl std::fmt::Display for BareTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { api, registered, ready } = self;
        write!(f, "{ready:.1} s (API after {api:.1} s, registered after {registered:.1} s)")
    }
}

/// The last output of the script.
fn bare_times(output: &str) -> anyhow::Result<BareTimes> {
    let last = output.lines().last().unwrap_or_default();
    let times: Result<Vec<f64>, _> = last.split(' ').map(str::parse).collect();
    let [api, registered, ready] = times.unwrap_or_default()[..] else {
        bail!("the script printed no three times but {last:?}");
    };
    Ok(BareTimes { api, registered, ready })
}

/// Calls through apid of the control plane and calls of the bare echo server, a row for each load.
fn api(step: &Step, programs: &Path, talosconfig: &Path) -> anyhow::Result<Vec<Row>> {
    let output = step.call(command(programs.join("api-load")).arg(talosconfig).arg(LOAD))?;
    api_rows(&output)
}

fn api_rows(output: &str) -> anyhow::Result<Vec<Row>> {
    let mut echo = std::collections::BTreeMap::new();
    output.lines().map(|line| api_row(line, &mut echo)).collect()
}

/// A row, beside the same load of the echo server, whose rows come first.
fn api_row(line: &str, echo: &mut std::collections::BTreeMap<String, f64>) -> anyhow::Result<Row> {
    let value: serde_json::Value = serde_json::from_str(line).with_context(|| format!("reading {line:?}"))?;
    let number = |key: &str| value[key].as_f64().with_context(|| format!("{line} has no {key}"));
    let call = value["call"].as_str().unwrap_or_default();
    let clients = number("clients")?;
    let (p50, p99, per_second) = (number("p50")?, number("p99")?, number("perSecond")?);
    let is_echo = call == "Echo";
    let (rate, budget) = match value["rate"].as_f64() {
        Some(rate) if is_echo => (format!(" at {rate}/s"), ""),
        Some(rate) => (format!(" at {rate}/s"), "p99 2 ms, 1.5 times the echo"),
        None if call.starts_with("Watch") => (String::new(), "5 ms"),
        None => (String::new(), ""),
    };
    let plural = if clients > 1.0 { "clients" } else { "client" };
    let load = format!("{clients} {plural}{rate}");
    let mut measured = format!("p50 {p50:.2} ms, p99 {p99:.2} ms, {per_second:.0}/s");
    let what = if is_echo {
        echo.insert(load.clone(), p99);
        format!("a gRPC echo with mutual TLS, no apid, {load}")
    } else {
        if let Some(reference) = echo.get(&load).filter(|_| !call.starts_with("Watch")) {
            let _ = write!(measured, "; p99 {:.1} times the echo", p99 / reference);
        }
        format!("{call} through apid, {load}")
    };
    Ok(row(&what, budget, Ok(measured)))
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

/// The document: rows of the host, and those of a virtual machine in a section of their own.
fn table(rows: &[Row], booted: &[Row], machine: &str) -> String {
    let version = KUBERNETES.version();
    let mut text = format!("# Benchmarks\n\nMeasured by `cargo xtask bench`, Kubernetes {version}, on {machine}.\n");
    append(&mut text, rows);
    let _ = write!(text, "\n## Boot of a virtual machine\n\n{}\n", virtual_machine::CONDITIONS);
    append(&mut text, booted);
    text
}

fn append(text: &mut String, rows: &[Row]) {
    text.push_str("\n| what | budget | measured |\n|---|---|---|\n");
    for Row { what, budget, measured } in rows {
        let _ = writeln!(text, "| {what} | {budget} | {measured} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_measured_says_why_in_its_row() {
        let rows = [row("a", "1 s", Err(anyhow::anyhow!("no\nroot"))), row("b", "", Ok("2 s".to_owned()))];
        let text = table(&rows, &[], "a machine");
        assert!(text.contains("| a | 1 s | failed: no root |\n| b |  | 2 s |\n"), "{text}");
    }

    #[test]
    fn rows_of_a_virtual_machine_have_a_section_of_their_own() {
        let one = |what: &str| [row(what, "", Ok("1 s".to_owned()))];
        let text = table(&one("a"), &one("b"), "a machine");
        let (host, booted) = text.split_once("\n## Boot of a virtual machine\n\n").unwrap();
        let header = "\n| what | budget | measured |\n|---|---|---|\n";
        assert!(host.ends_with(&format!("on a machine.\n{header}| a |  | 1 s |\n")), "{host}");
        assert_eq!(booted, format!("{}\n{header}| b |  | 1 s |\n", virtual_machine::CONDITIONS));
    }

    #[test]
    fn the_times_of_the_script_are_its_last_line() {
        let times = bare_times("noise\n5.0 7.1 17.2\n").unwrap();
        assert_eq!(times, BareTimes { api: 5.0, registered: 7.1, ready: 17.2 });
        assert_eq!(times.to_string(), "17.2 s (API after 5.0 s, registered after 7.1 s)");
        bare_times("not Ready after 180 s: x\n").unwrap_err();
    }

    #[test]
    fn create_says_when_it_reached_something() {
        let output = "waiting for cluster DNS\n\
            13.20     create       -                     all nodes Ready\n\
            16.85     create       -                     cluster DNS\n";
        assert!((reached(output, ALL_READY).unwrap() - 13.2).abs() < 0.001);
        assert!((reached(output, DNS_ANSWERS).unwrap() - 16.85).abs() < 0.001);
        reached("all nodes Ready", ALL_READY).unwrap_err();
    }

    #[test]
    fn a_load_at_a_rate_stands_beside_its_budget_and_the_echo() {
        let line = |call: &str, p99: f64| {
            format!(r#"{{"call":"{call}","clients":16,"rate":1000,"calls":9,"perSecond":999.6,"p50":0.5,"p99":{p99}}}"#)
        };
        let rows = api_rows(&format!("{}\n{}", line("Echo", 1.25), line("Version", 1.75))).unwrap();
        let [echo, version] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(
            (echo.what.as_str(), echo.budget),
            ("a gRPC echo with mutual TLS, no apid, 16 clients at 1000/s", "")
        );
        let budget = "p99 2 ms, 1.5 times the echo";
        assert_eq!((version.what.as_str(), version.budget), ("Version through apid, 16 clients at 1000/s", budget));
        assert_eq!(version.measured, "p50 0.50 ms, p99 1.75 ms, 1000/s; p99 1.4 times the echo");
        api_rows("error").unwrap_err();
    }
}
