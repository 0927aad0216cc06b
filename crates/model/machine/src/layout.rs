//! The partitions of a system disk.
//!
//! On UEFI a disk has one EFI partition for systemd-boot and the kernel images that it starts; on BIOS it has GRUB's own
//! partition and BOOT for kernels. Disk images have both, so that one image starts on either firmware.

use crate::gpt::{Geometry, Guid, LEGACY_BIOS_BOOTABLE, Partition, Table};

const MIB: u64 = 1 << 20;

/// Partition type of an EFI system partition.
pub const EFI_SYSTEM: Guid = Guid::constant("C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
/// Partition type of the partition that GRUB's core image lies in.
pub const BIOS_BOOT: Guid = Guid::constant("21686148-6449-6E6F-744E-656564454649");
/// Partition type of all others.
pub const LINUX_DATA: Guid = Guid::constant("0FC63DAF-8483-4772-8E79-3D69D8477DE4");

/// Space for EPHEMERAL that a system disk must have: the least that its file system accepts, with room to start in.
pub const EPHEMERAL_MINIMUM: u64 = 512 * MIB;
/// Space for EPHEMERAL in a disk image, which grows to its disk at the first boot.
pub const EPHEMERAL_IN_IMAGE: u64 = 16 * MIB;

/// The name of a partition, which is also the label of its file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    Efi,
    Bios,
    Boot,
    Meta,
    State,
    Ephemeral,
}

impl Label {
    pub const ALL: [Self; 6] = [Self::Efi, Self::Bios, Self::Boot, Self::Meta, Self::State, Self::Ephemeral];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Efi => "EFI",
            Self::Bios => "BIOS",
            Self::Boot => "BOOT",
            Self::Meta => "META",
            Self::State => "STATE",
            Self::Ephemeral => "EPHEMERAL",
        }
    }

    /// The label of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|label| label.name() == name)
    }

    const fn kind(self) -> Guid {
        match self {
            Self::Efi => EFI_SYSTEM,
            Self::Bios => BIOS_BOOT,
            Self::Boot | Self::Meta | Self::State | Self::Ephemeral => LINUX_DATA,
        }
    }

    const fn attributes(self) -> u64 {
        if matches!(self, Self::Bios) { LEGACY_BIOS_BOOTABLE } else { 0 }
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The firmware that has started a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

/// Which partitions a system disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// GRUB: EFI, BIOS, BOOT, META, STATE, EPHEMERAL.
    Grub,
    /// Unified kernel images: a larger EFI, META, STATE, EPHEMERAL.
    Uki,
    /// The partitions of [`Layout::Grub`] with the EFI of [`Layout::Uki`]: for disk images.
    Both,
}

impl Layout {
    /// The layout of a machine that this firmware has started.
    #[must_use]
    pub const fn of_firmware(firmware: Firmware) -> Self {
        match firmware {
            Firmware::Bios => Self::Grub,
            Firmware::Uefi => Self::Uki,
        }
    }

    /// Its partitions in order with their sizes in bytes; `None` is the rest of the disk.
    #[must_use]
    pub const fn partitions(self) -> &'static [(Label, Option<u64>)] {
        const BOOTED_BY_UEFI: u64 = 1101 * MIB;
        match self {
            Self::Grub => &[
                (Label::Efi, Some(100 * MIB)),
                (Label::Bios, Some(MIB)),
                (Label::Boot, Some(1000 * MIB)),
                (Label::Meta, Some(MIB)),
                (Label::State, Some(100 * MIB)),
                (Label::Ephemeral, None),
            ],
            Self::Uki => &[
                (Label::Efi, Some(BOOTED_BY_UEFI)),
                (Label::Meta, Some(MIB)),
                (Label::State, Some(100 * MIB)),
                (Label::Ephemeral, None),
            ],
            Self::Both => &[
                (Label::Efi, Some(BOOTED_BY_UEFI)),
                (Label::Bios, Some(MIB)),
                (Label::Boot, Some(1000 * MIB)),
                (Label::Meta, Some(MIB)),
                (Label::State, Some(100 * MIB)),
                (Label::Ephemeral, None),
            ],
        }
    }

    /// Whether it has this partition.
    #[must_use]
    pub fn has(self, label: Label) -> bool {
        self.partitions().iter().any(|(own, _)| *own == label)
    }

    /// The layout of an existing table by the names of its partitions, whatever else it holds.
    #[must_use]
    pub fn of_table(table: &Table) -> Option<Self> {
        let grub = table.by_name(Label::Boot.name()).is_some() && table.by_name(Label::Bios.name()).is_some();
        let large = table.by_name(Label::Efi.name()).is_some_and(|efi| efi.size(table.geometry) > 512 * MIB);
        table.by_name(Label::Meta.name())?;
        match (grub, large) {
            (true, false) => Some(Self::Grub),
            (true, true) => Some(Self::Both),
            (false, true) => Some(Self::Uki),
            (false, false) => None,
        }
    }
}

/// The file of STATE that holds the machine's configuration.
pub const CONFIGURATION: &str = "config.yaml";

/// Appended to the names of partitions while an installation is not finished, so that nobody takes its disk for a system disk.
const UNFINISHED: &str = "~";

/// The name of a partition of an installation that is not finished.
#[must_use]
pub fn unfinished_name(label: Label) -> String {
    format!("{label}{UNFINISHED}")
}

/// The label of a partition whose name says that its installation was not finished.
#[must_use]
pub fn unfinished_label(name: &str) -> Option<Label> {
    Label::from_name(name.strip_suffix(UNFINISHED)?)
}

/// Whether an installation was cut off on the disk of this table.
#[must_use]
pub fn is_unfinished(table: &Table) -> bool {
    table.partitions.iter().any(|partition| unfinished_label(&partition.name).is_some())
}

/// A disk that a layout does not fit on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("the disk has {} MiB; at least {} MiB are needed", bytes / MIB, needed.div_ceil(MIB))]
    TooSmall { bytes: u64, needed: u64 },
}

/// A table with the partitions of a layout, one behind the other from the first multiple of `alignment` (bytes; at least a
/// MiB is taken). EPHEMERAL has the rest, rounded down to it and no less than `ephemeral`. `new_id` makes random ids.
///
/// # Errors
/// `TooSmall`, with the size that is needed.
pub fn table(
    layout: Layout,
    geometry: Geometry,
    alignment: u64,
    ephemeral: u64,
    mut new_id: impl FnMut() -> Guid,
) -> Result<Table, LayoutError> {
    let sector = u64::from(geometry.sector_size());
    let alignment = alignment.clamp(MIB, 64 * MIB).next_multiple_of(MIB);
    let end = (geometry.last_usable() + 1) * sector / alignment * alignment;
    let mut table = Table::new(new_id(), geometry);
    let mut at = alignment;
    for ((label, size), number) in layout.partitions().iter().copied().zip(1..) {
        let size = size.map_or_else(|| end.saturating_sub(at).max(ephemeral), |size| size.next_multiple_of(alignment));
        table.partitions.push(Partition {
            number,
            kind: label.kind(),
            id: new_id(),
            first: at / sector,
            last: (at + size) / sector - 1,
            attributes: label.attributes(),
            name: label.name().to_owned(),
        });
        at += size;
    }
    if at > end {
        // What lies behind the last partition is needed too.
        let needed = at + (geometry.bytes() - end).max(MIB);
        return Err(LayoutError::TooSmall { bytes: geometry.bytes(), needed });
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(layout: Layout, sector: u32, bytes: u64, alignment: u64) -> Result<Table, LayoutError> {
        let mut next = 0;
        let ids = move || {
            next += 1;
            Guid::from_random([next; 16])
        };
        table(layout, Geometry::new(sector, bytes).unwrap(), alignment, EPHEMERAL_MINIMUM, ids)
    }

    fn summary(table: &Table) -> Vec<(&str, u64, u64)> {
        let describe =
            |partition: &'_ Partition| (partition.offset(table.geometry) / MIB, partition.size(table.geometry) / MIB);
        table.partitions.iter().map(|p| (p.name.as_str(), describe(p).0, describe(p).1)).collect()
    }

    #[test]
    fn partitions_have_the_sizes_of_talos_from_the_first_mib_on() {
        for sector in [512, 4096] {
            let grub = made(Layout::Grub, sector, 8 << 30, 0).unwrap();
            let expected = [
                ("EFI", 1, 100),
                ("BIOS", 101, 1),
                ("BOOT", 102, 1000),
                ("META", 1102, 1),
                ("STATE", 1103, 100),
                ("EPHEMERAL", 1203, 6988),
            ];
            assert_eq!(summary(&grub), expected);
            let uki = made(Layout::Uki, sector, 8 << 30, 0).unwrap();
            assert_eq!(
                summary(&uki),
                [("EFI", 1, 1101), ("META", 1102, 1), ("STATE", 1103, 100), ("EPHEMERAL", 1203, 6988)]
            );
            assert_eq!((Layout::of_table(&grub), Layout::of_table(&uki)), (Some(Layout::Grub), Some(Layout::Uki)));
            let both = made(Layout::Both, sector, 8 << 30, 0).unwrap();
            assert_eq!(Layout::of_table(&both), Some(Layout::Both));
        }
    }

    #[test]
    fn partitions_have_their_types_and_attributes() {
        let grub = made(Layout::Grub, 512, 8 << 30, 0).unwrap();
        let of = |name| grub.by_name(name).map(|p| (p.kind, p.attributes)).unwrap();
        assert_eq!(of("EFI"), (EFI_SYSTEM, 0));
        assert_eq!(of("BIOS"), (BIOS_BOOT, LEGACY_BIOS_BOOTABLE));
        assert_eq!(of("EPHEMERAL"), (LINUX_DATA, 0));
    }

    #[test]
    fn a_larger_alignment_of_the_disk_is_kept() {
        let table = made(Layout::Uki, 512, 8 << 30, 3 * MIB).unwrap();
        assert!(table.partitions.iter().all(|partition| partition.offset(table.geometry) % (3 * MIB) == 0));
        // Nonsense of a disk does not move the first partition out of reach.
        let odd = made(Layout::Uki, 512, 8 << 30, u64::MAX).unwrap();
        assert_eq!(odd.partitions[0].offset(odd.geometry), 64 * MIB);
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_what_is_needed() {
        let Err(LayoutError::TooSmall { bytes, needed }) = made(Layout::Grub, 512, 1 << 30, 0) else {
            panic!("it fits")
        };
        assert_eq!(bytes, 1 << 30);
        let fitting = made(Layout::Grub, 512, needed, 0).unwrap();
        assert_eq!(fitting.by_name("EPHEMERAL").unwrap().size(fitting.geometry), EPHEMERAL_MINIMUM);
        assert!(
            made(Layout::Grub, 512, needed - MIB, 0)
                .is_err_and(|error| error == LayoutError::TooSmall { bytes: needed - MIB, needed })
        );
    }

    #[test]
    fn an_unfinished_installation_is_told_by_the_names() {
        let mut table = made(Layout::Uki, 512, 8 << 30, 0).unwrap();
        assert!(!is_unfinished(&table));
        table.partitions[1].name = unfinished_name(Label::Meta);
        assert!(is_unfinished(&table));
        assert_eq!(unfinished_label("META~"), Some(Label::Meta));
        assert_eq!((unfinished_label("META"), unfinished_label("data~")), (None, None));
    }
}
