//! The boot of machines under QEMU's emulator, which needs no hardware help: what the parts of it take, the sizes of what is
//! booted, and the memory of a configured machine.
//!
//! The first machine has no disk and ends in maintenance mode. That mode tells nobody about processes, so that a second one
//! starts from a disk image and is configured. Neither reaches a network: nothing is pulled while something is measured.
#![expect(clippy::disallowed_types, reason = "durations of real machines; no time is paused here")]

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::memory::{self, Memory};
use super::{Row, row};
use crate::paths::Paths;
use crate::step::{Step, Steps, command};

/// The kernel arguments of a machine, which the image's own loaders have too.
const ARGUMENTS: &str = "talos.platform=metal console=ttyS0 panic=10 printk.devkmsg=on module.sig_enforce=1 \
                         init_on_alloc=1 slab_nomerge pti=on";
/// A disk image with the system, of a format that grows.
const PROFILE: &str =
    "baseProfileName: metal\noutput: {kind: image, imageOptions: {diskFormat: qcow2}, outFormat: raw}\n";
/// The address that QEMU's DHCP server gives to the machine.
const ADDRESS: &str = "10.0.2.15";

/// How it is measured, for the reader of the rows.
pub(super) const CONDITIONS: &str = "\
QEMU's emulator without hardware help, q35 with one processor and virtio-net, started by its kernel, without a disk and without
another network, into maintenance mode. The machine's own times are those of the line `boot phases:` (`docs/boot.md`), whose phases
follow; that of the kernel is before `init`. The host's clock runs until `talosctl get machinestatus --insecure` has its answer. The processor time of QEMU in the same
time depends less on the load of the host than the clock does. Maintenance mode tells nobody about processes: memory is that of a
machine whose disk has the system, and which was given a configuration and no images.";

const BOOT_BUDGET: &str = "8 s";
const MEMORY_BUDGET: &str = "25 MiB";

/// From the start of QEMU to an answer of the API.
const BOOT: Duration = Duration::from_secs(180);
/// From a configuration to the API of the configured machine.
const CONFIGURED: Duration = Duration::from_secs(300);
/// How long a machine is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(20);
/// Between two looks at a console.
const LOOK: Duration = Duration::from_millis(20);

/// What init writes first, after the seconds since its start.
const INIT: &str = "booting Talos";
/// What the line of a boot's times starts with, after the remarks of the log (`docs/boot.md`).
const TIMES: &str = "boot phases: ";

/// The rows of the section. Each failure is in its row.
pub(super) fn rows(steps: &mut Steps, paths: &Paths, programs: &Path) -> anyhow::Result<Vec<Row>> {
    let folder = paths.out.join("bench-machine");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let bench = Bench { paths, programs, folder: &folder };
    let mut rows = steps.run("sizes of boot assets", |step| Ok(bench.sizes(step)))?;
    rows.extend(steps.run("boot of a virtual machine", |step| {
        Ok(match bench.maintenance(step) {
            Ok(boot) => boot.rows(),
            Err(error) => vec![row("`init` to the API of maintenance mode", BOOT_BUDGET, Err(error))],
        })
    })?);
    rows.extend(steps.run("a configured virtual machine", |step| {
        Ok(bench.configured(step).unwrap_or_else(|error| vec![row(OURS, MEMORY_BUDGET, Err(error))]))
    })?);
    let _ = std::fs::remove_dir_all(&folder);
    Ok(rows)
}

/// Title of the row of our processes.
const OURS: &str = "resident on a configured control plane before its bootstrap, after 20 s idle (proportional share)";

struct Bench<'a> {
    paths: &'a Paths,
    programs: &'a Path,
    folder: &'a Path,
}

impl Bench<'_> {
    fn talosctl(&self, arguments: &[&str]) -> std::process::Command {
        let mut talosctl = command(self.programs.join("talosctl"));
        talosctl.args(arguments);
        talosctl
    }

    fn kernel(&self) -> [PathBuf; 2] {
        ["vmlinuz", "initramfs.xz"].map(|name| self.paths.out.join(name))
    }

    fn sizes(&self, step: &Step) -> Vec<Row> {
        let root = size(&self.paths.image()).map(megabytes);
        let [kernel, initramfs] = self.kernel().map(|path| size(&path));
        let both = kernel.and_then(|kernel| {
            let initramfs = initramfs?;
            let [all, kernel, initramfs] = [kernel + initramfs, kernel, initramfs].map(megabytes);
            Ok(format!("{all} ({kernel} and {initramfs})"))
        });
        let iso = self.make(step, "\"$0\" iso --assets \"$1\" --programs \"$2\" --packages \"$3\" --output \"$4\"");
        let iso = iso.and_then(|()| size(&self.folder.join("metal-amd64.iso"))).map(megabytes);
        vec![
            row("root image", "80 MB", root),
            row("kernel and initramfs", "100 MB", both),
            row("ISO image for BIOS and UEFI", "", iso),
        ]
    }

    /// Has `imager` write into the folder.
    fn make(&self, step: &Step, script: &str) -> anyhow::Result<()> {
        let mut shell = command("sh");
        shell.args(["-c", script]).arg(self.programs.join("imager"));
        shell.arg(&self.paths.out).arg(self.programs).arg(self.paths.packages()).arg(self.folder);
        step.call(&mut shell).map(drop)
    }

    /// Boots a machine without a disk until its maintenance API answers.
    fn maintenance(&self, step: &Step) -> anyhow::Result<Boot> {
        let [kernel, initramfs] = self.kernel();
        let mut machine = Machine::start(&self.folder.join("maintenance.console"), "1024M", |qemu| {
            qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", ARGUMENTS]);
        })?;
        let since_init = machine.until("the first line of init", BOOT, init_said)?;
        let (init, used) = (Instant::now().checked_sub(since_init), machine.processor_time()?);
        let init = init.context("init started before the clock did")?;
        let times = machine.until("a line with the times of the boot", BOOT, |console| boot_times(console).pop())?;
        let address = format!("127.0.0.1:{}", machine.port);
        let ask = ["get", "machinestatus", "--insecure", "--nodes", &address];
        machine.until_done("an answer in maintenance mode", BOOT, || step.read(&mut self.talosctl(&ask)))?;
        let answered = init.elapsed();
        let processor = machine.processor_time()?.saturating_sub(used);
        Ok(Boot { times: times?, answered, processor })
    }

    /// Configures a machine that has the system on its disk, reads its memory, and starts it again.
    fn configured(&self, step: &Step) -> anyhow::Result<Vec<Row>> {
        let profile = self.folder.join("profile.yaml");
        std::fs::write(&profile, PROFILE).with_context(|| format!("writing {}", profile.display()))?;
        let script =
            "\"$0\" - --assets \"$1\" --programs \"$2\" --packages \"$3\" --output \"$4\" <\"$4/profile.yaml\"";
        self.make(step, script)?;
        let disk = self.folder.join("disk.qcow2");
        step.call(
            command("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
                .arg(self.folder.join("metal-amd64.qcow2"))
                .arg(&disk)
                .arg("12G"),
        )?;
        let cluster = self.folder.display().to_string();
        let patch = r#"{"machine": {"certSANs": ["127.0.0.1"], "time": {"disabled": true}}}"#;
        let generate = ["gen", "config", "bench", "https://10.0.2.15:6443", "--output-dir", &cluster];
        step.call(self.talosctl(&generate).args(["--install-disk", "/dev/vda", "--config-patch", patch]))?;
        let drive = format!("if=none,id=disk,format=qcow2,cache=unsafe,file={}", disk.display());
        let mut machine = Machine::start(&self.folder.join("configured.console"), "2048M", |qemu| {
            qemu.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
        })?;
        let [configuration, talosconfig] = ["controlplane.yaml", "talosconfig"].map(|name| format!("{cluster}/{name}"));
        let address = format!("127.0.0.1:{}", machine.port);
        machine.until("its maintenance mode", BOOT, |console| boot_times(console).pop())??;
        let apply = ["apply-config", "--insecure", "--nodes", &address, "--file", &configuration];
        machine.until_done("a taken configuration", BOOT, || step.read(&mut self.talosctl(&apply)))?;
        let connection = ["--talosconfig", &talosconfig, "--endpoints", &address, "--nodes", ADDRESS];
        let ask = |arguments: &[&str]| step.read(&mut self.talosctl(&[arguments, &connection].concat()));
        machine.until_done("its API", CONFIGURED, || ask(&["version"]))?;
        machine.until_done("an end of its installation", CONFIGURED, || {
            let status = ask(&["get", "machinestatus", "--output", "yaml"])?;
            ensure!(["stage: booting", "stage: running"].iter().any(|stage| status.contains(stage)), "{status}");
            Ok(status)
        })?;
        pause(IDLE);
        let found = processes(&ask(&["processes"])?)?;
        let used = found.into_iter().filter_map(|Process { pid, name }| {
            // One that has ended meanwhile has no memory, and neither does a thread of the kernel.
            let rollup = ask(&["read", &format!("/proc/{pid}/smaps_rollup")]).ok()?;
            Some((name, memory::parse(&rollup)?))
        });
        let mut rows = memory_rows(used.collect());
        let before = boot_times(&machine.console()).len();
        let again = ask(&["reboot", "--mode", "powercycle", "--wait=false"]).and_then(|_| {
            let next = |console: &str| boot_times(console).into_iter().nth(before);
            machine.until("the times of its next boot", CONFIGURED, next)?
        });
        let title = "`init` to the API of the same machine, started again from its disk";
        rows.push(row(title, BOOT_BUDGET, again.map(|times| times.to_string())));
        Ok(rows)
    }
}

/// A boot into maintenance mode.
#[derive(Debug)]
struct Boot {
    times: BootTimes,
    /// From the start of init to the first answer.
    answered: Duration,
    /// Of QEMU in that time.
    processor: Duration,
}

impl Boot {
    fn rows(&self) -> Vec<Row> {
        let seconds = |duration: Duration| Ok(format!("{:.1} s", duration.as_secs_f64()));
        let mut rows = vec![
            row("`init` to the API of maintenance mode, by the machine's clock", BOOT_BUDGET, self.times.api()),
            row(
                "`init` to the first answer of maintenance mode, by the host's clock",
                BOOT_BUDGET,
                seconds(self.answered),
            ),
            row("the same in processor time of QEMU", BOOT_BUDGET, seconds(self.processor)),
        ];
        rows.extend(
            self.times.parts.iter().map(|(part, took)| row(&format!("boot phase {part}"), "", Ok(took.clone()))),
        );
        rows
    }
}

/// What a machine tells of its boot: each part with its time as it is written, and the seconds from init to the API and to
/// the end of the boot.
#[derive(Debug, Clone, Default, PartialEq)]
struct BootTimes {
    parts: Vec<(String, String)>,
    api: Option<f64>,
    boot: Option<f64>,
}

impl BootTimes {
    fn api(&self) -> anyhow::Result<String> {
        Ok(format!("{:.1} s", self.api.context("the machine did not tell when its API was there")?))
    }

    /// Of the text after [`TIMES`].
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut times = Self::default();
        for group in text.trim().split("; ") {
            if let Some(reached) = group.strip_suffix(" after init") {
                let (what, after) = reached.split_once(' ').with_context(|| format!("no time in {group:?}"))?;
                let after = after.strip_suffix(" s").and_then(|after| after.parse().ok());
                let after = after.with_context(|| format!("no seconds in {group:?}"))?;
                match what {
                    "API" => times.api = Some(after),
                    "boot" => times.boot = Some(after),
                    _ => bail!("neither API nor boot is reached in {group:?}"),
                }
                continue;
            }
            let (sequence, list) = group
                .split_once(": ")
                .map_or((String::new(), group), |(sequence, list)| (format!("{sequence}: "), list));
            for part in parts(list) {
                let (name, took) = part.split_once(' ').with_context(|| format!("no time in {part:?}"))?;
                times.parts.push((format!("{sequence}{name}"), took.to_owned()));
            }
        }
        Ok(times)
    }
}

impl std::fmt::Display for BootTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.api {
            Some(api) => write!(f, "{api:.1} s")?,
            None => f.write_str("not told")?,
        }
        let mut separator = ": ";
        for (part, took) in &self.parts {
            write!(f, "{separator}{part} {took}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Parts of a list at its commas, but not at those in parentheses.
fn parts(list: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for piece in list.split(", ") {
        match parts.last_mut().filter(|last| last.contains('(') && !last.contains(')')) {
            Some(last) => {
                let _ = write!(last, ", {piece}");
            }
            None => parts.push(piece.to_owned()),
        }
    }
    parts
}

/// All times of boots that a console has, in their order. The last line may be written just now.
fn boot_times(console: &str) -> Vec<anyhow::Result<BootTimes>> {
    let lines = console.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| line.split_once(TIMES)).map(|(_, text)| BootTimes::parse(text)).collect()
}

/// The time since the start of init that its first line has.
fn init_said(console: &str) -> Option<Duration> {
    let before = console.lines().find_map(|line| line.split_once(INIT).map(|(before, _)| before))?;
    let seconds = before.split_whitespace().last()?.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A process of a machine.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    name: String,
}

/// The processes that are programs, of the table of `talosctl processes`.
fn processes(table: &str) -> anyhow::Result<Vec<Process>> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let columns = lines.next().unwrap_or_default();
    let pid = columns.iter().position(|column| *column == "PID").with_context(|| format!("no table: {table}"))?;
    // After state, threads, time, and twice a size with its unit.
    let command = pid + 8;
    Ok(lines
        .filter_map(|line| {
            let pid = line.get(pid)?.parse().ok()?;
            let (_, name) = line.get(command)?.rsplit_once('/').filter(|_| line[command].starts_with('/'))?;
            Some(Process { pid, name: if pid == 1 { "machined".to_owned() } else { name.to_owned() } })
        })
        .collect())
}

/// Our processes beside their budget, and all others.
fn memory_rows(processes: Vec<(String, Memory)>) -> Vec<Row> {
    let kind = |name: &str| memory::PROCESSES.iter().position(|(known, _)| *known == name);
    let (ours, others): (Vec<_>, Vec<_>) = processes.into_iter().partition(|(name, _)| kind(name).is_some());
    let mut ours: Vec<_> =
        ours.into_iter().filter_map(|(name, memory)| Some((String::new(), kind(&name)?, memory))).collect();
    ours.sort_by_key(|(_, kind, _)| *kind);
    let sum = if ours.is_empty() { Err(anyhow::anyhow!("no such process")) } else { Ok(memory::sum(&ours)) };
    let others: Vec<String> = others.iter().map(|(name, memory)| format!("{name} {}", memory::show(*memory))).collect();
    let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
    vec![row(OURS, MEMORY_BUDGET, sum), row("other processes of the same machine", "", Ok(others))]
}

fn size(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len())
}

fn megabytes(size: u64) -> String {
    format!("{}.{} MB", size / 1_000_000, size / 100_000 % 10)
}

#[expect(clippy::disallowed_methods, reason = "measuring means waiting, and nothing else runs here")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// A running machine; its QEMU ends with the value.
#[derive(Debug)]
struct Machine {
    qemu: Child,
    console: PathBuf,
    /// Of loopback, leads to that of the machine's API.
    port: u16,
}

impl Machine {
    fn start(console: &Path, memory: &str, more: impl FnOnce(&mut std::process::Command)) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
        let port = listener.local_addr()?.port();
        drop(listener);
        let mut qemu = command("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-display", "none", "-accel", "tcg,thread=multi", "-machine", "q35"])
            // One processor: under QEMU 7.2 a second one may run code that the kernel has just patched, and panic.
            .args(["-cpu", "max", "-smp", "1", "-m", memory, "-device", "virtio-rng-pci"])
            .args(["-netdev", &format!("user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:50000")])
            .args(["-device", "virtio-net-pci,netdev=net0,romfile="])
            .arg("-serial")
            .arg(format!("file:{}", console.display()));
        more(&mut qemu);
        let qemu = qemu.stdin(Stdio::null()).spawn().context("starting qemu-system-x86_64")?;
        Ok(Self { qemu, console: console.to_owned(), port })
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits until its console has something.
    fn until<T>(&mut self, what: &str, at_most: Duration, look: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            let console = self.console();
            if let Some(found) = look(&console) {
                return Ok(found);
            }
            self.runs(what)?;
            if started.elapsed() > at_most {
                let lines: Vec<&str> = console.lines().collect();
                let end = lines[lines.len().saturating_sub(5)..].join(" / ");
                bail!("no {what} within {} s; its console ends with {end}", at_most.as_secs());
            }
            pause(LOOK);
        }
    }

    /// Waits until a call of its API succeeds.
    fn until_done(
        &mut self,
        what: &str,
        at_most: Duration,
        call: impl Fn() -> anyhow::Result<String>,
    ) -> anyhow::Result<String> {
        let started = Instant::now();
        loop {
            match call() {
                Ok(answer) => return Ok(answer),
                Err(error) if started.elapsed() > at_most => {
                    return Err(error.context(format!("no {what} within {} s", at_most.as_secs())));
                }
                Err(_) => self.runs(what)?,
            }
            pause(LOOK);
        }
    }

    fn runs(&mut self, waiting_for: &str) -> anyhow::Result<()> {
        match self.qemu.try_wait().context("looking at QEMU")? {
            Some(status) => bail!("no {waiting_for}: QEMU has ended with {status}"),
            None => Ok(()),
        }
    }

    /// The processor time that QEMU has used.
    fn processor_time(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.qemu.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        processor_time(&text).with_context(|| format!("no times in {path}: {text}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended.
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

/// Of a process and its threads, in user mode and in the kernel: fields 14 and 15 of `/proc/PID/stat`, in hundredths of a
/// second (proc(5)). The second field is a name in parentheses, which may have spaces.
fn processor_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some(Duration::from_millis((fields.next()?? + fields.next()??) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "[    9.101234] [talos] 6.700s INFO machined::boot_times: boot phases: kernel 2.51 s, init 0.48 s \
                        (modules 0.10 s, rootfs 0.31 s), machined 0.10 s; initialize: systemRequirements 0.40 s, config 1.20 s \
                        so far; API 6.70 s after init\r\n";

    fn boot() -> BootTimes {
        boot_times(LINE).pop().unwrap().unwrap()
    }

    #[test]
    fn the_times_of_a_boot_are_read_from_the_console() {
        let part = |name: &str, took: &str| (name.to_owned(), took.to_owned());
        let expected = BootTimes {
            parts: vec![
                part("kernel", "2.51 s"),
                part("init", "0.48 s (modules 0.10 s, rootfs 0.31 s)"),
                part("machined", "0.10 s"),
                part("initialize: systemRequirements", "0.40 s"),
                part("initialize: config", "1.20 s so far"),
            ],
            api: Some(6.7),
            boot: None,
        };
        assert_eq!(boot(), expected);
        let both = BootTimes::parse("kernel 1.00 s; API 2.00 s after init; boot 9.25 s after init").unwrap();
        assert_eq!((both.api, both.boot), (Some(2.0), Some(9.25)));
    }

    #[test]
    fn a_line_that_is_not_complete_is_none_and_a_damaged_one_an_error() {
        assert_eq!(boot_times(LINE.trim_end()).len(), 0);
        assert_eq!(boot_times(&format!("noise\n{LINE}{LINE}")).len(), 2);
        let error = BootTimes::parse("kernel 1.00 s; API soon after init").unwrap_err();
        assert_eq!(error.to_string(), "no seconds in \"API soon after init\"");
        let error = BootTimes::parse("kernel").unwrap_err();
        assert_eq!(error.to_string(), "no time in \"kernel\"");
    }

    #[test]
    fn the_start_of_init_is_before_its_first_line() {
        let console = "[    2.51] Run /init\n[    2.60] [talos] [initramfs] 0.090s booting Talos v1.7.0\n";
        assert_eq!(init_said(console), Some(Duration::from_millis(90)));
        assert_eq!(init_said("[    2.51] Run /init\n"), None);
    }

    #[test]
    fn rows_of_a_boot_have_the_budget_and_each_part() {
        let boot =
            Boot { times: boot(), answered: Duration::from_millis(7140), processor: Duration::from_millis(8200) };
        let rows = boot.rows();
        let shown: Vec<_> = rows.iter().map(|row| (row.what.as_str(), row.budget, row.measured.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("`init` to the API of maintenance mode, by the machine's clock", "8 s", "6.7 s"),
                ("`init` to the first answer of maintenance mode, by the host's clock", "8 s", "7.1 s"),
                ("the same in processor time of QEMU", "8 s", "8.2 s"),
                ("boot phase kernel", "", "2.51 s"),
                ("boot phase init", "", "0.48 s (modules 0.10 s, rootfs 0.31 s)"),
                ("boot phase machined", "", "0.10 s"),
                ("boot phase initialize: systemRequirements", "", "0.40 s"),
                ("boot phase initialize: config", "", "1.20 s so far"),
            ]
        );
        assert_eq!(
            boot.times.to_string(),
            "6.7 s: kernel 2.51 s, init 0.48 s (modules 0.10 s, rootfs 0.31 s), machined 0.10 s, \
             initialize: systemRequirements 0.40 s, initialize: config 1.20 s so far"
        );
    }

    #[test]
    fn programs_are_found_among_processes() {
        let table = "NODE        PID   STATE   THREADS   CPU-TIME   VIRTMEM   RESMEM   COMMAND\n\
                     10.0.2.15   1     S       3         2.41       45 MB     26 MB    /sbin/init\n\
                     10.0.2.15   812   S       3         0.22       12 MB     5.8 MB   /usr/bin/apid --x\n\
                     10.0.2.15   2     S       1         0.00       0 B       0 B      kthreadd\n\
                     10.0.2.15   9     I       1         0.00       0 B       0 B      kworker/0:0H\n";
        let process = |pid, name: &str| Process { pid, name: name.to_owned() };
        assert_eq!(processes(table).unwrap(), [process(1, "machined"), process(812, "apid")]);
        assert_eq!(processes("rpc error").unwrap_err().to_string(), "no table: rpc error");
    }

    #[test]
    fn memory_of_ours_is_beside_its_budget() {
        let memory = |kib| Memory { resident: kib, proportional: kib / 2 };
        let of = |name: &str, kib| (name.to_owned(), memory(kib));
        let rows = memory_rows(vec![of("apid", 1024), of("containerd", 4096), of("machined", 2048)]);
        let [ours, others] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(ours.budget, "25 MiB");
        assert_eq!(ours.measured, "3.0 (1.5) MiB: machined 2.0 (1.0) MiB, apid 1.0 (0.5) MiB");
        assert_eq!(others.measured, "containerd 4.0 (2.0) MiB");
        assert_eq!(memory_rows(Vec::new())[0].measured, "failed: no such process");
    }

    #[test]
    fn processor_time_is_that_of_user_and_kernel() {
        let stat = "7 (qemu) x) S 1 7 7 0 -1 4194304 1 2 3 4 812 108 0 0 20 0";
        assert_eq!(processor_time(stat), Some(Duration::from_millis(9200)));
        assert_eq!(processor_time("7 (x"), None);
    }
}
