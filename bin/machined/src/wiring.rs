//! Which controllers run.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::machine::cmdline::{self, Cmdline};
use anyhow::Context as _;
use controller::Controller;
use domain_runtime::adjtime_status::AdjtimeStatusController;
use domain_runtime::config_type::MachineTypeController;
use domain_runtime::configuration::ConfigurationController;
use domain_runtime::cri_config::CriRegistryConfigController;
use domain_runtime::cri_parts::{CONTAINERD_FILE, CriConfigPartsController};
use domain_runtime::document_config;
use domain_runtime::etc_file::EtcFileController;
use domain_runtime::event_sink::{EventsSinkConfigController, EventsSinkController};
use domain_runtime::kernel_module::{ImageModules, KernelModuleSpecController};
use domain_runtime::kernel_param::{
    KernelParamConfigController, KernelParamDefaultsController, KernelParamSpecController,
};
use domain_runtime::log_delivery::{
    KmsgLogConfigController, KmsgLogDeliveryController, ServiceLogConsoleController, ServiceLogDeliveryController,
};
use domain_runtime::machine_status::MachineStatusController;
use domain_runtime::maintenance::MaintenanceServiceController;
use domain_runtime::maintenance_config::MaintenanceConfigController;
use domain_runtime::mount::MountController;
use domain_runtime::perf_stats::{self, StatsController};
use domain_runtime::platform_config::{PlatformCapabilitiesController, PlatformConfigController};
use domain_runtime::platform_status::{DevicesStatusController, SecurityStateController};
use domain_runtime::seccomp::{self, SeccompProfileFileController};
use domain_runtime::sequence_status::SequenceStatusController;
use domain_runtime::service_run::ServiceRunController;
use domain_runtime::service_spec::{ServicePaths, ServiceSpecController};
use domain_runtime::service_status::ServiceController;
use domain_runtime::system_info::{self, SystemInfoController};
use domain_runtime::time_sync::SyncController;
use domain_runtime::watchdog::WatchdogTimerController;
use http_fetch::HttpFetch;
use log_delivery::Console;
use ntp::{KernelAsk, KernelTime};
use platform::Platform;
use resources::machine::Ownership;
use sys::udev::Udevadm;
use sys::watchdog::KernelWatchdogs;

use crate::actions::services;
use crate::components::{Components, Machine};
use crate::inventory::StoreInventory;
use crate::maintenance::InProcess;
use crate::paths::{CONTAINERD_SOCKET, EFI_VARIABLES, ETC, RENDERED_ETC};
use crate::storage;
use crate::trial_watchdogs::NodeTrialWatchdogs;
use crate::versions::{LeaveByReboot, NodeBootLoader};

/// Registers every controller of the machine.
///
/// # Errors
/// When the kernel's networking cannot be reached, or two controllers claim the same output: a mistake in this list.
pub(crate) fn register(machine: &Machine, devices: Udevadm) -> anyhow::Result<()> {
    let components = &machine.components;
    let arguments = network_arguments(components.platform.as_ref());
    let network = domain_network::Edges::kernel(arguments).context("connecting to the kernel's networking")?;
    let k8s = domain_k8s::Edges {
        root: domain_k8s::Root::default(),
        connect: Arc::new(kube_edge::RealConnect),
        routes: Arc::clone(&network.routes),
        lock: Arc::new(components.etcd.clone()),
        fetch: Arc::new(HttpFetch),
    };
    let mut list: Vec<Box<dyn Controller>> = runtime(machine, devices);
    list.extend(domain_network::controllers(&network));
    list.extend(domain_cluster::controllers(&domain_cluster::Paths::default()));
    list.extend(domain_secrets::controllers(Arc::new(trustd_client::TrustdClient::default())));
    list.extend(domain_etcd::controllers(Arc::new(etcd_edge::EtcdConnector), components.gate.clone()));
    list.extend(domain_k8s::controllers(&k8s));
    list.extend(volumes(machine)?);
    for controller in list {
        let name = controller.name();
        components.controllers.register_boxed(controller).with_context(|| format!("registering {name}"))?;
    }
    Ok(())
}

/// Who looks after the volumes: the host has mounted its own; disks of the machine are found and mounted here.
fn volumes(machine: &Machine) -> anyhow::Result<Vec<Box<dyn Controller>>> {
    let components = &machine.components;
    match components.platform.capabilities().disks {
        Ownership::Host => Ok(vec![Box::new(MountController::new(components.platform.host_mounts()))]),
        Ownership::Machine => {
            let loader = Arc::new(NodeBootLoader(components.store.clone()));
            let leave =
                Arc::new(LeaveByReboot { lifecycle: machine.lifecycle.clone(), events: components.events.clone() });
            let watchdogs = Arc::new(NodeTrialWatchdogs::new(init_guard()));
            let (storage, controllers) = storage::make(loader, leave, watchdogs)?;
            components.storage.set(storage).ok();
            Ok(controllers)
        }
    }
}

/// The guard that init has left. There is none where no init was before this program.
#[expect(clippy::disallowed_methods, reason = "the environment of PID 1")]
fn init_guard() -> Option<u32> {
    std::env::var(sys::guard::VARIABLE).ok()?.parse().ok()
}

/// Arguments of the kernel. Without `/proc` there are none.
fn kernel_arguments() -> Cmdline {
    Cmdline::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
}

/// Arguments of the kernel about the network. Those of a host's kernel are about the host's.
fn network_arguments(platform: &dyn Platform) -> domain_network::Arguments {
    if platform.capabilities().network == Ownership::Host {
        return domain_network::Arguments::default();
    }
    let line = kernel_arguments();
    domain_network::Arguments::read(|name| line.values(name))
}

/// Receivers of the kernel log; its lines are the host's in a container as well (Talos 1.7).
fn kernel_log_receivers() -> Vec<String> {
    kernel_arguments().values(cmdline::LOGGING).filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

/// Where lines of services are shown: where those of this process are.
fn console(platform: &dyn Platform) -> Console {
    match platform.capabilities().kernel {
        // It may be full or gone; the line is in its log.
        Ownership::Machine => Console::new(|line| drop(sys::kmsg::write(line))),
        // A closed standard output must not stop the machine.
        Ownership::Host => Console::new(|line| drop(writeln!(io::stdout(), "{line}"))),
    }
}

/// The receiver of events. That of a host's kernel is for the host.
fn event_sink(platform: &dyn Platform) -> Option<String> {
    let line = (platform.capabilities().kernel == Ownership::Machine).then(kernel_arguments)?;
    line.last(cmdline::EVENT_SINK).filter(|sink| !sink.is_empty()).map(str::to_owned)
}

/// Variables for all services (`talos.environment`), but for the values of META, which are for the installer and may be secret.
/// Those of a host's kernel are for the host.
fn kernel_environment(platform: &dyn Platform) -> Vec<(String, String)> {
    if platform.capabilities().kernel == Ownership::Host {
        return Vec::new();
    }
    let line = kernel_arguments();
    let variables = line.values(cmdline::ENVIRONMENT).filter(|variable| !variable.starts_with(storage::PRESET));
    let pairs = variables.filter_map(|variable| variable.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn runtime(machine: &Machine, devices: Udevadm) -> Vec<Box<dyn Controller>> {
    let Machine { components, lifecycle } = machine;
    let paths = ServicePaths {
        containerd_config: Path::new(ETC).join(CONTAINERD_FILE),
        containerd_socket: CONTAINERD_SOCKET.into(),
    };
    let services = ServiceRunController::new(components.supervisor.clone(), Arc::new(components.services()))
        .with_environment(kernel_environment(components.platform.as_ref()));
    let mut list: Vec<Box<dyn Controller>> = vec![
        Box::new(configuration(components)),
        Box::new(SystemInfoController { tables: PathBuf::from(system_info::TABLES) }),
        Box::new(PlatformConfigController::new(components.platform.as_ref())),
        Box::new(PlatformCapabilitiesController::new(Arc::clone(&components.platform))),
        Box::new(MachineTypeController),
        Box::new(CriRegistryConfigController::new(PathBuf::from(RENDERED_ETC))),
        Box::new(CriConfigPartsController::new(services::containerd_file())),
        Box::new(EtcFileController { rendered: PathBuf::from(RENDERED_ETC), bound_over: Some(PathBuf::from(ETC)) }),
        Box::new(KernelParamDefaultsController),
        Box::new(KernelParamConfigController),
        Box::new(KernelParamSpecController::default()),
        Box::new(KernelModuleSpecController::new(Arc::new(ImageModules))),
        Box::new(SequenceStatusController::new(lifecycle.status())),
        Box::new(MachineStatusController::new(components.events.clone())),
        Box::new(MaintenanceServiceController::new(Arc::new(InProcess { store: components.store.clone() }))),
        Box::new(ServiceController::new(components.supervisor.clone())),
        Box::new(ServiceSpecController::new(paths)),
        Box::new(services),
        Box::new(SyncController::new(Arc::new(KernelAsk::default()), Arc::new(KernelTime))),
        Box::new(AdjtimeStatusController::new(Arc::new(KernelTime))),
        Box::new(SecurityStateController { efi_variables: PathBuf::from(EFI_VARIABLES) }),
        Box::new(DevicesStatusController::new(Arc::new(devices))),
        Box::new(StatsController::new(perf_stats::of_kernel())),
        Box::new(MaintenanceConfigController),
        seccomp::config_controller(),
        Box::new(SeccompProfileFileController),
        Box::new(ServiceLogDeliveryController::new(components.logs.clone())),
        Box::new(ServiceLogConsoleController::new(components.logs.clone(), console(components.platform.as_ref()))),
        Box::new(KmsgLogConfigController { arguments: kernel_log_receivers() }),
        Box::new(KmsgLogDeliveryController::default()),
        Box::new(EventsSinkConfigController { argument: event_sink(components.platform.as_ref()) }),
        Box::new(EventsSinkController::new(components.events.clone())),
        Box::new(WatchdogTimerController::new(Arc::new(KernelWatchdogs))),
    ];
    list.extend(document_config::controllers());
    list
}

fn configuration(components: &Components) -> ConfigurationController {
    let inventory = StoreInventory { store: components.store.clone() };
    ConfigurationController::new(Arc::clone(&components.platform), Arc::new(inventory), components.events.clone())
        .with_clock(Arc::new(KernelTime))
}

#[cfg(test)]
mod tests;
