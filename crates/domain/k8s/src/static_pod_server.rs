//! `k8s.StaticPodServerController`: gives the static pods to the server from which the kubelet takes them.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kube_edge::StaticPodServer;
use resources::k8s::{StaticPod, StaticPodServerStatus};
use serde_json::Value;

#[derive(Debug, Default)]
pub struct StaticPodServerController {
    server: Option<StaticPodServer>,
}

#[async_trait]
impl Controller for StaticPodServerController {
    fn name(&self) -> &'static str {
        "k8s.StaticPodServerController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<StaticPod>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<StaticPodServerStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let pods: Vec<Value> = ctx.list::<StaticPod>()?.iter().map(|pod| Value::Object(pod.pod.clone())).collect();
        let server = match &self.server {
            Some(server) => {
                server.set_pods(&pods);
                server
            }
            None => self.server.insert(StaticPodServer::start(&pods).await?),
        };
        let url = format!("http://{}", server.address());
        ctx.put(StaticPodServerStatus::ID, StaticPodServerStatus { url })?;
        Ok(())
    }
}
