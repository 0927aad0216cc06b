//! Encrypted volumes.

use std::collections::BTreeMap;

use machine::encryption::{self, KMS_TOKEN};
use resources::runtime::MetaKey;
use stdx::Secret;

use super::*;

const STATE_META: &str = "0x09";
const KMS: &str = "grpc://10.5.0.1:4050";

/// A configuration with these keys for a volume, each `KIND` of the configuration's YAML, in slots from 0.
fn config(volume: &str, keys: &[&str]) -> Active {
    let keys: Vec<String> = keys.iter().enumerate().map(|(slot, key)| format!("{{slot: {slot}, {key}}}")).collect();
    Active::new(format!(
        "version: v1alpha1\nmachine:\n  systemDiskEncryption:\n    {volume}:\n      provider: luks2\n      keys: [{}]\n",
        keys.join(", ")
    ))
}

fn text(passphrase: &str) -> String {
    format!("static: {{passphrase: {passphrase}}}")
}

fn keys(keys: &[(u32, &str)]) -> BTreeMap<u32, String> {
    keys.iter().map(|(slot, key)| (*slot, (*key).to_owned())).collect()
}

impl Test {
    fn configure(&self, volume: &str, keys: &[&str]) {
        self.harness.put(Active::ACTIVE_ID, config(volume, keys));
    }

    async fn cut_power(self) -> Self {
        self.fake.cut_power();
        let Self { fake, services, tpm, root, harness, keys: _ } = self;
        drop(harness);
        over(fake, (services, tpm), root)
    }

    fn mounted(&self, label: &str) -> Option<MountStatus> {
        self.harness.get::<MountStatus>(label).map(|status| MountStatus::clone(&status))
    }

    fn state_in_meta(&self) -> Option<String> {
        self.harness.get::<MetaKey>(STATE_META).map(|key| key.value.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_blank_volume_is_encrypted_and_opens_again() {
    let test = start(&SYSTEM);
    test.configure("ephemeral", &[&text("one"), &text("two")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let status = test.mounted("EPHEMERAL").unwrap();
    assert_eq!((status.source.as_str(), status.encrypted), ("/dev/mapper/vda4-encrypted", true));
    assert_eq!(status.encryption_providers, ["static"]);
    assert_eq!(test.fake.luks_keys("/dev/vda4"), keys(&[(0, "one"), (1, "two")]));
    assert_eq!(test.state_in_meta(), None, "it is STATE's alone");
    test.release("EPHEMERAL").await;
    assert_eq!(test.fake.log().last().unwrap(), "close vda4-encrypted");

    let test = test.cut_power().await;
    let before = test.fake.log().len();
    test.configure("ephemeral", &[&text("one"), &text("two")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    assert!(test.mounted("EPHEMERAL").is_some());
    let log = test.fake.log();
    assert!(!log[before..].iter().any(|line| line.contains("Format") || line.contains("mkfs")), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_says_so_and_destroys_nothing() {
    let test = start(&SYSTEM);
    test.configure("ephemeral", &[&text("right")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let test = test.cut_power().await;
    let before = test.fake.log().len();
    test.configure("ephemeral", &[&text("wrong")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let status = test.status("EPHEMERAL");
    assert_eq!(status.phase, VolumePhase::Locked);
    assert_eq!(status.reason, "no key opens /dev/vda4: slot 0 (static): wrong key");
    assert_eq!(test.fake.luks_keys("/dev/vda4"), keys(&[(0, "right")]));
    assert_eq!(test.fake.log()[before..], Vec::<String>::new());
    test.configure("ephemeral", &[&text("right")]);
    test.harness.settle().await;
    assert!(test.mounted("EPHEMERAL").is_some(), "another configuration opens it");
}

#[tokio::test(start_paused = true)]
async fn a_known_file_system_is_not_encrypted() {
    let test = start(&SYSTEM);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    test.release("EPHEMERAL").await;
    test.configure("ephemeral", &[&text("one")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let reason = test.status("EPHEMERAL").reason;
    assert!(reason.starts_with("partition /dev/vda4 holds xfs, not luks"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn keys_change_while_the_volume_is_in_use() {
    let test = start(&SYSTEM);
    test.configure("ephemeral", &[&text("old")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    test.configure("ephemeral", &[&text("new"), "nodeID: {}"]);
    test.harness.settle().await;
    let node = format!("{UUID}EPHEMERAL");
    assert_eq!(test.fake.luks_keys("/dev/vda4"), keys(&[(0, "new"), (1, &node)]));
    assert_eq!(test.mounted("EPHEMERAL").unwrap().encryption_providers, ["nodeID", "static"]);
    test.configure("ephemeral", &[&text("newer")]);
    test.harness.settle().await;
    assert_eq!(test.fake.luks_keys("/dev/vda4"), keys(&[(0, "newer")]));
    let log = test.fake.log();
    assert!(!log.iter().any(|line| line.starts_with("umount")), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn state_opens_without_a_configuration_by_what_meta_says_and_keys_in_both_are_tried() {
    let test = start(&SYSTEM);
    test.configure("state", &["nodeID: {}"]);
    test.ask("STATE");
    test.harness.settle().await;
    let node = format!("{UUID}STATE");
    assert_eq!(test.fake.luks_keys("/dev/vda3"), keys(&[(0, &node)]));
    assert!(test.state_in_meta().unwrap().contains(r#""KeyNodeID":{}"#));

    let test = test.cut_power().await;
    test.ask("STATE");
    test.harness.settle().await;
    assert!(test.mounted("STATE").unwrap().encrypted);

    // A configuration that was staged: META has the former key.
    let test = test.cut_power().await;
    test.configure("state", &[&text("other")]);
    test.ask("STATE");
    test.harness.settle().await;
    assert_eq!(test.fake.luks_keys("/dev/vda3"), keys(&[(0, "other")]));
    assert!(test.state_in_meta().unwrap().contains(r#""KeyData":"other""#));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_keys_that_is_cut_anywhere_leaves_state_that_opens() {
    for cut in 1..12 {
        let test = start(&SYSTEM);
        test.configure("state", &[&text("old"), &text("second")]);
        test.ask("STATE");
        test.harness.settle().await;
        test.fake.fail_luks_from(cut);
        test.configure("state", &[&text("new"), &text("another")]);
        test.harness.settle().await;
        test.fake.heal_luks();
        // Without a configuration, as at a start.
        let test = test.cut_power().await;
        test.ask("STATE");
        test.harness.settle().await;
        assert!(test.mounted("STATE").is_some(), "cut at change {cut}: {}", test.status("STATE").reason);
        test.configure("state", &[&text("new"), &text("another")]);
        test.harness.settle().await;
        assert_eq!(test.fake.luks_keys("/dev/vda3"), keys(&[(0, "new"), (1, "another")]), "cut at change {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_making_is_cut_anywhere_is_made_anew() {
    for cut in 1..6 {
        let test = start(&SYSTEM);
        test.fake.fail_luks_from(cut);
        test.configure("state", &[&format!("kms: {{endpoint: \"{KMS}\"}}"), "nodeID: {}"]);
        test.ask("STATE");
        test.harness.settle().await;
        test.fake.heal_luks();
        let test = test.cut_power().await;
        test.configure("state", &[&format!("kms: {{endpoint: \"{KMS}\"}}"), "nodeID: {}"]);
        test.ask("STATE");
        test.harness.settle().await;
        assert!(test.mounted("STATE").is_some(), "cut at change {cut}");
        assert_eq!(test.fake.luks_keys("/dev/vda3").len(), 2, "cut at change {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_service_that_is_away_is_waited_for_and_named() {
    let test = start(&SYSTEM);
    let kms = format!("kms: {{endpoint: \"{KMS}\"}}");
    test.configure("ephemeral", &[&kms]);
    test.services.set_away(true);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let status = test.status("EPHEMERAL");
    assert_eq!(status.phase, VolumePhase::Preparing, "{}", status.reason);
    assert!(status.reason.contains("the key service grpc://10.5.0.1:4050 does not answer"), "{}", status.reason);
    test.services.set_away(false);
    tokio::time::sleep(Duration::from_secs(40)).await;
    test.harness.settle().await;
    assert_eq!(test.mounted("EPHEMERAL").unwrap().encryption_providers, ["kms"]);
    let header = block::luks::Luks::header(&test.fake, "/dev/vda4".as_ref()).await.unwrap();
    assert!(matches!(header.tokens.get(&0), Some(encryption::Token::Kms(_))), "{KMS_TOKEN}: {header:?}");

    let test = test.cut_power().await;
    test.services.set_away(true);
    test.configure("ephemeral", &[&kms]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    assert_eq!(test.status("EPHEMERAL").phase, VolumePhase::Preparing);
    tokio::time::sleep(Duration::from_secs(6 * 60)).await;
    assert_eq!(test.status("EPHEMERAL").phase, VolumePhase::Locked, "it is given up after 5 minutes");
    test.services.set_away(false);
    tokio::time::sleep(Duration::from_secs(120)).await;
    test.harness.settle().await;
    assert!(test.mounted("EPHEMERAL").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_second_key_that_cannot_be_had_keeps_no_volume_closed() {
    let test = start(&SYSTEM);
    test.services.set_away(true);
    test.configure("ephemeral", &[&text("one"), &format!("kms: {{endpoint: \"{KMS}\"}}")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    assert!(test.mounted("EPHEMERAL").is_some());
    assert_eq!(test.fake.luks_keys("/dev/vda4").len(), 1);
    test.services.set_away(false);
    tokio::time::sleep(Duration::from_secs(70)).await;
    test.harness.settle().await;
    assert_eq!(test.fake.luks_keys("/dev/vda4").len(), 2, "it is added later");
}

#[tokio::test(start_paused = true)]
async fn a_regular_uuid_is_no_key() {
    let test = start(&SYSTEM);
    let regular = "00000000-0000-0000-0000-000000000000";
    test.harness.put(SystemInformation::ID, SystemInformation { uuid: regular.into(), ..SystemInformation::default() });
    test.configure("ephemeral", &["nodeID: {}"]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let status = test.status("EPHEMERAL");
    assert_eq!(status.phase, VolumePhase::Locked);
    assert!(status.reason.contains("too regular"), "{}", status.reason);
    assert!(test.fake.luks_keys("/dev/vda4").is_empty());
}

const TPM: &str = "tpm: {}";
type Change = fn(&FakeTpm);

#[tokio::test(start_paused = true)]
async fn a_volume_that_the_tpm_seals_opens_by_itself_and_its_token_says_how() {
    let test = start(&SYSTEM);
    for (volume, label) in [("ephemeral", "EPHEMERAL"), ("state", "STATE")] {
        test.configure(volume, &[TPM]);
        test.ask(label);
        test.harness.settle().await;
        assert_eq!(test.mounted(label).unwrap().encryption_providers, ["tpm"]);
    }
    let header = block::luks::Luks::header(&test.fake, "/dev/vda4".as_ref()).await.unwrap();
    assert!(matches!(header.tokens.get(&0), Some(encryption::Token::Tpm(_))), "{header:?}");
    assert!(test.state_in_meta().unwrap().contains(r#""KeyTPM":{}"#));
    let test = test.cut_power().await;
    test.ask("STATE");
    test.harness.settle().await;
    assert_eq!(test.mounted("STATE").unwrap().encryption_providers, ["tpm"], "as META says");
}

#[tokio::test(start_paused = true)]
async fn a_tpm_that_cannot_give_the_key_says_why_and_destroys_nothing() {
    let cases: [(Change, &str); 3] = [
        (|tpm| tpm.set_absent(true), "the machine has no TPM 2.0"),
        (FakeTpm::clear, "it was sealed by another TPM, or by this one before it was cleared"),
        (FakeTpm::change_firmware, "PCR 7 is not as it was when the key was sealed"),
    ];
    for (happens, reason) in cases {
        let test = start(&SYSTEM);
        test.configure("ephemeral", &[TPM]);
        test.ask("EPHEMERAL");
        test.harness.settle().await;
        let before = test.fake.luks_keys("/dev/vda4");
        let test = test.cut_power().await;
        happens(&test.tpm);
        let log = test.fake.log().len();
        test.configure("ephemeral", &[TPM]);
        test.ask("EPHEMERAL");
        test.harness.settle().await;
        let status = test.status("EPHEMERAL");
        let expected = format!("no key opens /dev/vda4: slot 0 (tpm): {reason}");
        assert!(status.phase == VolumePhase::Locked && status.reason.starts_with(&expected), "{}", status.reason);
        assert_eq!((test.fake.luks_keys("/dev/vda4"), test.fake.log().len()), (before.clone(), log));

        // Another key opens it, and the slot of the TPM stays for an administrator to look at.
        let test = start(&SYSTEM);
        test.configure("ephemeral", &[TPM, &text("spare")]);
        test.ask("EPHEMERAL");
        test.harness.settle().await;
        let before = test.fake.luks_keys("/dev/vda4");
        let test = test.cut_power().await;
        happens(&test.tpm);
        test.configure("ephemeral", &[TPM, &text("spare")]);
        test.ask("EPHEMERAL");
        test.harness.settle().await;
        assert!(test.mounted("EPHEMERAL").is_some(), "{reason}");
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(test.fake.luks_keys("/dev/vda4"), before);
        let status = test.status("EPHEMERAL").reason;
        assert!(status.contains(reason), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_the_tpm_that_has_opened_the_volume_is_not_asked_for_again() {
    let test = start(&SYSTEM);
    test.configure("ephemeral", &[TPM]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let test = test.cut_power().await;
    test.configure("ephemeral", &[TPM]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    // What is measured later in a start closes the TPM.
    test.tpm.change_firmware();
    for keys in [&[TPM, &text("one")][..], &[TPM, &text("two")], &[TPM]] {
        test.configure("ephemeral", keys);
        test.harness.settle().await;
        let has = test.fake.luks_keys("/dev/vda4");
        assert_eq!(
            has.keys().copied().collect::<Vec<_>>(),
            (0..keys.len()).map(|slot| u32::try_from(slot).unwrap()).collect::<Vec<_>>()
        );
        assert_eq!(test.status("EPHEMERAL").reason, "");
    }
}

fn slots(slots: &[(u32, &str)]) -> Vec<(u32, String)> {
    slots.iter().map(|(slot, kind)| (*slot, (*kind).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_recovery_key_opens_what_the_tpm_does_not_and_the_tpm_is_bound_anew() {
    for (volume, label, device) in [("ephemeral", "EPHEMERAL", "/dev/vda4"), ("state", "STATE", "/dev/vda3")] {
        let test = start(&SYSTEM);
        test.configure(volume, &[TPM]);
        test.ask(label);
        test.harness.settle().await;
        let key = test.keys.add_recovery(label).await.unwrap();
        assert_eq!(key.slot, 1);
        let found = test.keys.slots(label).await.unwrap();
        assert_eq!(found.slots, slots(&[(0, "tpm"), (1, "recovery-key")]));
        assert!(found.is_open && found.reason.is_empty(), "{found:?}");

        let test = test.cut_power().await;
        test.tpm.change_firmware();
        test.configure(volume, &[TPM]);
        test.ask(label);
        test.harness.settle().await;
        let found = test.keys.slots(label).await.unwrap();
        assert!(!found.is_open && found.reason.contains("PCR 7"), "{found:?}");
        let refused = test.keys.add_recovery(label).await.unwrap_err();
        assert!(matches!(refused, VolumeKeysError::Closed(_)), "{refused}");
        let refused = test.keys.rebind(label).await.unwrap_err();
        assert!(matches!(refused, VolumeKeysError::Closed(_)), "{refused}");
        let refused = test.keys.unlock(label, Secret::new("guess".to_owned())).await.unwrap_err();
        assert!(refused.to_string().contains("the given key: wrong key"), "{refused}");
        test.keys.unlock(label, key.key.clone()).await.unwrap();
        assert!(test.mounted(label).is_some());
        let refused = test.keys.unlock(label, key.key.clone()).await.unwrap_err();
        assert!(matches!(refused, VolumeKeysError::Open(_)), "{refused}");

        // A start mounts STATE twice.
        test.release(label).await;
        test.ask(label);
        test.harness.settle().await;
        assert!(test.mounted(label).is_some(), "{}", test.status(label).reason);
        assert_eq!(test.keys.rebind(label).await.unwrap(), [0]);
        assert_eq!(test.keys.slots(label).await.unwrap().slots, slots(&[(0, "tpm"), (1, "recovery-key")]));
        assert_eq!(test.fake.luks_keys(device)[&1], key.key.into_exposed());

        let test = test.cut_power().await;
        test.configure(volume, &[TPM]);
        test.ask(label);
        test.harness.settle().await;
        assert!(test.mounted(label).is_some(), "it opens by itself: {}", test.status(label).reason);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tpm_that_cannot_seal_leaves_the_volume_as_it_is() {
    let test = start(&SYSTEM);
    test.configure("ephemeral", &[TPM, &text("one")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let before = test.fake.luks_keys("/dev/vda4");
    test.tpm.set_absent(true);
    let refused = test.keys.rebind("EPHEMERAL").await.unwrap_err();
    assert!(stdx::error_chain(&refused).to_string().contains("has no TPM 2.0"), "{refused}");
    assert_eq!(test.fake.luks_keys("/dev/vda4"), before);
}

#[tokio::test(start_paused = true)]
async fn keys_of_volumes_without_them_are_refused_with_the_reason() {
    let test = start(&SYSTEM);
    test.configure("ephemeral", &[&text("one")]);
    for label in ["STATE", "EPHEMERAL"] {
        test.ask(label);
    }
    test.harness.settle().await;
    for label in ["STATE", "META", "elsewhere", ""] {
        let refused = test.keys.slots(label).await.unwrap_err();
        assert!(matches!(refused, VolumeKeysError::NoVolume(_)), "{label}: {refused}");
    }
    let refused = test.keys.rebind("EPHEMERAL").await.unwrap_err();
    assert!(matches!(refused, VolumeKeysError::NoTpmKey(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_key_for_a_volume_that_is_not_encrypted_is_not_kept() {
    let test = start(&SYSTEM);
    test.configure("ephemeral", &[&text("right")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    let test = test.cut_power().await;
    test.configure("state", &[&text("one")]);
    test.harness.settle().await;
    let refused = test.keys.unlock("EPHEMERAL", Secret::new("right".to_owned())).await.unwrap_err();
    assert!(matches!(refused, VolumeKeysError::NoVolume(_)), "{refused}");
    test.configure("ephemeral", &[&text("wrong")]);
    test.ask("EPHEMERAL");
    test.harness.settle().await;
    assert_eq!(test.status("EPHEMERAL").reason, "no key opens /dev/vda4: slot 0 (static): wrong key");
}
