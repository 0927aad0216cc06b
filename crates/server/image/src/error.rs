//! Why an image could not be built.

use std::path::PathBuf;

/// Error of any step from the list to the finished image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file could not be read.
    #[error("reading {path}")]
    Read { path: PathBuf, source: std::io::Error },
    /// A file could not be written.
    #[error("writing {path}")]
    Write { path: PathBuf, source: std::io::Error },
    /// A line of a list makes no sense.
    #[error("{list}, line {line}: {problem}")]
    List { list: String, line: usize, problem: String },
    /// A package is not what a Debian package is.
    #[error("package {package}: {problem}")]
    Package { package: String, problem: String },
    /// A package could not be unpacked.
    #[error("unpacking package {package}")]
    Unpack { package: String, source: std::io::Error },
    /// The list wants a file that its package lacks.
    #[error("package {package} has no file {path}")]
    NoSuchFile { package: String, path: String },
    /// The list wants a program that nobody gave.
    #[error("program {name} was not given")]
    NoSuchProgram { name: String },
    /// A path of the list is taken twice or lies below a file.
    #[error("placing {path}: {problem}")]
    Place { path: String, problem: String },
    /// A program needs a library that no listed package has.
    #[error("{file} needs {library}, which none of the listed packages has")]
    NoLibrary { file: String, library: String },
    /// A command could not be started.
    #[error("starting {program}")]
    Start { program: String, source: std::io::Error },
    /// A command failed.
    #[error("{command} failed ({status}): {stderr}")]
    Command { command: String, status: String, stderr: String },
    /// The machine's package sources name no Debian mirror.
    #[error("no Debian mirror in {path} (looked for a `deb` source of suite {suite})")]
    NoMirror { path: PathBuf, suite: String },
    /// The squashfs writer refused.
    #[error("writing the squashfs: {problem}")]
    Squashfs { problem: String },
    /// The finished image breaks a rule.
    #[error("the image breaks its rules: {}", findings.join("; "))]
    Audit { findings: Vec<String> },
    /// The finished image is larger than allowed.
    #[error("the image has {size} bytes, more than the {limit} allowed")]
    TooLarge { size: u64, limit: u64 },
}

impl ImageError {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }
}
