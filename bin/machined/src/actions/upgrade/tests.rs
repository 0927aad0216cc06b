use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use machine::trial::Installed;
use machine::trial::SlotId;
use platform::Container;
use sequencer::{ActorId, Sequence, UpgradeParameters};
use stdx::tasks::CancellationToken;
use supervisor::LogStore;

use super::*;
use crate::components::Components;

/// META as the controller shows it: each change is a resource, unless it cannot be written.
#[derive(Debug)]
struct FakeMeta {
    store: Store,
    /// Deletions that are left before the disk fails.
    deletes: Mutex<usize>,
}

#[async_trait]
impl MetaValues for FakeMeta {
    async fn set(&self, key: u8, value: Vec<u8>) -> Result<(), MetaRefused> {
        let value = String::from_utf8(value).unwrap();
        self.store.put(&meta::resource_id(key), MetaKey { value }, "").map(drop).unwrap();
        Ok(())
    }

    async fn delete(&self, key: u8) -> Result<(), MetaRefused> {
        let mut left = self.deletes.lock();
        *left = left.checked_sub(1).ok_or_else(|| MetaRefused::Unavailable("the disk has failed".into()))?;
        match self.store.destroy(&state::Key::of::<MetaKey>(&meta::resource_id(key)), "") {
            Ok(()) => Ok(()),
            Err(_) => Err(MetaRefused::Absent("no value".into())),
        }
    }
}

struct World {
    store: Store,
    meta: FakeMeta,
    context: TaskContext,
}

fn world() -> World {
    let store = Components::new(Arc::new(Container::new(None, None)), LogStore::default()).store;
    store.put(MetaLoad::ID, MetaLoad { done: true }, "").unwrap();
    let meta = FakeMeta { store: store.clone(), deletes: Mutex::new(usize::MAX) };
    let context = TaskContext { cancel: CancellationToken::new(), actor: ActorId::machine() };
    World { store, meta, context }
}

impl World {
    async fn stage(&self) {
        let upgrade = UpgradeParameters { image: "x:2".into(), preserve: true, ..UpgradeParameters::default() };
        let request = Request::new(Sequence::StageUpgrade, ActorId::machine()).with(Parameters::Upgrade(upgrade));
        let held = Held(Mutex::new(vec![Check::Api]));
        stage(&self.meta, &held, &request).await.unwrap();
    }

    fn values(&self) -> BTreeMap<String, String> {
        let keys = self.store.list_as::<MetaKey>().unwrap();
        keys.iter().map(|key| (key.id().to_owned(), key.value.clone())).collect()
    }

    async fn take(&self) -> (Staged, Result<(), TaskError>) {
        let staged = Staged::default();
        let taken = staged.take_from(&self.store, &self.meta, &self.context).await;
        (staged, taken)
    }
}

#[tokio::test(start_paused = true)]
async fn a_staged_upgrade_is_performed_once_and_by_the_start_that_deleted_it() {
    let world = world();
    assert_eq!(world.take().await.0.get(), None);
    world.stage().await;
    let options = r#"{"Pull":false,"Force":false,"Upgrade":true,"Zero":false,"ExtraKernelArgs":[]}"#;
    let values = world.values();
    assert_eq!((values["0x07"].as_str(), values["0x08"].as_str()), ("x:2", options));
    let (staged, taken) = world.take().await;
    taken.unwrap();
    let request = Request::new(Sequence::Install, ActorId::machine());
    assert_eq!(staged.image(&request).unwrap(), "x:2");
    assert_eq!(staged.checks(&world.store).unwrap(), Some(vec![Check::Api]));
    assert_eq!(world.values(), BTreeMap::new());
    assert_eq!(world.take().await.0.get(), None, "another start performs it again");
}

#[tokio::test(start_paused = true)]
async fn a_staged_upgrade_that_cannot_be_deleted_or_read_is_not_performed() {
    let world = world();
    for deletes in 0..2 {
        world.stage().await;
        *world.meta.deletes.lock() = deletes;
        let (staged, taken) = world.take().await;
        assert_eq!(taken.unwrap_err().to_string(), "the disk has failed");
        assert_eq!(staged.get(), None);
    }
    *world.meta.deletes.lock() = usize::MAX;
    world.stage().await;
    world.meta.set(tag::STAGED_OPTIONS, b"{".to_vec()).await.unwrap();
    let (staged, taken) = world.take().await;
    assert_eq!(taken.unwrap_err().to_string(), "the options of the staged upgrade are damaged");
    assert_eq!(staged.get(), None);
    assert_eq!(world.values(), BTreeMap::new(), "it is read at each start");
}

#[tokio::test(start_paused = true)]
async fn a_version_on_trial_is_not_overwritten_by_a_staged_upgrade() {
    let world = world();
    world.stage().await;
    let version =
        |slot, version: &str| Installed { slot: SlotId::new(slot), version: version.to_owned(), tries_left: None };
    let trial = Record::prepared(&version("B", "v2"), &version("A", "v1"), Vec::new(), 60);
    world.meta.set(tag::TRIAL, trial.encode().into_bytes()).await.unwrap();
    let (staged, taken) = world.take().await;
    assert_eq!(taken.unwrap_err().to_string(), "the upgrade to x:2 is not performed: v2 is on trial");
    assert_eq!(staged.get(), None);
}

#[tokio::test(start_paused = true)]
async fn the_upgrade_of_another_system_has_to_show_what_its_kind_of_node_shows() {
    let world = world();
    let staged = |kind| {
        world.store.put(MachineType::ID, kind, "").unwrap();
        let staged = StagedUpgrade { image: "x:2".into(), preserve: true, checks: None };
        Staged(Mutex::new(Some(staged))).checks(&world.store).unwrap().unwrap()
    };
    assert_eq!(staged(MachineType::Worker), [Check::Api, Check::Kubelet]);
    assert_eq!(staged(MachineType::ControlPlane), Check::ALL);
}

#[tokio::test]
async fn the_limit_of_a_trial_is_the_configuration_s_or_a_quarter_of_an_hour() {
    let World { store, .. } = world();
    assert_eq!(limit(&store).unwrap(), Duration::from_secs(900));
    let text = "version: v1alpha1\n---\napiVersion: v1alpha1\nkind: UpgradeTrialConfig\nlimit: 5m\n";
    store.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text), "").unwrap();
    assert_eq!(limit(&store).unwrap(), Duration::from_secs(300));
}
