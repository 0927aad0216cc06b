//! Controllers of keys and certificates: from the configuration to the credentials of each component.
//!
//! Root secrets are taken from the configuration. Certificates are issued from them, renewed at half of their life and
//! reissued when names, addresses or authorities change. Nothing is written to disk here: consumers of files (etcd, the
//! static pods) read the resources.

mod api;
mod cert_sans;
mod etcd;
mod inputs;
mod issue;
mod kubernetes;
mod kubernetes_dynamic_certs;
mod maintenance;
mod root;
#[cfg(test)]
mod testing;
mod trustd;

use std::sync::Arc;

use controller::Controller;
use trustd_client::Signer;

pub use api::ApiController;
pub use cert_sans::{ApiCertSansController, KubernetesCertSansController, MaintenanceCertSansController};
pub use etcd::EtcdController;
pub use kubernetes::KubernetesController;
pub use kubernetes_dynamic_certs::KubernetesDynamicCertsController;
pub use maintenance::{MaintenanceController, MaintenanceRootController};
pub use root::{FromConfig, RootError, kubelet, root_etcd, root_kubernetes, root_os};
pub use trustd::TrustdController;

/// All controllers of this crate. Workers get their certificate by `signer`; on a node that is trustd's client.
#[must_use]
pub fn controllers(signer: Arc<dyn Signer>) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(root_os()),
        Box::new(root_etcd()),
        Box::new(root_kubernetes()),
        Box::new(kubelet()),
        Box::new(ApiCertSansController),
        Box::new(KubernetesCertSansController),
        Box::new(MaintenanceCertSansController),
        Box::new(ApiController::new(signer)),
        Box::new(TrustdController::default()),
        Box::new(EtcdController::default()),
        Box::new(KubernetesController::default()),
        Box::new(KubernetesDynamicCertsController::default()),
        Box::new(MaintenanceRootController),
        Box::new(MaintenanceController::default()),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_of_them_can_live_together() {
        let runtime = controller::Runtime::new(state::Store::new());
        for controller in controllers(Arc::new(trustd_client::TrustdClient::default())) {
            runtime.register_boxed(controller).unwrap();
        }
        assert_eq!(runtime.status().len(), 14);
        assert_eq!(issue::SERVER_LIFETIME, Duration::from_secs(24 * 3600));
    }
}
