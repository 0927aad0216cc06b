//! Watches.

use futures::StreamExt;

use super::{EVENT_DEADLINE, brief, briefs, create_labeled, is, kind, next, put};
use crate::{
    Bookmark, EventKind, LabelOp, LabelQuery, LabelTerm, Metadata, Query, ReadError, Reader, Start, Store, WatchOptions,
};

fn from(start: Start) -> WatchOptions {
    WatchOptions { start, ..WatchOptions::default() }
}

/// Present or absent, the first event says so; then changes of this resource only.
pub async fn a_watch_of_one_resource_starts_with_what_it_is(store: &Store, reader: &dyn Reader) {
    let kind = kind("one");
    let mut events = reader.watch(&kind, Some("a"), WatchOptions::default()).await.expect("watch");
    assert_eq!(next(&mut events).await.kind, EventKind::Destroyed);
    put(store, &kind, "other", 9);
    put(store, &kind, "a", 1);
    put(store, &kind, "a", 2);
    let event = next(&mut events).await;
    assert_eq!(brief(&event), is(EventKind::Created, "a", "1"));
    let event = next(&mut events).await;
    assert_eq!(brief(&event), is(EventKind::Updated, "a", "2"));
    assert_eq!(event.old.expect("the old resource").yaml, "value: 1\n");
    store.destroy(&kind.key("a"), "").expect("destroy");
    assert_eq!(brief(&next(&mut events).await), is(EventKind::Destroyed, "a", "2"));
    put(store, &kind, "a", 3);
    let mut late = reader.watch(&kind, Some("a"), WatchOptions::default()).await.expect("watch");
    assert_eq!(brief(&next(&mut late).await), is(EventKind::Created, "a", "3"));
}

/// Contents come as created, closed by one bootstrapped event, also when there are none.
pub async fn bootstrap_shows_contents_first(store: &Store, reader: &dyn Reader) {
    let kind = kind("bootstrap");
    let mut empty = reader.watch(&kind, None, from(Start::Contents)).await.expect("watch");
    assert_eq!(next(&mut empty).await.kind, EventKind::Bootstrapped);
    put(store, &kind, "b", 2);
    put(store, &kind, "a", 1);
    let mut events = reader.watch(&kind, None, from(Start::Contents)).await.expect("watch");
    assert_eq!(
        briefs(&mut events, 3).await,
        [is(EventKind::Created, "a", "1"), is(EventKind::Created, "b", "2"), is(EventKind::Bootstrapped, "", "")]
    );
    put(store, &kind, "a", 5);
    assert_eq!(brief(&next(&mut events).await), is(EventKind::Updated, "a", "5"));
}

/// Under concurrent writes, contents and following events together are exactly the history.
pub async fn contents_and_changes_do_not_overlap(store: &Store, reader: &dyn Reader) {
    const LAST: u32 = 100;
    let kind = kind("overlap");
    put(store, &kind, "n", 0);
    let (store, written) = (store.clone(), kind.clone());
    let writer = stdx::tasks::spawn("writer", async move {
        for value in 1..=LAST {
            put(&store, &written, "n", value);
            tokio::task::yield_now().await;
        }
    });
    let mut events = reader.watch(&kind, None, from(Start::Contents)).await.expect("watch");
    let first = next(&mut events).await.resource.expect("contents").metadata.version;
    assert_eq!(next(&mut events).await.kind, EventKind::Bootstrapped);
    let mut version = first;
    while version < u64::from(LAST) + 1 {
        let seen = next(&mut events).await.resource.expect("a resource").metadata.version;
        assert_eq!(seen, version + 1, "after {first} at the start");
        version = seen;
    }
    writer.join().await.expect("writer");
}

/// A tail is the last changes, or fewer if there are fewer, and then the following ones.
pub async fn tail_replays_the_last_changes(store: &Store, reader: &dyn Reader) {
    let kind = kind("tail");
    for value in 1..=4 {
        put(store, &kind, "a", value);
        put(store, &kind, "b", value * 10);
    }
    let mut events = reader.watch(&kind, None, from(Start::Tail(2))).await.expect("watch");
    assert_eq!(briefs(&mut events, 2).await, [is(EventKind::Updated, "a", "4"), is(EventKind::Updated, "b", "40")]);
    let mut of_one = reader.watch(&kind, Some("a"), from(Start::Tail(100))).await.expect("watch");
    assert_eq!(
        briefs(&mut of_one, 4).await,
        [
            is(EventKind::Created, "a", "1"),
            is(EventKind::Updated, "a", "2"),
            is(EventKind::Updated, "a", "3"),
            is(EventKind::Updated, "a", "4")
        ]
    );
    put(store, &kind, "a", 5);
    assert_eq!(brief(&next(&mut events).await), is(EventKind::Updated, "a", "5"));
    assert_eq!(brief(&next(&mut of_one).await), is(EventKind::Updated, "a", "5"));
}

/// A resource whose labels begin or cease to match is shown as created or destroyed.
pub async fn resources_enter_and_leave_a_query(store: &Store, reader: &dyn Reader) {
    let kind = kind("query");
    create_labeled(store, &kind, "in", ("zone", "x"));
    create_labeled(store, &kind, "out", ("zone", "y"));
    let term = LabelTerm { key: "zone".into(), op: LabelOp::Equal("x".into()), invert: false };
    let query = Query::default().labels(vec![LabelQuery { terms: vec![term] }]);
    let options = WatchOptions { start: Start::Contents, query, first_bookmark: false };
    let mut events = reader.watch(&kind, None, options).await.expect("watch");
    assert_eq!(briefs(&mut events, 2).await, [is(EventKind::Created, "in", "0"), is(EventKind::Bootstrapped, "", "")]);
    let relabel = |id: &str, zone: &str| {
        let current = store.get(&kind.key(id)).expect("get");
        let mut metadata: Metadata = (*current.metadata).clone();
        metadata.labels.insert("zone".into(), zone.into());
        store.update(metadata, current.spec, "", None).expect("update");
    };
    relabel("out", "z");
    relabel("out", "x");
    relabel("in", "y");
    put(store, &kind, "in", 1);
    put(store, &kind, "out", 2);
    store.destroy(&kind.key("in"), "").expect("destroy");
    store.destroy(&kind.key("out"), "").expect("destroy");
    assert_eq!(
        briefs(&mut events, 4).await,
        [
            is(EventKind::Created, "out", "0"),
            is(EventKind::Destroyed, "in", "0"),
            is(EventKind::Updated, "out", "2"),
            is(EventKind::Destroyed, "out", "2"),
        ]
    );
}

/// From any event's bookmark, the same events follow as did the first time.
pub async fn a_bookmark_resumes_without_gap_or_repetition(store: &Store, reader: &dyn Reader) {
    let kind = kind("bookmark");
    put(store, &kind, "a", 0);
    let options = WatchOptions { start: Start::Contents, first_bookmark: true, ..WatchOptions::default() };
    let mut events = reader.watch(&kind, None, options).await.expect("watch");
    let first = next(&mut events).await;
    assert_eq!(first.kind, EventKind::Noop);
    assert_eq!(brief(&next(&mut events).await), is(EventKind::Created, "a", "0"));
    let bootstrapped = next(&mut events).await;
    for value in 1..=3 {
        put(store, &kind, "a", value);
    }
    let mut bookmarks = vec![first.bookmark, bootstrapped.bookmark];
    for _ in 0..3 {
        bookmarks.push(next(&mut events).await.bookmark);
    }
    for (bookmark, follow) in bookmarks.into_iter().zip([1, 1, 2, 3, 4]) {
        let bookmark = bookmark.expect("a bookmark");
        let mut resumed = reader.watch(&kind, None, from(Start::After(bookmark))).await.expect("resume");
        if follow == 4 {
            put(store, &kind, "a", 4);
        }
        assert_eq!(brief(&next(&mut resumed).await), is(EventKind::Updated, "a", &follow.to_string()));
    }
}

/// A bookmark that is garbage or of a store before a restart is refused, not taken for a place.
pub async fn a_bookmark_of_another_store_is_refused(store: &Store, reader: &dyn Reader) {
    let kind = kind("foreign");
    put(store, &kind, "a", 1);
    let foreign = {
        let other = Store::new();
        let options = WatchOptions { first_bookmark: true, ..WatchOptions::default() };
        let mut watch = other.watch_kind(&kind, options).expect("watch");
        watch.try_next().expect("event").expect("event").bookmark.expect("bookmark")
    };
    for bookmark in [foreign, Bookmark(b"garbage".to_vec()), Bookmark(Vec::new())] {
        let failed = first_error(reader, &kind, from(Start::After(bookmark.clone()))).await;
        assert!(matches!(failed, ReadError::InvalidRequest { .. }), "{bookmark:?}: {failed:?}");
    }
}

/// A client that returns after the ring has wrapped gets an error.
pub async fn a_lost_history_is_an_error_not_a_gap(store: &Store, reader: &dyn Reader) {
    let kind = kind("lost");
    let options = WatchOptions { first_bookmark: true, ..WatchOptions::default() };
    let mut events = reader.watch(&kind, None, options).await.expect("watch");
    let bookmark = next(&mut events).await.bookmark.expect("bookmark");
    // More than any ring of a test holds.
    for value in 0..2000 {
        put(store, &kind, "a", value);
    }
    let failed = first_error(reader, &kind, from(Start::After(bookmark))).await;
    assert!(matches!(&failed, ReadError::HistoryLost(lost) if *lost == kind), "{failed:?}");
    // A new watch works.
    let mut events = reader.watch(&kind, None, from(Start::Contents)).await.expect("watch");
    assert_eq!(brief(&next(&mut events).await), is(EventKind::Created, "a", "1999"));
}

/// The error of a watch that cannot start, whether it comes at once or, over a wire, as its first event.
async fn first_error(reader: &dyn Reader, kind: &crate::Kind, options: WatchOptions) -> ReadError {
    match reader.watch(kind, None, options).await {
        Err(error) => error,
        Ok(mut events) => tokio::time::timeout(EVENT_DEADLINE, events.next())
            .await
            .expect("no error in time")
            .expect("the watch ended")
            .map(|event| brief(&event))
            .expect_err("the watch started"),
    }
}
