use std::time::Duration;

use super::*;
use crate::{
    conformance::Specimen,
    metadata::Kind,
    store::{Store, StoreOptions},
};

fn store(history: usize) -> Store {
    Store::with_options(StoreOptions { history, ..StoreOptions::default() })
}

fn watch(store: &Store, start: Start) -> Result<Watch, StateError> {
    store.watch_kind(&Kind::of::<Specimen>(), WatchOptions { start, ..WatchOptions::default() })
}

fn put(store: &Store, value: u32) {
    store.put("a", Specimen { value }, "").unwrap();
}

fn value(event: &Event) -> u32 {
    event.resource.as_ref().unwrap().typed::<Specimen>().unwrap().value
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
    let lost = StateError::HistoryLost(Kind::of::<Specimen>());
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
        store.put_in("elsewhere", "a", Specimen { value: v }, "").unwrap();
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
    assert_eq!(error, StateError::HistoryLost(Kind::of::<Specimen>()));
}

#[test]
fn an_unwanted_flood_does_not_make_a_filtered_watch_fall_behind_while_it_reads() {
    let store = store(100);
    let mut one = store.watch(&Kind::of::<Specimen>().key("quiet"), WatchOptions::default()).unwrap();
    assert_eq!(one.try_next().unwrap().unwrap().kind, EventKind::Destroyed);
    for round in 0..5 {
        for v in 0..90 {
            put(&store, round * 100 + v);
        }
        assert_eq!(one.try_next(), Ok(None));
    }
    store.put("quiet", Specimen { value: 1 }, "").unwrap();
    assert_eq!(value(&one.try_next().unwrap().unwrap()), 1);
}
