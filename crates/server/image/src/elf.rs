//! Reads the needed libraries, the loader and named sections from an ELF file. 64-bit little-endian only, the only format that runs on
//! a node. The input is untrusted: every offset is checked.

/// The dynamic dependencies of a program or library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Path of the loader; `None` for libraries and static programs.
    pub interpreter: Option<String>,
    /// Names of the shared objects, as `libc.so.6`.
    pub libraries: Vec<String>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// The content of the section `name`; `None` if there is none, or the file is not a whole ELF file.
#[must_use]
pub fn section<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let start = usize::try_from(u64_at(bytes, 40)?).ok()?;
    let size = usize::from(u16_at(bytes, 58)?);
    let header = |index: u16| start.checked_add(usize::from(index) * size);
    let content = |at: usize| {
        let offset = usize::try_from(u64_at(bytes, at.checked_add(24)?)?).ok()?;
        let length = usize::try_from(u64_at(bytes, at.checked_add(32)?)?).ok()?;
        bytes.get(offset..offset.checked_add(length)?)
    };
    let names = content(header(u16_at(bytes, 62)?)?)?;
    for index in 0..u16_at(bytes, 60)? {
        let at = header(index)?;
        let label = names.get(usize::try_from(u32_at(bytes, at)?).ok()?..)?;
        if label.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
            return content(at);
        }
    }
    None
}

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    size: usize,
}

/// The dependencies of the ELF file `bytes`; `None` for other files and truncated ones.
#[must_use]
pub fn needs(bytes: &[u8]) -> Option<Needs> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let segments = segments(bytes)?;
    let mut needs = Needs::default();
    if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
        needs.interpreter = text(bytes, segment.offset);
    }
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else { return Some(needs) };
    let mut names = Vec::new();
    let mut table = None;
    for at in (dynamic.offset..dynamic.offset.checked_add(dynamic.size)?).step_by(16) {
        let value = u64_at(bytes, at + 8)?;
        match u64_at(bytes, at)? {
            DT_NULL => break,
            DT_NEEDED => names.push(value),
            DT_STRTAB => table = Some(value),
            _ => {}
        }
    }
    if names.is_empty() {
        return Some(needs);
    }
    let table = file_offset(&segments, table?)?;
    for name in names {
        needs.libraries.push(text(bytes, table.checked_add(usize::try_from(name).ok()?)?)?);
    }
    Some(needs)
}

fn segments(bytes: &[u8]) -> Option<Vec<Segment>> {
    let start = usize::try_from(u64_at(bytes, 32)?).ok()?;
    let size = usize::from(u16_at(bytes, 54)?);
    let count = usize::from(u16_at(bytes, 56)?);
    (0..count)
        .map(|index| {
            let at = start.checked_add(index * size)?;
            Some(Segment {
                kind: u32_at(bytes, at)?,
                offset: usize::try_from(u64_at(bytes, at + 8)?).ok()?,
                address: u64_at(bytes, at + 16)?,
                size: usize::try_from(u64_at(bytes, at + 32)?).ok()?,
            })
        })
        .collect()
}

fn file_offset(segments: &[Segment], address: u64) -> Option<usize> {
    segments.iter().filter(|segment| segment.kind == PT_LOAD).find_map(|segment| {
        let within = usize::try_from(address.checked_sub(segment.address)?).ok()?;
        (within < segment.size).then(|| segment.offset.checked_add(within)).flatten()
    })
}

fn text(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Builds ELF files for tests.
#[cfg(test)]
pub(crate) mod testing {
    /// An object file with one section of that name and content.
    pub(crate) fn with_section(name: &str, content: &[u8]) -> Vec<u8> {
        let names = format!("\0{name}\0");
        let table = 64 + content.len() + names.len();
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        for (at, value) in [(58, 64_u16), (60, 3), (62, 2)] {
            file[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        file.extend(content);
        file.extend(names.as_bytes());
        for (label, offset, length) in [(0_u32, 0, 0), (1, 64, content.len()), (0, 64 + content.len(), names.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&label.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            file.extend(header);
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_test() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn a_program_of_this_machine_needs_its_c_library_and_loader() {
        let needs = needs(&this_test()).unwrap();
        assert!(needs.libraries.contains(&"libc.so.6".to_owned()), "{needs:?}");
        assert!(needs.interpreter.unwrap().starts_with("/lib64/ld-linux"));
    }

    #[test]
    fn what_is_no_elf_file_needs_nothing() {
        assert_eq!(needs(b"#!/bin/sh\n"), None);
        assert_eq!(needs(b""), None);
    }

    #[test]
    fn a_file_cut_anywhere_in_its_headers_is_no_panic() {
        let bytes = this_test();
        for length in 0..1024 {
            let _ = needs(&bytes[..length]);
            let _ = section(&bytes[..length], ".text");
        }
        let mut broken = bytes;
        for at in 32..1024 {
            broken[at] = 0xff;
            let _ = needs(&broken);
            let _ = section(&broken, ".text");
        }
    }

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        let file = testing::with_section(".modinfo", b"depends=");
        assert_eq!(section(&file, ".modinfo"), Some(&b"depends="[..]));
        assert_eq!(section(&file, ".mod"), None);
        assert_eq!(section(&this_test(), ".interp"), Some(&b"/lib64/ld-linux-x86-64.so.2\0"[..]));
    }
}
