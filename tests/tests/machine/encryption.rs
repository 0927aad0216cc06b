//! Encrypted volumes on a machine: made, opened again, given other keys while they are in use, and kept from a wrong key.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, ensure};
use tests::support::run;

use crate::assets::Assets;
use crate::install::generate;
use crate::registry::Registry;
use crate::vm::{BOOT, Firmware, HOST, Setup, Vm, free_port};

/// The machine's UUID, a key of its STATE.
const UUID: &str = "5a1e0d44-3c1f-4f0e-9e5b-0d6f6f1f2a3b";
/// Bytes of a header with the areas of its slots.
const HEADER: usize = 16 << 20;
const DISK: u64 = 4 << 30;
/// The disk after the machine's first start.
const GROWN: u64 = 5 << 30;

/// Keys of both volumes, as the configuration has them.
fn keys(state: &str, ephemeral: &str) -> String {
    let volume = |keys: &str| format!(r#"{{"provider": "luks2", "keys": [{keys}]}}"#);
    format!(r#"{{"state": {}, "ephemeral": {}}}"#, volume(state), volume(ephemeral))
}

/// A key service on loopback, until it is dropped.
struct KeyService(Child);

impl KeyService {
    #[expect(clippy::disallowed_methods, reason = "a program on a host, not on a node: there is no reaper to disturb")]
    fn start(assets: &Assets, port: u16) -> anyhow::Result<Self> {
        let key = assets.file("service.key")?;
        let listen = format!("127.0.0.1:{port}");
        let started = Command::new(assets.kmsd()).args(["--listen", &listen, "--key"]).arg(key).spawn();
        started.map(Self).context("starting kmsd")
    }
}

impl Drop for KeyService {
    fn drop(&mut self) {
        // It may have ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn passphrase(slot: u32, text: &str) -> String {
    format!(r#"{{"slot": {slot}, "static": {{"passphrase": "{text}"}}}}"#)
}

/// The same configuration with other keys, as a file.
fn with_keys(assets: &Assets, configuration: &Path, keys: &str) -> anyhow::Result<String> {
    // A merge would add to the lists of keys.
    let patch = format!(r#"[{{"op": "replace", "path": "/machine/systemDiskEncryption", "value": {keys}}}]"#);
    let changed = assets.file("changed.yaml")?.display().to_string();
    let file = configuration.display().to_string();
    let arguments = ["machineconfig", "patch", &file, "--patch", &patch, "--output", &changed];
    run(&assets.talosctl(), &arguments)?.ok().context("changing the configuration")?;
    Ok(changed)
}

pub(crate) fn volumes_are_sealed_and_their_keys_change(assets: &Assets) -> anyhow::Result<()> {
    const NODE: &str = r#"{"slot": 0, "nodeID": {}}"#;
    let disk = assets.disk_of_image("system.disk")?;
    File::options().write(true).open(&disk)?.set_len(DISK)?;
    let registry = Registry::start(&assets.installer()?)?;
    let two = [passphrase(0, "first"), passphrase(1, "second")].join(",");
    let patch = format!(r#"{{"machine": {{"systemDiskEncryption": {}}}}}"#, keys(NODE, &two));
    let generated = generate(assets, &registry, &patch)?;
    let identity = Some(format!("type=1,uuid={UUID}"));
    let setup = Setup::firmware("machine", Firmware::Bios, None).with_disk(&disk);
    let setup = Setup { identity, ..setup };
    let talosconfig = &generated.talosconfig;

    let mut machine = Vm::start(assets, &setup)?;
    machine.is_in_maintenance()?;
    let configuration = generated.control_plane.display().to_string();
    machine.talosctl_insecure(&["apply-config", "--file", &configuration])?.ok()?;
    machine.is_up(talosconfig, BOOT)?;
    machine.until("encrypted volumes", BOOT, |machine| {
        are_encrypted(machine, talosconfig, "STATE", "nodeID")?;
        are_encrypted(machine, talosconfig, "EPHEMERAL", "static")
    })?;

    // While they are in use, without a restart.
    let port = free_port()?;
    let service = KeyService::start(assets, port)?;
    let sealed = format!(r#"{{"slot": 2, "kms": {{"endpoint": "grpc://{HOST}:{port}"}}}}"#);
    let both = format!("{NODE},{}", passphrase(4, "spare"));
    let changed = with_keys(assets, &generated.control_plane, &keys(&both, &sealed))?;
    let applied = machine.talosctl(talosconfig, &["apply-config", "--mode", "no-reboot", "--file", &changed])?;
    applied.ok().context("other keys")?;
    machine.until("other keys", BOOT, |machine| {
        are_encrypted(machine, talosconfig, "EPHEMERAL", "kms")?;
        are_encrypted(machine, talosconfig, "STATE", "static")
    })?;
    machine.cut_power();
    let headers = headers(assets, &disk)?;
    let [state, ephemeral] = &headers[..] else { anyhow::bail!("{} headers on the disk", headers.len()) };
    for (header, slot, key, opens) in [
        (state, "0", format!("{UUID}STATE"), true),
        (state, "4", "spare".to_owned(), true),
        (ephemeral, "0", "first".to_owned(), false),
    ] {
        ensure!(fits(assets, header, Some(slot), &key)? == opens, "{key} of slot {slot}: not {opens}");
    }
    ensure!(!fits(assets, ephemeral, None, "second")?, "a key that is not listed opens EPHEMERAL");
    let before_reset = [uuid(state)?, uuid(ephemeral)?];

    // The service is away at the start, and the disk has grown.
    drop(service);
    File::options().write(true).open(&disk)?.set_len(GROWN)?;
    let mut machine = Vm::start(assets, &setup)?;
    machine.is_up(talosconfig, BOOT).context("without its key service")?;
    machine.until("a volume that waits for its key", BOOT, |machine| {
        let status = machine.talosctl(talosconfig, &["get", "volumestatus", "EPHEMERAL", "--output", "yaml"])?.ok()?;
        ensure!(status.contains("phase: preparing") && status.contains("slot 2 (kms)"), "{status}");
        Ok(())
    })?;
    let service = KeyService::start(assets, port)?;
    machine.until("encrypted volumes", BOOT, |machine| {
        are_encrypted(machine, talosconfig, "EPHEMERAL", "kms")?;
        let size = size_of_var(machine, talosconfig)?;
        ensure!(size > 3.5, "EPHEMERAL has {size} GB");
        Ok(())
    })?;

    // Made anew by a reset, as the configuration says.
    let before = machine.boot_id(talosconfig)?;
    let reset = ["reset", "--graceful=false", "--reboot", "--wait=false", "--system-labels-to-wipe", "EPHEMERAL"];
    machine.talosctl(talosconfig, &reset)?.ok()?;
    machine.is_up_again(talosconfig, &before).context("after a reset of EPHEMERAL")?;
    machine.until("an encrypted volume", BOOT, |machine| are_encrypted(machine, talosconfig, "EPHEMERAL", "kms"))?;
    let anew = self::headers(assets, &disk)?;
    ensure!(uuid(&anew[0])? == before_reset[0], "STATE was made anew");
    ensure!(uuid(&anew[1])? != before_reset[1], "EPHEMERAL was not made anew");
    let header = std::fs::read(&anew[1])?;

    // A key that is wrong at the next start.
    let wrong = with_keys(assets, &generated.control_plane, &keys(&both, &passphrase(2, "wrong")))?;
    machine.talosctl(talosconfig, &["apply-config", "--mode", "staged", "--file", &wrong])?.ok()?;
    machine.talosctl(talosconfig, &["reboot", "--mode", "powercycle", "--wait=false"])?.ok()?;
    machine.says("slot 2 (static): wrong key", BOOT)?;
    machine.cut_power();
    drop(service);
    let left = self::headers(assets, &disk)?;
    ensure!(std::fs::read(&left[1])? == header, "a wrong key has changed the header of EPHEMERAL");
    Ok(())
}

/// What the file system of EPHEMERAL has, in GB.
fn size_of_var(machine: &Vm, talosconfig: &Path) -> anyhow::Result<f64> {
    let mounts = machine.talosctl(talosconfig, &["mounts"])?.ok()?;
    let line = mounts.lines().find(|line| line.trim_end().ends_with("/var")).context("nothing at /var")?;
    line.split_whitespace().nth(2).and_then(|size| size.parse().ok()).context("no size")
}

/// The UUID in a header.
fn uuid(header: &Path) -> anyhow::Result<Vec<u8>> {
    let mut uuid = vec![0; 40];
    File::open(header)?.read_exact_at(&mut uuid, 168)?;
    Ok(uuid)
}

/// Both volumes are sealed by the machine's TPM alone, which is another one at the third start.
pub(crate) fn a_recovery_key_opens_what_a_new_tpm_does_not(assets: &Assets) -> anyhow::Result<()> {
    const TPM: &str = r#"{"slot": 0, "tpm": {}}"#;
    const NEW: &str = "it was sealed by another TPM, or by this one before it was cleared";
    let disk = assets.disk_of_image("system.disk")?;
    File::options().write(true).open(&disk)?.set_len(DISK)?;
    let registry = Registry::start(&assets.installer()?)?;
    let patch = format!(r#"{{"machine": {{"systemDiskEncryption": {}}}}}"#, keys(TPM, TPM));
    let generated = generate(assets, &registry, &patch)?;
    let talosconfig = &generated.talosconfig;
    let setup = |tpm: &str| -> anyhow::Result<Setup> {
        let setup = Setup::firmware("machine", Firmware::Bios, None).with_disk(&disk);
        Ok(Setup { tpm: Some(assets.file(tpm)?), ..setup })
    };
    let opens = |machine: &mut Vm| {
        machine.until("volumes that the TPM opens", BOOT, |machine| {
            are_encrypted(machine, talosconfig, "STATE", "tpm")?;
            are_encrypted(machine, talosconfig, "EPHEMERAL", "tpm")
        })
    };

    let mut machine = Vm::start(assets, &setup("tpm")?)?;
    machine.is_in_maintenance()?;
    let configuration = generated.control_plane.display().to_string();
    machine.talosctl_insecure(&["apply-config", "--file", &configuration])?.ok()?;
    machine.is_up(talosconfig, BOOT)?;
    opens(&mut machine)?;
    let mut recovery = Vec::new();
    for volume in ["STATE", "EPHEMERAL"] {
        let shown = machine.talosctl(talosconfig, &["disk-keys", "add-recovery", volume])?.ok()?;
        let file = assets.file(&format!("{volume}.key"))?;
        std::fs::write(&file, shown.lines().last().context("no key")?)?;
        recovery.push((volume, file.display().to_string()));
        let slots = machine.talosctl(talosconfig, &["disk-keys", "list", volume])?.ok()?;
        ensure!(slots.contains("tpm") && slots.contains("recovery-key"), "slots of {volume}:\n{slots}");
    }
    machine.cut_power();

    let mut machine = Vm::start(assets, &setup("tpm")?)?;
    machine.is_up(talosconfig, BOOT).context("with its own TPM")?;
    opens(&mut machine)?;
    machine.cut_power();

    // Another board. STATE has the configuration: maintenance mode, for administrators alone.
    let mut machine = Vm::start(assets, &setup("new-tpm")?)?;
    machine.says(NEW, BOOT)?;
    let credentials = talosconfig.display().to_string();
    let insecure = |machine: &Vm, arguments: &[&str]| {
        machine.talosctl_insecure(&[arguments, &["--talosconfig", &credentials]].concat())?.ok()
    };
    let slots = machine.until("maintenance mode for administrators", BOOT, |machine| {
        insecure(machine, &["disk-keys", "list", "STATE"])
    })?;
    ensure!(slots.contains(NEW) && slots.contains("recovery-key"), "slots of STATE:\n{slots}");
    let wrong = assets.file("wrong.key")?;
    std::fs::write(&wrong, "wrong")?;
    let wrong = wrong.display().to_string();
    let refused = machine.talosctl_insecure(&["disk-keys", "unlock", "STATE", "--key-file", &wrong])?;
    ensure!(refused.ok().is_err(), "somebody without a certificate may bring keys");
    let refused = insecure(&machine, &["disk-keys", "unlock", "STATE", "--key-file", &wrong]);
    ensure!(refused.is_err_and(|error| format!("{error:#}").contains("wrong key")), "a wrong key");
    let [(_, state), (_, ephemeral)] = &recovery[..] else { anyhow::bail!("two volumes") };
    insecure(&machine, &["disk-keys", "unlock", "STATE", "--key-file", state])?;
    machine.is_up(talosconfig, BOOT).context("with the recovery key of STATE")?;
    machine.until("EPHEMERAL that waits for a key", BOOT, |machine| {
        let status = machine.talosctl(talosconfig, &["get", "volumestatus", "EPHEMERAL", "--output", "yaml"])?.ok()?;
        ensure!(status.contains("phase: locked") && status.contains(NEW), "{status}");
        Ok(())
    })?;
    machine.talosctl(talosconfig, &["disk-keys", "unlock", "EPHEMERAL", "--key-file", ephemeral])?.ok()?;
    opens(&mut machine)?;
    for (volume, _) in &recovery {
        machine.talosctl(talosconfig, &["disk-keys", "rebind", volume])?.ok()?;
    }
    machine.cut_power();

    let mut machine = Vm::start(assets, &setup("new-tpm")?)?;
    machine.is_up(talosconfig, BOOT).context("bound to the new TPM")?;
    opens(&mut machine)
}

/// Whether a volume is mounted by an encrypted device, and has a key of a kind.
fn are_encrypted(machine: &Vm, talosconfig: &Path, volume: &str, kind: &str) -> anyhow::Result<()> {
    let mount = machine.talosctl(talosconfig, &["get", "mountstatus", volume, "--output", "yaml"])?.ok()?;
    for part in ["encrypted: true", "source: /dev/mapper/vda", kind] {
        ensure!(mount.contains(part), "{volume} without {part:?}:\n{mount}");
    }
    Ok(())
}

/// The LUKS2 headers on a disk, in their order, as files.
fn headers(assets: &Assets, disk: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    const STEP: u64 = 1 << 20;
    let image = File::open(disk)?;
    let mut found = Vec::new();
    for at in (0..DISK / STEP).map(|index| index * STEP) {
        let mut magic = [0; 8];
        image.read_exact_at(&mut magic, at)?;
        if magic == *b"LUKS\xba\xbe\0\x02" {
            let mut header = vec![0; HEADER];
            image.read_exact_at(&mut header, at)?;
            let path = assets.file(&format!("header-{}", found.len()))?;
            std::fs::write(&path, &header)?;
            // The tool wants something behind it.
            File::options().write(true).open(&path)?.set_len(2 * u64::try_from(HEADER)?)?;
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether a key opens a header: by the tool of the host.
fn fits(assets: &Assets, header: &Path, slot: Option<&str>, key: &str) -> anyhow::Result<bool> {
    let file = assets.file("key")?;
    std::fs::write(&file, key)?;
    let (file, header) = (file.display().to_string(), header.display().to_string());
    let mut arguments = vec!["open", "--test-passphrase", "--key-file", &file, &header];
    arguments.extend(slot.iter().flat_map(|slot| ["--key-slot", slot]));
    let answer = run(Path::new("cryptsetup"), &arguments).context("cryptsetup (package cryptsetup-bin)")?;
    match answer.ok() {
        Ok(_) => Ok(true),
        // A wrong key, and a slot that is not in use.
        Err(error) if ["No key available", "No usable keyslot"].iter().any(|no| format!("{error:#}").contains(no)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
