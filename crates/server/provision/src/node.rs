//! A node as a runc container: its bundle, its persistent folders, start, status, power cycle and removal.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::cgroups;
use crate::command::{CP, RUNC};
use crate::error::{Operation as _, ProvisionError};
use crate::host::Host;
use crate::network;
use crate::plan::{Plan, PlannedNode, cgroup_name};
use crate::process::Identity;
use crate::spec::{Limits, MOUNT_POINTS, NodeContainer, PERSISTENT, render};
use crate::state::{Folder, make_folder, write_private};

/// The longest variable of an environment that the kernel takes (32 pages), with its name and the end.
const ENVIRONMENT_LIMIT: usize = 32 * 4096 - 1;

/// Refuses an image without init or without a folder where something is mounted.
pub(crate) fn check_image(image: &Path, root: &Path) -> Result<(), ProvisionError> {
    let missing = |missing: String| ProvisionError::Image { image: image.to_path_buf(), missing };
    if let Some(folder) = MOUNT_POINTS.iter().find(|folder| !root.join(folder).is_dir()) {
        return Err(missing(format!("the folder /{folder}")));
    }
    if std::fs::symlink_metadata(root.join("sbin/init")).is_err() {
        return Err(missing("/sbin/init".to_owned()));
    }
    Ok(())
}

/// Makes the node's persistent folders; new ones start with the image's content.
pub(crate) fn seed(folder: &Folder, node: &str) -> Result<(), ProvisionError> {
    let data = folder.node(node);
    make_folder(&data)?;
    for (inside, name) in PERSISTENT {
        let target = data.join(name);
        if target.exists() {
            continue;
        }
        let source = folder.root().join(inside.trim_start_matches('/'));
        let fresh = data.join(format!("{name}.new"));
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).map_err(ProvisionError::io("removing", &fresh))?;
        }
        if source.is_dir() {
            let arguments = [OsStr::new("--archive"), source.as_os_str(), fresh.as_os_str()];
            CP.run(arguments).operation(|| format!("filling {inside} of node {node}"))?;
        } else {
            std::fs::create_dir(&fresh).map_err(ProvisionError::io("making folder", &fresh))?;
        }
        std::fs::rename(&fresh, &target).map_err(ProvisionError::io("making folder", &target))?;
    }
    Ok(())
}

/// Writes the node's bundle and starts it; it runs on when this process ends.
pub(crate) fn start(
    folder: &Folder,
    cluster: &str,
    node: &PlannedNode,
    user_data: Option<&[u8]>,
    limits: Limits,
) -> Result<(), ProvisionError> {
    seed(folder, &node.name)?;
    let bundle = folder.bundle(&node.name);
    make_folder(&bundle)?;
    make_folder(&folder.logs())?;
    let container = NodeContainer {
        hostname: &node.name,
        root: &folder.root(),
        data: &folder.node(&node.name),
        namespace: folder.namespace(&node.name),
        cgroup: format!("/{}/{}", cgroup_name(cluster), node.name),
        environment: environment(&node.name, user_data)?,
        limits,
        host: &Host::inspect(),
    };
    let encode = |source| ProvisionError::Encode { subject: "runtime configuration", source };
    let config = serde_json::to_vec_pretty(&render(&container)).map_err(encode)?;
    write_private(&bundle.join("config.json"), &config)?;
    launch(folder, &node.name)
}

/// Starts the container of the bundle that is there, and notes who its init is.
fn launch(folder: &Folder, node: &str) -> Result<(), ProvisionError> {
    let path = folder.log(node);
    let log = File::options().create(true).append(true).open(&path);
    let log = log.map_err(ProvisionError::io("opening", &path))?;
    let runc_log = folder.logs().join(format!("{node}.runc.log"));
    let [root, bundle] = [folder.runc(), folder.bundle(node)];
    let pid = bundle.join("pid");
    let arguments: [&OsStr; 11] = [
        "--root".as_ref(),
        root.as_ref(),
        "--log".as_ref(),
        runc_log.as_ref(),
        "run".as_ref(),
        "--detach".as_ref(),
        "--pid-file".as_ref(),
        pid.as_ref(),
        "--bundle".as_ref(),
        bundle.as_ref(),
        node.as_ref(),
    ];
    RUNC.run_with_log(arguments, &log).operation(|| {
        let said = std::fs::read_to_string(&runc_log).unwrap_or_default();
        let said = said.lines().last().unwrap_or_default();
        format!("starting node {node} ({said})")
    })?;
    let text = std::fs::read_to_string(&pid).map_err(ProvisionError::io("reading", &pid))?;
    let ended = || ProvisionError::NodeEnded { node: node.to_owned(), output: "its init is gone".to_owned() };
    let init = text.trim().parse().ok().and_then(Identity::of).ok_or_else(ended)?;
    let encode = |source| ProvisionError::Encode { subject: "init of a node", source };
    write_private(&folder.init(node), &serde_json::to_vec(&init).map_err(encode)?)
}

/// Whether the node was started and its init is gone.
pub(crate) fn has_ended(folder: &Folder, node: &str) -> bool {
    Identity::read(&folder.init(node)).is_some_and(|init| !init.is_alive())
}

/// Starts a node that ended as a machine starts after its power was cut: its persistent folders and its configuration are
/// as they were; processes, mounts, control groups and the network are new.
pub(crate) fn power_cycle(folder: &Folder, plan: &Plan, node: &PlannedNode) -> Result<(), ProvisionError> {
    let name = &node.name;
    let root = folder.runc();
    if root.join(name).exists() {
        remove(&root, name.as_ref())?;
    }
    let group = format!("{}/{name}", cgroup_name(&plan.name));
    let still = |processes| ProvisionError::StillRunning { name: plan.name.clone(), processes };
    cgroups::wait_until_empty(&group).map_err(still)?;
    let mut errors = Vec::new();
    // What runc could not take away of them: below old groups a new container may not set its devices.
    cgroups::remove(&group, &mut errors);
    if let Some(error) = errors.pop() {
        return Err(error);
    }
    network::detach(node, folder)?;
    network::attach(plan, node, folder)?;
    launch(folder, name)
}

fn environment(node: &str, user_data: Option<&[u8]>) -> Result<Vec<String>, ProvisionError> {
    let mut environment = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "PLATFORM=container".to_owned(),
        "TALOSSKU=local".to_owned(),
    ];
    if let Some(data) = user_data {
        let variable = format!("USERDATA={}", STANDARD.encode(data));
        if variable.len() > ENVIRONMENT_LIMIT {
            let (size, limit) = (variable.len(), ENVIRONMENT_LIMIT);
            return Err(ProvisionError::UserData { node: node.to_owned(), size, limit });
        }
        environment.push(variable);
    }
    Ok(environment)
}

/// What runc says of a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ContainerState {
    pub(crate) status: String,
    pub(crate) pid: u32,
}

/// The state of a node's container; none when there is none.
pub(crate) fn state(folder: &Folder, node: &str) -> Option<ContainerState> {
    let root = folder.runc();
    if !root.join(node).exists() {
        return None;
    }
    let arguments: [&OsStr; 4] = ["--root".as_ref(), root.as_ref(), "state".as_ref(), node.as_ref()];
    serde_json::from_str(&RUNC.run(arguments).ok()?).ok()
}

/// Ends every container of the cluster, also those that the plan does not name.
pub(crate) fn remove_all(folder: &Folder, errors: &mut Vec<ProvisionError>) {
    let root = folder.runc();
    let Ok(entries) = std::fs::read_dir(&root) else { return };
    for entry in entries.filter_map(Result::ok) {
        errors.extend(remove(&root, &entry.file_name()).err());
    }
}

/// Ends a container, however far it came.
fn remove(root: &Path, id: &OsStr) -> Result<(), ProvisionError> {
    let arguments: [&OsStr; 5] = ["--root".as_ref(), root.as_ref(), "delete".as_ref(), "--force".as_ref(), id];
    let removed = RUNC.run(arguments).operation(|| format!("ending node {}", id.to_string_lossy()));
    if root.join(id).exists() { removed.map(drop) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_reaches_the_node_as_base64() {
        let environment = environment("one", Some(b"version: v1alpha1\n")).unwrap();
        assert!(environment.contains(&"PLATFORM=container".to_owned()));
        assert_eq!(environment.last().unwrap(), "USERDATA=dmVyc2lvbjogdjFhbHBoYTEK");
    }

    #[test]
    fn a_configuration_that_no_environment_can_hold_is_refused() {
        let refused = environment("one", Some(&[b'x'; 100_000])).unwrap_err();
        assert!(matches!(refused, ProvisionError::UserData { size: 133_345, .. }), "{refused}");
    }

    #[test]
    fn without_a_configuration_there_is_no_variable_for_it() {
        let environment = environment("one", None).unwrap();
        assert!(!environment.iter().any(|variable| variable.starts_with("USERDATA")));
    }
}
