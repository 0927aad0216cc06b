//! The installer: runs the steps of `machine::install` on a disk of a machine, or on an image file without privileges.
//!
//! Everything that can be refused is refused before anything is touched: [`install`] first prepares all that it will write,
//! and only then begins. Which disk, and with what, is decided by the caller.

mod assets;
mod error;
mod prepare;
mod renew;
mod run;
pub mod uki;

use std::collections::BTreeMap;
use std::path::Path;

use block::disk::TargetDisk;
use block::efivar::EfiVariables;
use block::format::Tools;
use machine::gpt::{Guid, ProtectiveEntry};
use machine::grub::Slot;
use machine::install::{self as plan, Options};
use stdx::Secret;

pub use assets::Assets;
pub use error::InstallError;

/// Told what the installation does, a line at a time.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What to install.
#[derive(Debug)]
pub struct Request {
    pub options: Options,
    pub assets: Assets,
    /// Of the system that is installed: `v1.7.0`.
    pub version: String,
    /// Kernel command line of the installed system.
    pub cmdline: String,
    /// Whether the protective partition is marked active, for BIOSes that ask for it.
    pub entry: ProtectiveEntry,
    /// Values for META, by tag; those of the disk stay unless they are here.
    pub meta: BTreeMap<u8, Vec<u8>>,
    /// The machine's configuration, for a STATE that is to hold it ([`plan::State::Configuration`]).
    pub configuration: Secret<Vec<u8>>,
    pub tools: Tools,
    /// The firmware's variables; none for images, and on BIOS.
    pub variables: Option<EfiVariables>,
    /// The slot of GRUB that this machine was started from; none for images, and on UEFI.
    pub booted_slot: Option<Slot>,
}

/// Installs to a disk. Large files are made below `scratch`; `new_id` makes random ids.
///
/// Guarantees: an error before the first step has touched nothing; after it the disk is either a system disk or one that
/// says that its installation was cut off, also if the power fails at any moment.
///
/// # Errors
/// See [`InstallError`].
pub async fn install(
    disk: &mut dyn TargetDisk,
    request: &Request,
    scratch: &Path,
    new_id: impl FnMut() -> Guid,
    progress: Progress<'_>,
) -> Result<(), InstallError> {
    let contents = block::disk::contents(disk)?;
    let plan = plan::plan(disk.disk(), &contents, &request.options, new_id)?;
    let prepared = prepare::prepare(request, &plan, scratch)?;
    progress(&format!("installing {} to {}", request.version, disk.disk().path));
    run::run(disk, request, &plan, &prepared, progress).await?;
    progress(&format!("installed {} to {}", request.version, disk.disk().path));
    Ok(())
}
