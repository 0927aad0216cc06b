//! Errors of building images.

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
    /// An invalid line in a list.
    #[error("{list}, line {line}: {problem}")]
    List { list: String, line: usize, problem: String },
    /// An invalid Debian package.
    #[error("package {package}: {problem}")]
    Package { package: String, problem: String },
    /// Failure to unpack a package.
    #[error("unpacking package {package}")]
    Unpack { package: String, source: std::io::Error },
    /// A listed file is not in its package.
    #[error("package {package} has no file {path}")]
    NoSuchFile { package: String, path: String },
    /// A listed program is missing.
    #[error("program {name} is missing")]
    NoSuchProgram { name: String },
    /// A path is taken, or lies below a file.
    #[error("placing {path}: {problem}")]
    Place { path: String, problem: String },
    /// No listed package has a needed library.
    #[error("{file} needs {library}, which none of the listed packages has")]
    NoLibrary { file: String, library: String },
    /// A kernel module that cannot be used.
    #[error("kernel module {path}: {problem}")]
    Module { path: String, problem: String },
    /// A kernel package that cannot be used.
    #[error("kernel {package}: {problem}")]
    Kernel { package: String, problem: String },
    /// An extra kernel argument that cannot be used.
    #[error("kernel command line")]
    Argument { source: machine::cmdline::ExtraArgumentError },
    /// A command line that the kernel would cut.
    #[error(transparent)]
    CommandLine(#[from] machine::cmdline::TooLongError),
    /// A value that META cannot keep.
    #[error("values of META")]
    Meta {
        #[from]
        source: machine::meta::SetError,
    },
    /// A value of META that no variable can hold.
    #[error("values of META")]
    Preset {
        #[from]
        source: machine::meta::PresetError,
    },
    /// A stub that cannot carry a kernel.
    #[error("making a unified kernel image")]
    Uki { source: machine::uki::UkiError },
    /// Failure of an installation to a file.
    #[error("installing to a disk image")]
    Install { source: Box<installer::InstallError> },
    /// A profile that does not say what is made.
    #[error("the profile has no kind of output")]
    NoKind,
    /// A command could not be started.
    #[error("starting {program}")]
    Start { program: String, source: std::io::Error },
    /// A command failed.
    #[error("{command} failed ({status}): {stderr}")]
    Command { command: String, status: String, stderr: String },
    /// The machine's package sources have no Debian mirror.
    #[error("no Debian mirror in {path} (looked for a `deb` source of suite {suite})")]
    NoMirror { path: PathBuf, suite: String },
    /// The squashfs writer failed.
    #[error("writing the squashfs: {problem}")]
    Squashfs { problem: String },
    /// The finished image violates rules.
    #[error("the image violates its rules: {}", findings.join("; "))]
    Audit { findings: Vec<String> },
    /// The finished image exceeds the size limit.
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
