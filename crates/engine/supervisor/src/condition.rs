//! Conditions of a service besides its dependencies on other services.

use std::fmt;

use async_trait::async_trait;

/// Something that is true or not yet. Asked about once a poll interval, so it must answer quickly.
#[async_trait]
pub trait Condition: Send + Sync {
    /// Reads after "Waiting for": "time sync".
    fn describe(&self) -> String;
    async fn is_met(&self) -> bool;
}

/// A condition made of a description and a function.
pub struct FnCondition<F> {
    description: String,
    check: F,
}

impl<F: Fn() -> bool + Send + Sync> FnCondition<F> {
    pub fn new(description: impl Into<String>, check: F) -> Self {
        Self { description: description.into(), check }
    }
}

impl<F> fmt::Debug for FnCondition<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnCondition").field("description", &self.description).finish_non_exhaustive()
    }
}

#[async_trait]
impl<F: Fn() -> bool + Send + Sync> Condition for FnCondition<F> {
    fn describe(&self) -> String {
        self.description.clone()
    }

    async fn is_met(&self) -> bool {
        (self.check)()
    }
}
