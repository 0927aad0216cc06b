//! A virtual machine under QEMU's emulator: its processes end with the value.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::support::{Answer, Final, eventually, run, run_within};

use crate::assets::Assets;

/// The kernel arguments that every machine of the platform needs; the image's own loaders have the same.
const ARGUMENTS: &str = "talos.platform=metal console=ttyS0 panic=10 printk.devkmsg=on module.sig_enforce=1";

/// An emulated processor speculates on nothing, and forgets all its translations whenever the kernel changes page tables: with
/// isolated ones at each system call, which makes what runs then several times slower.
pub(crate) const FOR_EMULATION: &str = "nopti";

/// The kernel arguments without which a machine does not go on.
const PROTECTIONS: &str = "init_on_alloc=1 slab_nomerge pti=on";

/// In the folder of a TPM's state.
const TPM_SOCKET: &str = "socket";

/// The address that QEMU's DHCP server gives to the machine.
pub(crate) const ADDRESS: &str = "10.0.2.15";
/// The host as the machine sees it: loopback of the tests.
pub(crate) const HOST: &str = "10.0.2.2";

/// From the start of QEMU to an answer of the API, on a busy machine without hardware help.
pub(crate) const BOOT: Duration = Duration::from_secs(600);

/// What a machine is started from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The kernel and the initramfs with these arguments, at each start and reset.
    Kernel { arguments: String },
    /// What the firmware finds: the first disk, or a disc.
    Firmware { disc: Option<PathBuf> },
    /// The network, by iPXE in the card's memory: a script at an address.
    Network { script: String },
}

/// The machine's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    Bios,
    Uefi,
}

/// A machine to start.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The names of its files.
    pub(crate) name: &'static str,
    pub(crate) source: Source,
    /// Not used where QEMU starts the kernel.
    pub(crate) firmware: Firmware,
    pub(crate) memory_mib: u32,
    /// Disks on virtio: `/dev/vda` and so on, as options of QEMU's drives without the bus, and of their devices.
    pub(crate) drives: Vec<(String, String)>,
    /// Further discs, which the firmware does not boot.
    pub(crate) discs: Vec<PathBuf>,
    /// QEMU's model of the processor.
    pub(crate) processor: &'static str,
    /// Further devices of QEMU.
    pub(crate) devices: Vec<&'static str>,
    /// What the machine says of itself: options of QEMU's `-smbios`.
    pub(crate) identity: Option<String>,
    /// What the clock of its board shows at its start; the time, if there is none.
    pub(crate) clock: Option<&'static str>,
    /// Where its TPM keeps its state, if it has one.
    pub(crate) tpm: Option<PathBuf>,
}

impl Setup {
    /// A machine that has nothing but its kernel.
    pub(crate) fn kernel(name: &'static str, arguments: &str) -> Self {
        Self::unprotected(name, &format!("{PROTECTIONS} {FOR_EMULATION} {arguments}"))
    }

    /// The same without the protections that the kernel's arguments ask for.
    pub(crate) fn unprotected(name: &'static str, arguments: &str) -> Self {
        let source = Source::Kernel { arguments: arguments.to_owned() };
        Self { memory_mib: 1024, ..Self::of(name, Firmware::Bios, source) }
    }

    /// The kernel's arguments of every system.
    pub(crate) fn arguments_of_a_system() -> String {
        format!("{ARGUMENTS} {PROTECTIONS} {FOR_EMULATION}")
    }

    /// A machine that its firmware starts.
    pub(crate) fn firmware(name: &'static str, kind: Firmware, disc: Option<PathBuf>) -> Self {
        Self::of(name, kind, Source::Firmware { disc })
    }

    /// A machine that its network starts.
    pub(crate) fn network(name: &'static str, kind: Firmware, script: String) -> Self {
        Self::of(name, kind, Source::Network { script })
    }

    fn of(name: &'static str, firmware: Firmware, source: Source) -> Self {
        let (drives, discs, devices) = (Vec::new(), Vec::new(), Vec::new());
        let processor = "max";
        Self {
            name,
            source,
            firmware,
            memory_mib: 2048,
            drives,
            discs,
            processor,
            devices,
            identity: None,
            clock: None,
            tpm: None,
        }
    }

    /// With another disk: a raw image.
    pub(crate) fn with_disk(self, image: &Path) -> Self {
        self.with_drive(&format!("format=raw,cache=unsafe,file={}", image.display()), "")
    }

    /// With another disk: options of QEMU's drive and of its device.
    pub(crate) fn with_drive(mut self, drive: &str, device: &str) -> Self {
        self.drives.push((drive.to_owned(), device.to_owned()));
        self
    }

    /// With another disc, in a drive of its own.
    pub(crate) fn with_disc(mut self, image: &Path) -> Self {
        self.discs.push(image.to_owned());
        self
    }

    fn arguments(&self, assets: &Assets) -> anyhow::Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> = Vec::new();
        match &self.source {
            Source::Kernel { arguments: kernel } => {
                arguments.extend(["-kernel".into(), assets.kernel().into()]);
                arguments.extend(["-initrd".into(), assets.initramfs().into()]);
                arguments.extend(["-append".into(), format!("{ARGUMENTS} {kernel}").into()]);
            }
            Source::Firmware { disc: Some(disc) } => arguments.extend(cd_drive(0, disc, ",bootindex=10")),
            Source::Firmware { disc: None } | Source::Network { .. } => {}
        }
        // QEMU's own firmware is BIOS.
        if self.firmware == Firmware::Uefi {
            arguments.extend(firmware_flash(&assets.file(&format!("{}.vars", self.name))?)?);
        }
        arguments.extend(self.devices.iter().flat_map(|device| ["-device".into(), (*device).into()]));
        if let Some(identity) = &self.identity {
            arguments.extend(["-smbios".into(), identity.into()]);
        }
        if let Some(clock) = self.clock {
            arguments.extend(["-rtc".into(), format!("base={clock}").into()]);
        }
        if let Some(tpm) = &self.tpm {
            let socket = tpm.join(TPM_SOCKET);
            arguments.extend(["-chardev".into(), format!("socket,id=tpm,path={}", socket.display()).into()]);
            arguments.extend(
                ["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"].map(OsString::from),
            );
        }
        for (index, (drive, device)) in (0..).zip(&self.drives) {
            arguments.extend(["-drive".into(), format!("if=none,id=disk{index},{drive}").into()]);
            arguments.extend([
                "-device".into(),
                format!("virtio-blk-pci,drive=disk{index},serial=disk-{index},bootindex={}{device}", index + 1).into(),
            ]);
        }
        for (port, disc) in (1..).zip(&self.discs) {
            arguments.extend(cd_drive(port, disc, ""));
        }
        Ok(arguments)
    }

    /// The network card and what it is connected to: QEMU's user-mode network.
    fn network_arguments(&self, port: u16) -> [String; 4] {
        let network = format!("user,id=net0,hostfwd=tcp:127.0.0.1:{port}-:50000");
        let card = "virtio-net-pci,netdev=net0";
        let [network, card] = match &self.source {
            Source::Network { script, .. } => [format!("{network},bootfile={script}"), format!("{card},bootindex=0")],
            _ => [network, format!("{card},romfile=")],
        };
        ["-netdev".to_owned(), network, "-device".to_owned(), card]
    }
}

/// A CD drive on a port of the board's SATA controller, of which it has six.
fn cd_drive(port: usize, image: &Path, device: &str) -> [OsString; 4] {
    let drive = format!("if=none,id=cd{port},media=cdrom,readonly=on,file={}", image.display());
    ["-drive".into(), drive.into(), "-device".into(), format!("ide-cd,bus=ide.{port},drive=cd{port}{device}").into()]
}

/// OVMF with variables of the machine's own, which outlive its processes.
fn firmware_flash(variables: &Path) -> anyhow::Result<Vec<OsString>> {
    const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    if !variables.exists() {
        std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", variables).context("copying OVMF (Debian's package ovmf)")?;
    }
    let variables = format!("if=pflash,format=raw,file={}", variables.display());
    let code = format!("if=pflash,format=raw,readonly=on,file={CODE}");
    Ok(["-drive".into(), code.into(), "-drive".into(), variables.into()].into())
}

/// Starts the program of a machine's TPM, which ends when QEMU does.
#[expect(clippy::disallowed_methods, reason = "tools on a host, not on a node: there is no reaper to disturb")]
fn start_tpm(folder: &Path) -> anyhow::Result<Child> {
    std::fs::create_dir_all(folder)?;
    let socket = folder.join(TPM_SOCKET);
    std::fs::remove_file(&socket).ok();
    let program = Command::new("swtpm")
        .args(["socket", "--tpm2", "--terminate", "--tpmstate"])
        .arg(format!("dir={}", folder.display()))
        .args(["--ctrl", &format!("type=unixio,path={}", socket.display())])
        .spawn()
        .context("starting swtpm (Debian's package swtpm)")?;
    eventually("the socket of the TPM", Duration::from_secs(30), || {
        ensure!(socket.exists(), "it is not there");
        Ok(())
    })?;
    Ok(program)
}

/// A running machine.
#[derive(Debug)]
pub(crate) struct Vm {
    assets: Assets,
    qemu: Child,
    tpm: Option<Child>,
    /// Leads to the API's port of the machine.
    port: u16,
    console: PathBuf,
    /// QEMU's standard input and output, which take commands: a socket with a path would bound the length of the checks' names.
    monitor: UnixStream,
    answers: RefCell<Option<Lines<BufReader<UnixStream>>>>,
}

impl Vm {
    #[expect(clippy::disallowed_methods, reason = "tools on a host, not on a node: there is no reaper to disturb")]
    pub(crate) fn start(assets: &Assets, setup: &Setup) -> anyhow::Result<Self> {
        let console = assets.file(&format!("{}.console", setup.name))?;
        let (monitor, [input, output]) = command_channel()?;
        let port = free_port()?;
        let tpm = setup.tpm.as_deref().map(start_tpm).transpose()?;
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-display", "none", "-accel", "tcg,thread=multi", "-machine", "q35"])
            // One processor: under QEMU 7.2 a second one may run code that the kernel has just patched, and panic.
            .args(["-cpu", setup.processor, "-smp", "1", "-m"])
            .arg(format!("{}M", setup.memory_mib))
            .args(["-device", "virtio-rng-pci"])
            .args(setup.network_arguments(port))
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-qmp", "stdio"]);
        let qemu = qemu.args(setup.arguments(assets)?).stdin(input).stdout(output).spawn();
        let qemu = qemu.context("starting qemu-system-x86_64 (Debian's package qemu-system-x86)")?;
        Ok(Self { assets: assets.clone(), qemu, tpm, port, console, monitor, answers: RefCell::default() })
    }

    /// Its console so far.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits until its console has `text`.
    pub(crate) fn says(&mut self, text: &str, at_most: Duration) -> anyhow::Result<()> {
        self.until(&format!("console with {text:?}"), at_most, |machine| {
            ensure!(machine.console().contains(text), "the console does not have it");
            Ok(())
        })
    }

    /// Calls its API without certificates, as an operator does in maintenance mode. The address comes last, so that a
    /// subcommand keeps its place.
    pub(crate) fn talosctl_insecure(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        let address = format!("127.0.0.1:{}", self.port);
        run(&self.assets.talosctl(), &[arguments, &["--insecure", "--nodes", &address]].concat())
    }

    /// Calls its API with the credentials of `talosconfig`.
    pub(crate) fn talosctl(&self, talosconfig: &Path, arguments: &[&str]) -> anyhow::Result<Answer> {
        run(&self.assets.talosctl(), &self.call(talosconfig, arguments))
    }

    /// The same for a command that does not end by itself: what it prints within a time.
    pub(crate) fn talosctl_for(
        &self,
        time: Duration,
        talosconfig: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<String> {
        Ok(run_within(time, &self.assets.talosctl(), &self.call(talosconfig, arguments))?.stdout)
    }

    fn call(&self, talosconfig: &Path, arguments: &[&str]) -> Vec<String> {
        let (endpoint, talosconfig) = (format!("127.0.0.1:{}", self.port), talosconfig.display().to_string());
        let connection = ["--talosconfig", &talosconfig, "--endpoints", &endpoint, "--nodes", ADDRESS];
        [arguments, &connection].concat().into_iter().map(str::to_owned).collect()
    }

    /// Waits until `check` succeeds, as long as the emulator runs.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        at_most: Duration,
        check: impl Fn(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        eventually(what, at_most, || {
            // Before the check: what a machine did last counts.
            let ended = self.qemu.try_wait()?;
            match (check(self), ended) {
                (Err(error), Some(status)) => Err(error.context(Final(format!("QEMU has ended with {status}")))),
                (result, _) => result,
            }
        })
    }

    /// The kernel's random name of this start.
    pub(crate) fn boot_id(&self, talosconfig: &Path) -> anyhow::Result<String> {
        self.talosctl(talosconfig, &["read", "/proc/sys/kernel/random/boot_id"])?.ok()
    }

    /// Waits until the API of a configured machine answers; the name of its start.
    pub(crate) fn is_up(&mut self, talosconfig: &Path, at_most: Duration) -> anyhow::Result<String> {
        self.until("API of the configured machine", at_most, |machine| machine.boot_id(talosconfig))
    }

    /// Waits until it runs from the disk that it was installed to; the name of its start.
    pub(crate) fn is_installed(&mut self, talosconfig: &Path, at_most: Duration) -> anyhow::Result<String> {
        self.until("a machine that runs from its disk", at_most, |machine| machine.runs_from_its_disk(talosconfig))
    }

    /// Whether it runs from the disk that it was installed to; the name of its start.
    pub(crate) fn runs_from_its_disk(&self, talosconfig: &Path) -> anyhow::Result<String> {
        let disk = self.talosctl(talosconfig, &["get", "systemdisk", "--output", "yaml"])?.ok()?;
        ensure!(disk.contains("installed: true"), "no disk has the system:\n{disk}");
        let status = self.talosctl(talosconfig, &["get", "machinestatus", "--output", "yaml"])?.ok()?;
        let runs = ["stage: booting", "stage: running"].iter().any(|stage| status.contains(stage));
        ensure!(runs, "it does not run:\n{status}");
        self.boot_id(talosconfig)
    }

    /// Waits until it was started anew, after the start `before`; the name of the new one.
    pub(crate) fn is_up_again(&mut self, talosconfig: &Path, before: &str) -> anyhow::Result<String> {
        self.until("API after another start", BOOT, |machine| {
            let now = machine.boot_id(talosconfig)?;
            ensure!(now != before, "it is the same start as before");
            Ok(now)
        })
    }

    /// Waits until it is powered off.
    pub(crate) fn is_off(&mut self) -> anyhow::Result<()> {
        eventually("a machine that is off", BOOT, || {
            let status = self.qemu.try_wait()?.context("QEMU runs")?;
            ensure!(status.success(), "QEMU has ended with {status}");
            Ok(())
        })
    }

    /// Presses its power button.
    pub(crate) fn press_power_button(&self) -> anyhow::Result<()> {
        self.command(r#"{"execute": "system_powerdown"}"#)
    }

    /// Sends an interrupt that cannot be masked.
    pub(crate) fn interrupt(&self) -> anyhow::Result<()> {
        self.command(r#"{"execute": "inject-nmi"}"#)
    }

    /// Has QEMU end where the machine would be reset.
    pub(crate) fn ends_at_its_next_reset(&self) -> anyhow::Result<()> {
        self.command(r#"{"execute": "set-action", "arguments": {"reboot": "shutdown"}}"#)
    }

    /// Pulls out the device `id`, and waits until the machine has let go of it.
    pub(crate) fn pull(&self, id: &str) -> anyhow::Result<()> {
        self.command(&format!(r#"{{"execute": "device_del", "arguments": {{"id": "{id}"}}}}"#))?;
        self.tells(|line| line.contains("DEVICE_DELETED") && line.contains(&format!(r#""device": "{id}""#)))?;
        Ok(())
    }

    /// Plugs a disk into the port `bus`, with the serial `serial`, as the device `id`: options of QEMU's block device as JSON.
    pub(crate) fn plug(&self, [id, bus, serial]: [&str; 3], block: &str) -> anyhow::Result<()> {
        self.command(&format!(r#"{{"execute": "blockdev-add", "arguments": {block}}}"#))?;
        let node = block.split(r#""node-name": ""#).nth(1).and_then(|rest| rest.split('"').next());
        let device = format!(
            r#"{{"driver": "virtio-blk-pci", "id": "{id}", "bus": "{bus}", "serial": "{serial}", "drive": "{}"}}"#,
            node.context("no node-name")?
        );
        self.command(&format!(r#"{{"execute": "device_add", "arguments": {device}}}"#))
    }

    /// Gives up what a disk that was pulled out was backed by.
    pub(crate) fn let_go(&self, node: &str) -> anyhow::Result<()> {
        self.command(&format!(r#"{{"execute": "blockdev-del", "arguments": {{"node-name": "{node}"}}}}"#))
    }

    /// Gives QEMU a command.
    fn command(&self, command: &str) -> anyhow::Result<()> {
        let is_first = self.answers.borrow().is_none();
        if is_first {
            let monitor = self.monitor.try_clone()?;
            monitor.set_read_timeout(Some(Duration::from_secs(60)))?;
            *self.answers.borrow_mut() = Some(BufReader::new(monitor).lines());
            self.tells(|line| line.contains("QMP"))?;
        }
        for command in is_first.then_some(r#"{"execute": "qmp_capabilities"}"#).into_iter().chain([command]) {
            writeln!(&self.monitor, "{command}")?;
            let answer = self.tells(|line| line.contains(r#""return""#) || line.contains(r#""error""#))?;
            ensure!(answer.contains(r#""return""#), "{command}: {answer}");
        }
        Ok(())
    }

    /// What QEMU tells next that is looked for; all before it is dropped.
    fn tells(&self, is_it: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let mut answers = self.answers.borrow_mut();
        let answers = answers.as_mut().context("QEMU was told nothing")?;
        loop {
            let line = answers.next().context("QEMU has ended")?.context("no answer of QEMU")?;
            if is_it(&line) {
                return Ok(line);
            }
        }
    }

    /// Cuts its power.
    pub(crate) fn cut_power(self) {
        drop(self);
    }

    /// Waits until the API answers as in maintenance mode.
    pub(crate) fn is_in_maintenance(&mut self) -> anyhow::Result<()> {
        self.until("maintenance mode", BOOT, |machine| {
            machine.talosctl_insecure(&["get", "machinestatus"])?.ok().map(drop)
        })
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It may have ended.
        self.qemu.kill().ok();
        self.qemu.wait().ok();
        if let Some(tpm) = &mut self.tpm {
            tpm.kill().ok();
            tpm.wait().ok();
        }
    }
}

/// A connected pair: our end, and the other one as input and output of a child.
fn command_channel() -> anyhow::Result<(UnixStream, [Stdio; 2])> {
    let (ours, theirs) = UnixStream::pair().context("making a channel for QEMU's commands")?;
    let output = theirs.try_clone().context("making a channel for QEMU's commands")?;
    Ok((ours, [theirs, output].map(|end| OwnedFd::from(end).into())))
}

/// A port of loopback that nobody listens on now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}
