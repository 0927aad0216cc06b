use super::*;
use crate::folder::make_folder;
use crate::plan::{NodeSpec, Role};

pub(crate) fn state(name: &str) -> State {
    let plan = Plan::new(name, "10.5.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 1 }).unwrap();
    let limits = Limits { milli_cpus: Some(2000), memory: None };
    let nodes = [(format!("{name}-worker-1"), NodeSettings { limits, power: Power::On })].into();
    State { nodes, ..State::new(plan, DriverSettings::Runc { image: PathBuf::from("/image") }) }
}

/// As the program before this one wrote it.
const VERSION_1: &str = r#"{
  "phase": "created",
  "plan": {
    "name": "one", "cidr": "10.5.0.0/24", "gateway": "10.5.0.1", "mtu": 1500,
    "bridge": "talos7692c3ad", "table": "talos_one",
    "nodes": [
      { "name": "one-controlplane-1", "role": "controlplane", "address": "10.5.0.2", "link": "tn7692c3adn1" },
      { "name": "one-worker-1", "role": "worker", "address": "10.5.0.3", "link": "tn7692c3adn2" },
      { "name": "one-worker-2", "role": "worker", "address": "10.5.0.4", "link": "tn7692c3adn3" }
    ]
  },
  "image": "/image", "bundle": "/bundle", "discoveryd": null,
  "kubernetesVersion": "1.20.2", "kubernetesEndpoint": "https://10.5.0.2:6443",
  "limits": { "controlplane": { "milliCpus": 2000, "memory": 2147483648 }, "worker": { "milliCpus": null, "memory": null } }
}"#;

#[test]
fn state_is_read_back_as_it_was_written() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::new(root.path(), "one").unwrap();
    make_folder(folder.path()).unwrap();
    assert_eq!(State::read(&folder).unwrap(), None);
    state("one").write(&folder).unwrap();
    assert_eq!(State::read(&folder).unwrap(), Some(state("one")));
    make_folder(&root.path().join("two")).unwrap();
    let mut all = siblings(root.path());
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all, [("one".to_owned(), Some(state("one"))), ("two".to_owned(), None)]);
}

#[test]
fn a_broken_state_names_its_folder() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::new(root.path(), "one").unwrap();
    make_folder(folder.path()).unwrap();
    for broken in ["{", r#"{"phase":"created"}"#, r#"{"version":"two"}"#] {
        std::fs::write(folder.state_file(), broken).unwrap();
        let error = State::read(&folder).unwrap_err();
        assert!(matches!(&error, ProvisionError::Decode { path, .. } if path == folder.path()), "{error}");
    }
}

#[test]
fn a_state_without_a_version_keeps_every_node_where_it_is() {
    let state = State::decode(Path::new("/one"), VERSION_1.as_bytes()).unwrap();
    let driver = DriverSettings::Runc { image: PathBuf::from("/image") };
    assert_eq!((state.version, state.driver.clone(), state.phase), (VERSION, driver, Phase::Created));
    let nodes: Vec<_> = state.plan.nodes.iter().map(|n| (n.name.as_str(), n.slot, n.address.to_string())).collect();
    let wanted =
        [("one-controlplane-1", 1, "10.5.0.2"), ("one-worker-1", 2, "10.5.0.3"), ("one-worker-2", 3, "10.5.0.4")];
    assert_eq!(nodes, wanted.map(|(name, slot, address)| (name, slot, address.to_owned())));
    assert_eq!(state.settings("one-controlplane-1").limits.memory, Some(2 << 30));
    assert_eq!(state.settings("one-worker-1"), NodeSettings::default());
    let mut plan = state.plan;
    let added = plan.add(Role::Worker).unwrap();
    assert_eq!((added.name.as_str(), added.slot, added.address.to_string().as_str()), ("one-worker-3", 4, "10.5.0.5"));
}

#[test]
fn a_state_of_a_newer_program_is_refused_with_both_versions() {
    let mut value = serde_json::to_value(state("one")).unwrap();
    value["version"] = 4.into();
    let refused = State::decode(Path::new("/one"), value.to_string().as_bytes()).unwrap_err();
    assert!(matches!(refused, ProvisionError::NewerState { version: 4, known: VERSION, .. }), "{refused}");
}

#[test]
fn a_state_of_version_2_keeps_its_image() {
    let mut value = serde_json::to_value(state("one")).unwrap();
    value["version"] = 2.into();
    value["driver"] = "runc".into();
    value["image"] = "/image".into();
    let state = State::decode(Path::new("/one"), value.to_string().as_bytes()).unwrap();
    assert_eq!(state, super::tests::state("one"));
}

#[test]
fn the_settings_of_machines_are_read_back_as_they_were_written() {
    let settings = crate::machines::tests::settings();
    let written = State { driver: DriverSettings::Qemu(Box::new(settings)), ..state("one") };
    let text = serde_json::to_vec(&written).unwrap();
    assert_eq!(State::decode(Path::new("/one"), &text).unwrap(), written);
}
