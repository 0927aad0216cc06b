//! The token that tells this machine from others of the same UUID: a value of META, for whoever registers the machine elsewhere.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use machine::meta;
use resources::runtime::{MetaKey, MetaLoad, UniqueMachineToken};

/// The key of META that holds it (Talos 1.7).
const TAG: u8 = 16;

/// `runtime.UniqueMachineTokenController`: META → `UniqueMachineToken`, empty where META has none. Before META was read there is no
/// such resource.
#[derive(Debug)]
pub struct UniqueMachineTokenController;

#[async_trait]
impl Controller for UniqueMachineTokenController {
    fn name(&self) -> &'static str {
        "runtime.UniqueMachineTokenController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MetaLoad>().id(MetaLoad::ID), Input::weak::<MetaKey>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<UniqueMachineToken>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if ctx.get::<MetaLoad>(MetaLoad::ID)?.is_some_and(|load| load.done) {
            let value = ctx.get::<MetaKey>(&meta::resource_id(TAG))?;
            let token = value.map(|value| value.value.clone()).unwrap_or_default();
            ctx.put(UniqueMachineToken::ID, UniqueMachineToken { token })?;
        }
        ctx.keep_touched::<UniqueMachineToken>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_token_is_that_of_meta_once_meta_was_read() {
        let harness = Harness::with(UniqueMachineTokenController);
        let token = || harness.get::<UniqueMachineToken>(UniqueMachineToken::ID).map(|token| token.token.clone());
        harness.put("0x10", MetaKey { value: "early".into() });
        harness.settle().await;
        assert_eq!(token(), None);
        harness.put(MetaLoad::ID, MetaLoad { done: true });
        harness.settle().await;
        assert_eq!(token().as_deref(), Some("early"));
        harness.destroy::<MetaKey>("0x10");
        harness.settle().await;
        assert_eq!(token().as_deref(), Some(""));
    }
}
