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

/// The kind of mounts that show a directory or file of the host.
const BIND: &str = "bind";

/// A filesystem, or a directory or file of the host, that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `bind`, or a type of filesystem.
    pub kind: String,
    pub source: String,
    pub destination: String,
    pub options: Vec<String>,
}

impl Mount {
    /// Writable, at the same path.
    pub fn writable(path: &str) -> Self {
        Self::bind(path, &["rbind", "rshared", "rw"])
    }

    /// Read-only, at the same path.
    pub fn readonly(path: &str) -> Self {
        Self::bind(path, &["rbind", "rshared", "ro"])
    }

    fn bind(path: &str, options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        Self { kind: BIND.to_owned(), source: path.to_owned(), destination: path.to_owned(), options }
    }

    /// Whether it shows a directory or file of the host.
    pub fn is_bind(&self) -> bool {
        self.kind == BIND
    }
}

impl From<&resources::values::Mount> for Mount {
    /// Without a type it is a bind mount.
    fn from(mount: &resources::values::Mount) -> Self {
        Self {
            kind: if mount.r#type.is_empty() { BIND.to_owned() } else { mount.r#type.clone() },
            source: mount.source.clone(),
            destination: mount.destination.clone(),
            options: mount.options.clone(),
        }
    }
}

/// The differences between containers.
#[derive(Debug, Clone)]
pub struct Shape {
    pub args: Vec<String>,
    pub environment: Vec<String>,
    pub privilege: Privilege,
    pub mounts: Vec<Mount>,
    pub oom_score_adj: Option<i32>,
    /// Absolute path of the group.
    pub cgroup: String,
}

/// Variables of a container, in place of the `PATH` that its programs are found by if they have one.
pub(crate) fn with_path(path: &str, environment: &[String]) -> Vec<String> {
    let has_path = environment.iter().any(|variable| variable.starts_with("PATH="));
    let own = (!has_path).then(|| format!("PATH={path}"));
    own.into_iter().chain(environment.iter().cloned()).collect()
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
    mounts.extend(shape.mounts.iter().map(
        |mount| json!({ "destination": mount.destination, "type": mount.kind, "source": mount.source, "options": mount.options }),
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
            mounts: vec![Mount::readonly("/etc")],
            oom_score_adj: None,
            cgroup: "/podruntime/x".into(),
        }
    }

    #[test]
    fn a_container_has_one_path() {
        let environment = |variables: &[&str]| variables.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(with_path("/bin", &environment(&["A=1"])), ["PATH=/bin", "A=1"]);
        assert_eq!(with_path("/bin", &environment(&["A=1", "PATH=/opt"])), ["A=1", "PATH=/opt"]);
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

    /// Every mount was a bind mount, whatever its type.
    #[test]
    fn a_mount_has_the_type_that_it_was_given() {
        let mount = |kind: &str| resources::values::Mount {
            r#type: kind.to_owned(),
            source: "/var/x".to_owned(),
            ..resources::values::Mount::default()
        };
        let kinds = ["", "bind", "tmpfs"];
        let mounts = kinds.map(|kind| Mount::from(&mount(kind))).to_vec();
        assert_eq!(mounts.iter().map(Mount::is_bind).collect::<Vec<_>>(), [true, true, false]);
        let spec = specification(&Shape { mounts, ..shape(Privilege::Host) }, &[]);
        let all = spec["mounts"].as_array().unwrap();
        let types: Vec<_> =
            all[all.len() - kinds.len()..].iter().map(|mount| mount["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["bind", "bind", "tmpfs"]);
    }

    #[test]
    fn a_host_container_asks_for_what_this_machine_can_give() {
        let spec = specification(&shape(Privilege::Host), &["CAP_SYS_ADMIN"]);
        assert_eq!(spec["process"]["capabilities"]["effective"], json!(["CAP_SYS_ADMIN"]));
        assert_eq!(spec["linux"]["namespaces"], json!([{ "type": "mount" }]));
    }
}
