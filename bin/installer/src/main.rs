//! `installer`: the entry point of the installer image. It installs the system that the image brings to a disk.

mod arguments;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use block::disk::{ImageFile, KernelDisk, TargetDisk};
use block::efivar::{self, EfiVariables};
use block::format::Tools;
use clap::Parser as _;
use installer::{Assets, Request};
use machine::cmdline::Cmdline;
use machine::gpt::{Guid, ProtectiveEntry};
use machine::grub::{self, Slot};
use machine::install::{Options, State, Treatment};
use machine::layout::{Firmware, Layout};
use machine::meta;
use stdx::Secret;

use arguments::{Arguments, Command, Install};

/// Values for META that an image brings along.
const META_PRESET: &str = "INSTALLER_META_BASE64";
const VERSION: &str = stdx::version::TAG;
/// Longest configuration that is read.
const CONFIG: u64 = 4 << 20;

fn main() -> ExitCode {
    let Arguments { command: Command::Install(arguments) } = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("nothing more is done: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Install) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut disk = open(&arguments.disk)?;
    let request = request(arguments, disk.partition_device(1).is_some())?;
    let scratch = tempfile::tempdir().context("making a temporary directory")?;
    let progress = |line: &str| say(&mut std::io::stdout(), line);
    let mut ids = random_guids()?.into_iter().cycle();
    let new_id = move || ids.next().unwrap_or_default();
    let install = installer::install(disk.as_mut(), &request, scratch.path(), new_id, &progress);
    Ok(runtime.block_on(install)?)
}

/// A disk of this machine, or a file with an image of one.
fn open(path: &Path) -> anyhow::Result<Box<dyn TargetDisk>> {
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    Ok(if is_file { Box::new(ImageFile::open(path)?) } else { Box::new(KernelDisk::open(path)?) })
}

fn request(arguments: &Install, is_device: bool) -> anyhow::Result<Request> {
    let machine = sys::host::architecture();
    let arch = arguments.arch.as_deref().unwrap_or(machine);
    let firmware = if efivar::is_uefi(Path::new("/sys")) { Firmware::Uefi } else { Firmware::Bios };
    // An image has to boot on any machine.
    let layout = if is_device { Layout::of_firmware(firmware) } else { Layout::Both };
    let treatment = match (arguments.zero, arguments.upgrade && !arguments.force) {
        (true, _) => Treatment::Zero,
        (false, true) => Treatment::Untouched,
        (false, false) => Treatment::Force,
    };
    let mut options = Options::new(layout, treatment);
    options.image = arch.to_owned();
    options.machine = if is_device { machine } else { arch }.to_owned();
    if !is_device {
        options.ephemeral = machine::layout::EPHEMERAL_IN_IMAGE;
    }
    let running = std::fs::read_to_string("/proc/cmdline").context("reading the kernel command line")?;
    let running = if is_device { Cmdline::parse(&running) } else { Cmdline::default() };
    let config = arguments.config.as_deref();
    let configuration = configuration()?;
    let (entry, state) = wanted(&configuration)?;
    if is_device {
        options.state = state;
    }
    let cmdline = Cmdline::installed(&arguments.platform, config, &running, &arguments.extra_kernel_arg)?;
    Ok(Request {
        options,
        assets: Assets::below(&arguments.assets.join(arch)),
        version: VERSION.to_owned(),
        cmdline: cmdline.to_string(),
        entry,
        meta: meta_values(arguments)?,
        configuration: Secret::new(configuration),
        tools: Tools::default(),
        booted_slot: running.last(grub::BOOT_IMAGE).and_then(Slot::of_boot_image),
        variables: (is_device && firmware == Firmware::Uefi).then(|| EfiVariables::new(efivar::DIRECTORY)),
    })
}

/// The configuration on standard input, of the machine that is installed; empty where there is none.
fn configuration() -> anyhow::Result<Vec<u8>> {
    let mut raw = Vec::new();
    let input = std::io::stdin();
    if !input.is_terminal() {
        input.lock().take(CONFIG).read_to_end(&mut raw).context("reading the configuration")?;
    }
    Ok(if raw.iter().all(u8::is_ascii_whitespace) { Vec::new() } else { raw })
}

/// What a configuration says about the installation: how old firmware sees the disk, and whether STATE holds it from the start.
/// A STATE that is to be encrypted gets nothing in plain text: the machine makes it.
fn wanted(configuration: &[u8]) -> anyhow::Result<(ProtectiveEntry, State)> {
    if configuration.is_empty() {
        return Ok((ProtectiveEntry::Inactive, State::Blank));
    }
    // It was judged by the machine that it is of.
    let documents = config::Documents::unjudged(configuration).context("the configuration on standard input")?;
    let machine = documents.v1alpha1().and_then(|config| config.machine.as_ref());
    let install = machine.and_then(|machine| machine.install.as_ref());
    let active = install.and_then(|install| install.legacy_bios_support) == Some(true);
    let encrypted = machine.and_then(|machine| machine.system_disk_encryption.as_ref()?.state.as_ref()).is_some();
    let entry = if active { ProtectiveEntry::Active } else { ProtectiveEntry::Inactive };
    Ok((entry, if encrypted || machine.is_none() { State::Blank } else { State::Configuration }))
}

/// Those of the image, and those of the arguments over them.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn meta_values(arguments: &Install) -> anyhow::Result<BTreeMap<u8, Vec<u8>>> {
    let preset = std::env::var(META_PRESET).unwrap_or_default();
    let preset = if preset.is_empty() { Vec::new() } else { meta::decode_preset(&preset).context(META_PRESET)? };
    let all = preset.into_iter().chain(arguments.meta.iter().cloned());
    Ok(all.map(|assignment| (assignment.key, assignment.value.into_bytes())).collect())
}

/// Ids for a partition table and its partitions.
fn random_guids() -> anyhow::Result<Vec<Guid>> {
    let random = || Ok(sys::host::random_uuid().context("making an id")?.parse()?);
    (0..=machine::layout::Label::ALL.len()).map(|_| random()).collect()
}

fn say(to: &mut dyn std::io::Write, line: &str) {
    // Nobody is left to tell if this fails.
    drop(writeln!(to, "{line}"));
    drop(to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_holds_the_configuration_unless_it_is_to_be_encrypted() {
        let wanted = |text: &str| wanted(format!("version: v1alpha1\nmachine:\n{text}").as_bytes()).unwrap();
        assert_eq!(wanted("  type: worker\n"), (ProtectiveEntry::Inactive, State::Configuration));
        let legacy = "  install: {legacyBIOSSupport: true}\n";
        assert_eq!(wanted(legacy), (ProtectiveEntry::Active, State::Configuration));
        let encrypted = |what: &str| format!("  systemDiskEncryption: {{{what}: {{provider: luks2}}}}\n");
        assert_eq!(wanted(&encrypted("state")), (ProtectiveEntry::Inactive, State::Blank));
        assert_eq!(wanted(&encrypted("ephemeral")), (ProtectiveEntry::Inactive, State::Configuration));
        assert_eq!(super::wanted(b"").unwrap(), (ProtectiveEntry::Inactive, State::Blank));
        super::wanted(b"machine: [").unwrap_err();
    }
}
