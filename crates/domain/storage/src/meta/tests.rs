use std::time::Duration;

use block::FakeBlock;
use controller::testing::Harness;

use super::*;
use crate::discovery::DiscoveryController;

const MIB: u64 = 1 << 20;
const SYSTEM: [(&str, u64); 4] = [("EFI", 1101 * MIB), ("META", MIB), ("STATE", 100 * MIB), ("EPHEMERAL", 1000 * MIB)];

fn start(fake: &FakeBlock, preset: Vec<Assignment>) -> (Harness, MetaHandle) {
    let (controller, handle) = MetaController::new(Arc::new(fake.clone()), preset);
    let harness = Harness::with(controller);
    harness.run(DiscoveryController::new(Arc::new(fake.clone())));
    harness.put(resources::runtime::DevicesStatus::ID, resources::runtime::DevicesStatus { ready: true });
    (harness, handle)
}

fn install(fake: &FakeBlock) {
    fake.add_disk("vda", 6 << 30);
    fake.partition("vda", &SYSTEM).unwrap();
}

async fn on_disk(fake: &FakeBlock) -> Meta {
    Meta::parse(&fake.read_at("/dev/vda2".as_ref(), 0, 1 << 20).await.unwrap()).meta
}

fn value(harness: &Harness, id: &str) -> Option<String> {
    harness.get::<MetaKey>(id).map(|key| key.value.clone())
}

#[tokio::test(start_paused = true)]
async fn values_are_written_to_both_copies_and_shown_as_resources() {
    let fake = FakeBlock::default();
    install(&fake);
    let (harness, meta) = start(&fake, Vec::new());
    harness.settle().await;
    assert!(harness.get::<MetaLoad>(MetaLoad::ID).unwrap().done);
    meta.set(12, b"mine".to_vec()).await.unwrap();
    harness.settle().await;
    assert_eq!(value(&harness, "0x0c").as_deref(), Some("mine"));
    let bytes = fake.read_at("/dev/vda2".as_ref(), 0, 1 << 20).await.unwrap();
    let parsed = Meta::parse(&bytes);
    assert_eq!((parsed.meta.get(12), parsed.copies), (Some(b"mine".as_slice()), [Ok(()), Ok(())]));

    meta.delete(12).await.unwrap();
    harness.settle().await;
    assert_eq!((value(&harness, "0x0c"), on_disk(&fake).await), (None, Meta::default()));
    assert!(matches!(meta.delete(12).await, Err(MetaError::Absent(12))));
    assert!(matches!(meta.set(13, vec![0; 300_000]).await, Err(MetaError::Refused(SetError::Full { .. }))));
}

#[tokio::test(start_paused = true)]
async fn values_from_before_the_installation_win_over_those_of_the_disk() {
    let fake = FakeBlock::default();
    let (harness, meta) = start(&fake, Vec::new());
    harness.settle().await;
    meta.set(10, b"in memory".to_vec()).await.unwrap();
    meta.set(11, b"code".to_vec()).await.unwrap();
    meta.delete(11).await.unwrap();
    harness.settle().await;
    assert_eq!(value(&harness, "0x0a").as_deref(), Some("in memory"));

    install(&fake);
    let mut old = Meta::default();
    for (tag, text) in [(10, "on disk"), (11, "on disk"), (15, "on disk")] {
        old.set(tag, text.as_bytes()).unwrap();
    }
    fake.write_at("/dev/vda2".as_ref(), 0, old.encode_partition(1 << 20)).await.unwrap();
    harness.settle().await;
    let written = on_disk(&fake).await;
    assert_eq!((written.get(10), written.get(11)), (Some(b"in memory".as_slice()), None));
    assert_eq!(value(&harness, "0x0f").as_deref(), Some("on disk"));
}

#[tokio::test(start_paused = true)]
async fn values_of_the_image_count_only_where_there_is_no_partition() {
    let preset = vec![Assignment { key: 11, value: "preset".into() }];
    let (harness, _meta) = start(&FakeBlock::default(), preset.clone());
    harness.settle().await;
    assert_eq!(value(&harness, "0x0b").as_deref(), Some("preset"));
    let fake = FakeBlock::default();
    install(&fake);
    let (harness, _meta) = start(&fake, preset);
    harness.settle().await;
    assert_eq!(value(&harness, "0x0b"), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_loaded_and_nothing_changes_before_the_search_for_disks_is_over() {
    let fake = FakeBlock::default();
    fake.set_pending(&["usb"]);
    let (harness, meta) = start(&fake, Vec::new());
    harness.settle().await;
    assert!(harness.get::<MetaLoad>(MetaLoad::ID).is_none());
    assert!(matches!(meta.set(12, Vec::new()).await, Err(MetaError::NotLoaded)));
    tokio::time::sleep(Duration::from_secs(20)).await;
    harness.settle().await;
    meta.set(12, Vec::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_written_is_not_shown() {
    let fake = FakeBlock::default();
    fake.add_disk("vda", 6 << 30);
    fake.partition("vda", &SYSTEM).unwrap();
    let (harness, meta) = start(&fake, Vec::new());
    harness.settle().await;
    fake.set_read_only("vda");
    assert!(matches!(meta.set(12, b"x".to_vec()).await, Err(MetaError::Write(_))));
    harness.settle().await;
    assert_eq!(value(&harness, "0x0c"), None);
}
