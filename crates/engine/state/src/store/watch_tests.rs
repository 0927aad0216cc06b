use std::time::Duration;

use super::*;
use crate::watch::{Event, EventKind, Start};
use crate::{
    conformance::TestResource,
    metadata::Kind,
    store::{Store, StoreOptions},
};

fn store(history: usize) -> Store {
    Store::with_options(StoreOptions { history, ..StoreOptions::default() })
}

fn watch(store: &Store, start: Start) -> Result<Watch, StateError> {
    store.watch_kind(&Kind::of::<TestResource>(), WatchOptions { start, ..WatchOptions::default() })
}

fn put(store: &Store, value: u32) {
    store.put("a", TestResource { value }, "").unwrap();
}

fn value(event: &Event) -> u32 {
    event.resource.as_ref().unwrap().typed::<TestResource>().unwrap().value
}

#[tokio::test(start_paused = true)]
async fn a_watch_sleeps_until_something_changes() {
    let store = store(8);
    let mut watch = watch(&store, Start::Now).unwrap();
    let quiet = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    put(&store, 1);
    assert_eq!(value(&watch.next().await.unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_nothing() {
    let store = store(64);
    let mut watch = watch(&store, Start::Now).unwrap();
    let writer = {
        let store = store.clone();
        stdx::tasks::spawn("writer", async move {
            for value in 0..20 {
                tokio::time::sleep(Duration::from_millis(7)).await;
                put(&store, value);
            }
        })
    };
    let mut seen = Vec::new();
    while seen.len() < 20 {
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(3), watch.next()).await {
            seen.push(value(&event.unwrap()));
        }
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    writer.join().await.unwrap();
}

#[test]
fn a_slow_watch_fails_and_writers_do_not_wait() {
    let store = store(4);
    let mut slow = watch(&store, Start::Now).unwrap();
    let mut keeping_up = watch(&store, Start::Now).unwrap();
    for v in 0..10 {
        put(&store, v);
        assert_eq!(value(&keeping_up.try_next().unwrap().unwrap()), v);
    }
    let lost = StateError::HistoryLost(Kind::of::<TestResource>());
    assert_eq!(slow.try_next(), Err(lost.clone()));
    assert_eq!(slow.try_next(), Err(lost));
}

#[test]
fn exactly_as_many_changes_as_the_ring_holds_are_not_lost() {
    let store = store(4);
    let mut behind = watch(&store, Start::Now).unwrap();
    for v in 0..4 {
        put(&store, v);
    }
    for v in 0..4 {
        assert_eq!(value(&behind.try_next().unwrap().unwrap()), v);
    }
    assert_eq!(behind.try_next(), Ok(None));
}

#[test]
fn changes_of_other_kinds_do_not_push_a_history_out() {
    let store = store(4);
    let mut behind = watch(&store, Start::Now).unwrap();
    put(&store, 1);
    for v in 0..50 {
        store.put_in("elsewhere", "a", TestResource { value: v }, "").unwrap();
    }
    assert_eq!(value(&behind.try_next().unwrap().unwrap()), 1);
}

#[test]
fn a_bookmark_is_lost_exactly_when_the_ring_turned() {
    let store = store(3);
    let mut events = watch(&store, Start::Now).unwrap();
    put(&store, 0);
    let bookmark = events.try_next().unwrap().unwrap().bookmark.unwrap();
    for v in 1..=3 {
        put(&store, v);
    }
    let mut resumed = watch(&store, Start::After(bookmark.clone())).unwrap();
    assert_eq!(value(&resumed.try_next().unwrap().unwrap()), 1);
    put(&store, 4);
    let error = watch(&store, Start::After(bookmark)).unwrap_err();
    assert_eq!(error, StateError::HistoryLost(Kind::of::<TestResource>()));
}

#[test]
fn an_unwanted_flood_does_not_make_a_filtered_watch_fall_behind_while_it_reads() {
    let store = store(100);
    let mut one = store.watch(&Kind::of::<TestResource>().key("quiet"), WatchOptions::default()).unwrap();
    assert_eq!(one.try_next().unwrap().unwrap().kind, EventKind::Destroyed);
    for round in 0..5 {
        for v in 0..90 {
            put(&store, round * 100 + v);
        }
        assert_eq!(one.try_next(), Ok(None));
    }
    store.put("quiet", TestResource { value: 1 }, "").unwrap();
    assert_eq!(value(&one.try_next().unwrap().unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_kind_that_is_not_there_yet_sees_it_from_its_first_change() {
    let store = store(8);
    let mut watch = watch(&store, Start::Contents).unwrap();
    assert_eq!(watch.next().await.unwrap().kind, EventKind::Bootstrapped);
    store.put_in("elsewhere", "a", TestResource { value: 9 }, "").unwrap();
    let quiet = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let writer = {
        let store = store.clone();
        stdx::tasks::spawn("writer", async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            put(&store, 1);
            put(&store, 2);
        })
    };
    assert_eq!((watch.next().await.unwrap().kind, value(&watch.next().await.unwrap())), (EventKind::Created, 2));
    writer.join().await.unwrap();
}

/// A sensitive resource whose value can be searched for in memory.
mod sensitive {
    use resources::{Definition, Sensitivity, Spec};

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Password(Arc<str>);

    impl Spec for Password {
        const DEFINITION: Definition = Definition {
            type_name: "Passwords.test.cosi.dev",
            namespace: "secrets",
            aliases: &[],
            columns: &[],
            sensitivity: Sensitivity::Sensitive,
        };

        fn to_yaml(&self) -> serde_json::Value {
            serde_json::json!(&*self.0)
        }

        fn to_proto(&self) -> Vec<u8> {
            self.0.as_bytes().to_vec()
        }
    }

    fn put(store: &Store, id: &str, value: &str) -> std::sync::Weak<str> {
        let value: Arc<str> = value.into();
        let trace = Arc::downgrade(&value);
        store.put(id, Password(value), "").unwrap();
        trace
    }

    fn destroy(store: &Store, id: &str) {
        store.destroy(&Kind::of::<Password>().key(id), "").unwrap();
    }

    fn watch(store: &Store, start: Start) -> Watch {
        store.watch_kind(&Kind::of::<Password>(), WatchOptions { start, ..WatchOptions::default() }).unwrap()
    }

    fn value(resource: &AnyResource) -> String {
        String::from_utf8(resource.spec.proto()).unwrap()
    }

    /// An event: type, resource, value, and former value.
    fn told(watch: &mut Watch) -> Vec<(EventKind, String, String, Option<String>)> {
        let mut all = Vec::new();
        while let Some(event) = watch.try_next().unwrap() {
            let resource = event.resource.unwrap();
            let old = event.old.map(|old| value(&old));
            all.push((event.kind, resource.metadata.id.clone(), value(&resource), old));
        }
        all
    }

    fn is(kind: EventKind, id: &str, value: &str) -> (EventKind, String, String, Option<String>) {
        (kind, id.to_owned(), value.to_owned(), None)
    }

    #[test]
    fn superseded_and_destroyed_values_are_kept_nowhere() {
        let store = store(64);
        let first = put(&store, "a", "one");
        let second = put(&store, "a", "two");
        let other = put(&store, "b", "three");
        assert_eq!((first.strong_count(), second.strong_count(), other.strong_count()), (0, 1, 1));
        store.add_finalizer(&Kind::of::<Password>().key("a"), "x").unwrap();
        store.remove_finalizer(&Kind::of::<Password>().key("a"), "x").unwrap();
        destroy(&store, "a");
        assert_eq!((second.strong_count(), other.strong_count()), (0, 1));
    }

    #[test]
    fn a_watch_that_was_asleep_sees_the_values_in_force() {
        let store = store(64);
        put(&store, "known", "1");
        put(&store, "gone", "1");
        let mut asleep = watch(&store, Start::Now);
        let mut awake = watch(&store, Start::Now);
        put(&store, "known", "2");
        assert_eq!(told(&mut awake), [is(EventKind::Updated, "known", "2")]);
        put(&store, "new", "1");
        put(&store, "known", "3");
        put(&store, "brief", "1");
        put(&store, "new", "2");
        destroy(&store, "brief");
        put(&store, "gone", "2");
        destroy(&store, "gone");
        let end = [
            is(EventKind::Updated, "known", "3"),
            is(EventKind::Created, "new", "2"),
            is(EventKind::Destroyed, "gone", ""),
        ];
        assert_eq!(told(&mut asleep), end);
        assert_eq!(told(&mut awake), end);
        let mut tail = watch(&store, Start::Tail(2));
        assert_eq!(told(&mut tail), [is(EventKind::Destroyed, "brief", ""), end[2].clone()]);
    }

    #[test]
    fn a_bookmark_in_front_of_values_that_are_gone_resumes_with_those_in_force() {
        let store = store(64);
        put(&store, "a", "1");
        let mut first = watch(&store, Start::Now);
        put(&store, "a", "2");
        let bookmark = first.try_next().unwrap().unwrap().bookmark.unwrap();
        put(&store, "a", "3");
        put(&store, "a", "4");
        assert_eq!(told(&mut watch(&store, Start::After(bookmark))), [is(EventKind::Updated, "a", "4")]);
    }
}
