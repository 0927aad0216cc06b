//! The files that are tested, and the folder of each check.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tests::support::say;

/// How much of a console is shown after a check failed.
const CONSOLE_LINES: usize = 60;

/// Boot assets, programs, and the folder of a check.
#[derive(Debug, Clone)]
pub(crate) struct Assets {
    programs: PathBuf,
    boot: PathBuf,
    folder: PathBuf,
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
        let assets = Self { programs: variable("TEST_PROGRAMS")?, boot: variable("TEST_BOOT")?, folder };
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
