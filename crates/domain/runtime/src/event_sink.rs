//! Where events of the machine go beside the API: the sink of the configuration, or of the kernel's arguments.

use async_trait::async_trait;
use config::{Document, Documents};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use event_delivery::Sink;
use resources::config::MachineConfig;
use resources::runtime::EventSinkConfig;
use sequencer::EventBus;

use crate::deliveries::Deliveries;

/// The id of Talos 1.7.
const ID: &str = "event-sink";

/// `runtime.EventsSinkConfigController`: the sink of the document `EventSinkConfig`, else that of the kernel's arguments, which
/// is there before a configuration is.
#[derive(Debug, Default)]
pub struct EventsSinkConfigController {
    /// The value of `talos.events.sink`.
    pub argument: Option<String>,
}

#[async_trait]
impl Controller for EventsSinkConfigController {
    fn name(&self) -> &'static str {
        "runtime.EventsSinkConfigController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<EventSinkConfig>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let documents = active.as_deref().map(MachineConfig::documents).transpose()?;
        if let Some(endpoint) = documents.and_then(configured).or_else(|| self.argument.clone()) {
            ctx.put(ID, EventSinkConfig { endpoint })?;
        }
        ctx.keep_touched::<EventSinkConfig>()
    }
}

fn configured(documents: &Documents) -> Option<String> {
    documents.documents().iter().find_map(|document| match document {
        Document::EventSink(sink) => Some(sink.endpoint.clone()),
        _ => None,
    })
}

/// `runtime.EventsSinkController`: sends events there.
#[derive(Debug)]
pub struct EventsSinkController {
    bus: EventBus,
    delivery: Deliveries<Sink>,
}

impl EventsSinkController {
    #[must_use]
    pub fn new(bus: EventBus) -> Self {
        Self { bus, delivery: Deliveries::default() }
    }
}

#[async_trait]
impl Controller for EventsSinkController {
    fn name(&self) -> &'static str {
        "runtime.EventsSinkController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<EventSinkConfig>().id(ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let config = ctx.get::<EventSinkConfig>(ID)?;
        let sink = config.map(|config| config.endpoint.parse::<Sink>()).transpose();
        let wanted = sink.as_ref().ok().cloned().flatten();
        let bus = &self.bus;
        self.delivery.converge(wanted, |to| {
            let bus = bus.clone();
            ctx.keep("delivery of events", move || event_delivery::deliver_events(bus.clone(), to.clone()))
        });
        sink?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use controller::testing::Harness;
    use sequencer::Payload;
    use tokio::net::TcpListener;

    use super::*;

    fn configure(harness: &Harness, documents: &str) {
        let text = format!("version: v1alpha1\nmachine:\n  type: worker\n{documents}");
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
    }

    fn document(endpoint: &str) -> String {
        format!("---\napiVersion: v1alpha1\nkind: EventSinkConfig\nendpoint: {endpoint}\n")
    }

    #[tokio::test(start_paused = true)]
    async fn the_sink_of_the_configuration_comes_before_that_of_the_kernels_arguments() {
        let argument = Some("10.0.0.9:1".to_owned());
        let harness = Harness::with(EventsSinkConfigController { argument });
        harness.settle().await;
        let endpoint = || harness.get::<EventSinkConfig>(ID).map(|config| config.endpoint.clone());
        assert_eq!(endpoint().as_deref(), Some("10.0.0.9:1"));
        configure(&harness, &document("10.0.0.1:8080"));
        harness.settle().await;
        assert_eq!(endpoint().as_deref(), Some("10.0.0.1:8080"));
        configure(&harness, "");
        harness.settle().await;
        assert_eq!(endpoint().as_deref(), Some("10.0.0.9:1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_is_there_for_as_long_as_its_document() {
        let harness = Harness::with(EventsSinkConfigController::default());
        configure(&harness, &document("10.0.0.1:8080"));
        harness.settle().await;
        assert_eq!(harness.get::<EventSinkConfig>(ID).unwrap().endpoint, "10.0.0.1:8080");
        configure(&harness, "");
        harness.settle().await;
        assert_eq!(harness.get::<EventSinkConfig>(ID), None);
    }

    async fn is_called(listener: &TcpListener) -> bool {
        tokio::time::timeout(Duration::from_secs(5), listener.accept()).await.is_ok_and(|accepted| accepted.is_ok())
    }

    /// What is sent is tested where it is sent.
    #[tokio::test]
    async fn the_sink_is_called_and_after_a_change_the_other_one() {
        let bus = EventBus::new(Arc::new(stdx::SystemClock));
        bus.publish(Payload::Restart { command: 1 });
        let harness = Harness::with(EventsSinkController::new(bus));
        let (first, second) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        for listener in [&first, &second] {
            harness.put(ID, EventSinkConfig { endpoint: listener.local_addr().unwrap().to_string() });
            assert!(is_called(listener).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_is_none_is_said() {
        let bus = EventBus::new(Arc::new(stdx::SystemClock));
        let harness = Harness::with(EventsSinkController::new(bus));
        harness.put(ID, EventSinkConfig { endpoint: "nowhere".into() });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = harness.status("runtime.EventsSinkController");
        assert!(status.last_error.unwrap_or_default().contains("\"nowhere\" is not host:port"));
    }
}
