//! How far the network is ready, as one resource that others wait for.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::enums::RoutingTable;
use resources::files::EtcFileStatus;
use resources::network::{HostnameStatus, NetworkStatus, NodeAddress, ProbeStatus, RouteStatus};

use crate::etc_file::{HOSTS, RESOLV_CONF};
use crate::node_address::CURRENT_ID;

/// Addresses, routes, probes, host name, files → `NetworkStatus`.
///
/// Connectivity is decided by probes; without probes, by the presence of a default route.
#[derive(Debug)]
pub struct StatusController;

#[async_trait]
impl Controller for StatusController {
    fn name(&self) -> &'static str {
        "network.StatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<NodeAddress>().id(CURRENT_ID),
            Input::weak::<RouteStatus>(),
            Input::weak::<ProbeStatus>(),
            Input::weak::<HostnameStatus>().id(HostnameStatus::ID),
            Input::weak::<EtcFileStatus>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<NetworkStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let addresses = ctx.get::<NodeAddress>(CURRENT_ID)?;
        let probes = ctx.list::<ProbeStatus>()?;
        let connectivity_ready = if probes.is_empty() {
            let routes = ctx.list::<RouteStatus>()?;
            routes.iter().any(|route| {
                route.dst.is_none_or(|dst| dst.prefix_len() == 0)
                    && route.gateway.is_some()
                    && route.table == RoutingTable::MAIN
            })
        } else {
            probes.iter().all(|probe| probe.success)
        };
        let files = [HOSTS, RESOLV_CONF].map(|name| ctx.get::<EtcFileStatus>(name));
        let mut etc_files_ready = true;
        for file in files {
            etc_files_ready &= file?.is_some();
        }
        let status = NetworkStatus {
            address_ready: addresses.is_some_and(|addresses| !addresses.addresses.is_empty()),
            connectivity_ready,
            hostname_ready: ctx.get::<HostnameStatus>(HostnameStatus::ID)?.is_some(),
            etc_files_ready,
        };
        ctx.put(NetworkStatus::ID, status)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_part_becomes_ready_by_itself() {
        let harness = Harness::with(StatusController);
        harness.settle().await;
        let status = || NetworkStatus::clone(&harness.get::<NetworkStatus>("status").unwrap());
        assert_eq!(status(), NetworkStatus::default());
        harness.put(CURRENT_ID, NodeAddress { addresses: vec!["10.5.0.2/24".parse().unwrap()] });
        harness.settle().await;
        assert_eq!(status(), NetworkStatus { address_ready: true, ..Default::default() });
        harness.put("hostname", HostnameStatus { hostname: "a".into(), ..Default::default() });
        harness.put("hosts", EtcFileStatus::default());
        let gateway = Some("10.5.0.1".parse().unwrap());
        harness.put("default", RouteStatus { gateway, table: RoutingTable::MAIN, ..Default::default() });
        harness.settle().await;
        assert!(status().hostname_ready && status().connectivity_ready && !status().etc_files_ready);
        harness.put("resolv.conf", EtcFileStatus::default());
        harness.put("tcp", ProbeStatus { success: false, last_error: "refused".into() });
        harness.settle().await;
        assert!(status().etc_files_ready && !status().connectivity_ready, "a probe has the last word");
    }
}
