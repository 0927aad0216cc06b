//! `k8s.NodenameController`: the node's name in Kubernetes follows its host name.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::config::MachineConfig;
use resources::k8s::Nodename;
use resources::network::HostnameStatus;

#[derive(Debug, Default)]
pub struct NodenameController;

#[async_trait]
impl Controller for NodenameController {
    fn name(&self) -> &'static str {
        "k8s.NodenameController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<HostnameStatus>().id(HostnameStatus::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<Nodename>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let hostname = ctx.get::<HostnameStatus>(HostnameStatus::ID)?;
        if let Some(config) = MachineConfig::root_of(active.as_deref())?
            && let Some(hostname) = hostname
        {
            let kubelet = config.machine().kubelet.clone().unwrap_or_default();
            let nodename = match kubelet.extra_args.get("hostname-override") {
                Some(name) => name.clone(),
                None => from_hostname(&hostname, kubelet.register_with_fqdn.unwrap_or(false)),
            };
            let spec = Nodename {
                nodename,
                hostname_version: hostname.metadata.version.to_string(),
                skip_node_registration: kubelet.skip_node_registration.unwrap_or(false),
            };
            ctx.put(Nodename::ID, spec)?;
        }
        ctx.keep_touched::<Nodename>()
    }
}

/// Kubernetes allows lower case letters, digits, dashes and dots.
fn from_hostname(hostname: &HostnameStatus, with_domain: bool) -> String {
    let name = if with_domain { hostname.fqdn() } else { hostname.hostname.clone() };
    name.trim_matches(['.', '-']).to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_what_kubernetes_accepts() {
        let hostname = HostnameStatus { hostname: "Node_1".into(), domainname: "Example.org".into() };
        assert_eq!(from_hostname(&hostname, false), "node-1");
        assert_eq!(from_hostname(&hostname, true), "node-1.example.org");
    }
}
