use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use controller::EdgeKind;
use platform::{Container, Metal, Platform};
use sequencer::Lifecycle;
use supervisor::LogStore;
use tokio::sync::watch;

use super::*;
use crate::components::Components;
use crate::plans::{MachineKind, NodePlanner};

/// Types that somebody other than a controller writes.
const WRITTEN_OTHERWISE: &[&str] = &[
    "AcquireConfigSpecs.v1alpha1.talos.dev",  // the boot sequence
    "MachineResetSignals.runtime.talos.dev",  // the reset sequence
    "VolumeRequests.runtime.talos.dev",       // the boot sequence
    "MachineConfigRequests.config.talos.dev", // the machine API
    "ServiceOverrides.runtime.talos.dev",     // the machine API
];

/// Types that nobody writes in a container.
const NOT_IN_A_CONTAINER: (&str, &[&str]) = (
    "never in a container: disks, firmware, boot partition and kernel clock of a machine of its own",
    &[
        "BlockDevices.block.talos.dev",
        "DiscoveredVolumes.block.talos.dev",
        "Disks.block.talos.dev",
        "MetaKeys.runtime.talos.dev",
        "MetaLoads.runtime.talos.dev",
        "SystemDisks.block.talos.dev",
        "UniqueMachineTokens.runtime.talos.dev",
        "UpgradeTrials.runtime.talos.dev",
        "UpgradeTrials.runtime.talos.dev",
        "UserDiskStatuses.block.talos.dev",
        "VolumeStatuses.block.talos.dev",
    ],
);

/// Types that nobody writes on any machine yet, and the work that they wait for. The table can only shrink: a type that gets a
/// writer has to leave it, and a new type does not come in without a reason.
const WAITING: &[(&str, &[&str])] = &[
    (
        "the status of system extensions",
        &["ExtensionServiceConfigStatuses.runtime.talos.dev", "ExtensionStatuses.runtime.talos.dev"],
    ),
    (
        "the configuration of network links",
        &["LinkRefreshes.net.talos.dev", "ProbeSpecs.net.talos.dev", "ProbeStatuses.net.talos.dev"],
    ),
    ("the DNS server of the host", &["DNSResolveCaches.net.talos.dev", "DNSUpstreams.net.talos.dev"]),
    ("the ingress firewall", &["NfTablesChains.net.talos.dev"]),
    (
        "KubeSpan",
        &[
            "KubeSpanEndpoints.kubespan.talos.dev",
            "KubeSpanIdentities.kubespan.talos.dev",
            "KubeSpanPeerSpecs.kubespan.talos.dev",
            "KubeSpanPeerStatuses.kubespan.talos.dev",
        ],
    ),
    ("SideroLink", &["SiderolinkConfigs.siderolink.talos.dev", "SiderolinkTunnels.siderolink.talos.dev"]),
];

fn machine(platform: Arc<dyn Platform>, kind: MachineKind) -> Machine {
    let components = Components::new(platform, LogStore::default());
    let planner = NodePlanner { kind, actions: Arc::new(OnceLock::new()) };
    let lifecycle = Lifecycle::new(planner, components.events.clone(), watch::channel(0).1);
    Machine { components, lifecycle }
}

/// Holds the writers of a machine against a table of types that have none.
fn check_writers(machine: &Machine, waiting: &[(&str, &[&str])]) {
    register(machine, Udevadm::default()).unwrap();
    let edges = machine.components.controllers.dependency_graph();
    let is_output = |kind| matches!(kind, EdgeKind::OutputExclusive | EdgeKind::OutputShared);
    let outputs = edges.iter().filter(|edge| is_output(edge.kind)).map(|edge| edge.type_name.clone());
    let written: BTreeSet<String> = outputs.chain(WRITTEN_OTHERWISE.iter().map(|name| (*name).to_owned())).collect();
    let waiting: BTreeMap<&str, &str> =
        waiting.iter().flat_map(|(reason, types)| types.iter().map(|name| (*name, *reason))).collect();
    for definition in resources::definitions() {
        let name = definition.type_name;
        match (written.contains(name), waiting.get(name)) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(reason)) => panic!("{name} is written: take it out of the table ({reason})"),
            (false, None) => panic!("nobody writes {name}: write it, or say what it waits for"),
        }
    }
    let known: BTreeSet<&str> = resources::definitions().iter().map(|definition| definition.type_name).collect();
    let gone: Vec<_> = waiting.keys().filter(|name| !known.contains(**name)).collect();
    assert!(gone.is_empty(), "the table has types that do not exist: {gone:?}");
}

#[tokio::test]
async fn every_type_has_a_writer_in_a_container_or_a_reason() {
    let machine = machine(Arc::new(Container::new(None, None)), MachineKind::Container);
    let waiting: Vec<_> = WAITING.iter().copied().chain([NOT_IN_A_CONTAINER]).collect();
    check_writers(&machine, &waiting);
}

/// Needs root, as it hears the kernel's events of devices.
#[tokio::test]
async fn every_type_has_a_writer_on_a_machine_of_its_own_or_a_reason() {
    let metal = Metal::new(Cmdline::default(), Arc::new(HttpFetch), Arc::new(HttpFetch));
    check_writers(&machine(Arc::new(metal), MachineKind::Machine), WAITING);
}
