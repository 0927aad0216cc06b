//! Tasks that send something to receivers, which come and go with the configuration.

use std::collections::BTreeMap;

use controller::TaskHandle;

/// A task for each receiver; those whose receiver goes end.
#[derive(Debug)]
pub(crate) struct Deliveries<K>(BTreeMap<K, TaskHandle>);

impl<K> Default for Deliveries<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Deliveries<K> {
    /// Starts missing tasks for `wanted`, and ends the others.
    pub(crate) fn converge(&mut self, wanted: impl IntoIterator<Item = K>, mut start: impl FnMut(K) -> TaskHandle) {
        let mut old = std::mem::take(&mut self.0);
        for receiver in wanted {
            let task = old.remove(&receiver);
            self.0.entry(receiver.clone()).or_insert_with(|| task.unwrap_or_else(|| start(receiver)));
        }
        for task in old.into_values() {
            task.abort();
        }
    }
}
