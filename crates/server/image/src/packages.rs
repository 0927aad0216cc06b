//! Fetches Debian packages of the image's release from the machine's own mirror without touching the machine's package
//! sources: `apt-get` gets private lists. The name of the mirror comes from the machine's sources only.
//!
//! apt verifies packages against the archive's signed index. Cached packages are used unchanged until
//! [`Packages::refresh`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::deb::Package;
use crate::{ImageError, sha256};

/// Debian release of the images' packages.
pub const RELEASE: &str = "trixie";

/// A cache of package files, filled on demand.
#[derive(Debug, Clone)]
pub struct Packages {
    directory: PathBuf,
    etc: PathBuf,
}

/// A Debian archive from the machine's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

impl Packages {
    /// Packages cached in `directory`; the machine's sources are read from `/etc/apt`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), etc: PathBuf::from("/etc/apt") }
    }

    /// Unpacks each package, fetching those that are not cached.
    ///
    /// # Errors
    /// A package that is neither cached nor available, or is damaged.
    pub fn get(&self, names: &[String]) -> Result<Vec<Package>, ImageError> {
        self.fetch_missing(names)?;
        names.iter().map(|name| Package::open(&self.path(name))).collect()
    }

    /// Unpacks one package, fetching it if it is not cached.
    ///
    /// # Errors
    /// As [`Packages::get`].
    pub fn open(&self, name: &str) -> Result<Package, ImageError> {
        self.fetch_missing(&[name.to_owned()])?;
        Package::open(&self.path(name))
    }

    /// The name of the package with the files of the kernel `name`, which may be a package that depends on it, as
    /// Debian's `linux-image-amd64`.
    ///
    /// # Errors
    /// As [`Packages::get`].
    pub fn kernel(&self, name: &str) -> Result<String, ImageError> {
        self.fetch_missing(&[name.to_owned()])?;
        let package = Package::open_control(&self.path(name))?;
        Ok(kernel_below(package.depends.as_deref().unwrap_or_default()).unwrap_or(name).to_owned())
    }

    /// Names and SHA-256 digests of the packages, fetching those that are not cached.
    ///
    /// # Errors
    /// A package that is neither cached nor available.
    pub fn digests(&self, names: &[String]) -> Result<BTreeMap<String, String>, ImageError> {
        self.fetch_missing(names)?;
        names
            .iter()
            .map(|name| {
                let path = self.path(name);
                let bytes = std::fs::read(&path).map_err(ImageError::read(&path))?;
                Ok((name.clone(), sha256(&bytes)))
            })
            .collect()
    }

    fn fetch_missing(&self, names: &[String]) -> Result<(), ImageError> {
        let missing: Vec<&str> = names.iter().filter(|name| !self.path(name).exists()).map(String::as_str).collect();
        if missing.is_empty() { Ok(()) } else { self.fetch(&missing) }
    }

    /// Clears the cache, so that the next use fetches current packages.
    ///
    /// # Errors
    /// The cache cannot be removed.
    pub fn refresh(&self) -> Result<(), ImageError> {
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ImageError::Write { path: self.directory.clone(), source: error })
            }
            _ => Ok(()),
        }
    }

    /// Unpacks packages of [`RELEASE`] into the directory `out`, fetching those that are not cached. Nothing is
    /// installed, and no maintainer script runs.
    ///
    /// # Errors
    /// A package is neither cached nor available, or `dpkg-deb` fails.
    pub fn unpack(&self, names: &[String], out: &Path) -> Result<(), ImageError> {
        self.fetch_missing(names)?;
        std::fs::create_dir_all(out).map_err(ImageError::write(out))?;
        for name in names {
            let (package, out) = (self.path(name), out.to_string_lossy());
            run("dpkg-deb", &["--extract", &package.to_string_lossy(), &out], Path::new("/dev/null"), Path::new("."))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.deb"))
    }

    fn fetch(&self, names: &[&str]) -> Result<(), ImageError> {
        tracing::info!(packages = names.join(" "), release = RELEASE, "fetching packages");
        std::fs::create_dir_all(&self.directory).map_err(ImageError::write(&self.directory))?;
        let scratch = tempfile::tempdir_in(&self.directory).map_err(ImageError::write(&self.directory))?;
        let config = self.private_apt(scratch.path())?;
        run("apt-get", &["update", "--quiet"], &config, scratch.path())?;
        let download = scratch.path().join("download");
        std::fs::create_dir(&download).map_err(ImageError::write(&download))?;
        run("apt-get", &[&["download", "--quiet"], names].concat(), &config, &download)?;
        for entry in std::fs::read_dir(&download).map_err(ImageError::read(&download))? {
            let file = entry.map_err(ImageError::read(&download))?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((package, _)) = name.split_once('_') else { continue };
            let target = self.path(package);
            std::fs::rename(&file, &target).map_err(ImageError::write(&target))?;
        }
        Ok(())
    }

    /// Writes a private apt configuration below `scratch` and returns its path.
    fn private_apt(&self, scratch: &Path) -> Result<PathBuf, ImageError> {
        let mirror = self.mirror()?;
        let (lists, archives) = (scratch.join("lists/partial"), scratch.join("archives/partial"));
        for directory in [&lists, &archives] {
            std::fs::create_dir_all(directory).map_err(ImageError::write(directory))?;
        }
        let options = mirror.signed_by.map(|key| format!("[signed-by={key}] ")).unwrap_or_default();
        let sources = format!("deb {options}{} {RELEASE} main\n", mirror.uri);
        let scratch_path = scratch.display();
        let config = format!(
            "Dir::Etc::SourceList \"{scratch_path}/sources.list\";\n\
             Dir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::Preferences \"/dev/null\";\n\
             Dir::Etc::PreferencesParts \"/dev/null\";\n\
             Dir::State::Lists \"{scratch_path}/lists\";\n\
             Dir::State::status \"/dev/null\";\n\
             Dir::Cache::archives \"{scratch_path}/archives\";\n\
             Dir::Cache::pkgcache \"\";\n\
             Dir::Cache::srcpkgcache \"\";\n\
             Acquire::Languages \"none\";\n\
             APT::Sandbox::User \"root\";\n\
             APT::Architecture \"amd64\";\n"
        );
        let path = scratch.join("apt.conf");
        for (path, text) in [(&scratch.join("sources.list"), &sources), (&path, &config)] {
            std::fs::write(path, text).map_err(ImageError::write(path))?;
        }
        Ok(path)
    }

    /// The archive of the machine's own release.
    fn mirror(&self) -> Result<Mirror, ImageError> {
        let os_release = std::fs::read_to_string("/etc/os-release").map_err(ImageError::read("/etc/os-release"))?;
        let suite = os_release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .unwrap_or(RELEASE)
            .trim_matches('"')
            .to_owned();
        let mut files = vec![self.etc.join("sources.list")];
        let parts = self.etc.join("sources.list.d");
        if let Ok(entries) = std::fs::read_dir(&parts) {
            let mut more: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            more.sort();
            files.extend(more);
        }
        files
            .iter()
            .filter_map(|file| {
                let text = std::fs::read_to_string(file).ok()?;
                match file.extension()?.to_str()? {
                    "list" => from_one_line_style(&text, &suite),
                    "sources" => from_deb822(&text, &suite),
                    _ => None,
                }
            })
            .next()
            .ok_or(ImageError::NoMirror { path: self.etc.clone(), suite })
    }
}

/// The kernel among the packages of a field `Depends`.
fn kernel_below(depends: &str) -> Option<&str> {
    let mut names = depends.split([',', '|']).filter_map(|word| word.split_whitespace().next());
    names.find(|name| name.starts_with("linux-image-"))
}

fn from_one_line_style(text: &str, suite: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?.to_owned();
        if words.next()? != suite || !words.any(|component| component == "main") {
            return None;
        }
        let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        Some(Mirror { uri, signed_by: signed_by.map(str::to_owned) })
    })
}

fn from_deb822(text: &str, suite: &str) -> Option<Mirror> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
        };
        let has = |name: &str, word: &str| field(name).is_some_and(|value| value.split_whitespace().any(|w| w == word));
        if !has("Types", "deb") || !has("Suites", suite) || !has("Components", "main") {
            return None;
        }
        if field("Enabled").is_some_and(|value| value == "no") {
            return None;
        }
        let uri = field("URIs")?.split_whitespace().next()?.to_owned();
        // An inline key begins on the next line; apt then uses the machine's trusted keys.
        Some(Mirror { uri, signed_by: field("Signed-By").filter(|key| key.starts_with('/')) })
    })
}

#[expect(clippy::disallowed_methods, reason = "a tool that runs on a host, never as PID 1 of a node")]
fn run(program: &str, arguments: &[&str], config: &Path, directory: &Path) -> Result<(), ImageError> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .env("APT_CONFIG", config)
        .current_dir(directory)
        .output()
        .map_err(|source| ImageError::Start { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(ImageError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Packages for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::Packages;

    /// A cache that all tests share, since packages are large and each fetch asks the mirror.
    pub(crate) fn packages() -> Packages {
        Packages::new(&std::env::temp_dir().join("image-test-packages"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_both_styles_of_sources() {
        let list = "# deb cdrom:x\ndeb-src http://m.example/debian a main\n\
                    deb http://other.example/x a-security main\ndeb [arch=amd64 signed-by=/k.gpg] http://m.example/debian a contrib main\n";
        let wanted = Mirror { uri: "http://m.example/debian".into(), signed_by: Some("/k.gpg".into()) };
        assert_eq!(from_one_line_style(list, "a"), Some(wanted.clone()));
        let deb822 = "Types: deb-src\nURIs: http://s.example\nSuites: a\nComponents: main\n\n\
                      Types: deb\n# note\nURIs: http://m.example/debian\nSuites: a a-updates\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(from_deb822(deb822, "a"), Some(wanted));
        assert_eq!(from_deb822(deb822, "b"), None);
        assert_eq!(from_one_line_style(list, "b"), None);
    }

    #[test]
    fn the_kernel_behind_its_current_name_is_found() {
        let depends = "linux-base (>= 4.3~), linux-image-6.12.117+deb13-amd64 (= 6.12.117-1)";
        assert_eq!(kernel_below(depends), Some("linux-image-6.12.117+deb13-amd64"));
        assert_eq!(kernel_below("kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool"), None);
    }

    #[test]
    fn a_machine_without_a_mirror_is_told_so() {
        let etc = tempfile::tempdir().unwrap();
        let packages = Packages { directory: etc.path().join("cache"), etc: etc.path().to_owned() };
        let error = packages.get(&["libc6".to_owned()]).unwrap_err();
        assert!(matches!(error, ImageError::NoMirror { .. }), "{error:?}");
    }
}
