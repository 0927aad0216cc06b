//! Remains of a cluster after its removal, and refusals before anything is created.

use provision::{Cluster, DriverSettings, NodeStatus, Problem, ProvisionError};

use crate::support::{self, Place, census, kinds, make, run, show, start};

fn destroy(place: &Place, name: &str) {
    let destroyed = support::destroy(&place.root(), name).unwrap();
    assert!(destroyed.errors.is_empty(), "{:?}", destroyed.errors);
    let left = census(&place.root(), name);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

#[test]
fn nothing_is_left_of_a_cluster_that_is_destroyed() {
    let place = Place::new();
    let mut cluster = place.create("pt-gone", "10.204.0.0/24");
    for node in ["pt-gone-controlplane-1", "pt-gone-worker-1"] {
        start(&mut cluster, node, Some(b"x"));
        place.written("pt-gone", node, "hostname");
    }
    drop(cluster);
    let before = census(&place.root(), "pt-gone");
    assert_eq!(kinds(&before), ["agent", "cgroup", "folder", "link", "mount", "process", "table"], "{before:#?}");
    destroy(&place, "pt-gone");
    let again = support::destroy(&place.root(), "pt-gone").unwrap_err();
    assert!(matches!(again, ProvisionError::NoSuchCluster { .. }), "{again}");
}

#[test]
fn a_create_that_was_killed_at_any_step_is_cleaned_up() {
    let place = Place::new();
    // The state is written first; a killed create leaves a prefix of the parts.
    let mut cluster = place.create("pt-half", "10.205.0.0/24");
    start(&mut cluster, "pt-half-worker-1", None);
    let plan = cluster.plan().clone();
    drop(cluster);
    run("ip", &["link", "delete", &plan.nodes[1].link]);
    run("nft", &["delete", "table", "inet", &plan.table]);
    std::fs::remove_file(place.root().join("pt-half/state.json")).unwrap();
    destroy(&place, "pt-half");

    // The very first moment: a folder and nothing else.
    std::fs::create_dir_all(place.root().join("pt-half")).unwrap();
    destroy(&place, "pt-half");
}

#[test]
fn a_cluster_whose_mounts_and_links_a_reboot_took_is_cleaned_up() {
    let place = Place::new();
    let mut cluster = place.create("pt-boot", "10.206.0.0/24");
    start(&mut cluster, "pt-boot-worker-1", None);
    let plan = cluster.plan().clone();
    drop(cluster);
    // A reboot leaves the files, with process numbers that mean nothing any more.
    let folder = place.root().join("pt-boot");
    let runc = folder.join("runc");
    let kept = place.root().join("kept");
    run("cp", &["-a", &runc.to_string_lossy(), &kept.to_string_lossy()]);
    let id = "pt-boot-worker-1";
    run("runc", &["--root", &runc.to_string_lossy(), "delete", "--force", id]);
    for mount in [folder.join("netns/pt-boot-worker-1"), folder.join("root")] {
        run("umount", &[&mount.to_string_lossy()]);
    }
    run("ip", &["link", "delete", &plan.bridge]);
    run("nft", &["delete", "table", "inet", &plan.table]);
    std::fs::remove_dir_all(&runc).unwrap();
    std::fs::rename(&kept, &runc).unwrap();
    destroy(&place, "pt-boot");
}

#[test]
fn clusters_side_by_side_do_not_touch_each_other() {
    let place = Place::new();
    let mut one = place.create("pt-one", "10.207.0.0/24");
    let mut two = place.create("pt-two", "10.208.0.0/24");
    start(&mut one, "pt-one-worker-1", None);
    start(&mut two, "pt-two-worker-1", None);
    place.written("pt-one", "pt-one-worker-1", "hostname");
    place.written("pt-two", "pt-two-worker-1", "hostname");
    drop((one, two));
    let before = census(&place.root(), "pt-two");
    destroy(&place, "pt-one");
    assert_eq!(census(&place.root(), "pt-two"), before);
    let (_, nodes) = show(&place.root(), "pt-two").unwrap();
    assert!(matches!(nodes[1].status, NodeStatus::Running { .. }), "{:?}", nodes[1]);
    destroy(&place, "pt-two");
}

fn refused(result: Result<Cluster, ProvisionError>) -> Vec<String> {
    match result {
        Err(ProvisionError::Refused { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_name_a_network_or_an_image_that_cannot_be_used_is_refused_before_anything_is_made() {
    let place = Place::new();
    let cluster = place.create("pt-used", "10.209.0.0/24");
    drop(cluster);
    let before = census(&place.root(), "pt-used");

    let problems = refused(make(&place.root(), &place.spec("pt-used", "10.210.0.0/24")));
    assert!(problems.len() == 1 && problems[0].starts_with("a cluster pt-used exists"), "{problems:?}");
    let problems = refused(make(&place.root(), &place.spec("pt-other", "10.209.0.128/25")));
    assert_eq!(problems, ["network 10.209.0.128/25 overlaps 10.209.0.0/24 of cluster pt-used (choose another --cidr)"]);
    let elsewhere = place.root().join("elsewhere");
    let problems = refused(make(&elsewhere, &place.spec("pt-other", "10.209.0.0/16")));
    assert!(problems.len() == 1 && problems[0].contains("which this machine reaches by talos"), "{problems:?}");
    let mut spec = place.spec("pt-other", "10.211.0.0/24");
    spec.driver = DriverSettings::Runc { image: place.root().join("no image") };
    let problems = refused(make(&place.root(), &spec));
    assert!(problems.len() == 1 && problems[0].contains("cannot be read"), "{problems:?}");
    let problems = refused(make(&place.root(), &place.spec("pt-other", "10.244.7.0/24")));
    assert!(problems.len() == 1 && problems[0].contains("of the cluster's pods"), "{problems:?}");

    assert_eq!(census(&place.root(), "pt-used"), before);
    assert!(census(&place.root(), "pt-other").is_empty() && !elsewhere.exists());
    destroy(&place, "pt-used");
}
