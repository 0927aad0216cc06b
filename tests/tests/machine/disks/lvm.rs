//! A volume group of LVM2 on one disk, as its tools write it (lvm2, `lib/format_text/layout.h`; the metadata is text).

const SECTOR: usize = 512;
/// Where the metadata area is, and how long.
const AREA: u64 = 4096;
const AREA_SIZE: u64 = 1_044_480;
/// Where the data begins: after the first MiB.
const DATA: u64 = 1 << 20;
const EXTENT: u64 = 4 << 20;
const DISK_ID: &str = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";

/// The bytes of a disk of `size` bytes with the group `group` and its volume `volume` of 16 MiB, by their places.
pub(super) fn a_group_with_a_volume(size: u64) -> Vec<(u64, Vec<u8>)> {
    let mut text = metadata(size).into_bytes();
    text.push(0);
    vec![(SECTOR as u64, label(size)), (AREA, area(&text)), (AREA + SECTOR as u64, text)]
}

fn metadata(size: u64) -> String {
    let (sectors, extents) = (size / 512, (size - DATA) / EXTENT);
    format!(
        r#"group {{
id = "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb"
seqno = 1
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = {}
max_lv = 0
max_pv = 0
metadata_copies = 0
physical_volumes {{
pv0 {{
id = "{DISK_ID}"
device = "/dev/vdf"
status = ["ALLOCATABLE"]
flags = []
dev_size = {sectors}
pe_start = {}
pe_count = {extents}
}}
}}
logical_volumes {{
volume {{
id = "cccccc-cccc-cccc-cccc-cccc-cccc-cccccc"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
segment_count = 1
segment1 {{
start_extent = 0
extent_count = 4
type = "striped"
stripe_count = 1
stripes = ["pv0", 0]
}}
}}
}}
}}
contents = "Text Format Volume Group"
version = 1
description = ""
creation_host = "elsewhere"
creation_time = 1700000000
"#,
        EXTENT / 512,
        DATA / 512
    )
}

/// The sector that says that the disk is one of a group.
fn label(size: u64) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    let mut put = |offset: usize, bytes: &[u8]| sector[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"LABELONE");
    put(8, &1_u64.to_le_bytes());
    put(20, &32_u32.to_le_bytes());
    put(24, b"LVM2 001");
    put(32, DISK_ID.replace('-', "").as_bytes());
    put(64, &size.to_le_bytes());
    // Areas of data up to an empty one, then areas of metadata.
    for (index, number) in [DATA, 0, 0, 0, AREA, AREA_SIZE, 0, 0].into_iter().enumerate() {
        put(72 + index * 8, &number.to_le_bytes());
    }
    let sum = checksum(&sector[20..]);
    sector[16..20].copy_from_slice(&sum.to_le_bytes());
    sector
}

/// The head of the metadata area, which says where the text is.
fn area(text: &[u8]) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    let mut put = |offset: usize, bytes: &[u8]| sector[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(4, b" LVM2 x[5A%r0N*>");
    put(20, &1_u32.to_le_bytes());
    put(24, &AREA.to_le_bytes());
    put(32, &AREA_SIZE.to_le_bytes());
    put(40, &(SECTOR as u64).to_le_bytes());
    put(48, &(text.len() as u64).to_le_bytes());
    put(56, &checksum(text).to_le_bytes());
    let sum = checksum(&sector[4..]);
    sector[..4].copy_from_slice(&sum.to_le_bytes());
    sector
}

/// CRC-32 with a start value of its own.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}
