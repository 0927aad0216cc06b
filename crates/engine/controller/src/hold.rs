//! Holding an input while it is in use: the finalizer is added and removed by the phase of the resource, so that its
//! owner can destroy it only after every user has stopped.

use resources::Spec;
use state::{Phase, Resource, StateError};

use crate::{ctx::Ctx, error::ReconcileError};

/// Permission to use a strong input.
#[derive(Debug)]
pub enum Held<S: Spec> {
    /// It does not exist, or is tearing down and was never held by this controller.
    Absent,
    /// It may be used; its owner waits for [`Ctx::remove_finalizer`].
    Running(Resource<S>),
    /// Its owner waits: stop using it, then call [`Ctx::remove_finalizer`].
    TearingDown(Resource<S>),
}

impl Ctx {
    /// Holds the strong input `id` of type `S` while it is running. Call it in each pass, before using the resource.
    ///
    /// # Errors
    /// [`crate::AccessError::NotStrong`].
    pub fn hold<S: Spec>(&self, id: &str) -> Result<Held<S>, ReconcileError> {
        let Some(resource) = self.get::<S>(id)? else { return Ok(Held::Absent) };
        let is_held = || resource.metadata.finalizers.iter().any(|holder| holder == self.name());
        if resource.metadata.phase == Phase::TearingDown {
            return Ok(if is_held() { Held::TearingDown(resource) } else { Held::Absent });
        }
        match self.add_finalizer::<S>(id) {
            Ok(()) => Ok(Held::Running(resource)),
            // It went between both looks at it; another pass follows.
            Err(error) if is_gone(&error) => Ok(Held::Absent),
            Err(error) => Err(error),
        }
    }

    /// [`hold`](Self::hold) for a controller that uses the resource within its passes only, so that nothing has to be
    /// stopped: lets go of one that is tearing down at once. `None` means not to use it.
    ///
    /// # Errors
    /// [`crate::AccessError::NotStrong`].
    pub fn hold_while_running<S: Spec>(&self, id: &str) -> Result<Option<Resource<S>>, ReconcileError> {
        match self.hold(id)? {
            Held::Running(resource) => Ok(Some(resource)),
            Held::Absent => Ok(None),
            Held::TearingDown(_) => {
                self.remove_finalizer::<S>(id)?;
                Ok(None)
            }
        }
    }
}

fn is_gone(error: &ReconcileError) -> bool {
    let state = error.downcast_ref::<StateError>();
    matches!(state, Some(StateError::NotFound(_) | StateError::PhaseConflict { .. }))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use async_trait::async_trait;
    use resources::runtime::MountStatus;

    use super::*;
    use crate::{
        Controller, Input, Output,
        testing::{Harness, Holder},
    };

    /// Uses the volume `STATE`, and needs a while to stop.
    struct User {
        stopped: Arc<AtomicBool>,
    }

    #[async_trait]
    impl Controller for User {
        fn name(&self) -> &'static str {
            "test.User"
        }

        fn inputs(&self) -> Vec<Input> {
            vec![Input::strong::<MountStatus>().id(MountStatus::STATE)]
        }

        fn outputs(&self) -> Vec<Output> {
            Vec::new()
        }

        async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
            if let Held::TearingDown(_) = ctx.hold::<MountStatus>(MountStatus::STATE)? {
                if self.stopped.load(Ordering::SeqCst) {
                    ctx.remove_finalizer::<MountStatus>(MountStatus::STATE)?;
                } else {
                    ctx.requeue_after(std::time::Duration::from_secs(1));
                }
            }
            Ok(())
        }
    }

    /// Writes within its passes only.
    fn writer() -> impl Controller {
        Holder::new("test.Writer", MountStatus::STATE, |_: &MountStatus| {})
    }

    fn holders(harness: &Harness) -> Vec<String> {
        let status = harness.get::<MountStatus>(MountStatus::STATE);
        status.map(|status| status.metadata.finalizers.clone()).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn the_owner_waits_until_the_last_user_has_stopped() {
        let stopped = Arc::new(AtomicBool::new(false));
        let harness = Harness::with(User { stopped: Arc::clone(&stopped) });
        harness.run(writer());
        harness.put(MountStatus::STATE, MountStatus::default());
        harness.settle().await;
        assert_eq!(holders(&harness).len(), 2);
        assert!(!harness.teardown::<MountStatus>(MountStatus::STATE));
        harness.settle().await;
        assert_eq!(holders(&harness), ["test.User"], "it has not stopped yet");
        stopped.store(true, Ordering::SeqCst);
        harness.advance(std::time::Duration::from_secs(2)).await;
        assert!(harness.teardown::<MountStatus>(MountStatus::STATE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_that_is_going_is_not_taken_up() {
        let harness = Harness::new();
        harness.put(MountStatus::STATE, MountStatus::default());
        assert!(harness.teardown::<MountStatus>(MountStatus::STATE));
        harness.run(writer());
        harness.settle().await;
        assert!(holders(&harness).is_empty());
        assert_eq!(harness.status("test.Writer").failures, 0);
    }
}
