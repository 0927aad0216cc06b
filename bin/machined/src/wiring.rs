//! Which controllers run.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use controller::Controller;
use domain_k8s::KubeletReady;
use domain_runtime::config_type::MachineTypeController;
use domain_runtime::configuration::ConfigurationController;
use domain_runtime::cri_config::CriRegistryConfigController;
use domain_runtime::cri_parts::CriConfigPartsController;
use domain_runtime::etc_file::EtcFileController;
use domain_runtime::kernel_param::{
    KernelParamConfigController, KernelParamDefaultsController, KernelParamSpecController,
};
use domain_runtime::machine_status::MachineStatusController;
use domain_runtime::mount::MountController;
use domain_runtime::platform_config::{PlatformCapabilitiesController, PlatformConfigController};
use domain_runtime::service_status::ServiceController;
use domain_runtime::services_run::{ServicesController, WantedKubelet};
use domain_runtime::time_sync::SyncController;
use http_fetch::HttpFetch;
use tokio::sync::watch;

use crate::boot;
use crate::lock::EtcdLock;
use crate::machine::{ETC, Parts, RENDERED_ETC};
use crate::maintenance::MaintenanceServiceController;

/// Registers every controller of the machine.
///
/// # Errors
/// When the kernel's networking cannot be reached, or two controllers claim the same output: a mistake in this list.
pub(crate) fn register(parts: &Parts) -> anyhow::Result<()> {
    let network = domain_network::Edges::kernel().context("connecting to the kernel's networking")?;
    let kubelet = watch::Sender::new(None);
    let k8s = domain_k8s::Edges {
        root: domain_k8s::Root::default(),
        connect: Arc::new(kube_edge::RealConnect),
        routes: Arc::clone(&network.routes),
        lock: Arc::new(EtcdLock { store: parts.store.clone() }),
        fetch: Arc::new(HttpFetch),
        kubelet: kubelet.clone(),
    };
    let mut list: Vec<Box<dyn Controller>> = runtime(parts, wanted(&kubelet));
    list.extend(domain_network::controllers(&network));
    list.extend(domain_cluster::controllers(&domain_cluster::Paths::default()));
    list.extend(domain_secrets::controllers(Arc::new(domain_secrets::TrustdSigner)));
    list.extend(domain_etcd::controllers(Arc::new(etcd_edge::EtcdConnector)));
    list.extend(domain_k8s::controllers(&k8s));
    for controller in list {
        let name = controller.name();
        parts.controllers.register_boxed(controller).with_context(|| format!("registering {name}"))?;
    }
    Ok(())
}

/// Carries the kubelet from the controllers that prepare it to the one that runs it.
fn wanted(ready: &watch::Sender<Option<KubeletReady>>) -> watch::Receiver<Option<WantedKubelet>> {
    let mut ready = ready.subscribe();
    let (sender, receiver) = watch::channel(None);
    let carry = async move {
        loop {
            let next = ready.borrow_and_update().clone();
            sender.send_replace(next.map(|KubeletReady { spec, revision }| WantedKubelet { spec, revision }));
            if ready.changed().await.is_err() {
                return;
            }
        }
    };
    stdx::tasks::spawn("wanted kubelet", carry).detach();
    receiver
}

fn runtime(parts: &Parts, kubelet: watch::Receiver<Option<WantedKubelet>>) -> Vec<Box<dyn Controller>> {
    let services = ServicesController::new(
        parts.supervisor.clone(),
        Arc::new(boot::containerd(parts.logs.clone())),
        parts.container_runtime(),
        parts.gate.clone(),
        kubelet,
    );
    vec![
        Box::new(ConfigurationController::new(Arc::clone(&parts.platform), parts.events.clone())),
        Box::new(MountController::new(parts.platform.host_mounts())),
        Box::new(PlatformConfigController::new(parts.platform.as_ref())),
        Box::new(PlatformCapabilitiesController::new(Arc::clone(&parts.platform))),
        Box::new(MachineTypeController),
        Box::new(CriRegistryConfigController::new(PathBuf::from(RENDERED_ETC))),
        Box::new(CriConfigPartsController::new(boot::containerd_file())),
        Box::new(EtcFileController { rendered: PathBuf::from(RENDERED_ETC), bound_over: Some(PathBuf::from(ETC)) }),
        Box::new(KernelParamDefaultsController),
        Box::new(KernelParamConfigController),
        Box::new(KernelParamSpecController::default()),
        Box::new(MachineStatusController::new(&parts.stage, parts.events.clone())),
        Box::new(MaintenanceServiceController::default()),
        Box::new(ServiceController::new(parts.supervisor.clone())),
        Box::new(services),
        Box::new(SyncController),
    ]
}
