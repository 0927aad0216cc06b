//! Clients that may configure a machine in maintenance mode. A pure decision over the machine's state.

use resources::machine::{MaintenanceAccess, MaintenanceClients};
use resources::values::Certificate;

use super::files::Authorities;

/// Remains of an earlier configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Traces of a cluster: a configuration that cannot be used, etcd's data, a kubelet's certificate. For people.
    pub(crate) traces: Vec<String>,
    pub(crate) authorities: Authorities,
}

/// A machine that nobody has configured yet takes anybody's configuration. One that belongs to a cluster, and only lost
/// its configuration, takes that of an administrator of the cluster; where it does not know the cluster's authority any
/// more, nobody's.
pub(crate) fn decide(evidence: &Evidence) -> MaintenanceAccess {
    let known = evidence.traces.join(", ");
    match &evidence.authorities {
        Authorities::Known(authorities) => MaintenanceAccess {
            clients: MaintenanceClients::Administrators,
            accepted_cas: authorities.iter().map(|pem| Certificate::new(pem.as_bytes())).collect(),
            reason: "this machine belongs to a cluster whose authority it knows".to_owned(),
        },
        Authorities::Absent if evidence.traces.is_empty() => MaintenanceAccess {
            clients: MaintenanceClients::Anybody,
            accepted_cas: Vec::new(),
            reason: "this machine was never configured".to_owned(),
        },
        Authorities::Absent => {
            shut(format!("this machine has state ({known}), and the authority of its cluster is not kept"))
        }
        Authorities::Unreadable(error) => {
            shut(format!("the authority of the cluster of this machine is damaged: {error}"))
        }
    }
}

const fn shut(reason: String) -> MaintenanceAccess {
    MaintenanceAccess { clients: MaintenanceClients::Nobody, accepted_cas: Vec::new(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(traces: &[&str], authorities: Authorities) -> MaintenanceClients {
        let traces = traces.iter().map(|trace| (*trace).to_owned()).collect();
        decide(&Evidence { traces, authorities }).clients
    }

    #[test]
    fn only_a_machine_without_any_state_is_open_to_anybody() {
        assert_eq!(clients(&[], Authorities::Absent), MaintenanceClients::Anybody);
        assert_eq!(clients(&["etcd's data"], Authorities::Absent), MaintenanceClients::Nobody);
        for traces in [&[][..], &["a configuration"]] {
            let known = Authorities::Known(vec!["pem".into()]);
            assert_eq!(clients(traces, known), MaintenanceClients::Administrators);
            let unreadable = Authorities::Unreadable("I/O error".into());
            assert_eq!(clients(traces, unreadable), MaintenanceClients::Nobody);
        }
    }
}
