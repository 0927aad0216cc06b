//! The partition table of a user disk.

use block::Device;
use machine::{gpt, layout};

/// Partitions begin at multiples of this.
const ALIGNMENT: u64 = 1 << 20;

/// The partitions do not fit on the disk.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserTableError {
    #[error(transparent)]
    Geometry(#[from] gpt::GeometryError),
    #[error("partition {number} needs {needed} bytes, and {left} are left")]
    TooSmall { number: usize, needed: u64, left: u64 },
    #[error("{0} partitions; a table has {most} at most", most = gpt::ENTRIES)]
    TooMany(usize),
}

/// A table with partitions of these sizes in bytes, one behind the other; size 0 takes the rest. `ids` are those of the disk
/// and of each partition.
pub(super) fn plan(
    device: &Device,
    sizes: &[u64],
    ids: &[gpt::Guid],
    name: &str,
) -> Result<gpt::Table, UserTableError> {
    let geometry = gpt::Geometry::new(device.sector_size, device.size)?;
    let sector = u64::from(geometry.sector_size());
    let unit = ALIGNMENT.max(sector) / sector;
    let end = (geometry.last_usable() + 1) / unit * unit;
    let mut table = gpt::Table::new(ids.first().copied().unwrap_or(gpt::Guid::NIL), geometry);
    let mut first = geometry.first_usable().next_multiple_of(unit);
    for (index, size) in sizes.iter().enumerate() {
        let number = u32::try_from(index + 1).ok().filter(|number| *number <= gpt::ENTRIES);
        let number = number.ok_or(UserTableError::TooMany(sizes.len()))?;
        let left = end.saturating_sub(first);
        let sectors =
            if *size == 0 { left } else { size.div_ceil(sector).checked_next_multiple_of(unit).unwrap_or(u64::MAX) };
        if sectors > left || sectors == 0 {
            let needed = (*size).max(ALIGNMENT);
            return Err(UserTableError::TooSmall { number: index + 1, needed, left: left * sector });
        }
        table.partitions.push(gpt::Partition {
            number,
            kind: layout::LINUX_DATA,
            id: ids.get(index + 1).copied().unwrap_or(gpt::Guid::NIL),
            first,
            last: first + sectors - 1,
            attributes: 0,
            name: name.to_owned(),
        });
        first += sectors;
    }
    Ok(table)
}
