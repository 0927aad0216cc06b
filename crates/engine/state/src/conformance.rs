//! The contract of every [`Reader`] of a store, for the store itself and for remote clients.
//!
//! Each function is one test: it writes to `store`, reads through `reader`, and panics when they disagree. Each uses
//! a kind of its own, so that all may run on one store; [`all`] runs them one after the other.

mod reads;
mod watches;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use resources::{Definition, Sensitivity, Spec};
use serde_json::{Value, json};

pub use reads::{
    a_missing_resource_is_not_found, get_shows_metadata_and_both_forms, list_is_sorted_and_filtered,
    the_stores_own_types_are_listed,
};
pub use watches::{
    a_bookmark_of_another_store_is_refused, a_bookmark_resumes_without_gap_or_repetition,
    a_lost_history_is_an_error_not_a_gap, a_watch_of_one_resource_starts_with_what_it_is,
    bootstrap_shows_contents_first, contents_and_changes_do_not_overlap, resources_enter_and_leave_a_query,
    tail_replays_the_last_changes,
};

use crate::{EventKind, Kind, Metadata, ReadEvent, ReadEvents, Reader, Resource, Store};

/// How long an event may take. Long, for loaded machines; a suite that passes does not wait.
const EVENT_DEADLINE: Duration = Duration::from_secs(20);

/// A resource type for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestResource {
    /// The value that tests change.
    pub value: u32,
}

impl Spec for TestResource {
    const DEFINITION: Definition = Definition {
        type_name: "Specimens.test.cosi.dev",
        namespace: "conformance",
        aliases: &[],
        columns: &[],
        sensitivity: Sensitivity::NonSensitive,
    };

    fn to_yaml(&self) -> Value {
        json!({ "value": self.value })
    }

    fn to_proto(&self) -> Vec<u8> {
        self.value.to_be_bytes().to_vec()
    }
}

/// The tests that have a namespace of their own, as a server shows registered ones alone.
const TESTS: [&str; 11] =
    ["bookmark", "bootstrap", "foreign", "get", "list", "lost", "missing", "one", "overlap", "query", "tail"];

/// Runs the whole suite.
pub async fn all(store: &Store, reader: &dyn Reader) {
    store.register(&TestResource::DEFINITION);
    for test in TESTS {
        store.register_namespace(&format!("conformance-{test}"));
    }
    the_stores_own_types_are_listed(store, reader).await;
    a_missing_resource_is_not_found(store, reader).await;
    get_shows_metadata_and_both_forms(store, reader).await;
    list_is_sorted_and_filtered(store, reader).await;
    a_watch_of_one_resource_starts_with_what_it_is(store, reader).await;
    bootstrap_shows_contents_first(store, reader).await;
    contents_and_changes_do_not_overlap(store, reader).await;
    tail_replays_the_last_changes(store, reader).await;
    resources_enter_and_leave_a_query(store, reader).await;
    a_bookmark_resumes_without_gap_or_repetition(store, reader).await;
    a_bookmark_of_another_store_is_refused(store, reader).await;
    a_lost_history_is_an_error_not_a_gap(store, reader).await;
}

/// A kind that no other test uses.
fn kind(test: &str) -> Kind {
    Kind::of_in::<TestResource>(format!("conformance-{test}"))
}

fn put(store: &Store, kind: &Kind, id: &str, value: u32) -> Resource<TestResource> {
    store.put_in(&kind.namespace, id, TestResource { value }, "").expect("put")
}

fn create_labeled(store: &Store, kind: &Kind, id: &str, label: (&str, &str)) {
    let mut metadata = Metadata::new(kind, id);
    metadata.labels.insert(label.0.to_owned(), label.1.to_owned());
    store.create(metadata, Arc::new(TestResource::default()), "").expect("create");
}

/// An event in short: type, resource, value.
type EventSummary = (EventKind, String, String);

fn brief(event: &ReadEvent) -> EventSummary {
    let resource = event.resource.as_ref();
    let id = resource.map(|r| r.metadata.id.clone()).unwrap_or_default();
    let value = resource.and_then(|r| r.yaml.trim().strip_prefix("value: ").map(str::to_owned)).unwrap_or_default();
    (event.kind, id, value)
}

fn is(kind: EventKind, id: &str, value: &str) -> EventSummary {
    (kind, id.to_owned(), value.to_owned())
}

async fn next(events: &mut ReadEvents) -> ReadEvent {
    tokio::time::timeout(EVENT_DEADLINE, events.next())
        .await
        .expect("no event in time")
        .expect("the watch ended")
        .expect("the watch failed")
}

async fn briefs(events: &mut ReadEvents, count: usize) -> Vec<EventSummary> {
    let mut seen = Vec::with_capacity(count);
    for _ in 0..count {
        seen.push(brief(&next(events).await));
    }
    seen
}
