//! The files that are tested, and the folder of each check.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use tests::support::{run, say};

use crate::vm::FOR_EMULATION;

/// How much of a console is shown after a check failed.
const CONSOLE_LINES: usize = 60;

/// Held while something is made that checks share.
static MAKING: Mutex<()> = Mutex::new(());

/// Boot assets, programs, and the folder of a check.
#[derive(Debug, Clone)]
pub(crate) struct Assets {
    programs: PathBuf,
    boot: PathBuf,
    folder: PathBuf,
    shared: PathBuf,
}

#[expect(clippy::disallowed_methods, reason = "a test program is configured by its environment")]
fn variable(name: &str) -> anyhow::Result<PathBuf> {
    let value = std::env::var(name);
    value.map(PathBuf::from).with_context(|| format!("reading {name} (cargo xtask test sets it)"))
}

impl Assets {
    /// Finds what the environment names: `TEST_PROGRAMS` and `TEST_BOOT`, the directory of the boot assets.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("machine");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).context("removing the remains of an earlier run")?;
        }
        let shared = folder.join("made");
        let assets = Self { programs: variable("TEST_PROGRAMS")?, boot: variable("TEST_BOOT")?, folder, shared };
        for path in [assets.kernel(), assets.initramfs(), assets.talosctl()] {
            ensure!(path.exists(), "{} does not exist", path.display());
        }
        Ok(assets)
    }

    /// The same with a folder for the check `name`.
    pub(crate) fn of(&self, name: &str) -> Self {
        Self { folder: self.folder.join(name), ..self.clone() }
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.boot.join("vmlinuz")
    }

    pub(crate) fn initramfs(&self) -> PathBuf {
        self.boot.join("initramfs.xz")
    }

    /// The disc image, made at its first use.
    pub(crate) fn disc(&self) -> anyhow::Result<PathBuf> {
        self.artefact("iso", "disc/metal-amd64.iso", &["--extra-kernel-arg", FOR_EMULATION])
    }

    /// A disc whose system takes its configuration from another disc, made at its first use.
    pub(crate) fn disc_with_a_source(&self) -> anyhow::Result<PathBuf> {
        let arguments = ["--extra-kernel-arg", FOR_EMULATION, "--extra-kernel-arg", "talos.config=metal-iso"];
        self.artefact("iso", "disc-metal-iso/metal-amd64.iso", &arguments)
    }

    /// A disk image with the system, made at its first use.
    pub(crate) fn disk_image(&self) -> anyhow::Result<PathBuf> {
        let content = format!(
            "baseProfileName: metal\n\
            customization: {{extraKernelArgs: [{FOR_EMULATION}]}}\n\
            output: {{kind: image, imageOptions: {{diskFormat: qcow2}}, outFormat: raw}}\n"
        );
        let _making = MAKING.lock();
        let artefact = self.shared.join("disk/metal-amd64.qcow2");
        if !artefact.exists() {
            let profile = self.file("profile.yaml")?;
            std::fs::write(&profile, content)?;
            let folder = self.shared.join("disk");
            std::fs::create_dir_all(&folder)?;
            let paths = [&self.programs.join("imager"), &self.boot, &self.programs, &folder, &profile];
            let paths = paths.map(|path| path.display().to_string());
            let script = r#""$0" - --assets "$1" --programs "$2" --output "$3" <"$4""#;
            let [imager, assets, programs, output, profile] = &paths;
            run(Path::new("sh"), &["-c", script, imager, assets, programs, output, profile])?.ok()?;
            ensure!(artefact.exists(), "imager made no {}", artefact.display());
        }
        Ok(artefact)
    }

    /// A disk of the check's own with the content of that image.
    pub(crate) fn disk_of_image(&self, name: &str) -> anyhow::Result<PathBuf> {
        let disk = self.file(name)?;
        let image = self.disk_image()?.display().to_string();
        let convert = ["convert", "-O", "raw", &image, &disk.display().to_string()];
        run(Path::new("qemu-img"), &convert)?.ok().context("qemu-img (package qemu-utils)")?;
        Ok(disk)
    }

    fn artefact(&self, profile: &str, name: &str, arguments: &[&str]) -> anyhow::Result<PathBuf> {
        let _making = MAKING.lock();
        let artefact = self.shared.join(name);
        if !artefact.exists() {
            self.imager(profile, &artefact, arguments)?;
        }
        Ok(artefact)
    }

    /// A disc with a configuration, as machines with `talos.config=metal-iso` look for one.
    pub(crate) fn disc_with_configuration(&self, configuration: &Path) -> anyhow::Result<PathBuf> {
        let disc = self.file("metal-iso.iso")?;
        let [disc_path, configuration] = [&disc, configuration].map(|path| path.display().to_string());
        let file = format!("config.yaml={configuration}");
        let arguments =
            ["-as", "mkisofs", "-quiet", "-V", "metal-iso", "-J", "-r", "-o", &disc_path, "-graft-points", &file];
        run(Path::new("xorriso"), &arguments)?.ok().context("xorriso (Debian's package xorriso)")?;
        Ok(disc)
    }

    /// The installer image as an OCI image layout, made at its first use.
    pub(crate) fn installer(&self) -> anyhow::Result<PathBuf> {
        let _making = MAKING.lock();
        let layout = self.made("installer");
        if layout.exists() { Ok(layout) } else { self.installer_in(&layout) }
    }

    /// An installer image of other boot assets, for this check alone.
    pub(crate) fn installer_of(&self, name: &str, boot: &Path) -> anyhow::Result<PathBuf> {
        let other = Self { boot: boot.to_owned(), ..self.clone() };
        other.installer_in(&self.file(&format!("installer-{name}"))?)
    }

    fn installer_in(&self, layout: &Path) -> anyhow::Result<PathBuf> {
        let tar = layout.with_extension("tars").join("installer-amd64.tar");
        self.imager("installer", &tar, &[])?;
        std::fs::create_dir_all(layout)?;
        let [tar, into] = [&tar, layout].map(|path| path.display().to_string());
        run(Path::new("tar"), &["--extract", "--file", &tar, "--directory", &into])?.ok()?;
        Ok(layout.to_owned())
    }

    /// Has `imager` make an artefact.
    fn imager(&self, profile: &str, artefact: &Path, more: &[&str]) -> anyhow::Result<()> {
        let folder = artefact.parent().context("an artefact without a folder")?;
        std::fs::create_dir_all(folder)?;
        let [assets, programs, output] = [&self.boot, &self.programs, folder].map(|path| path.display().to_string());
        let arguments = [profile, "--assets", &assets, "--programs", &programs, "--output", &output];
        run(&self.programs.join("imager"), &[&arguments, more].concat())?
            .ok()
            .with_context(|| format!("making {profile}"))?;
        ensure!(artefact.exists(), "imager made no {}", artefact.display());
        Ok(())
    }

    /// What all checks share.
    fn made(&self, name: &str) -> PathBuf {
        self.shared.join(name)
    }

    /// The key service.
    pub(crate) fn kmsd(&self) -> PathBuf {
        self.programs.join("kmsd")
    }

    pub(crate) fn talosctl(&self) -> PathBuf {
        self.programs.join("talosctl")
    }

    /// A file in the folder of the check, which is made if it is absent.
    pub(crate) fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder).context("making the folder of a check")?;
        Ok(self.folder.join(name))
    }

    /// Prints the ends of the consoles of this check's machines.
    pub(crate) fn show_consoles(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "console")) {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            say(&format!("    --- end of {}", path.display()));
            for line in lines.iter().skip(lines.len().saturating_sub(CONSOLE_LINES)) {
                say(&format!("    {line}"));
            }
        }
    }
}
