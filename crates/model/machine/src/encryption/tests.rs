use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn header(slots: &[u32], tokens: &[(u32, Token)]) -> Header {
    Header { slots: slots.iter().copied().collect(), tokens: tokens.iter().cloned().collect() }
}

const fn add(slot: u32, key: u32) -> Step {
    Step::Add { slot, key }
}

const fn kill(slot: u32) -> Step {
    Step::Kill { slot }
}

#[test]
fn new_keys_are_added_before_unlisted_ones_are_deleted() {
    let keys = [(0, Check::Fits), (2, Check::Wrong)].into();
    let plan = plan(&header(&[0, 1], &[]), &keys);
    assert_eq!((plan.first, plan.then), (vec![add(2, 2)], vec![kill(1)]));
}

#[test]
fn a_wrong_slot_is_replaced_while_a_spare_one_has_the_new_key() {
    let plan = plan(&header(&[0], &[]), &[(0, Check::Wrong)].into());
    assert_eq!(plan.first, [add(31, 0)]);
    assert_eq!(plan.then, [kill(0), add(0, 0), kill(31)]);
}

#[test]
fn what_is_as_configured_stays_and_so_does_what_cannot_be_checked() {
    let two = header(&[0, 1], &[]);
    assert!(plan(&two, &[(0, Check::Fits), (1, Check::Unknown)].into()).is_empty());
    assert!(plan(&two, &[(1, Check::Unknown)].into()).is_empty(), "slot 0 may be the only way in");
    assert!(plan(&header(&[0], &[]), &[(0, Check::Fits), (1, Check::Unknown)].into()).is_empty());
}

#[test]
fn slots_of_recovery_keys_are_left_alone() {
    let found = header(&[0, 7], &[(7, Token::Recovery)]);
    assert!(plan(&found, &[(0, Check::Fits)].into()).is_empty());
    assert!(plan(&found, &[(0, Check::Fits), (7, Check::Wrong)].into()).is_empty());
}

/// What a header has after some steps; a panic for steps that a header cannot do.
fn apply(slots: &mut BTreeMap<u32, u32>, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Add { slot, key } => assert_eq!(slots.insert(slot, key), None, "slot {slot} is taken"),
            Step::Kill { slot } => assert!(slots.remove(&slot).is_some(), "slot {slot} is empty"),
        }
        assert!(!slots.is_empty(), "nothing opens it any more");
    }
}

proptest! {
    #[test]
    fn any_cut_leaves_a_way_in_and_the_end_is_as_configured(
        found in proptest::collection::btree_map(0..SLOTS, 100..110_u32, 1..8),
        wanted in proptest::collection::btree_map(0..SLOTS, any::<bool>(), 1..8),
    ) {
        // A key that fits is known by its slot's number, a foreign one by a number from 100.
        let mut slots: BTreeMap<u32, u32> = found
            .iter()
            .map(|(slot, foreign)| (*slot, if wanted.get(slot) == Some(&true) { *slot } else { *foreign }))
            .collect();
        let check = |slot: &u32| if slots.get(slot) == Some(slot) { Check::Fits } else { Check::Wrong };
        let keys = wanted.keys().map(|slot| (*slot, check(slot))).collect();
        let header = Header { slots: slots.keys().copied().collect(), tokens: BTreeMap::new() };
        let plan = plan(&header, &keys);
        let before: Vec<u32> = slots.values().copied().collect();
        apply(&mut slots, &plan.first);
        for key in wanted.keys().chain(&before) {
            prop_assert!(slots.values().any(|one| one == key), "between the parts old and new keys open it");
        }
        // Every step of the second part leaves a configured key.
        for step in &plan.then {
            apply(&mut slots, std::slice::from_ref(step));
            prop_assert!(slots.values().any(|key| wanted.contains_key(key)));
        }
        prop_assert_eq!(slots, wanted.keys().map(|slot| (*slot, *slot)).collect());
    }
}

#[test]
fn the_value_of_meta_has_all_its_fields() {
    let key = |slot, source| Key { slot, source };
    let keys = vec![
        key(1, KeySource::Static(Secret::new("open".to_owned()))),
        key(0, KeySource::NodeId),
        key(2, KeySource::Kms("grpc://10.5.0.1:4050".to_owned())),
        key(3, KeySource::Tpm),
    ];
    let volume = Encryption::default().with_keys(keys);
    let text = volume.to_meta().unwrap().into_exposed();
    let expected = concat!(
        r#"{"EncryptionProvider":"luks2","EncryptionKeys":["#,
        r#"{"KeyStatic":null,"KeyNodeID":{},"KeyKMS":null,"KeySlot":0,"KeyTPM":null},"#,
        r#"{"KeyStatic":{"KeyData":"open"},"KeyNodeID":null,"KeyKMS":null,"KeySlot":1,"KeyTPM":null},"#,
        r#"{"KeyStatic":null,"KeyNodeID":null,"KeyKMS":{"KMSEndpoint":"grpc://10.5.0.1:4050"},"KeySlot":2,"KeyTPM":null},"#,
        r#"{"KeyStatic":null,"KeyNodeID":null,"KeyKMS":null,"KeySlot":3,"KeyTPM":{}}],"#,
        r#""EncryptionCipher":"","EncryptionKeySize":0,"EncryptionBlockSize":0,"EncryptionPerfOptions":null}"#
    );
    assert_eq!(text, expected);
    assert_eq!(Encryption::from_meta(&text).unwrap(), volume);
    assert!(!format!("{volume:?}").contains("open"));
    for wrong in [
        "",
        r#"{"EncryptionProvider":"zfs","EncryptionKeys":[]}"#,
        r#"{"EncryptionProvider":"luks2","EncryptionKeys":[{}]}"#,
    ] {
        assert!(Encryption::from_meta(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_node_key_is_uuid_and_label_and_needs_a_uuid_worth_the_name() {
    let uuid = "44c1b8c9-7e2b-4c3a-9d2e-0123456789ab";
    assert_eq!(node_passphrase(uuid, "STATE").unwrap().into_exposed(), format!("{uuid}STATE"));
    for weak in ["", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffff12345678"] {
        assert!(node_passphrase(weak, "STATE").is_err(), "{weak}");
    }
}

#[test]
fn tokens_and_slots_are_read_from_the_header_and_hostile_ones_are_nobodys() {
    let kms = kms_token(b"sealed");
    let sealed = TpmSealed {
        private: b"private".into(),
        public: b"public".into(),
        pcrs: vec![11],
        policy: b"policy".into(),
        key_name: b"name".into(),
    };
    let expected = concat!(
        r#"{"type":"talos-tpm2","keyslots":[],"UserData":{"keyslots":[6],"sealed_blob_private":"cHJpdmF0ZQ==","#,
        r#""sealed_blob_public":"cHVibGlj","pcrs":[11],"alg":"sha256","policy_hash":"cG9saWN5","key_name":"bmFtZQ=="}}"#
    );
    assert_eq!(tpm_token(6, &sealed), expected);
    assert_eq!(kms, r#"{"type":"sideroKMS","keyslots":[],"UserData":{"sealedData":"c2VhbGVk"}}"#);
    let text = format!(
        r#"{{"keyslots":{{"0":{{}},"3":{{}}}},"tokens":{{"0":{kms},"3":{},"4":{{"type":"talos-tpm2"}},"6":{},"5":{{"type":"sideroKMS","UserData":{{"sealedData":"?"}}}}}}}}"#,
        recovery_token(3),
        tpm_token(6, &sealed)
    );
    let header = Header::parse(&text).unwrap();
    assert_eq!(header.slots, [0, 3].into());
    let tokens = [
        (0, Token::Kms(b"sealed".into())),
        (3, Token::Recovery),
        (4, Token::Other),
        (5, Token::Other),
        (6, Token::Tpm(sealed.clone())),
    ];
    assert_eq!(header.tokens, tokens.into());
    assert_eq!(header.sealed(9).collect::<Vec<_>>(), [b"sealed"]);
    assert_eq!(header.sealed_by_tpm(0).collect::<Vec<_>>(), [&sealed]);
    assert!(Header::parse(r#"{"keyslots":{"x":{}}}"#).is_err() && Header::parse("").is_err());
}

#[test]
fn ciphers_have_their_key_sizes() {
    let cipher = |cipher: &str| Encryption { cipher: cipher.to_owned(), ..Encryption::default() };
    assert_eq!((cipher("").cipher(), cipher("").key_size()), ("aes-xts-plain64", 512));
    assert_eq!(cipher("xchacha20,aes-adiantum-plain64").key_size(), 256);
    assert_eq!(Encryption { key_size: 256, ..cipher("") }.key_size(), 256);
}
