use std::collections::BTreeMap;

use parking_lot::Mutex;
use proptest::prelude::*;
use stdx::clock::ManualClock;

use super::*;
use crate::change::ChangeKind;
use crate::{
    conformance::{self, TestResource},
    watch::{EventKind, Start},
};

fn key(id: &str) -> Key {
    Key::of::<TestResource>(id)
}

fn value(value: u32) -> Arc<dyn AnySpec> {
    Arc::new(TestResource { value })
}

fn create(store: &Store, id: &str, owner: &str) -> AnyResource {
    store.create(Metadata::new(&key(id).kind, id), value(0), owner).unwrap()
}

#[tokio::test]
async fn the_store_conforms() {
    let store = Store::new();
    conformance::all(&store, &store).await;
}

#[test]
fn a_new_resource_has_version_one_and_stamps() {
    let clock = Arc::new(ManualClock::default());
    let store = Store::with_options(StoreOptions { clock: Arc::clone(&clock) as _, history: 8 });
    let start = clock.now();
    let made = create(&store, "a", "me");
    assert_eq!((made.metadata.version, made.metadata.phase), (1, Phase::Running));
    clock.advance(std::time::Duration::from_secs(5));
    let changed = store.put("a", TestResource { value: 7 }, "me").unwrap();
    assert_eq!((changed.metadata.version, changed.value), (2, 7));
    assert_eq!(changed.metadata.created, start);
    assert_eq!(changed.metadata.updated, clock.now());
}

#[test]
fn writing_what_is_there_changes_nothing() {
    let store = Store::new();
    let first = store.put("a", TestResource { value: 1 }, "me").unwrap();
    let mut watch = store.watch_kind(&key("a").kind, WatchOptions::default()).unwrap();
    let second = store.put("a", TestResource { value: 1 }, "me").unwrap();
    assert_eq!(first, second);
    store.remove_finalizer(&key("a"), "nobody").unwrap();
    assert_eq!(watch.try_next().unwrap(), None);
}

#[test]
fn each_conflict_has_its_error() {
    let store = Store::new();
    let made = create(&store, "a", "me");
    let metadata = (*made.metadata).clone();
    assert_eq!(store.create(metadata.clone(), value(1), "me"), Err(StateError::AlreadyExists(key("a"))));
    let owner =
        |expected: &str| StateError::OwnerConflict { key: key("a"), expected: expected.into(), actual: "me".into() };
    assert_eq!(store.update(metadata.clone(), value(1), "you", None), Err(owner("you")));
    assert_eq!(store.put("a", TestResource { value: 1 }, ""), Err(owner("")));
    assert_eq!(store.teardown(&key("a"), "you"), Err(owner("you")));
    assert_eq!(store.destroy(&key("a"), "you"), Err(owner("you")));
    store.update(metadata.clone(), value(1), "me", Some(Phase::Running)).unwrap();
    assert_eq!(
        store.update(metadata, value(2), "me", None),
        Err(StateError::VersionConflict { key: key("a"), expected: 1, actual: 2 })
    );
    assert_eq!(store.get(&key("b")), Err(StateError::NotFound(key("b"))));
    assert_eq!(store.destroy(&key("b"), ""), Err(StateError::NotFound(key("b"))));
    assert_eq!(store.add_finalizer(&key("b"), "x"), Err(StateError::NotFound(key("b"))));
}

#[test]
fn a_spec_of_another_type_is_refused() {
    let store = Store::new();
    let wrong = Kind::new("conformance", "Others.test.cosi.dev").key("a");
    assert_eq!(
        store.create(Metadata::new(&wrong.kind, "a"), value(0), ""),
        Err(StateError::WrongType { key: wrong, actual: "Specimens.test.cosi.dev".into() })
    );
    let unnamed = key("");
    assert_eq!(store.put("", TestResource::default(), ""), Err(StateError::InvalidName(unnamed)));
}

#[test]
fn a_held_resource_tears_down_before_it_goes() {
    let store = Store::new();
    create(&store, "a", "me");
    store.add_finalizer(&key("a"), "x").unwrap();
    store.add_finalizer(&key("a"), "x").unwrap();
    store.add_finalizer(&key("a"), "y").unwrap();
    let held = |finalizers: &[&str]| StateError::PendingFinalizers {
        key: key("a"),
        finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
    };
    assert_eq!(store.destroy(&key("a"), "me"), Err(held(&["x", "y"])));
    assert_eq!(store.teardown(&key("a"), "me"), Ok(false));
    let phase = |expected, actual| StateError::PhaseConflict { key: key("a"), expected, actual };
    assert_eq!(store.add_finalizer(&key("a"), "z"), Err(phase(Phase::Running, Phase::TearingDown)));
    assert_eq!(store.put("a", TestResource { value: 1 }, "me"), Err(phase(Phase::Running, Phase::TearingDown)));
    store.remove_finalizer(&key("a"), "x").unwrap();
    assert_eq!(store.destroy(&key("a"), "me"), Err(held(&["y"])));
    let free = store.remove_finalizer(&key("a"), "y").unwrap();
    assert!(free.metadata.is_destroy_ready());
    store.destroy(&key("a"), "me").unwrap();
    assert_eq!(store.get_as::<TestResource>("a"), Ok(None));
}

#[test]
fn observers_hear_each_change_before_the_write_returns() {
    #[derive(Default)]
    struct Log(Mutex<Vec<(ChangeKind, u64)>>);
    impl Observer for Log {
        fn changed(&self, change: &Change) {
            self.0.lock().push((change.kind, change.resource.metadata.version));
        }
    }
    let store = Store::new();
    let log = Arc::new(Log::default());
    let observer: Arc<dyn Observer> = Arc::clone(&log) as _;
    store.observe(&observer);
    create(&store, "a", "");
    store.put("a", TestResource { value: 3 }, "").unwrap();
    store.destroy(&key("a"), "").unwrap();
    assert_eq!(*log.0.lock(), [(ChangeKind::Created, 1), (ChangeKind::Updated, 2), (ChangeKind::Destroyed, 2)]);
    drop(observer);
    drop(log);
    create(&store, "b", "");
}

#[tokio::test]
async fn no_read_adds_anything_to_the_store() {
    let store = Store::new();
    let kinds = store.kinds();
    let mut watches = Vec::new();
    for n in 0..300 {
        let kind = Kind::new(format!("namespace-{n}"), "x".repeat(1000));
        let key = kind.key("y".repeat(1000));
        watches.push(store.watch_kind(&kind, WatchOptions::default()).unwrap());
        watches.push(store.watch(&key, WatchOptions::default()).unwrap());
        assert_eq!(store.get(&key), Err(StateError::NotFound(key.clone())));
        assert_eq!(store.list(&kind, &Query::default()), []);
        assert_eq!(store.list_as_in::<TestResource>(&kind.namespace), Ok(vec![]));
        assert_eq!(store.get_as_in::<TestResource>(&kind.namespace, "a"), Ok(None));
        assert_eq!(store.teardown(&key, ""), Err(StateError::NotFound(key.clone())));
        assert_eq!(store.destroy(&key, ""), Err(StateError::NotFound(key.clone())));
        assert_eq!(store.remove_finalizer(&key, "x"), Err(StateError::NotFound(key.clone())));
    }
    assert_eq!(store.kinds(), kinds);
}

#[test]
fn names_have_a_longest_length() {
    let store = Store::new();
    let kinds = store.kinds();
    let long = "x".repeat(Key::MAX_ID + 1);
    assert_eq!(store.put(&long, TestResource::default(), "").unwrap_err(), StateError::InvalidName(key(&long)));
    let namespace = "n".repeat(Kind::MAX_PART + 1);
    let refused = store.put_in(&namespace, "a", TestResource::default(), "").unwrap_err();
    assert!(matches!(refused, StateError::InvalidName(_)), "{refused:?}");
    assert_eq!(store.kinds(), kinds);
}

/// A step of the property test.
#[derive(Clone, Debug)]
enum Step {
    Put { id: u8, value: u32, owner: u8 },
    Update { id: u8, value: u32, version: u64 },
    Teardown { id: u8, owner: u8 },
    Destroy { id: u8, owner: u8 },
    Add { id: u8, finalizer: u8 },
    Remove { id: u8, finalizer: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let (id, owner, finalizer) = (0..3u8, 0..2u8, 0..2u8);
    prop_oneof![
        3 => (id.clone(), 0..3u32, owner.clone()).prop_map(|(id, value, owner)| Step::Put { id, value, owner }),
        1 => (id.clone(), 0..3u32, 1..6u64).prop_map(|(id, value, version)| Step::Update { id, value, version }),
        1 => (id.clone(), owner.clone()).prop_map(|(id, owner)| Step::Teardown { id, owner }),
        2 => (id.clone(), owner).prop_map(|(id, owner)| Step::Destroy { id, owner }),
        1 => (id.clone(), finalizer.clone()).prop_map(|(id, finalizer)| Step::Add { id, finalizer }),
        1 => (id, finalizer).prop_map(|(id, finalizer)| Step::Remove { id, finalizer }),
    ]
}

/// A resource as the model sees it.
#[derive(Clone, Debug, PartialEq)]
struct Modeled {
    value: u32,
    version: u64,
    owner: String,
    running: bool,
    finalizers: Vec<String>,
}

type Model = BTreeMap<String, Modeled>;

/// The model's result of a step: whether it succeeds, and the model after it.
fn model_step(model: &mut Model, step: &Step) -> bool {
    let change = |modeled: &mut Modeled, f: &dyn Fn(&mut Modeled)| {
        let before = modeled.clone();
        f(modeled);
        if *modeled != before {
            modeled.version += 1;
        }
        true
    };
    match step {
        Step::Put { id, value, owner } => match model.get_mut(&id.to_string()) {
            None => {
                let (version, owner) = (1, owner.to_string());
                let new = Modeled { value: *value, version, owner, running: true, finalizers: vec![] };
                model.insert(id.to_string(), new);
                true
            }
            Some(r) => r.owner == owner.to_string() && r.running && change(r, &|r| r.value = *value),
        },
        Step::Update { id, value, version } => model
            .get_mut(&id.to_string())
            .is_some_and(|r| r.owner == "0" && r.version == *version && change(r, &|r| r.value = *value)),
        Step::Teardown { id, owner } => model
            .get_mut(&id.to_string())
            .is_some_and(|r| r.owner == owner.to_string() && change(r, &|r| r.running = false)),
        Step::Destroy { id, owner } => {
            let id = id.to_string();
            let may = model.get(&id).is_some_and(|r| r.owner == owner.to_string() && r.finalizers.is_empty());
            if may {
                model.remove(&id);
            }
            may
        }
        Step::Add { id, finalizer } => model.get_mut(&id.to_string()).is_some_and(|r| {
            let held = r.finalizers.contains(&finalizer.to_string());
            held || (r.running && change(r, &|r| r.finalizers.push(finalizer.to_string())))
        }),
        Step::Remove { id, finalizer } => model
            .get_mut(&id.to_string())
            .is_some_and(|r| change(r, &|r| r.finalizers.retain(|f| *f != finalizer.to_string()))),
    }
}

fn store_step(store: &Store, step: &Step) -> Result<(), StateError> {
    match step {
        Step::Put { id, value, owner } => {
            store.put(&id.to_string(), TestResource { value: *value }, &owner.to_string()).map(drop)
        }
        Step::Update { id, value: new, version } => {
            let current = store.get(&key(&id.to_string()))?;
            let metadata = Metadata { version: *version, ..(*current.metadata).clone() };
            store.update(metadata, value(*new), "0", None).map(drop)
        }
        Step::Teardown { id, owner } => store.teardown(&key(&id.to_string()), &owner.to_string()).map(drop),
        Step::Destroy { id, owner } => store.destroy(&key(&id.to_string()), &owner.to_string()),
        Step::Add { id, finalizer } => store.add_finalizer(&key(&id.to_string()), &finalizer.to_string()).map(drop),
        Step::Remove { id, finalizer } => {
            store.remove_finalizer(&key(&id.to_string()), &finalizer.to_string()).map(drop)
        }
    }
}

fn modeled(resource: &AnyResource) -> (String, Modeled) {
    let m = &resource.metadata;
    let value = resource.typed::<TestResource>().unwrap().value;
    let running = m.phase == Phase::Running;
    let (version, owner, finalizers) = (m.version, m.owner.clone(), m.finalizers.clone());
    (m.id.clone(), Modeled { value, version, owner, running, finalizers })
}

proptest! {
    #[test]
    fn the_store_agrees_with_a_simple_model(steps in proptest::collection::vec(step(), 0..80)) {
        let store = Store::new();
        let mut model = Model::new();
        let mut watch = store.watch_kind(&key("").kind, WatchOptions::default()).unwrap();
        let mut replayed = Model::new();
        for step in &steps {
            let expected = model_step(&mut model, step);
            let result = store_step(&store, step);
            prop_assert_eq!(result.is_ok(), expected, "{:?}: {:?}", step, result);
            let now: Model = store.list(&key("").kind, &Query::default()).iter().map(modeled).collect();
            prop_assert_eq!(&now, &model);
            // Replaying the watch leads to the same state.
            while let Some(event) = watch.try_next().unwrap() {
                let (id, after) = modeled(event.resource.as_ref().unwrap());
                let before = match event.kind {
                    EventKind::Destroyed => replayed.remove(&id),
                    _ => replayed.insert(id, after),
                };
                prop_assert_eq!(before.is_none(), event.kind == EventKind::Created);
            }
            prop_assert_eq!(&replayed, &model);
        }
    }

    #[test]
    fn a_tail_is_the_end_of_the_history(changes in 1..40u32, tail in 0..50usize, history in 1..20usize) {
        let store = Store::with_options(StoreOptions { history, ..StoreOptions::default() });
        for value in 0..changes {
            store.put("a", TestResource { value }, "").unwrap();
        }
        let options = WatchOptions { start: Start::Tail(tail), ..WatchOptions::default() };
        let mut watch = store.watch_kind(&key("").kind, options).unwrap();
        let mut seen = Vec::new();
        while let Some(event) = watch.try_next().unwrap() {
            seen.push(event.resource.unwrap().typed::<TestResource>().unwrap().value);
        }
        let count = u32::try_from(tail.min(history)).unwrap().min(changes);
        prop_assert_eq!(seen, (changes - count..changes).collect::<Vec<_>>());
    }
}
