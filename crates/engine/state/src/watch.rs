//! Watches: readers of a kind's history that sleep when they are at its end.
//!
//! Guarantees: events come in the order of the changes, each once, none is left out silently. A writer never waits for
//! a watch: one that falls behind further than the history reaches gets [`StateError::HistoryLost`].

use std::{collections::VecDeque, fmt, sync::Arc};

use tokio::sync::watch;

use crate::{
    collection::{Collection, Data},
    error::StateError,
    query::Query,
    resource::AnyResource,
    store::{Change, ChangeKind},
};

/// Changes taken from the history at once, so that a reader far behind does not hold the lock for long.
const BATCH: usize = 64;

/// A place in the history, opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bookmark(pub Vec<u8>);

impl Bookmark {
    fn new(epoch: u64, seq: u64) -> Self {
        Self([epoch.to_be_bytes(), seq.to_be_bytes()].concat())
    }

    fn seq(&self, epoch: u64) -> Option<u64> {
        let (theirs, seq) = self.0.split_first_chunk::<8>()?;
        let seq: [u8; 8] = seq.try_into().ok()?;
        (u64::from_be_bytes(*theirs) == epoch).then(|| u64::from_be_bytes(seq))
    }
}

/// Where a watch starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what changes from now on.
    #[default]
    Now,
    /// With what is there, as `Created` events closed by a `Bootstrapped` one.
    Contents,
    /// With the last so many changes, or as many as are still kept.
    Tail(usize),
    /// After this place.
    After(Bookmark),
}

/// What a watch shows. The default shows every change from now on.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Where it starts.
    pub start: Start,
    /// What it wants; a resource that enters or leaves the query is shown as created or destroyed.
    pub query: Query,
    /// Starts with a `Noop` event that carries a bookmark.
    pub first_bookmark: bool,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The resource came.
    Created,
    /// It changed.
    Updated,
    /// It went.
    Destroyed,
    /// All that was there has been shown.
    Bootstrapped,
    /// Nothing; it carries a bookmark.
    Noop,
}

/// One step of a watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The resource; as it last was when destroyed. None for `Bootstrapped`, `Noop`, and the `Destroyed` that says that
    /// a single watched resource is not there.
    pub resource: Option<AnyResource>,
    /// Before an update.
    pub old: Option<AnyResource>,
    /// Where to resume after this event. None for contents: only the whole can be resumed.
    pub bookmark: Option<Bookmark>,
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    collection: Arc<Collection>,
    newest: watch::Receiver<u64>,
    id: Option<String>,
    query: Query,
    epoch: u64,
    cursor: u64,
    pending: VecDeque<Event>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("kind", &self.collection.kind)
            .field("id", &self.id)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(
        collection: Arc<Collection>,
        id: Option<String>,
        options: WatchOptions,
        epoch: u64,
    ) -> Result<Self, StateError> {
        let newest = collection.subscribe();
        let mut watch =
            Self { collection, newest, id, query: options.query, epoch, cursor: 0, pending: VecDeque::new() };
        let collection = Arc::clone(&watch.collection);
        collection.read(|data| watch.begin(data, &options.start, options.first_bookmark))?;
        Ok(watch)
    }

    fn begin(&mut self, data: &Data, start: &Start, first_bookmark: bool) -> Result<(), StateError> {
        self.cursor = data.newest();
        let here = Some(Bookmark::new(self.epoch, self.cursor));
        if first_bookmark {
            self.pending.push_back(Event { kind: EventKind::Noop, resource: None, old: None, bookmark: here.clone() });
        }
        match (start, &self.id) {
            (Start::Now | Start::Contents, Some(id)) => {
                let resource = data.get(id).filter(|r| self.query.matches(&r.metadata)).cloned();
                let kind = if resource.is_some() { EventKind::Created } else { EventKind::Destroyed };
                self.pending.push_back(Event { kind, resource, old: None, bookmark: here });
            }
            (Start::Now, None) => {}
            (Start::Contents, None) => {
                let wanted = data.items().filter(|item| self.query.matches(&item.metadata));
                self.pending.extend(wanted.map(|item| Event {
                    kind: EventKind::Created,
                    resource: Some(item.clone()),
                    old: None,
                    bookmark: None,
                }));
                let done = Event { kind: EventKind::Bootstrapped, resource: None, old: None, bookmark: here };
                self.pending.push_back(done);
            }
            (Start::Tail(count), _) => {
                let mut tail: Vec<Event> =
                    data.history().rev().filter_map(|change| self.event(change)).take(*count).collect();
                tail.reverse();
                self.pending.extend(tail);
            }
            (Start::After(bookmark), _) => {
                let kind = || self.collection.kind.clone();
                let seq = bookmark.seq(self.epoch).ok_or_else(|| StateError::InvalidBookmark(kind()))?;
                if data.since(seq).is_none() {
                    return Err(StateError::HistoryLost(kind()));
                }
                self.cursor = seq;
            }
        }
        Ok(())
    }

    /// The next event; waits for one.
    ///
    /// Cancel-safe: what is dropped waiting has taken nothing.
    ///
    /// # Errors
    /// [`StateError::HistoryLost`] when the watch fell behind; it stays so.
    pub async fn next(&mut self) -> Result<Event, StateError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            // `try_next` marked what it saw, so a change after that ends this wait at once. The sender lives in the
            // collection that we hold.
            if self.newest.changed().await.is_err() {
                return Err(StateError::HistoryLost(self.collection.kind.clone()));
            }
        }
    }

    /// The next event if there is one already.
    ///
    /// # Errors
    /// [`StateError::HistoryLost`] when the watch fell behind; it stays so.
    pub fn try_next(&mut self) -> Result<Option<Event>, StateError> {
        while self.pending.is_empty() {
            self.newest.borrow_and_update();
            let collection = Arc::clone(&self.collection);
            if !collection.read(|data| self.take(data))? {
                break;
            }
        }
        Ok(self.pending.pop_front())
    }

    /// Turns the next changes into events; false when there were none.
    fn take(&mut self, data: &Data) -> Result<bool, StateError> {
        let changes =
            data.since(self.cursor).ok_or_else(|| StateError::HistoryLost(self.collection.kind.clone()))?.take(BATCH);
        let before = self.cursor;
        for change in changes {
            self.cursor = change.seq;
            if let Some(event) = self.event(change) {
                self.pending.push_back(event);
            }
        }
        Ok(self.cursor != before)
    }

    /// How `change` looks through the filter.
    fn event(&self, change: &Change) -> Option<Event> {
        if self.id.as_ref().is_some_and(|id| *id != change.resource.metadata.id) {
            return None;
        }
        let now = self.query.matches(&change.resource.metadata);
        let before = change.old.as_ref().is_some_and(|old| self.query.matches(&old.metadata));
        let kind = match (change.kind, before, now) {
            (ChangeKind::Created, _, true) | (ChangeKind::Updated, false, true) => EventKind::Created,
            (ChangeKind::Updated, true, true) => EventKind::Updated,
            (ChangeKind::Destroyed, _, true) | (ChangeKind::Updated, true, false) => EventKind::Destroyed,
            (_, _, false) => return None,
        };
        Some(Event {
            kind,
            resource: Some(change.resource.clone()),
            old: change.old.clone().filter(|_| kind == EventKind::Updated),
            bookmark: Some(Bookmark::new(self.epoch, change.seq)),
        })
    }
}

#[cfg(test)]
mod tests;
