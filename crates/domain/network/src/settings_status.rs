//! Merged settings that take effect by being read: resolvers and time servers.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::network::{ResolverSpec, ResolverStatus, TimeServerSpec, TimeServerStatus};

/// `ResolverSpec` → `ResolverStatus`.
#[derive(Debug)]
pub struct ResolverSpecController;

#[async_trait]
impl Controller for ResolverSpecController {
    fn name(&self) -> &'static str {
        "network.ResolverSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<ResolverSpec>().id(ResolverSpec::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<ResolverStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if let Some(spec) = ctx.get::<ResolverSpec>(ResolverSpec::ID)? {
            ctx.put(ResolverStatus::ID, ResolverStatus { dns_servers: spec.dns_servers.clone() })?;
        }
        ctx.keep_touched::<ResolverStatus>()
    }
}

/// `TimeServerSpec` → `TimeServerStatus`.
#[derive(Debug)]
pub struct TimeServerSpecController;

#[async_trait]
impl Controller for TimeServerSpecController {
    fn name(&self) -> &'static str {
        "network.TimeServerSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<TimeServerSpec>().id(TimeServerSpec::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<TimeServerStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if let Some(spec) = ctx.get::<TimeServerSpec>(TimeServerSpec::ID)? {
            ctx.put(TimeServerStatus::ID, TimeServerStatus { time_servers: spec.time_servers.clone() })?;
        }
        ctx.keep_touched::<TimeServerStatus>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_status_is_what_was_merged_and_goes_with_it() {
        let harness = Harness::with(ResolverSpecController);
        harness.run(TimeServerSpecController);
        let dns_servers = vec!["10.5.0.1".parse().unwrap()];
        harness.put("resolvers", ResolverSpec { dns_servers: dns_servers.clone(), ..Default::default() });
        harness.put("timeservers", TimeServerSpec { time_servers: vec!["ntp".into()], ..Default::default() });
        harness.settle().await;
        assert_eq!(harness.get::<ResolverStatus>("resolvers").unwrap().dns_servers, dns_servers);
        assert_eq!(harness.get::<TimeServerStatus>("timeservers").unwrap().time_servers, ["ntp"]);
        harness.destroy::<ResolverSpec>("resolvers");
        harness.settle().await;
        assert_eq!(harness.get::<ResolverStatus>("resolvers"), None);
    }
}
