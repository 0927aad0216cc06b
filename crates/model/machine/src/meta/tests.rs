use proptest::prelude::*;

use super::legacy::sample_copy;
use super::*;

fn filled(values: &[(u8, &str)]) -> Meta {
    let mut meta = Meta::default();
    for (tag, value) in values {
        meta.set(*tag, value.as_bytes()).unwrap();
    }
    meta
}

/// Bytes at their offsets, taken from the description of the format, not from the encoder.
#[test]
fn a_copy_has_the_bytes_of_the_format() {
    let copy = filled(&[(6, "A"), (10, "x: y")]).encode_copy();
    assert_eq!(copy.len(), 262_144);
    assert_eq!(&copy[..26], b"\x5a\x4b\x3c\x2d\0\0\0\x06\0\0\0\x01A\0\0\0\x0a\0\0\0\x04x: y\0");
    assert!(copy[26..262_108].iter().all(|byte| *byte == 0));
    assert_eq!(copy[262_140..], [0xa5, 0xb4, 0xc3, 0xd2]);
    // SHA-256 of these bytes with a blank checksum, computed by sha256sum.
    let checksum: String = copy[262_108..262_140].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(checksum, "970656a924f6cc32e5185e74f41df45e42e1812fe6b925336ed7310d8bde5002");
}

#[test]
fn both_copies_are_equal_and_the_older_area_of_a_new_partition_is_zero() {
    let meta = filled(&[(15, "uuid")]);
    let partition = meta.encode_partition(1 << 20);
    assert_eq!(partition.len(), 1 << 20);
    assert_eq!(partition[..COPY_SIZE], partition[SECOND_COPY..SECOND_COPY + COPY_SIZE]);
    assert!(partition[SECOND_COPY + COPY_SIZE..].iter().all(|byte| *byte == 0));
    assert_eq!(Meta::parse(&partition), Parsed { meta, copies: [Ok(()), Ok(())] });
}

#[test]
fn the_second_copy_counts_where_the_first_is_bad_and_two_bad_ones_are_empty() {
    let mut partition = filled(&[(6, "B")]).encode_partition(0);
    partition[100] ^= 1;
    let parsed = Meta::parse(&partition);
    assert_eq!(parsed.copies, [Err(CopyError::Checksum), Ok(())]);
    assert_eq!(parsed.meta.get(6), Some(b"B".as_slice()));
    partition[SECOND_COPY] = 0;
    let parsed = Meta::parse(&partition);
    assert_eq!(parsed.copies, [Err(CopyError::Checksum), Err(CopyError::Magic)]);
    assert_eq!(parsed.meta, Meta::default());
    assert_eq!(Meta::parse(&[]).copies, [Err(CopyError::Short), Err(CopyError::Short)]);
    assert_eq!(Meta::parse(&vec![0; 1 << 20]).copies, [Err(CopyError::Magic), Err(CopyError::Magic)]);
}

/// A copy with these bytes for records, and a right checksum.
fn with_records(records: &[u8]) -> Vec<u8> {
    let mut copy = Meta::default().encode_copy();
    copy[4..4 + records.len()].copy_from_slice(records);
    copy[CHECKSUM_AT..TAIL_AT].fill(0);
    let checksum = digest(&SHA256, &copy);
    copy[CHECKSUM_AT..TAIL_AT].copy_from_slice(checksum.as_ref());
    copy
}

#[test]
fn records_may_have_any_order_and_none_may_exceed_the_copy() {
    let copy = with_records(b"\0\0\0\x0a\0\0\0\x01a\0\0\0\x06\0\0\0\0\0\0\x01\0\0\0\0\x01z");
    let meta = Meta::parse(&copy).meta;
    assert_eq!((meta.get(10), meta.get(6)), (Some(b"a".as_slice()), Some(b"".as_slice())));
    assert_eq!(meta.values().len(), 2, "tag 256 is another system's");
    assert_eq!(meta.encode_copy().windows(9).filter(|bytes| *bytes == b"\0\0\x01\0\0\0\0\x01z").count(), 1);
    for records in [b"\0\0\0\x06\0\x04\0\0".as_slice(), b"\0\0\0\x06\xff\xff\xff\xff"] {
        assert_eq!(Meta::parse(&with_records(records)).copies[0], Err(CopyError::Record));
    }
}

#[test]
fn values_fit_up_to_the_last_byte_and_a_refused_one_changes_nothing() {
    let mut meta = Meta::default();
    let most = 262_104 - 20 - 8;
    assert_eq!(meta.set(12, &vec![7; most + 1]), Err(SetError::Full { tag: 12, length: most + 1, free: most }));
    meta.set(12, &vec![7; most]).unwrap();
    assert_eq!(meta.set(13, b""), Err(SetError::Full { tag: 13, length: 0, free: 0 }));
    assert_eq!(Meta::parse(&meta.encode_copy()).meta, meta);
    meta.set(12, b"shorter").unwrap();
    meta.set(13, b"now").unwrap();
    assert_eq!(meta.set(0, b"x"), Err(SetError::Reserved));
    assert!(meta.delete(12) && !meta.delete(12));
}

#[test]
fn older_values_are_read_where_a_tag_is_absent_and_deleted_from_both_places() {
    let mut partition = filled(&[(6, "new")]).encode_partition(1 << 20);
    let at = partition.len() - LEGACY_SIZE;
    let old = sample_copy(&[(6, b"old".to_vec()), (9, b"{}".to_vec())]);
    partition[at + 512..].copy_from_slice(&old);
    let mut meta = Meta::parse(&partition).meta;
    assert_eq!((meta.get(6), meta.get(9)), (Some(b"new".as_slice()), Some(b"{}".as_slice())));
    assert_eq!(
        meta.values().into_iter().map(|(tag, value)| (tag, value.to_vec())).collect::<Vec<_>>(),
        [(6, b"new".to_vec()), (9, b"{}".to_vec())]
    );
    meta.set(12, b"added").unwrap();
    assert_eq!(meta.encode_legacy()[512..], old, "it is never added to");
    assert!(meta.delete(6));
    assert_eq!(meta.get(6), None, "the older value does not come back");
    let again = Meta::parse(&meta.encode_partition(1 << 20)).meta;
    assert_eq!((again.get(6), again.get(9)), (None, Some(b"{}".as_slice())));
    assert_eq!(again, meta);
}

#[test]
fn an_older_copy_has_the_bytes_of_its_format() {
    let copy = sample_copy(&[(6, b"A".to_vec())]);
    // Little-endian: the words of the data add up to 0x0041_0106.
    let mut expected = vec![0xa5, 0x2f, 0x2d, 0x5a, 0x61, 0x16, 0xc3, 0xa2, 6, 1, b'A'];
    expected.resize(508, 0);
    expected.extend([0x64, 0xbf, 0x28, 0xdd]);
    assert_eq!(copy.as_slice(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read_again(values in prop::collection::btree_map(1_u8.., prop::collection::vec(any::<u8>(), 0..2000), 0..20)) {
        let mut meta = Meta::default();
        for (tag, value) in &values {
            meta.set(*tag, value).unwrap();
        }
        let parsed = Meta::parse(&meta.encode_partition(1 << 20));
        prop_assert_eq!(&parsed.meta, &meta);
        let read: BTreeMap<u8, Vec<u8>> = parsed.meta.values().into_iter().map(|(tag, value)| (tag, value.to_vec())).collect();
        prop_assert_eq!(read, values);
    }

    #[test]
    fn a_torn_write_of_either_copy_leaves_the_old_or_the_new_values(cut in 0..2 * COPY_SIZE) {
        let (old, new) = (filled(&[(6, "A"), (12, "old")]), filled(&[(6, "B"), (13, "new")]));
        let mut partition = old.encode_partition(0);
        let written = new.encode_partition(0);
        partition[..cut].copy_from_slice(&written[..cut]);
        let meta = Meta::parse(&partition).meta;
        prop_assert!(meta == old || meta == new);
    }

    #[test]
    fn no_records_are_fatal(records in prop::collection::vec(any::<u8>(), 0..400), legacy in prop::collection::vec(any::<u8>(), LEGACY_SIZE)) {
        let mut partition = with_records(&records);
        partition.resize(1 << 20, 0);
        let at = partition.len() - LEGACY_SIZE;
        partition[at..].copy_from_slice(&legacy);
        let parsed = Meta::parse(&partition);
        prop_assert_eq!(Meta::parse(&parsed.meta.encode_partition(1 << 20)).meta, parsed.meta);
    }
}
