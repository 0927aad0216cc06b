//! Making file systems with their own tools, also with files on them, on devices and in files, without mounting anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sys::process::{Command, ProcessError};

use crate::filesystem::XFS;

/// Longest output of a tool that an error shows.
const OUTPUT: usize = 2048;

/// A tool could not make or change a file system.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("running {program}{}{output}", if output.is_empty() { "" } else { ": " })]
    Tool {
        program: &'static str,
        /// What it wrote.
        output: String,
        #[source]
        source: ProcessError,
    },
    #[error("writing {}", path.display())]
    Prototype {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path:?} cannot be the name of a file on the new file system")]
    Name { path: String },
}

/// A file for a new file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Below the root of the file system: `A/vmlinuz`.
    pub path: String,
    /// Where its content is.
    pub source: PathBuf,
    /// Permission bits; not every file system has them.
    pub mode: u32,
}

/// How file systems are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// Directories that programs are looked for in, as in `PATH`.
    pub path: String,
    /// Makes file systems whose bytes depend on nothing but their content: times are this, in seconds since 1970.
    pub epoch: Option<u64>,
    /// Identifier of each XFS that is made; random if there is none.
    pub xfs_id: Option<String>,
}

impl Default for Tools {
    fn default() -> Self {
        Self { path: "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(), epoch: None, xfs_id: None }
    }
}

impl Tools {
    /// Makes an XFS on a device or in a file of its size. `prototype` is a file that describes its content, see
    /// [`xfs_prototype`]. File systems below 300 MB, which mkfs.xfs does not support, are made nevertheless.
    ///
    /// # Errors
    /// `Tool`, with what mkfs.xfs wrote.
    pub async fn make_xfs(&self, device: &Path, label: &str, prototype: Option<&Path>) -> Result<(), FormatError> {
        let mut args: Vec<String> = XFS.iter().chain(&["-L", label]).map(ToString::to_string).collect();
        if let Some(id) = &self.xfs_id {
            args.extend(["-m".to_owned(), format!("uuid={id}")]);
        }
        if let Some(prototype) = prototype {
            args.extend(["-p".to_owned(), prototype.display().to_string()]);
        }
        args.push(device.display().to_string());
        self.run("mkfs.xfs", args).await
    }

    /// Makes a VFAT on a device or in a file of its size.
    ///
    /// # Errors
    /// `Tool`, with what mkfs.vfat wrote.
    pub async fn make_vfat(&self, device: &Path, label: &str) -> Result<(), FormatError> {
        let mut args: Vec<String> = ["-F", "32", "-n", label].map(str::to_owned).into();
        if self.epoch.is_some() {
            args.push("--invariant".to_owned());
        }
        args.push(device.display().to_string());
        self.run("mkfs.vfat", args).await
    }

    /// Copies files onto a VFAT in a device or file, with their directories; files that exist are replaced.
    ///
    /// # Errors
    /// `Name` for paths that VFAT does not have, `Tool` with what mtools wrote.
    pub async fn copy_to_vfat(&self, device: &Path, files: &[NewFile]) -> Result<(), FormatError> {
        for file in files {
            check_path(&file.path)?;
            for directory in ancestors(&file.path) {
                // It fails where the directory exists; one that is missing is noticed by the copy.
                let made = self.mtools("mmd", device, ["-D", "s"], &[format!("::{directory}")]).await;
                drop(made);
            }
            let paths = [file.source.display().to_string(), format!("::{}", file.path)];
            self.mtools("mcopy", device, ["-o", "-n"], &paths).await?;
        }
        Ok(())
    }

    /// Names in a directory of a VFAT.
    ///
    /// # Errors
    /// `Tool`, also where there is no such directory.
    pub async fn list_vfat(&self, device: &Path, directory: &str) -> Result<Vec<String>, FormatError> {
        check_path(directory)?;
        let output = self.mtools_output("mdir", device, ["-b", "-a"], &[format!("::{directory}")]).await?;
        let prefix = format!("::/{directory}/");
        Ok(output.lines().filter_map(|line| line.trim().strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    /// Removes a file of a VFAT.
    ///
    /// # Errors
    /// `Tool`, also where there is no such file.
    pub async fn remove_from_vfat(&self, device: &Path, path: &str) -> Result<(), FormatError> {
        check_path(path)?;
        self.mtools("mdel", device, [], &[format!("::{path}")]).await
    }

    /// Renames a file of a VFAT within its directory.
    ///
    /// # Errors
    /// `Tool`, also where there is no such file.
    pub async fn rename_in_vfat(&self, device: &Path, path: &str, name: &str) -> Result<(), FormatError> {
        check_path(path)?;
        check_path(name)?;
        self.mtools("mren", device, [], &[format!("::{path}"), name.to_owned()]).await
    }

    async fn mtools<const N: usize>(
        &self,
        program: &'static str,
        device: &Path,
        options: [&str; N],
        paths: &[String],
    ) -> Result<(), FormatError> {
        self.mtools_output(program, device, options, paths).await.map(drop)
    }

    async fn mtools_output<const N: usize>(
        &self,
        program: &'static str,
        device: &Path,
        options: [&str; N],
        paths: &[String],
    ) -> Result<String, FormatError> {
        let mut args = vec!["-i".to_owned(), device.display().to_string()];
        args.extend(options.map(str::to_owned));
        args.extend_from_slice(paths);
        self.output(program, args).await
    }

    async fn run(&self, program: &'static str, args: Vec<String>) -> Result<(), FormatError> {
        self.output(program, args).await.map(drop)
    }

    /// Runs a tool to its end; its output is part of an error.
    async fn output(&self, program: &'static str, args: Vec<String>) -> Result<String, FormatError> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let sink = move |bytes: &[u8]| {
            let mut written = sink.lock();
            // A tool that prints without end fills no memory.
            if written.len() < 1 << 20 {
                written.extend_from_slice(bytes);
            }
        };
        // mtools asks questions and checks sizes unless it is told not to.
        let mut command = Command::new(program).args(args).env("PATH", &self.path).env("MTOOLS_SKIP_CHECK", "1");
        command = command.env("MTOOLSRC", "/dev/null").env("TZ", "UTC");
        // Of all code pages, only the library itself has that of ASCII: the installer's image has no tables of others.
        command = command.env("DEFAULT_CODEPAGE", "367");
        if let Some(epoch) = self.epoch {
            command = command.env("SOURCE_DATE_EPOCH", epoch.to_string());
        }
        let result = run(command.output(Arc::new(sink)), program).await;
        let text = String::from_utf8_lossy(&written.lock()).trim().to_owned();
        match result {
            Ok(()) => Ok(text),
            Err(source) => {
                let start = (0..=text.len().saturating_sub(OUTPUT)).rev().find(|at| text.is_char_boundary(*at));
                let output = text.get(start.unwrap_or_default()..).unwrap_or_default().to_owned();
                Err(FormatError::Tool { program, output, source })
            }
        }
    }
}

async fn run(command: Command, program: &str) -> Result<(), ProcessError> {
    let mut child = command.spawn()?;
    let status = child.wait().await?;
    child.drain().await;
    if status.success() { Ok(()) } else { Err(ProcessError::Failed { program: program.to_owned(), status }) }
}

/// Refuses paths that would mean something else to a tool or in a prototype.
fn check_path(path: &str) -> Result<(), FormatError> {
    let plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-~".contains(&byte);
        !part.is_empty() && !part.starts_with('-') && part.bytes().all(allowed) && !matches!(part, "." | "..")
    };
    if path.len() <= 200 && path.split('/').all(plain) {
        Ok(())
    } else {
        Err(FormatError::Name { path: path.to_owned() })
    }
}

/// The directories above a path, from the root down.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Writes a description of a file system's content for mkfs.xfs.
///
/// # Errors
/// `Name` for paths that the description cannot hold, `Prototype` when it cannot be written.
pub fn write_xfs_prototype(to: &Path, directories: &[&str], files: &[NewFile]) -> Result<(), FormatError> {
    let text = xfs_prototype(directories, files)?;
    std::fs::write(to, text).map_err(|source| FormatError::Prototype { path: to.to_owned(), source })
}

/// The description: directories as a tree, each file with the file that its content comes from.
fn xfs_prototype(directories: &[&str], files: &[NewFile]) -> Result<String, FormatError> {
    let mut entries: Vec<(&str, Option<&NewFile>)> = directories.iter().map(|path| (*path, None)).collect();
    for file in files {
        entries.extend(ancestors(&file.path).map(|path| (path, None)));
        entries.push((&file.path, Some(file)));
        let source = file.source.to_string_lossy();
        if source.is_empty() || source.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(FormatError::Name { path: source.into_owned() });
        }
    }
    for (path, _) in &entries {
        check_path(path)?;
    }
    entries.sort_by_key(|(path, _)| path.split('/').collect::<Vec<_>>());
    entries.dedup_by_key(|(path, _)| *path);
    // The name of a boot block that is not taken, and counts that are not used.
    let mut text = "/dev/null\n0 0\nd--755 0 0\n".to_owned();
    let mut open = 0;
    for (path, file) in entries {
        let depth = path.matches('/').count();
        while open > depth {
            text.push_str("$\n");
            open -= 1;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        match file {
            None => {
                text.push_str(&format!("{name} d--755 0 0\n"));
                open += 1;
            }
            Some(file) => {
                text.push_str(&format!("{name} ---{:03o} 0 0 {}\n", file.mode & 0o777, file.source.display()));
            }
        }
    }
    text.push_str(&"$\n".repeat(open + 1));
    Ok(text)
}

#[cfg(test)]
mod tests;
