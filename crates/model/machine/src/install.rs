//! What an installation does to a disk: decided before anything is touched, as steps in an order that survives a power cut.
//!
//! Until the last step, the partitions that are made have names that are no labels ([`layout::unfinished_name`]), so that
//! a disk on which the power failed is never taken for a system disk, and the next installation knows it for its own.

use crate::gpt::{Geometry, Guid, Partition, Table};
use crate::layout::{self, EPHEMERAL_MINIMUM, Label, Layout, LayoutError};

/// The disk to install to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `/dev/sda`
    pub path: String,
    pub geometry: Geometry,
    /// Physical block or minimum I/O size, whichever is larger, in bytes.
    pub alignment: u64,
    pub access: Access,
    /// Where the disk or one of its partitions is in use: mount points, or what holds it.
    pub used_by: Vec<String>,
}

/// Whether a disk can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Writable,
    ReadOnly,
}

/// What a disk holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    Empty,
    Table(Table),
    /// No partition table that can be read; the text says what there is: `an xfs file system`.
    Other(String),
}

/// What becomes of what the disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// The whole disk is wiped first and nothing is kept (`wipe: true`).
    Zero,
    /// All is made anew; of an earlier installation META and STATE are kept.
    Force,
    /// The partitions of the existing installation are left as they are; only its kernels change.
    Untouched,
}

/// What a STATE that is made anew holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing: the machine makes its file system when it has a configuration.
    Blank,
    /// A file system with the configuration, so that the disk is never that of a system that waits for one.
    Configuration,
}

/// A request to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub layout: Layout,
    pub treatment: Treatment,
    /// Space that EPHEMERAL must have.
    pub ephemeral: u64,
    /// What a STATE that is made anew holds.
    pub state: State,
    /// Architecture of the kernel that is to be installed, and of the machine.
    pub image: String,
    pub machine: String,
}

impl Options {
    /// An installation on a machine of the image's own architecture.
    #[must_use]
    pub fn new(layout: Layout, treatment: Treatment) -> Self {
        let arch = "amd64".to_owned();
        let (image, machine) = (arch.clone(), arch);
        Self { layout, treatment, ephemeral: EPHEMERAL_MINIMUM, state: State::Blank, image, machine }
    }
}

/// Why nothing is installed. Nothing has been touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this installer is for {image}, but the machine is {machine}: use an installer image for {machine}")]
    Architecture { image: String, machine: String },
    #[error("{disk} is read-only")]
    ReadOnly { disk: String },
    #[error("{disk} is in use: {}", by.join(", "))]
    InUse { disk: String, by: Vec<String> },
    #[error("{disk} has sectors of {sector_size} bytes, which a BIOS cannot boot from: boot the machine by UEFI")]
    SectorSize { disk: String, sector_size: u32 },
    #[error("installing to {disk}")]
    Layout {
        disk: String,
        #[source]
        source: LayoutError,
    },
    #[error("{disk} holds something else ({}): set machine.install.wipe to install over it, or choose another disk", what.join(", "))]
    Foreign { disk: String, what: Vec<String> },
    #[error("{disk} has no partition {label}, which a system that is kept must have")]
    Missing { disk: String, label: Label },
}

/// One step. Each is flushed to the disk before the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Discards all blocks, then zeroes the first and the last MiB.
    WipeDisk,
    /// Reads a partition into memory.
    Keep(Label),
    /// Writes the partition table; the disk does not boot from here on, and its boot code says why.
    BeginTable(Table),
    /// Zeroes the start of a partition.
    WipePartition(Label),
    /// Writes back what [`Step::Keep`] read.
    Restore(Label),
    /// Makes the file system of EFI or BOOT with the kernels, or that of STATE with the configuration.
    Fill(Label),
    /// Adds the new kernel to the file system of EFI or BOOT beside the one that is there.
    Add(Label),
    /// Brings the boot loader up to date where it differs: the file of systemd-boot on EFI, GRUB's core image in BIOS. A power cut
    /// leaves the old one or the new one.
    Renew(Label),
    /// Writes values to META.
    WriteMeta,
    /// Writes GRUB's core image to the partition BIOS.
    CoreImage,
    /// Writes the partition table with its final names and boot code: the disk is a system disk from here on.
    FinishTable(Table),
    /// Sets the variables that systemd-boot reads.
    SetVariables,
}

/// The steps of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The table at the end.
    pub table: Table,
    pub steps: Vec<Step>,
}

/// Plans an installation. `new_id` makes random ids.
///
/// # Errors
/// See [`Refusal`].
pub fn plan(
    disk: &Disk,
    contents: &Contents,
    options: &Options,
    new_id: impl FnMut() -> Guid,
) -> Result<Plan, Refusal> {
    check(disk, options)?;
    let existing = match contents {
        Contents::Table(table) => Some(table),
        Contents::Empty | Contents::Other(_) => None,
    };
    if options.treatment == Treatment::Untouched {
        return untouched(disk, existing, options);
    }
    if options.treatment != Treatment::Zero {
        let what = foreign(contents);
        if !what.is_empty() {
            return Err(Refusal::Foreign { disk: disk.path.clone(), what });
        }
    }
    let refuse = |source| Refusal::Layout { disk: disk.path.clone(), source };
    let mut table =
        layout::table(options.layout, disk.geometry, disk.alignment, options.ephemeral, new_id).map_err(refuse)?;
    let existing = existing.filter(|_| options.treatment == Treatment::Force);
    let kept = existing.map(|existing| keep(&mut table, existing)).unwrap_or_default();
    Ok(anew(table, options, &kept))
}

fn check(disk: &Disk, options: &Options) -> Result<(), Refusal> {
    let name = || disk.path.clone();
    if options.image != options.machine {
        return Err(Refusal::Architecture { image: options.image.clone(), machine: options.machine.clone() });
    }
    if disk.access == Access::ReadOnly {
        return Err(Refusal::ReadOnly { disk: name() });
    }
    if !disk.used_by.is_empty() {
        return Err(Refusal::InUse { disk: name(), by: disk.used_by.clone() });
    }
    let sector_size = disk.geometry.sector_size();
    if options.layout == Layout::Grub && sector_size != 512 {
        return Err(Refusal::SectorSize { disk: name(), sector_size });
    }
    Ok(())
}

/// What on a disk belongs to somebody else.
fn foreign(contents: &Contents) -> Vec<String> {
    match contents {
        Contents::Empty => Vec::new(),
        Contents::Other(what) => vec![what.clone()],
        Contents::Table(table) => {
            let own = |name: &str| Label::from_name(name).or_else(|| layout::unfinished_label(name)).is_some();
            let others = table.partitions.iter().filter(|partition| !own(&partition.name));
            let mut what: Vec<String> =
                others.map(|partition| format!("partition {} {:?}", partition.number, partition.name)).collect();
            // An EFI partition alone is anybody's.
            let is_system = table.partitions.iter().any(|partition| {
                partition.name == Label::Meta.name() || layout::unfinished_label(&partition.name).is_some()
            });
            if what.is_empty() && !is_system && !table.partitions.is_empty() {
                what.push("partitions of another system".to_owned());
            }
            what
        }
    }
}

/// How a partition of an earlier installation comes into the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// It lies where the new one does.
    InPlace(Label),
    /// Through memory.
    Copied(Label),
}

/// What is kept of an installation: META and STATE. Those that lie where they belong keep their ids as well.
fn keep(table: &mut Table, existing: &Table) -> Vec<Kept> {
    let mut kept = Vec::new();
    for label in [Label::Meta, Label::State] {
        let Some(old) = existing.by_name(label.name()) else { continue };
        let Some(new) = table.partitions.iter_mut().find(|new| new.name == label.name()) else { continue };
        if (old.number, old.first, old.last) == (new.number, new.first, new.last) {
            new.id = old.id;
            kept.push(Kept::InPlace(label));
        } else if old.sectors() == new.sectors() {
            kept.push(Kept::Copied(label));
        }
    }
    kept
}

fn anew(table: Table, options: &Options, kept: &[Kept]) -> Plan {
    let copied = |label: &Label| kept.contains(&Kept::Copied(*label));
    let in_place = |label: &Label| kept.contains(&Kept::InPlace(*label));
    let labels: Vec<Label> =
        table.partitions.iter().filter_map(|partition| Label::from_name(&partition.name)).collect();
    let mut begun = table.clone();
    for partition in &mut begun.partitions {
        let Some(label) = Label::from_name(&partition.name) else { continue };
        if !in_place(&label) {
            partition.name = layout::unfinished_name(label);
        }
    }
    let mut steps = Vec::new();
    if options.treatment == Treatment::Zero {
        steps.push(Step::WipeDisk);
    }
    steps.extend(labels.iter().copied().filter(copied).map(Step::Keep));
    steps.push(Step::BeginTable(begun));
    for label in &labels {
        match label {
            Label::Efi | Label::Boot | Label::Bios => {}
            label if in_place(label) => {}
            label => steps.push(Step::WipePartition(*label)),
        }
    }
    steps.extend(labels.iter().copied().filter(copied).map(Step::Restore));
    steps.push(Step::WriteMeta);
    let is_filled = |label: &Label| match label {
        Label::Efi | Label::Boot => true,
        Label::State => options.state == State::Configuration && !copied(label) && !in_place(label),
        _ => false,
    };
    steps.extend(labels.iter().copied().filter(is_filled).map(Step::Fill));
    if labels.contains(&Label::Bios) {
        steps.push(Step::CoreImage);
    }
    steps.push(Step::FinishTable(table.clone()));
    steps.push(Step::SetVariables);
    Plan { table, steps }
}

/// Only the kernels change; partitions of others go.
fn untouched(disk: &Disk, existing: Option<&Table>, options: &Options) -> Result<Plan, Refusal> {
    let missing = |label| Refusal::Missing { disk: disk.path.clone(), label };
    let Some(existing) = existing else { return Err(missing(Label::Meta)) };
    for (label, _) in options.layout.partitions() {
        existing.by_name(label.name()).ok_or_else(|| missing(*label))?;
    }
    let mut table = existing.clone();
    table.partitions.retain(|Partition { name, .. }| Label::from_name(name).is_some());
    let mut steps = vec![Step::WriteMeta];
    let (kernels, loaders) = match options.layout {
        Layout::Grub => ([Label::Boot].as_slice(), [Label::Bios].as_slice()),
        Layout::Uki => ([Label::Efi].as_slice(), [Label::Efi].as_slice()),
        Layout::Both => ([Label::Efi, Label::Boot].as_slice(), [Label::Efi, Label::Bios].as_slice()),
    };
    // The boot loader starts the running version: a power cut must find it whole.
    steps.extend(kernels.iter().copied().map(Step::Add));
    if table != *existing {
        steps.push(Step::FinishTable(table.clone()));
    }
    // With the table's boot code, which is not written again after this.
    steps.extend(loaders.iter().copied().map(Step::Renew));
    steps.push(Step::SetVariables);
    Ok(Plan { table, steps })
}

#[cfg(test)]
mod tests;
