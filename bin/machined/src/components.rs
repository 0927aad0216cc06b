//! The long-lived components of the machine, of which others get handles.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use containers::{Containerd, Namespace};
use controller::Runtime;
use etcd_edge::{EtcdConnector, NodeEtcd};
use platform::Platform;
use resources::config::MachineConfig;
use sequencer::{EventBus, Lifecycle};
use services::{BootstrapGate, NodeServices, Pulls, Runtime as ContainerRuntime};
use state::Store;
use stdx::{Clock, SystemClock};
use supervisor::{LogStore, Supervisor};

use crate::paths::CONTAINERD_SOCKET;
use crate::storage::StorageSlot;

/// The components that exist before the lifecycle, whose plans use them.
#[derive(Debug, Clone)]
pub(crate) struct Components {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) store: Store,
    pub(crate) controllers: Runtime,
    pub(crate) supervisor: Supervisor,
    pub(crate) logs: LogStore,
    pub(crate) events: EventBus,
    pub(crate) gate: BootstrapGate,
    pub(crate) etcd: NodeEtcd,
    pub(crate) containerd: Containerd,
    pub(crate) storage: StorageSlot,
}

impl Components {
    pub(crate) fn new(platform: Arc<dyn Platform>, logs: LogStore) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::new();
        for definition in resources::definitions() {
            store.register(definition);
        }
        for namespace in resources::NAMESPACES {
            store.register_namespace(namespace);
        }
        Self {
            platform,
            controllers: Runtime::new(store.clone()),
            etcd: NodeEtcd::new(store.clone(), Arc::new(EtcdConnector)),
            store,
            supervisor: Supervisor::new(Arc::clone(&clock)),
            logs,
            events: EventBus::new(clock),
            gate: BootstrapGate::default(),
            containerd: Containerd::new(Path::new(CONTAINERD_SOCKET), Namespace::System),
            storage: StorageSlot::default(),
        }
    }

    /// Makes the services of this node.
    pub(crate) fn services(&self) -> NodeServices {
        let store = self.store.clone();
        let runtime = ContainerRuntime {
            containerd: self.containerd.clone(),
            registries: Arc::new(move || {
                let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID).ok().flatten();
                domain_runtime::cri_config::pull_registries(active.as_deref())
            }),
            logs: self.logs.clone(),
            pipes: PathBuf::from("/run/pipes"),
            pulls: Pulls::default(),
        };
        NodeServices { runtime, gate: self.gate.clone(), containerd_socket: CONTAINERD_SOCKET.into() }
    }
}

/// The components and the lifecycle of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) components: Components,
    pub(crate) lifecycle: Lifecycle,
}
