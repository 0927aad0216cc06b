//! Where the control plane is, as discovery knows it.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::cluster::Member;
use resources::k8s::Endpoint;

/// `Member` → `Endpoint` `discovery`: the addresses of all control plane members.
#[derive(Debug)]
pub struct EndpointController;

#[async_trait]
impl Controller for EndpointController {
    fn name(&self) -> &'static str {
        "cluster.EndpointController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<Member>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<Endpoint>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let members = ctx.list::<Member>()?;
        let control_plane = members.iter().filter(|member| member.machine_type.is_control_plane());
        let mut addresses: Vec<_> = control_plane.flat_map(|member| member.addresses.iter().copied()).collect();
        addresses.sort();
        addresses.dedup();
        ctx.put(Endpoint::DISCOVERY_ID, Endpoint { addresses })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use controller::testing::Harness;
    use resources::MachineType;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_control_planes_count() {
        let harness = Harness::with(EndpointController);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let member = |machine_type, addresses| Member { machine_type, addresses, ..Default::default() };
        harness.put("w-1", member(MachineType::Worker, vec![address("10.5.0.9")]));
        harness.put("cp-2", member(MachineType::ControlPlane, vec![address("10.5.0.3")]));
        harness.put("cp-1", member(MachineType::ControlPlane, vec![address("10.5.0.3"), address("10.5.0.2")]));
        harness.settle().await;
        let endpoint = harness.get::<Endpoint>("discovery").unwrap();
        assert_eq!(endpoint.addresses, [address("10.5.0.2"), address("10.5.0.3")]);
    }
}
