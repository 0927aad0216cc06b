//! A value that can be replaced while others read it.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

/// Holds the current value; a clone is the same slot.
pub struct Slot<T>(Arc<RwLock<Arc<T>>>);

impl<T> Slot<T> {
    /// A slot with a first value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The current value; later replacements do not affect it.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.0.read().clone()
    }

    /// Replaces the value for later readers.
    pub fn set(&self, value: T) {
        *self.0.write() = Arc::new(value);
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}
