//! A node's connection to the cluster's bridge: a network namespace with `eth0` in it, and the veth pair.

use std::fs::File;

use crate::command::{IP, NSENTER, UNSHARE};
use crate::error::{HostError, Operation as _};
use crate::folder::{Folder, make_folder};
use crate::mounts;
use crate::network;
use crate::plan::{Plan, PlannedNode};

/// Makes a node's network namespace with `eth0` in it, connected to the bridge.
pub(super) fn attach(plan: &Plan, node: &PlannedNode, folder: &Folder) -> Result<(), HostError> {
    let namespace = folder.namespace(&node.name);
    if let Some(parent) = namespace.parent() {
        make_folder(parent)?;
    }
    File::create(&namespace).map_err(HostError::io("making", &namespace))?;
    let operation = || format!("connecting node {}", node.name);
    let path = namespace.to_string_lossy();
    UNSHARE.run([format!("--net={path}").as_str(), "ip", "link", "set", "lo", "up"]).operation(operation)?;
    let (link, mtu, bridge) = (&node.link, plan.mtu, &plan.bridge);
    let outside = format!(
        "link add name {link} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {path}\n\
         link set {link} master {bridge} up\n"
    );
    IP.run_with_input(["-batch", "-"], &outside).operation(operation)?;
    let (address, prefix, gateway) = (node.address, plan.cidr.prefix_len(), plan.gateway);
    let inside = format!(
        "address add {address}/{prefix} dev eth0\n\
         link set eth0 up\n\
         route add default via {gateway}\n"
    );
    let enter = format!("--net={path}");
    NSENTER.run_with_input([enter.as_str(), "ip", "-batch", "-"], &inside).operation(operation)?;
    Ok(())
}

/// Takes a node's network namespace and its connection to the bridge away, so that [`attach`] can make new ones.
pub(super) fn detach(node: &PlannedNode, folder: &Folder) -> Result<(), HostError> {
    let mut errors = Vec::new();
    mounts::unmount_below(&folder.namespace(&node.name), &mut errors);
    network::remove_link(&node.link, &mut errors);
    errors.into_iter().next().map_or(Ok(()), Err)
}
