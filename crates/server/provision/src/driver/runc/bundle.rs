//! Inputs of a node's container: persistent folders, environment, and the bundle for runc.

use std::ffi::OsStr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::container::{MOUNT_POINTS, NodeContainer, PERSISTENT, render};
use super::host::Host;
use crate::command::CP;
use crate::error::{DriverError, HostError, Operation as _};
use crate::folder::{Folder, make_folder, write_private};
use crate::plan::{PlannedNode, cgroup_name};
use crate::spec::Limits;

/// The longest variable of an environment that the kernel takes (32 pages), with its name and the end.
const ENVIRONMENT_LIMIT: usize = 32 * 4096 - 1;

/// Refuses an image without init or without a folder where something is mounted.
pub(super) fn check_image(image: &Path, root: &Path) -> Result<(), DriverError> {
    let lacks = |missing: &str| DriverError::Unusable {
        subject: format!("node image {}", image.display()),
        reason: format!("it lacks {missing}"),
    };
    if let Some(folder) = MOUNT_POINTS.iter().find(|folder| !root.join(folder).is_dir()) {
        return Err(lacks(&format!("the folder /{folder}")));
    }
    if std::fs::symlink_metadata(root.join("sbin/init")).is_err() {
        return Err(lacks("/sbin/init"));
    }
    Ok(())
}

/// Makes the node's persistent folders; new ones start with the image's content.
pub(super) fn make_disks(folder: &Folder, node: &str) -> Result<(), HostError> {
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
            std::fs::remove_dir_all(&fresh).map_err(HostError::io("removing", &fresh))?;
        }
        if source.is_dir() {
            let arguments = [OsStr::new("--archive"), source.as_os_str(), fresh.as_os_str()];
            CP.run(arguments).operation(|| format!("filling {inside} of node {node}"))?;
        } else {
            std::fs::create_dir(&fresh).map_err(HostError::io("making folder", &fresh))?;
        }
        std::fs::rename(&fresh, &target).map_err(HostError::io("making folder", &target))?;
    }
    Ok(())
}

/// Writes the node's bundle, which every start of it uses.
pub(super) fn write(
    folder: &Folder,
    cluster: &str,
    node: &PlannedNode,
    user_data: Option<&[u8]>,
    limits: Limits,
) -> Result<(), DriverError> {
    let bundle = folder.bundle(&node.name);
    make_folder(&bundle)?;
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
    let encode = |source| HostError::Encode { subject: "runtime configuration", source };
    let config = serde_json::to_vec_pretty(&render(&container)).map_err(encode)?;
    Ok(write_private(&bundle.join("config.json"), &config)?)
}

fn environment(node: &str, user_data: Option<&[u8]>) -> Result<Vec<String>, DriverError> {
    let mut environment = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "PLATFORM=container".to_owned(),
        "TALOSSKU=local".to_owned(),
    ];
    if let Some(data) = user_data {
        let variable = format!("USERDATA={}", STANDARD.encode(data));
        if variable.len() > ENVIRONMENT_LIMIT {
            let (size, limit) = (variable.len(), ENVIRONMENT_LIMIT);
            return Err(DriverError::Unusable {
                subject: format!("configuration of node {node}"),
                reason: format!("it has {size} bytes in the node's environment, which holds {limit}"),
            });
        }
        environment.push(variable);
    }
    Ok(environment)
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
        assert!(matches!(&refused, DriverError::Unusable { reason, .. } if reason.contains("133345")), "{refused}");
    }

    #[test]
    fn without_a_configuration_there_is_no_variable_for_it() {
        let environment = environment("one", None).unwrap();
        assert!(!environment.iter().any(|variable| variable.starts_with("USERDATA")));
    }
}
