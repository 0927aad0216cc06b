//! Programs of Debian packages that building images runs. They run from a directory, by their own loader and with their
//! own libraries: the machine needs none of them installed, and the results do not depend on its versions.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::ImageError;
use crate::assemble::{Assembled, Inputs, LIBRARY_DIRECTORY, assemble};
use crate::list::List;
use crate::packages::Packages;
use crate::tree::{Kind, Tree};

/// The loader of dynamic programs.
const LOADER: &str = "/usr/lib64/ld-linux-x86-64.so.2";

/// Unpacked programs in a directory that is removed with this value.
#[derive(Debug)]
pub struct Tools {
    directory: tempfile::TempDir,
}

impl Tools {
    /// Unpacks the programs of `list` with their libraries.
    ///
    /// # Errors
    /// A package that is neither cached nor available, a file that it does not have, or a failed write.
    pub fn unpack(list: &List, packages: &Packages) -> Result<Self, ImageError> {
        let inputs = Inputs { packages: packages.get(&list.packages())?, ..Inputs::default() };
        let Assembled { tree, .. } = assemble(list, &inputs)?;
        let directory = tempfile::tempdir().map_err(ImageError::write("a temporary directory"))?;
        write(&tree, directory.path())?;
        Ok(Self { directory })
    }

    /// The path of a file of the tools.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// Runs the program at `path` of the tools with `arguments` in `directory` to its end; returns its standard output.
    ///
    /// # Errors
    /// A program that cannot be started, or that fails.
    pub fn run<A: AsRef<OsStr>>(&self, path: &str, arguments: &[A], directory: &Path) -> Result<Vec<u8>, ImageError> {
        let mut all: Vec<OsString> = vec!["--library-path".into(), self.path(LIBRARY_DIRECTORY).into()];
        all.push(self.path(path).into());
        all.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        run(path, &self.path(LOADER), &all, directory)
    }
}

impl Tools {
    /// A directory with an executable file for each of `programs` (paths of the tools), for those that look for programs by
    /// name in a list of directories.
    ///
    /// # Errors
    /// A failed write.
    pub fn by_name(&self, programs: &[&str]) -> Result<PathBuf, ImageError> {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = self.path("/by-name");
        std::fs::create_dir_all(&directory).map_err(ImageError::write(&directory))?;
        for program in programs {
            let target = directory.join(program.rsplit('/').next().unwrap_or(program));
            let (loader, libraries, program) = (self.path(LOADER), self.path(LIBRARY_DIRECTORY), self.path(program));
            let script = format!(
                "#!/bin/sh\nexec '{}' --library-path '{}' '{}' \"$@\"\n",
                loader.display(),
                libraries.display(),
                program.display()
            );
            std::fs::write(&target, script)
                .and_then(|()| std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755)))
                .map_err(ImageError::write(&target))?;
        }
        Ok(directory)
    }
}

#[expect(clippy::disallowed_methods, reason = "a tool that runs on a host, never as PID 1 of a node")]
fn run(name: &str, loader: &Path, arguments: &[OsString], directory: &Path) -> Result<Vec<u8>, ImageError> {
    let output = std::process::Command::new(loader)
        .args(arguments)
        .env_clear()
        .env("PATH", "/nonexistent")
        .env("SOURCE_DATE_EPOCH", crate::EPOCH.to_string())
        .env("TZ", "UTC")
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|source| ImageError::Start { program: name.to_owned(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words: Vec<_> = arguments.iter().skip(3).map(|word| word.to_string_lossy()).collect();
    Err(ImageError::Command {
        command: format!("{name} {}", words.join(" ")),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Writes `tree` below `directory`, readable by everybody, writable by its owner.
///
/// # Errors
/// A failed write.
pub fn write(tree: &Tree, directory: &Path) -> Result<(), ImageError> {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    for (path, node) in tree.iter() {
        let target = directory.join(path.trim_start_matches('/'));
        match &node.kind {
            Kind::Dir => std::fs::create_dir_all(&target),
            Kind::File(content) => std::fs::write(&target, content).and_then(|()| {
                std::fs::set_permissions(&target, std::fs::Permissions::from_mode(u32::from(node.mode & 0o777)))
            }),
            Kind::Link(to) => symlink(to, &target),
        }
        .map_err(ImageError::write(&target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_run_with_their_own_libraries_and_say_why_they_fail() {
        let list = "libraries libc6 # r\nlibraries libssl3t64 # r\nlibraries zlib1g # r\nlibraries libzstd1 # r\n\
                    link /lib64 -> usr/lib64 # r\npackage kmod # r\n file /usr/bin/kmod # r\n file /usr/sbin/depmod # r\n";
        let list = List::parse("tools", list).unwrap();
        let tools = Tools::unpack(&list, &crate::packages::testing::packages()).unwrap();
        let version = tools.run("/usr/sbin/depmod", &["--version"], Path::new("/")).unwrap();
        assert!(version.starts_with(b"kmod version 3"), "{}", String::from_utf8_lossy(&version));
        let error = tools.run("/usr/sbin/depmod", &["--nonsense"], Path::new("/")).unwrap_err();
        let ImageError::Command { command, stderr, .. } = error else { panic!("{error:?}") };
        assert_eq!(command, "/usr/sbin/depmod --nonsense");
        assert!(stderr.contains("nonsense"), "{stderr}");
    }
}
