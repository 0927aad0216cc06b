//! Controllers of etcd: how it is to run, its certificates on disk, and its member once it runs.
//!
//! The process itself is a service; it reads `EtcdSpec` and waits for `PKIStatus`. Only control planes have any of this.

mod advertised_peer;
mod config_controller;
mod local;
mod member;
mod membership;
mod others;
mod pki_files;
mod spec;

use std::{path::PathBuf, sync::Arc};

use ::controller::Controller;
use etcd_edge::Connector;
use services::BootstrapGate;

pub use advertised_peer::AdvertisedPeerController;
pub use config_controller::ConfigController;
pub use member::MemberController;
pub use membership::MembershipController;
pub use pki_files::PkiController;
pub use spec::SpecController;

/// Where etcd finds its certificates.
pub const SECRETS_DIR: &str = "/system/secrets/etcd";
/// The user that etcd runs as.
pub const ETCD_USER: u32 = 60;

/// All controllers of this crate; on a node `connector` is [`etcd_edge::EtcdConnector`], and `gate` lets it found a cluster.
#[must_use]
pub fn controllers(connector: Arc<dyn Connector>, gate: BootstrapGate) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(ConfigController),
        Box::new(SpecController::default()),
        Box::new(PkiController::new(PathBuf::from(SECRETS_DIR), Some(ETCD_USER))),
        Box::new(MemberController::new(Arc::clone(&connector))),
        Box::new(AdvertisedPeerController::new(Arc::clone(&connector))),
        Box::new(MembershipController::new(connector, gate)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_can_live_together() {
        let runtime = ::controller::Runtime::new(state::Store::new());
        for controller in controllers(Arc::new(etcd_edge::EtcdConnector), BootstrapGate::default()) {
            runtime.register_boxed(controller).unwrap();
        }
        assert_eq!(runtime.status().len(), 6);
    }
}
