//! Lines of the kernel's log that tell of disks.

/// A request to a disk that failed, as the kernel logs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskError<'a> {
    /// The kernel's name of the disk: `vdb`.
    pub disk: &'a str,
    /// What failed: `I/O error, dev vdb, sector 2048 op 0x1:(WRITE)`.
    pub what: &'a str,
}

impl<'a> DiskError<'a> {
    /// Reads a line, without its time: `I/O error, dev vdb, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2` (Linux,
    /// `blk_print_req_error`). Other kinds of errors, such as `critical medium error`, have the same form. `None` for other lines.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let (kind, rest) = line.split_once(" error, dev ")?;
        let (disk, place) = rest.split_once(", sector ")?;
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        // Kinds are a few words; a longer text is somebody else's.
        if kind.len() > 40 || !is_name(disk) || !place.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let what = line.split_once(" flags ").map_or(line, |(what, _)| what);
        Some(Self { disk, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_request_names_its_disk_and_other_lines_are_none() {
        let line = "I/O error, dev vdb, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2";
        let what = "I/O error, dev vdb, sector 2048 op 0x1:(WRITE)";
        assert_eq!(DiskError::parse(line), Some(DiskError { disk: "vdb", what }));
        let medium = "critical medium error, dev sda, sector 77 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0";
        assert_eq!(DiskError::parse(medium).map(|error| error.disk), Some("sda"));
        for other in [
            "Buffer I/O error on dev vdb1, logical block 0, async page read",
            "XFS (vdb1): log I/O error -5",
            "I/O error, dev , sector 1",
            "I/O error, dev vdb, sector x",
            "a sentence of somebody that is far too long for it, with an error, dev vdb, sector 1",
            "",
        ] {
            assert_eq!(DiskError::parse(other), None, "{other}");
        }
    }
}
