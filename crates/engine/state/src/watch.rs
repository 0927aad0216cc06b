//! Watches: readers of a kind's history that sleep when they are at its end.
//!
//! Guarantees: events come in the order of the changes, each once, none is left out silently. A writer never waits for
//! a watch: one that falls behind further than the history reaches gets [`StateError::HistoryLost`].

//!
//! Of a sensitive resource that changes faster than a watch reads, the watch shows the latest value alone: earlier ones
//! are kept nowhere.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    change::{Change, ChangeKind},
    collection::{Collection, Data},
    collections::Collections,
    error::StateError,
    metadata::Kind,
    query::Query,
    redacted::is_redacted,
    resource::AnyResource,
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
    /// At changes from now on.
    #[default]
    Now,
    /// At the existing resources, as `Created` events followed by `Bootstrapped`.
    Contents,
    /// At the last N changes, or as many as are kept.
    Tail(usize),
    /// After this place.
    After(Bookmark),
}

/// Options of a watch. The default shows every change from now on.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Where it starts.
    pub start: Start,
    /// Filter; a resource that begins or ceases to match is shown as created or destroyed.
    pub query: Query,
    /// Starts with a `Noop` event that carries a bookmark.
    pub first_bookmark: bool,
}

/// Type of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Created.
    Created,
    /// It changed.
    Updated,
    /// Destroyed.
    Destroyed,
    /// All existing resources have been shown.
    Bootstrapped,
    /// Nothing; it carries a bookmark.
    Noop,
}

/// One step of a watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Type of event.
    pub kind: EventKind,
    /// The resource; as it last was when destroyed, of a sensitive one then the metadata alone. None for `Bootstrapped`,
    /// `Noop`, and the `Destroyed` that says that a single watched resource is not there.
    pub resource: Option<AnyResource>,
    /// Before an update; none for sensitive resources.
    pub old: Option<AnyResource>,
    /// Where to resume after this event. None for contents: only the whole can be resumed.
    pub bookmark: Option<Bookmark>,
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    kind: Kind,
    source: Source,
    id: Option<String>,
    query: Query,
    epoch: u64,
    cursor: u64,
    pending: VecDeque<Event>,
    /// Resources with changes that were passed over because their values are gone, and whether the watch had shown the
    /// resource before those. The change in force is still to come for each.
    passed_over: HashMap<String, bool>,
}

/// Where events come from.
enum Source {
    /// Nothing was written to the kind yet; `added` wakes when any kind is added.
    Absent { collections: Arc<Collections>, added: watch::Receiver<usize> },
    /// The kind has a collection; `newest` wakes with each change.
    Present { collection: Arc<Collection>, newest: watch::Receiver<u64> },
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Source {
    fn present(collection: Arc<Collection>) -> Self {
        Self::Present { newest: collection.subscribe(), collection }
    }
}

impl Watch {
    pub(crate) fn new(
        collections: &Arc<Collections>,
        kind: &Kind,
        id: Option<String>,
        options: WatchOptions,
        epoch: u64,
    ) -> Result<Self, StateError> {
        // Subscribed first: a kind that is added after the look is noticed.
        let added = collections.subscribe();
        let collection = collections.get(kind);
        let source = match collection.clone() {
            Some(collection) => Source::present(collection),
            None => Source::Absent { collections: Arc::clone(collections), added },
        };
        let (kind, query) = (kind.clone(), options.query);
        let (cursor, pending, passed_over) = (0, VecDeque::new(), HashMap::new());
        let mut watch = Self { kind, source, id, query, epoch, cursor, pending, passed_over };
        let mut begin = |data: &Data| watch.begin(data, &options.start, options.first_bookmark);
        match collection {
            Some(collection) => collection.read(begin)?,
            None => begin(&Data::default())?,
        }
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
                let shown = |change: &&Arc<Change>| !change.superseded && self.wants(change);
                let first = data.history().rev().filter(shown).take(*count).last().map(|change| change.seq);
                let tail = data.history().filter(|change| first.is_some_and(|first| change.seq >= first));
                let tail: Vec<Event> = tail.filter_map(|change| self.event(change)).collect();
                self.pending.extend(tail);
            }
            (Start::After(bookmark), _) => {
                let kind = || self.kind.clone();
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
    /// Cancel-safe: a dropped wait consumes nothing.
    ///
    /// # Errors
    /// [`StateError::HistoryLost`] when the watch fell behind; it stays so.
    pub async fn next(&mut self) -> Result<Event, StateError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            // `try_next` marked what it saw, so a change after that ends this wait at once. The senders live in what we
            // hold.
            let woken = match &mut self.source {
                Source::Absent { added, .. } => added.changed().await,
                Source::Present { newest, .. } => newest.changed().await,
            };
            if woken.is_err() {
                return Err(StateError::HistoryLost(self.kind.clone()));
            }
        }
    }

    /// The next event if there is one already.
    ///
    /// # Errors
    /// [`StateError::HistoryLost`] when the watch fell behind; it stays so.
    pub fn try_next(&mut self) -> Result<Option<Event>, StateError> {
        while self.pending.is_empty() {
            let collection = match &mut self.source {
                Source::Present { collection, newest } => {
                    newest.borrow_and_update();
                    Arc::clone(collection)
                }
                Source::Absent { collections, added } => {
                    added.borrow_and_update();
                    // All of its history is after the start of this watch.
                    let Some(collection) = collections.get(&self.kind) else { break };
                    self.source = Source::present(Arc::clone(&collection));
                    collection
                }
            };
            if !collection.read(|data| self.take(data))? {
                break;
            }
        }
        Ok(self.pending.pop_front())
    }

    /// Turns the next changes into events; false when there were none.
    fn take(&mut self, data: &Data) -> Result<bool, StateError> {
        let changes = data.since(self.cursor).ok_or_else(|| StateError::HistoryLost(self.kind.clone()))?.take(BATCH);
        let before = self.cursor;
        for change in changes {
            self.cursor = change.seq;
            if let Some(event) = self.event(change) {
                self.pending.push_back(event);
            }
        }
        Ok(self.cursor != before)
    }

    /// Whether the resource of `change` is among those that are watched.
    fn is_watched(&self, change: &Change) -> bool {
        self.id.as_ref().is_none_or(|id| *id == change.resource.metadata.id)
    }

    /// Whether the resource was shown before `change`, as far as the change itself says.
    fn was_shown(&self, change: &Change) -> bool {
        match change.kind {
            ChangeKind::Created => false,
            ChangeKind::Updated => change.old.as_ref().is_some_and(|old| self.query.matches(&old.metadata)),
            ChangeKind::Destroyed => self.query.matches(&change.resource.metadata),
        }
    }

    /// Whether the resource is shown after `change`.
    fn is_shown(&self, change: &Change) -> bool {
        change.kind != ChangeKind::Destroyed && self.query.matches(&change.resource.metadata)
    }

    /// Whether `change` is an event for somebody who saw the one before.
    fn wants(&self, change: &Change) -> bool {
        self.is_watched(change) && (self.was_shown(change) || self.is_shown(change))
    }

    /// How `change` looks through the filter.
    fn event(&mut self, change: &Change) -> Option<Event> {
        if !self.is_watched(change) {
            return None;
        }
        let was_shown = self.was_shown(change);
        let id = &change.resource.metadata.id;
        if change.superseded {
            self.passed_over.entry(id.clone()).or_insert(was_shown);
            return None;
        }
        let kind = match (self.passed_over.remove(id).unwrap_or(was_shown), self.is_shown(change)) {
            (false, true) => EventKind::Created,
            (true, true) => EventKind::Updated,
            (true, false) => EventKind::Destroyed,
            (false, false) => return None,
        };
        Some(Event {
            kind,
            resource: Some(change.resource.clone()),
            old: change.old.clone().filter(|old| kind == EventKind::Updated && !is_redacted(old)),
            bookmark: Some(Bookmark::new(self.epoch, change.seq)),
        })
    }
}
