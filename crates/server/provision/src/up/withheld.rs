//! Configurations that nodes do not get: they are written into a folder of the operator.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::configs::Rendered;
use super::failure::UpError;
use super::{Delivery, UpRequest, Withheld};
use crate::plan::{PlannedNode, Role};

/// The file of each node; nodes with the same configuration share one. None if nodes get their configurations.
pub(super) fn files(request: &UpRequest) -> Vec<Withheld> {
    let Delivery::Withheld { folder } = &request.delivery else { return Vec::new() };
    let first = request.spec.plan.first_control_plane();
    let file = |node: &PlannedNode| match node.role {
        _ if request.config.patches.nodes.contains_key(&node.name) => format!("{}.yaml", node.name),
        Role::ControlPlane if request.config.init_node && first == Some(node) => "init.yaml".to_owned(),
        role => format!("{}.yaml", role.as_str()),
    };
    let nodes = request.spec.plan.nodes.iter();
    nodes.map(|node| Withheld { address: node.address, role: node.role, file: folder.join(file(node)) }).collect()
}

/// Refuses to write over files of somebody.
pub(super) fn check_absent(files: &[Withheld]) -> Result<(), UpError> {
    // A dangling link is in the way as well.
    let there = files.iter().find(|withheld| std::fs::symlink_metadata(&withheld.file).is_ok());
    there.map_or(Ok(()), |withheld| Err(UpError::FileExists(withheld.file.clone())))
}

/// Writes each file, readable by its owner.
pub(super) fn write(request: &UpRequest, rendered: &Rendered) -> Result<(), UpError> {
    let files: BTreeMap<PathBuf, &PlannedNode> =
        files(request).into_iter().map(|withheld| withheld.file).zip(&request.spec.plan.nodes).collect();
    for (path, node) in files {
        client::replace_file(&path, rendered.of(node), 0o600).map_err(|source| UpError::Write { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{NodeSpec, Plan};
    use crate::up::configs::tests::{rendered_for, request as configuration};

    fn request(folder: &std::path::Path, patched: &[&str], init_node: bool) -> UpRequest {
        let plan = Plan::new("one", "10.6.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 2 }).unwrap();
        let mut config = crate::up::ConfigRequest { init_node, ..configuration() };
        config.patches.nodes = patched.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        UpRequest {
            root: folder.to_owned(),
            spec: crate::ClusterSpec {
                plan,
                driver: crate::DriverSettings::Runc { image: "/image".into() },
                bundle: None,
                discoveryd: None,
                kmsd: None,
                reachable: vec![],
                exposed: vec![],
            },
            agent: crate::agent::AgentProgram { program: "/agent".into(), arguments: vec![] },
            config,
            delivery: Delivery::Withheld { folder: folder.to_owned() },
            limits: BTreeMap::new(),
            acceleration: crate::up::Acceleration::Given,
            talosconfig: folder.join("talosconfig"),
            wait: crate::up::Wait::Bootstrapped(std::time::Duration::from_secs(1)),
        }
    }

    fn names(request: &UpRequest) -> Vec<String> {
        let name = |withheld: &Withheld| withheld.file.file_name().unwrap().to_string_lossy().into_owned();
        files(request).iter().map(name).collect()
    }

    #[test]
    fn nodes_share_the_file_of_their_role_unless_they_have_their_own_configuration() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(names(&request(folder.path(), &[], false)), ["controlplane.yaml", "worker.yaml", "worker.yaml"]);
        let own = request(folder.path(), &["one-worker-2"], true);
        assert_eq!(names(&own), ["init.yaml", "worker.yaml", "one-worker-2.yaml"]);
        let injected = UpRequest { delivery: Delivery::Injected, ..own };
        assert_eq!(files(&injected), []);
    }

    #[test]
    fn the_files_are_the_configurations_and_nothing_is_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let request = request(folder.path(), &[], false);
        let rendered = rendered_for(&request.config, &request.spec.plan);
        check_absent(&files(&request)).unwrap();
        write(&request, &rendered).unwrap();
        for (name, node) in [("controlplane.yaml", 0), ("worker.yaml", 2)] {
            let path = folder.path().join(name);
            assert_eq!(std::fs::read(&path).unwrap(), rendered.of(&request.spec.plan.nodes[node]), "{name}");
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let refused = check_absent(&files(&request)).unwrap_err();
        assert!(matches!(&refused, UpError::FileExists(path) if path.ends_with("controlplane.yaml")), "{refused}");
        assert!(!refused.left_something());
    }
}
