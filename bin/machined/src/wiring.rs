//! Which controllers run, and what the machine serves.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use controller::{Controller, Runtime};
use domain_runtime::config_acquire::AcquireController;
use domain_runtime::config_type::MachineTypeController;
use domain_runtime::cri_config::CriRegistryConfigController;
use domain_runtime::etc_file::EtcFileController;
use domain_runtime::kernel_param::{KernelParamConfigController, KernelParamSpecController};
use domain_runtime::machine_status::MachineStatusController;
use domain_runtime::service_status::ServiceController;
use domain_runtime::services_run::ServicesController;
use domain_runtime::time_sync::SyncController;

use crate::machine::{ETC, Parts, RENDERED_ETC, STATE};

/// Registers every controller of the machine.
///
/// # Errors
/// When two controllers claim the same output: a mistake in this list.
pub(crate) fn register(parts: &Parts) -> anyhow::Result<()> {
    let mut list: Vec<Box<dyn Controller>> = Vec::new();
    list.extend(runtime(parts));
    let edges = domain_network::Edges::kernel().context("opening the kernel's network")?;
    list.extend(domain_network::controllers(&edges));
    list.extend(domain_cluster::controllers(&domain_cluster::Paths::default()));
    let runtime: &Runtime = &parts.controllers;
    for controller in list {
        let name = controller.name();
        runtime.register_boxed(controller).with_context(|| format!("registering {name}"))?;
    }
    Ok(())
}

fn runtime(parts: &Parts) -> Vec<Box<dyn Controller>> {
    let config = Path::new(STATE).join("config.yaml");
    let platform = parts.platform.clone();
    vec![
        Box::new(AcquireController::new(platform, config, parts.inbox.clone(), parts.events.clone())),
        Box::new(MachineTypeController),
        Box::new(CriRegistryConfigController),
        Box::new(EtcFileController { rendered: PathBuf::from(RENDERED_ETC), bound_over: Some(PathBuf::from(ETC)) }),
        Box::new(KernelParamConfigController),
        Box::new(KernelParamSpecController::default()),
        Box::new(MachineStatusController::new(&parts.stage, parts.events.clone())),
        Box::new(ServiceController::new(parts.supervisor.clone())),
        Box::new(ServicesController::new(parts.supervisor.clone(), parts.container_runtime(), parts.gate.clone())),
        Box::new(SyncController),
    ]
}
