//! OCI runtime specifications of the node's own containers.

use serde_json::{Value, json};

/// How much of the host a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// All that machined has, in the host's network, PID, IPC and UTS namespaces: the kubelet.
    Host,
    /// A user without capabilities, in the host's network: etcd.
    User(u32),
}

/// A directory or file of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub source: String,
    pub destination: String,
    pub options: Vec<String>,
}

impl Bind {
    /// Writable, at the same path.
    pub fn writable(path: &str) -> Self {
        Self::with_options(path, &["rbind", "rshared", "rw"])
    }

    /// Read-only, at the same path.
    pub fn readonly(path: &str) -> Self {
        Self::with_options(path, &["rbind", "rshared", "ro"])
    }

    fn with_options(path: &str, options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        Self { source: path.to_owned(), destination: path.to_owned(), options }
    }
}

/// The differences between containers.
#[derive(Debug, Clone)]
pub struct Shape {
    pub args: Vec<String>,
    pub environment: Vec<String>,
    pub privilege: Privilege,
    pub binds: Vec<Bind>,
    pub oom_score_adj: Option<i32>,
    /// Absolute path of the group.
    pub cgroup: String,
}

/// The specification. `capabilities` are the names that a host-privileged container may ask for: more than the
/// bounding set of this process holds would be refused.
pub fn specification(shape: &Shape, capabilities: &[&str]) -> Value {
    let (user, caps, namespaces): (u32, &[&str], &[&str]) = match shape.privilege {
        Privilege::Host => (0, capabilities, &["mount"]),
        Privilege::User(user) => (user, &[], &["mount", "pid", "ipc"]),
    };
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    let mut mounts = base_mounts(shape.privilege);
    mounts.extend(shape.binds.iter().map(
        |bind| json!({ "destination": bind.destination, "type": "bind", "source": bind.source, "options": bind.options }),
    ));
    let mut process = json!({
        "terminal": false,
        "user": { "uid": user, "gid": user },
        "args": shape.args,
        "env": shape.environment,
        "cwd": "/",
        "capabilities": { "bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": [] },
        "noNewPrivileges": shape.privilege != Privilege::Host,
    });
    if let Some(score) = shape.oom_score_adj {
        process["oomScoreAdj"] = json!(score);
    }
    json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": { "path": "rootfs", "readonly": shape.privilege != Privilege::Host },
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": shape.cgroup,
            "rootfsPropagation": "rshared",
            "resources": { "devices": [{ "allow": true, "access": "rwm" }] },
        },
    })
}

fn base_mounts(privilege: Privilege) -> Vec<Value> {
    let proc =
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] });
    let tmp = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777", "size=64m"] });
    match privilege {
        Privilege::Host => vec![proc, tmp],
        Privilege::User(_) => vec![
            proc,
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=64k"] }),
            tmp,
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(privilege: Privilege) -> Shape {
        Shape {
            args: vec!["x".into()],
            environment: Vec::new(),
            privilege,
            binds: vec![Bind::readonly("/etc")],
            oom_score_adj: None,
            cgroup: "/podruntime/x".into(),
        }
    }

    #[test]
    fn a_user_container_has_no_capability_and_a_read_only_root() {
        let spec = specification(&shape(Privilege::User(60)), &["CAP_SYS_ADMIN"]);
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!([]));
        assert_eq!(spec["process"]["user"]["uid"], 60);
        assert_eq!(spec["root"]["readonly"], true);
        assert_eq!(spec["process"]["noNewPrivileges"], true);
        assert_eq!(spec["process"].get("oomScoreAdj"), None);
    }

    #[test]
    fn a_host_container_asks_for_what_this_machine_can_give() {
        let spec = specification(&shape(Privilege::Host), &["CAP_SYS_ADMIN"]);
        assert_eq!(spec["process"]["capabilities"]["effective"], json!(["CAP_SYS_ADMIN"]));
        assert_eq!(spec["linux"]["namespaces"], json!([{ "type": "mount" }]));
    }
}
