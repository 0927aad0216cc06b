//! Unified kernel images: sections appended to the stub of systemd-boot.
//!
//! The contents may be large, so that this only computes headers and places; the caller copies the files.

/// A section to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// With its dot: `.linux`. At most 8 bytes.
    pub name: &'static str,
    /// Bytes of its content.
    pub size: u64,
}

/// Where each part of an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The stub with its headers changed: the start of the file.
    pub head: Vec<u8>,
    /// The offset in the file of each section's content, in the order of the sections; between them are zeros.
    pub offsets: Vec<u64>,
    /// Bytes of the whole file.
    pub size: u64,
}

/// A stub that no section can be appended to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    #[error("the stub is no PE32+ program")]
    NotPe,
    #[error("the stub has no room for {0} more section headers")]
    NoRoom(usize),
    #[error("section {0}: must be named in at most 8 bytes and be smaller than 2 GiB")]
    Section(&'static str),
    #[error("the stub has the alignments {section} and {file}")]
    Alignment { section: u32, file: u32 },
}

/// How much of a kernel has to be read for [`kernel_release`], in bytes.
pub const KERNEL_HEAD: usize = SETUP + 0xffff + LONGEST_RELEASE + 1;
/// Where offsets in the header of a kernel begin.
const SETUP: usize = 0x200;
const LONGEST_RELEASE: usize = 64;
const SECTION_HEADER: usize = 40;
/// Initialised data, readable.
const CHARACTERISTICS: u32 = 0x4000_0040;

/// Places sections behind the stub, each at the next multiple of its alignments.
///
/// # Errors
/// A stub with other headers than those of a PE32+ program, or without room for the headers of the sections.
pub fn layout(stub: &[u8], sections: &[Section]) -> Result<Layout, UkiError> {
    let pe = u32_at(stub, 0x3c)? as usize;
    if stub.get(..2) != Some(b"MZ") || stub.get(pe..pe.saturating_add(4)) != Some(b"PE\0\0") {
        return Err(UkiError::NotPe);
    }
    let count = usize::from(u16_at(stub, pe + 6)?);
    let optional = pe + 24;
    let table = optional + usize::from(u16_at(stub, pe + 20)?);
    if u16_at(stub, optional)? != 0x20b {
        return Err(UkiError::NotPe);
    }
    let (section_alignment, file_alignment) = (u32_at(stub, optional + 32)?, u32_at(stub, optional + 36)?);
    let sane = |alignment: u32| alignment.is_power_of_two() && (16..=65536).contains(&alignment);
    if !sane(section_alignment) || !sane(file_alignment) {
        return Err(UkiError::Alignment { section: section_alignment, file: file_alignment });
    }
    let headers = u32_at(stub, optional + 60)? as usize;
    if table + (count + sections.len()) * SECTION_HEADER > headers.min(stub.len()) {
        return Err(UkiError::NoRoom(sections.len()));
    }
    let mut head = stub.to_vec();
    let mut address = end_of_sections(stub, table, count)?;
    let mut at = stub.len() as u64;
    let mut offsets = Vec::with_capacity(sections.len());
    for (section, index) in sections.iter().zip(count..) {
        let refuse = || UkiError::Section(section.name);
        address = address.next_multiple_of(u64::from(section_alignment));
        at = at.next_multiple_of(u64::from(file_alignment));
        let on_disk = section.size.next_multiple_of(u64::from(file_alignment));
        if section.name.len() > 8 || section.size > i32::MAX as u64 {
            return Err(refuse());
        }
        let header = &mut head[table + index * SECTION_HEADER..][..SECTION_HEADER];
        header.fill(0);
        header[..section.name.len()].copy_from_slice(section.name.as_bytes());
        for (place, value) in [(8, section.size), (12, address), (16, on_disk), (20, at)] {
            let value = u32::try_from(value).map_err(|_| refuse())?;
            header[place..place + 4].copy_from_slice(&value.to_le_bytes());
        }
        header[36..40].copy_from_slice(&CHARACTERISTICS.to_le_bytes());
        offsets.push(at);
        address += section.size;
        at += on_disk;
    }
    let total = u16::try_from(count + sections.len()).map_err(|_| UkiError::NoRoom(sections.len()))?;
    head[pe + 6..pe + 8].copy_from_slice(&total.to_le_bytes());
    let image = u32::try_from(address.next_multiple_of(u64::from(section_alignment)))
        .map_err(|_| UkiError::Section("image"))?;
    head[optional + 56..optional + 60].copy_from_slice(&image.to_le_bytes());
    // The checksum of the stub: firmware does not look at it, and signing makes it anew.
    head[optional + 64..optional + 68].fill(0);
    Ok(Layout { head, offsets, size: at })
}

/// The content of section `.osrel` for a system of that version (`v1.7.0`).
#[must_use]
pub fn os_release(version: &str) -> String {
    let site = "https://www.talos.dev/";
    format!(
        "NAME=\"Talos\"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\nHOME_URL=\"{site}\"\n\
         BUG_REPORT_URL=\"{site}\"\nVENDOR_NAME=\"Talos\"\nVENDOR_URL=\"{site}\"\n"
    )
}

/// The release that a kernel for x86 names in its header, from its first [`KERNEL_HEAD`] bytes: the content of section `.uname`.
#[must_use]
pub fn kernel_release(head: &[u8]) -> Option<String> {
    if head.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16_at(head, 0x20e).ok()?) + SETUP;
    let ends = |byte: &u8| b"\0 ".contains(byte);
    let text: Vec<u8> =
        head.get(at..)?.iter().copied().take_while(|byte| !ends(byte)).take(LONGEST_RELEASE + 1).collect();
    String::from_utf8(text).ok().filter(|text| !text.is_empty() && text.len() <= LONGEST_RELEASE)
}

/// The first address behind all sections of the stub.
fn end_of_sections(stub: &[u8], table: usize, count: usize) -> Result<u64, UkiError> {
    let mut end = 0;
    for index in 0..count {
        let header = table + index * SECTION_HEADER;
        end = end.max(u64::from(u32_at(stub, header + 12)?) + u64::from(u32_at(stub, header + 8)?));
    }
    Ok(end)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, UkiError> {
    let end = at.checked_add(4).ok_or(UkiError::NotPe)?;
    bytes.get(at..end).and_then(|slice| slice.try_into().ok()).map(u32::from_le_bytes).ok_or(UkiError::NotPe)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, UkiError> {
    let end = at.checked_add(2).ok_or(UkiError::NotPe)?;
    bytes.get(at..end).and_then(|slice| slice.try_into().ok()).map(u16::from_le_bytes).ok_or(UkiError::NotPe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with one section, and room for headers up to `headers`.
    fn stub(headers: u32) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x86] = 1;
        bytes[0x94] = 112;
        let optional = 0x98;
        bytes[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes());
        for (place, value) in [(32, 4096u32), (36, 512), (56, 8192), (60, headers), (64, 7)] {
            bytes[optional + place..optional + place + 4].copy_from_slice(&value.to_le_bytes());
        }
        let section = optional + 112;
        for (place, value) in [(8, 100u32), (12, 4096), (16, 512), (20, 512)] {
            bytes[section + place..section + place + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn sections_follow_the_stub_at_their_alignments() {
        let sections = [Section { name: ".cmdline", size: 5 }, Section { name: ".linux", size: 10_000 }];
        let layout = layout(&stub(512), &sections).unwrap();
        assert_eq!(layout.offsets, [1024, 1536]);
        assert_eq!(layout.size, 1536 + 10_240);
        assert_eq!(layout.head[0x86], 3);
        let second = 0x98 + 112 + 80;
        assert_eq!(&layout.head[second..second + 6], b".linux");
        assert_eq!(u32_at(&layout.head, second + 12).unwrap(), 12_288);
        assert_eq!(u32_at(&layout.head, 0x98 + 56).unwrap(), 12_288 + 12_288);
        assert_eq!(u32_at(&layout.head, 0x98 + 64).unwrap(), 0);
    }

    #[test]
    fn the_release_of_a_kernel_is_read_from_its_header() {
        let mut kernel = vec![0; 0x400];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20f] = 1;
        kernel[0x300..0x30c].copy_from_slice(b"6.12.0 (x@y)");
        assert_eq!(kernel_release(&kernel).as_deref(), Some("6.12.0"));
        kernel[0x20f] = 9;
        assert_eq!(kernel_release(&kernel), None);
        assert_eq!(kernel_release(b"MZ"), None);
    }

    #[test]
    fn a_stub_without_room_or_of_another_kind_is_refused() {
        let sections = [Section { name: ".linux", size: 1 }];
        assert_eq!(layout(&stub(0x98 + 112 + 40), &sections), Err(UkiError::NoRoom(1)));
        assert_eq!(layout(b"MZ", &sections), Err(UkiError::NotPe));
        let mut endless = stub(512);
        endless[0x3c..0x40].fill(0xff);
        assert_eq!(layout(&endless, &sections), Err(UkiError::NotPe));
        assert_eq!(layout(&stub(512), &[Section { name: ".linux", size: 3 << 30 }]), Err(UkiError::Section(".linux")));
    }
}
