//! The environment of a node's init.

use provision::{Limits, NodeStatus};

use crate::support::{Place, show, start, start_within, wait_for};

#[test]
fn a_node_has_the_network_the_mounts_and_the_environment_of_its_contract() {
    let place = Place::new();
    let mut cluster = place.create("pt-node", "10.201.0.0/24");
    let limits = Limits { milli_cpus: Some(2000), memory: Some(512 << 20) };
    start_within(&mut cluster, "pt-node-controlplane-1", Some(b"machine: {}\n"), limits);
    let read = |file| place.written("pt-node", "pt-node-controlplane-1", file);

    assert_eq!(read("hostname").trim(), "pt-node-controlplane-1");
    let environment = read("environment");
    assert!(environment.contains("PLATFORM=container\n"), "{environment}");
    assert!(environment.contains("USERDATA=bWFjaGluZToge30K\n"), "{environment}");
    assert!(read("address").contains("inet 10.201.0.2/24"), "{}", read("address"));
    assert!(read("route").contains("default via 10.201.0.1 dev eth0"), "{}", read("route"));
    assert!(read("ping").contains(" 0% packet loss"), "{}", read("ping"));
    assert!(read("kmsg").starts_with("crw"), "{}", read("kmsg"));
    assert!(read("readonly").contains("Read-only file system"), "{}", read("readonly"));
    assert_eq!(read("unwritable"), "");
    assert_ne!(read("cgroup"), "", "a node can make cgroups of its own");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = |text: &str| text.lines().find(|line| line.starts_with("CapBnd")).unwrap().to_owned();
    assert_eq!(bounding(&read("capabilities")), bounding(&own));

    assert_eq!(read("unmasked"), "", "files of the host's kernel that a node need not see");
    assert_eq!(read("sysctl").trim(), "yes", "kubelet sets kernel parameters");

    let mounts = read("mountinfo");
    for (target, kind) in [("/", "squashfs"), ("/run", "tmpfs"), ("/system", "tmpfs"), ("/tmp", "tmpfs")] {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(target));
        let line = line.unwrap_or_else(|| panic!("nothing is mounted on {target}: {mounts}"));
        assert!(line.contains(&format!("- {kind} ")), "{line}");
    }
    let shared = |target: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(target)).unwrap();
        line.split(" - ").next().unwrap().contains("shared:")
    };
    for target in ["/var", "/run", "/system", "/opt"] {
        assert!(shared(target), "mounts of kubelet below {target} must reach pods: {mounts}");
    }
}

#[test]
fn a_node_mounts_nothing_into_the_host_and_starts_with_the_content_of_the_image() {
    let place = Place::new();
    let mut cluster = place.create("pt-seed", "10.202.0.0/24");
    start(&mut cluster, "pt-seed-worker-1", None);
    let environment = place.written("pt-seed", "pt-seed-worker-1", "environment");
    assert!(!environment.contains("USERDATA"), "{environment}");
    let data = place.root().join("pt-seed/nodes/pt-seed-worker-1");
    assert_eq!(std::fs::read_to_string(data.join("opt/cni/bin/plugin")).unwrap(), "from the image");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("pt-seed-worker-1/var/a"), "{mounts}");
}

#[test]
fn nodes_are_shown_with_their_addresses_and_their_state() {
    let place = Place::new();
    let mut cluster = place.create("pt-show", "10.203.0.0/24");
    start(&mut cluster, "pt-show-controlplane-1", None);
    let (state, nodes) = show(&place.root(), "pt-show").unwrap();
    assert_eq!(state.plan.gateway.to_string(), "10.203.0.1");
    let got: Vec<_> = nodes.iter().map(|n| (n.address.to_string(), n.status.to_string())).collect();
    let wanted = [("10.203.0.2", "running"), ("10.203.0.3", "absent")];
    assert_eq!(got, wanted.map(|(address, status)| (address.to_owned(), status.to_owned())));
    assert!(matches!(nodes[0].status, NodeStatus::Running { pid } if pid > 1), "{:?}", nodes[0]);
    wait_for("the log", || !cluster.log_tail("pt-show-controlplane-1", 1).is_empty());
    assert_eq!(cluster.log_tail("pt-show-controlplane-1", 1), ["tiny init is up"]);
}
