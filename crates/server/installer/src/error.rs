//! Why nothing was installed, or not all of it.

use std::io;
use std::path::PathBuf;

use block::disk::DiskError;
use block::efivar::EfiVariableError;
use block::format::FormatError;
use machine::cmdline::TooLongError;
use machine::grub::StartCodeError;
use machine::install::Refusal;
use machine::layout::Label;
use machine::uki::UkiError;

use crate::uki::BuildUkiError;

/// An installation failed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the installer image has no {}", path.display())]
    Asset {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is a kernel for {found}, not for {wanted}", path.display())]
    Kernel { path: PathBuf, found: &'static str, wanted: String },
    #[error("{} has {actual} bytes, and says of itself that it has {whole}: the installer image is damaged", path.display())]
    Truncated { path: PathBuf, actual: u64, whole: u64 },
    #[error("making the kernel image for UEFI")]
    Uki(#[source] UkiError),
    #[error(transparent)]
    CommandLine(#[from] TooLongError),
    #[error("the start code of GRUB")]
    StartCode(#[from] StartCodeError),
    #[error("{needed} bytes do not fit on partition {label}, which has {room}")]
    NoRoom { label: Label, needed: u64, room: u64 },
    #[error("writing {}", path.display())]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("making the file system of {label}")]
    Format {
        label: Label,
        #[source]
        source: FormatError,
    },
    #[error("the partition {label} has not appeared as {} within {seconds} s", path.display())]
    NoDevice { label: Label, path: PathBuf, seconds: u64 },
    #[error("flushing {}", path.display())]
    Flush {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("renewing the boot loader")]
    Renew(#[from] block::exchange::ReplaceError),
    #[error(transparent)]
    FileSystem(#[from] block::FileSystemError),
    #[error(transparent)]
    Meta(#[from] machine::meta::SetError),
    #[error(transparent)]
    Variables(#[from] EfiVariableError),
    #[error("an error of this program: the plan has a step for {0}, which the disk has no partition for")]
    Plan(Label),
}

impl From<BuildUkiError> for InstallError {
    fn from(error: BuildUkiError) -> Self {
        match error {
            BuildUkiError::Read { path, source } => Self::Asset { path, source },
            BuildUkiError::Write { path, source } => Self::Scratch { path, source },
            BuildUkiError::Layout(source) => Self::Uki(source),
        }
    }
}
