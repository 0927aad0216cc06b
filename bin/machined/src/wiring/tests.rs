use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use controller::EdgeKind;
use platform::Container;
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

/// Types that nobody writes yet, and the work that they wait for. The table can only shrink: a type that gets a writer has
/// to leave it, and a new type does not come in without a reason.
const WAITING: &[(&str, &[&str])] = &[
    (
        "never in a container: disks, firmware, boot partition and kernel clock of a machine of its own",
        &[
            "BlockDevices.block.talos.dev",
            "DiscoveredVolumes.block.talos.dev",
            "Disks.block.talos.dev",
            "MetaKeys.runtime.talos.dev",
            "MetaLoads.runtime.talos.dev",
            "SystemDisks.block.talos.dev",
            "UniqueMachineTokens.runtime.talos.dev",
            "VolumeStatuses.block.talos.dev",
            "WatchdogTimerStatuses.runtime.talos.dev",
        ],
    ),
    (
        "system extensions, which a container has none of",
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

fn machine() -> Machine {
    let components = Components::new(Arc::new(Container::new(None, None)), LogStore::default());
    let planner = NodePlanner { kind: MachineKind::Container, actions: Arc::new(OnceLock::new()) };
    let lifecycle = Lifecycle::new(planner, components.events.clone(), watch::channel(0).1);
    Machine { components, lifecycle }
}

#[tokio::test]
async fn every_type_has_a_writer_or_a_reason() {
    let machine = machine();
    register(&machine, Udevadm::default()).unwrap();
    let edges = machine.components.controllers.dependency_graph();
    let is_output = |kind| matches!(kind, EdgeKind::OutputExclusive | EdgeKind::OutputShared);
    let outputs = edges.iter().filter(|edge| is_output(edge.kind)).map(|edge| edge.type_name.clone());
    let written: BTreeSet<String> = outputs.chain(WRITTEN_OTHERWISE.iter().map(|name| (*name).to_owned())).collect();
    let waiting: BTreeMap<&str, &str> =
        WAITING.iter().flat_map(|(reason, types)| types.iter().map(|name| (*name, *reason))).collect();
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
