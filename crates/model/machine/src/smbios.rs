//! The table by which firmware describes its machine (SMBIOS 2.0 to 3.x): system, processors, memory modules.
//!
//! The table comes from outside: every offset is checked, a structure that is too short has empty fields, and one without an
//! end is the last.

/// Structures that are read at most; the format itself has no limit.
const MAX_STRUCTURES: usize = 4096;
/// Longest text that is kept.
const MAX_TEXT: usize = 256;

/// Type 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    pub manufacturer: String,
    pub product: String,
    pub version: String,
    pub serial: String,
    /// Lower case with dashes; empty where there is none.
    pub uuid: String,
    pub wake_up: &'static str,
    pub sku: String,
}

/// Type 4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processor {
    pub socket: String,
    pub manufacturer: String,
    pub product: String,
    /// MHz.
    pub max_speed: u16,
    /// MHz.
    pub boot_speed: u16,
    pub status: u8,
    pub serial: String,
    pub asset_tag: String,
    pub part: String,
    pub cores: u16,
    pub enabled_cores: u16,
    pub threads: u16,
}

/// Type 17, of a slot with a module in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub size_mib: u32,
    pub locator: String,
    pub bank: String,
    /// Million transfers a second.
    pub speed: u16,
    pub manufacturer: String,
    pub serial: String,
    pub asset_tag: String,
    pub product: String,
}

/// All that is read of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub system: Option<System>,
    pub processors: Vec<Processor>,
    pub memory: Vec<Memory>,
}

/// The version of the format, from an entry point of either kind; `None` when it is none.
#[must_use]
pub fn version(entry_point: &[u8]) -> Option<(u8, u8)> {
    let at = match entry_point {
        [b'_', b'S', b'M', b'3', b'_', ..] => 7,
        [b'_', b'S', b'M', b'_', ..] => 6,
        _ => return None,
    };
    Some((*entry_point.get(at)?, *entry_point.get(at + 1)?))
}

/// Reads the structures of a table of this version.
#[must_use]
pub fn read(table: &[u8], version: (u8, u8)) -> Machine {
    let mut machine = Machine::default();
    for structure in structures(table).take(MAX_STRUCTURES) {
        match structure.kind() {
            1 if machine.system.is_none() => machine.system = Some(system(&structure, version)),
            4 => machine.processors.push(processor(&structure)),
            17 => machine.memory.extend(memory(&structure)),
            _ => {}
        }
    }
    machine
}

/// A structure: its formatted part, and the texts behind it.
struct Structure<'a> {
    fields: &'a [u8],
    texts: &'a [u8],
}

fn structures(table: &[u8]) -> impl Iterator<Item = Structure<'_>> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let length = usize::from(*rest.get(1)?);
        // The header alone is four bytes; type 127 is the end of the table.
        if length < 4 || rest.first() == Some(&127) {
            return None;
        }
        let fields = rest.get(..length)?;
        let behind = &rest[length..];
        let end = behind.windows(2).position(|pair| pair == [0, 0]).unwrap_or(behind.len());
        let texts = &behind[..end];
        rest = behind.get(end + 2..).unwrap_or_default();
        Some(Structure { fields, texts })
    })
}

impl Structure<'_> {
    fn kind(&self) -> u8 {
        self.byte(0)
    }

    fn byte(&self, at: usize) -> u8 {
        self.fields.get(at).copied().unwrap_or_default()
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at + 1)])
    }

    /// The text whose number is at `at`; texts count from 1, and 0 is none.
    fn text(&self, at: usize) -> String {
        let Some(index) = usize::from(self.byte(at)).checked_sub(1) else { return String::new() };
        let text = self.texts.split(|byte| *byte == 0).nth(index).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)]);
        text.trim().chars().filter(|letter| !letter.is_control()).collect()
    }
}

fn system(structure: &Structure<'_>, version: (u8, u8)) -> System {
    System {
        manufacturer: structure.text(0x04),
        product: structure.text(0x05),
        version: structure.text(0x06),
        serial: structure.text(0x07),
        uuid: structure.fields.get(0x08..0x18).map(|bytes| uuid(bytes, version)).unwrap_or_default(),
        wake_up: wake_up(structure.fields.get(0x18).copied()),
        sku: structure.text(0x19),
    }
}

/// All zeros and all ones mean that there is none. Since 2.6 the first three groups are little-endian.
fn uuid(bytes: &[u8], version: (u8, u8)) -> String {
    let mut b = [0; 16];
    b.copy_from_slice(bytes);
    if b == [0; 16] || b == [0xff; 16] {
        return String::new();
    }
    if version >= (2, 6) {
        b[..4].reverse();
        b[4..6].reverse();
        b[6..8].reverse();
    }
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn wake_up(value: Option<u8>) -> &'static str {
    const NAMES: [&str; 9] = [
        "Reserved",
        "Other",
        "Unknown",
        "APM Timer",
        "Modem Ring",
        "LAN Remote",
        "Power Switch",
        "PCI PME#",
        "AC Power Restored",
    ];
    value.and_then(|value| NAMES.get(usize::from(value)).copied()).unwrap_or_default()
}

/// A count of one byte; 255 refers to the word at `wide`.
fn count(structure: &Structure<'_>, at: usize, wide: usize) -> u16 {
    match structure.byte(at) {
        0xff => structure.word(wide),
        count => u16::from(count),
    }
}

fn processor(structure: &Structure<'_>) -> Processor {
    Processor {
        socket: structure.text(0x04),
        manufacturer: structure.text(0x07),
        product: structure.text(0x10),
        max_speed: structure.word(0x14),
        boot_speed: structure.word(0x16),
        status: structure.byte(0x18),
        serial: structure.text(0x20),
        asset_tag: structure.text(0x21),
        part: structure.text(0x22),
        cores: count(structure, 0x23, 0x2a),
        enabled_cores: count(structure, 0x24, 0x2c),
        threads: count(structure, 0x25, 0x2e),
    }
}

fn memory(structure: &Structure<'_>) -> Option<Memory> {
    let size_mib = match structure.word(0x0c) {
        // An empty slot, and one of which nothing is known.
        0 | 0xffff => return None,
        0x7fff => u32::from(structure.word(0x1c)) | u32::from(structure.word(0x1e) & 0x7fff) << 16,
        kib if kib & 0x8000 != 0 => u32::from(kib & 0x7fff) / 1024,
        mib => u32::from(mib),
    };
    Some(Memory {
        size_mib,
        locator: structure.text(0x10),
        bank: structure.text(0x11),
        speed: structure.word(0x15),
        manufacturer: structure.text(0x17),
        serial: structure.text(0x18),
        asset_tag: structure.text(0x19),
        product: structure.text(0x1a),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(kind: u8, length: u8, fields: &[(usize, &[u8])], texts: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(length)];
        (bytes[0], bytes[1]) = (kind, length);
        for (at, value) in fields {
            bytes[*at..*at + value.len()].copy_from_slice(value);
        }
        for text in texts {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        bytes.extend(if texts.is_empty() { vec![0, 0] } else { vec![0] });
        bytes
    }

    fn table() -> Vec<u8> {
        let uuid: Vec<u8> = (1..=16).collect();
        let system = [(4, &[1, 2, 0, 3][..]), (8, &uuid), (0x18, &[6, 4])];
        let processor =
            [(4, &[1][..]), (7, &[2]), (0x10, &[3]), (0x14, &[0xd0, 0x07]), (0x23, &[0xff, 2, 4]), (0x2a, &[0, 1])];
        let memory = [(0x0c, &[0, 4][..]), (0x10, &[1])];
        let large = [(0x0c, &[0xff, 0x7f][..]), (0x1c, &[0, 0, 1, 0])];
        let empty = [(0x0c, &[0, 0][..])];
        [
            structure(0, 0x18, &[], &["firmware"]),
            structure(1, 0x1b, &system, &["QEMU", "Standard PC", "S-1", "sku"]),
            structure(4, 0x30, &processor, &["CPU 0", "QEMU", "max"]),
            structure(17, 0x28, &memory, &["DIMM 0"]),
            structure(17, 0x28, &large, &[]),
            structure(17, 0x28, &empty, &[]),
            structure(127, 4, &[], &[]),
            structure(4, 0x30, &processor, &["behind the end"]),
        ]
        .concat()
    }

    #[test]
    fn system_processors_and_memory_are_read() {
        let machine = read(&table(), (2, 8));
        let system = machine.system.unwrap();
        assert_eq!(
            (system.manufacturer.as_str(), system.product.as_str(), system.version.as_str()),
            ("QEMU", "Standard PC", "")
        );
        assert_eq!((system.serial.as_str(), system.wake_up, system.sku.as_str()), ("S-1", "Power Switch", "sku"));
        assert_eq!(system.uuid, "04030201-0605-0807-090a-0b0c0d0e0f10");
        let [processor] = &machine.processors[..] else { panic!("{:?}", machine.processors) };
        assert_eq!(
            (processor.socket.as_str(), processor.product.as_str(), processor.max_speed),
            ("CPU 0", "max", 2000)
        );
        assert_eq!((processor.cores, processor.enabled_cores, processor.threads), (256, 2, 4));
        let sizes: Vec<u32> = machine.memory.iter().map(|memory| memory.size_mib).collect();
        assert_eq!(sizes, [1024, 65536], "an empty slot is no module");
    }

    #[test]
    fn older_tables_have_uuids_in_the_order_of_the_network_and_some_have_none() {
        let system = read(&table(), (2, 4)).system.unwrap();
        assert_eq!(system.uuid, "01020304-0506-0708-090a-0b0c0d0e0f10");
        assert_eq!(uuid(&[0xff; 16], (3, 0)), "");
        assert_eq!(uuid(&[0; 16], (3, 0)), "");
    }

    #[test]
    fn versions_are_in_both_entry_points() {
        assert_eq!(version(b"_SM3_\0\x18\x03\x02\x00"), Some((3, 2)));
        assert_eq!(version(b"_SM_\0\x1f\x02\x08\x00"), Some((2, 8)));
        assert_eq!(version(b"_SM_"), None);
        assert_eq!(version(b"nothing"), None);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_read_without_harm() {
        let table = table();
        for end in 0..=table.len() {
            drop(read(&table[..end], (3, 0)));
        }
        for at in 0..table.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = table.clone();
                damaged[at] = value;
                drop(read(&damaged, (3, 0)));
            }
        }
    }
}
