use super::*;
use crate::spec::Sensitivity;

/// `testdata/types.txt`, the list of types that clients know, against the registered types.
#[test]
fn every_type_that_clients_know_is_registered_with_its_namespace_aliases_and_columns() {
    let expected: Vec<&str> =
        include_str!("../../testdata/types.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let registered: Vec<String> = definitions().iter().map(|definition| line(definition)).collect();
    assert_eq!(registered, expected);
}

fn line(definition: &Definition) -> String {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let sensitivity = match definition.sensitivity {
        Sensitivity::Sensitive => "sensitive",
        Sensitivity::NonSensitive => "open",
    };
    let columns: Vec<_> =
        definition.columns.iter().map(|column| format!("{}={}", column.name, column.json_path)).collect();
    [
        definition.type_name.to_owned(),
        definition.namespace.to_owned(),
        sensitivity.to_owned(),
        or_dash(definition.aliases.join(" ")),
        or_dash(columns.join("; ")),
    ]
    .join(" | ")
}

#[test]
fn columns_point_at_keys_that_the_specs_have() {
    for (paths, keys) in [
        (network::LinkStatus::DEFINITION, network::LinkStatus::default().to_yaml()),
        (cluster::Member::DEFINITION, cluster::Member::default().to_yaml()),
        (
            network::RouteStatus::DEFINITION,
            network::RouteStatus { out_link_name: "eth0".into(), ..Default::default() }.to_yaml(),
        ),
        (runtime::MachineStatus::DEFINITION, runtime::MachineStatus::default().to_yaml()),
        (time::AdjtimeStatus::DEFINITION, time::AdjtimeStatus::default().to_yaml()),
    ] {
        for column in paths.columns {
            let pointer = column.json_path.trim_matches(['{', '}']).replace('.', "/");
            assert!(keys.pointer(&pointer).is_some(), "{} {}", paths.type_name, column.json_path);
        }
    }
}

#[test]
fn a_type_is_found_by_full_name_plural_singular_and_alias_in_any_case() {
    for name in [
        "AddressStatuses.net.talos.dev",
        "addressstatuses.net.talos.dev",
        "addressstatuses",
        "AddressStatus",
        "addressstatuses.net",
        "address",
    ] {
        let found = find_definition(name).map(|definition| definition.type_name);
        assert_eq!(found, Some("AddressStatuses.net.talos.dev"), "{name}");
    }
    assert_eq!(find_definition("mc").map(|definition| definition.type_name), Some("MachineConfigs.config.talos.dev"));
    assert_eq!(find_definition("nonsense"), None);
}
