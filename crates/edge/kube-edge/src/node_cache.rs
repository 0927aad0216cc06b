//! The nodes of the cluster, kept current by a watch that is renewed when it breaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use stdx::tasks::{self, Task};
use tokio::sync::watch;

use crate::api::{KubeApi, NodeEvent};
use crate::error::KubeError;
use crate::node::Node;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The nodes that are known, by name. `None` until the first snapshot.
pub type NodesByName = Option<BTreeMap<String, Node>>;

/// Ends its watch when dropped.
#[derive(Debug)]
pub struct NodeCache {
    known: watch::Receiver<NodesByName>,
    errors: watch::Receiver<Option<Arc<KubeError>>>,
    _task: Task<()>,
}

impl NodeCache {
    /// Starts to follow all nodes, or one. `changed` is called after every change and every new error; it must not block.
    pub fn start(api: Arc<dyn KubeApi>, only: Option<String>, changed: impl Fn() + Send + Sync + 'static) -> Self {
        let (known_sender, known) = watch::channel(None);
        let (error_sender, errors) = watch::channel(None);
        let (known_sender, error_sender, changed) = (Arc::new(known_sender), Arc::new(error_sender), Arc::new(changed));
        let task = tasks::keep("node cache", move || {
            let (known, errors, changed) = (Arc::clone(&known_sender), Arc::clone(&error_sender), Arc::clone(&changed));
            follow(Arc::clone(&api), only.clone(), known, errors, changed)
        });
        Self { known, errors, _task: task }
    }

    /// The last known state; it stays while the watch is broken.
    #[must_use]
    pub fn known(&self) -> NodesByName {
        self.known.borrow().clone()
    }

    /// Looks at the last known state without a copy. `look` must be short: it delays events.
    pub fn look<T>(&self, look: impl FnOnce(&BTreeMap<String, Node>) -> T) -> Option<T> {
        self.known.borrow().as_ref().map(look)
    }

    /// Why the watch is broken, if it is.
    #[must_use]
    pub fn error(&self) -> Option<Arc<KubeError>> {
        self.errors.borrow().clone()
    }
}

async fn follow(
    api: Arc<dyn KubeApi>,
    only: Option<String>,
    known: Arc<watch::Sender<NodesByName>>,
    errors: Arc<watch::Sender<Option<Arc<KubeError>>>>,
    changed: Arc<impl Fn() + Send + Sync>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut events = api.watch_nodes(only.as_deref());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    pause = FIRST_PAUSE;
                    errors.send_replace(None);
                    if known.send_if_modified(|known| apply(known, event)) {
                        changed();
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %stdx::error_chain(&error), "watch of nodes broke");
                    errors.send_replace(Some(Arc::new(error)));
                    changed();
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether something changed.
fn apply(known: &mut NodesByName, event: NodeEvent) -> bool {
    match event {
        NodeEvent::Snapshot(nodes) => {
            let nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
            let same = known.as_ref() == Some(&nodes);
            *known = Some(nodes);
            !same
        }
        NodeEvent::Changed(node) => {
            let map = known.get_or_insert_default();
            map.insert(node.name.clone(), (*node).clone()).as_ref() != Some(&*node)
        }
        NodeEvent::Gone(name) => known.as_mut().is_some_and(|map| map.remove(&name).is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeKube;
    use tokio::sync::mpsc;

    fn start(fake: &FakeKube) -> (NodeCache, mpsc::UnboundedReceiver<()>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let cache = NodeCache::start(Arc::new(fake.clone()), None, move || {
            let _closed = sender.send(());
        });
        (cache, receiver)
    }

    fn names(cache: &NodeCache) -> Vec<String> {
        cache.known().unwrap_or_default().into_keys().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn follows_nodes_as_they_come_and_go() {
        let fake = FakeKube::new("v1.30.0");
        fake.put_node(Node { name: "a".into(), ..Node::default() });
        let (cache, mut changed) = start(&fake);
        changed.recv().await.unwrap();
        assert_eq!(names(&cache), ["a"]);

        fake.put_node(Node { name: "b".into(), ..Node::default() });
        changed.recv().await.unwrap();
        assert_eq!(names(&cache), ["a", "b"]);

        fake.remove_node("a");
        changed.recv().await.unwrap();
        assert_eq!(names(&cache), ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_what_it_knows_while_the_server_is_away_and_catches_up_after() {
        let fake = FakeKube::new("v1.30.0");
        fake.put_node(Node { name: "a".into(), ..Node::default() });
        let (cache, mut changed) = start(&fake);
        changed.recv().await.unwrap();

        fake.set_reachable(false);
        changed.recv().await.unwrap();
        assert!(cache.error().is_some_and(|error| error.is_retryable()));
        assert_eq!(names(&cache), ["a"]);

        fake.put_node(Node { name: "b".into(), ..Node::default() });
        fake.set_reachable(true);
        while names(&cache).len() < 2 {
            changed.recv().await.unwrap();
        }
        assert!(cache.error().is_none());
    }
}
