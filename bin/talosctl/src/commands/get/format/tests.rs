use client::PrintColumn;

use super::*;

fn definition() -> Definition {
    let column = |name: &str, path: &str| PrintColumn { name: name.to_owned(), json_path: path.to_owned() };
    Definition {
        resource_type: "AddressStatuses.net.talos.dev".to_owned(),
        display_type: "AddressStatus".to_owned(),
        default_namespace: "network".to_owned(),
        columns: vec![column("Address", "{.address}"), column("Link", "{.linkName}")],
        ..Definition::default()
    }
}

fn resource(id: &str, yaml: &str, spec: Value) -> Resource {
    let metadata = ResourceMetadata {
        namespace: "network".to_owned(),
        resource_type: "AddressStatuses.net.talos.dev".to_owned(),
        id: id.to_owned(),
        version: "2".to_owned(),
        owner: "network.AddressStatusController".to_owned(),
        phase: "running".to_owned(),
        created: Some((1_700_000_000, 5)),
        updated: Some((1_700_000_060, 0)),
        ..ResourceMetadata::default()
    };
    Resource { metadata, spec, yaml: yaml.to_owned() }
}

fn address() -> Resource {
    let spec = json!({"address": "10.5.0.2/24", "linkName": "eth0"});
    resource("eth0/10.5.0.2/24", "# as observed\naddress: 10.5.0.2/24\nlinkName: eth0\n", spec)
}

fn printer(output: &str, change: Change) -> Printer {
    Printer::new(output.parse().unwrap(), &definition(), change).unwrap()
}

#[test]
fn a_table_has_the_columns_of_the_type() {
    let mut printer = printer("table", Change::Hidden);
    printer.add("10.5.0.2", &address(), None).unwrap();
    let expected = "\
NODE       NAMESPACE   TYPE            ID                 VERSION   ADDRESS       LINK
10.5.0.2   network     AddressStatus   eth0/10.5.0.2/24   2         10.5.0.2/24   eth0";
    assert_eq!(printer.take(), expected);
}

#[test]
fn a_watch_shows_the_kind_of_change() {
    let mut printer = printer("table", Change::Shown);
    let short = || resource("a", "address: x", json!({"address": "x"}));
    printer.add("n", &short(), Some(&WatchEventKind::Created)).unwrap();
    let expected = "\
NODE   *   NAMESPACE   TYPE            ID   VERSION   ADDRESS   LINK
n      +   network     AddressStatus   a    2         x         ";
    assert_eq!(printer.take(), expected);
    printer.add("n", &short(), Some(&WatchEventKind::Updated)).unwrap();
    printer.add("n", &short(), Some(&WatchEventKind::Destroyed)).unwrap();
    let expected = "\
n          network     AddressStatus   a    2         x         
n      -   network     AddressStatus   a    2         x         ";
    assert_eq!(printer.take(), expected);
}

#[test]
fn yaml_keeps_the_spec_as_the_node_wrote_it() {
    let mut printer = printer("yaml", Change::Hidden);
    printer.add("10.5.0.2", &address(), None).unwrap();
    printer.add("10.5.0.2", &resource("m", "controlplane\n", json!("controlplane")), None).unwrap();
    let text = printer.take();
    let expected = "\
    phase: running
    created: 2023-11-14T22:13:20Z
    updated: 2023-11-14T22:14:20Z
spec:
    # as observed
    address: 10.5.0.2/24
    linkName: eth0
---
node: ";
    assert!(text.contains(expected), "{text}");
    assert!(text.starts_with("node: 10.5.0.2\nmetadata:\n"), "{text}");
    assert!(text.ends_with("\nspec: controlplane"), "{text}");
    let documents: Vec<Value> = yaml::from_multiple(&text).unwrap();
    assert_eq!(documents[0]["node"], "10.5.0.2");
    assert_eq!(documents[0]["metadata"]["version"], 2);
    assert_eq!(documents[0]["spec"]["linkName"], "eth0");
    assert_eq!(documents[1]["spec"], "controlplane");
}

#[test]
fn a_block_of_text_is_indented_once() {
    let mut printer = printer("yaml", Change::Hidden);
    let text = "version: v1alpha1\ndebug: false\n";
    printer.add("n", &resource("a", "|\n    version: v1alpha1\n    debug: false\n", json!(text)), None).unwrap();
    let shown = printer.take();
    assert!(shown.ends_with("\nspec: |\n    version: v1alpha1\n    debug: false"), "{shown}");
}

#[test]
fn yaml_of_block_scalars_and_empty_specs_reads_back() {
    for (yaml, spec) in [
        ("|\n    version: v1alpha1\n\n    machine: {}\n", json!("version: v1alpha1\n\nmachine: {}\n")),
        ("{}\n", json!({})),
        ("- a\n- b\n", json!(["a", "b"])),
        ("", Value::Null),
    ] {
        let mut printer = printer("yaml", Change::Hidden);
        printer.add("n", &resource("a", yaml, spec.clone()), None).unwrap();
        let read: Value = yaml::from_str(&printer.take()).unwrap();
        let expected = if spec.is_null() { json!({}) } else { spec };
        let expected = expected.as_str().map_or(expected.clone(), |text| json!(text.trim_end()));
        let found = read["spec"].as_str().map_or(read["spec"].clone(), |text| json!(text.trim_end()));
        assert_eq!(found, expected, "{yaml:?}");
    }
}

#[test]
fn json_and_jsonpath_see_node_metadata_and_spec() {
    let mut json_printer = printer("json", Change::Shown);
    json_printer.add("n", &address(), Some(&WatchEventKind::Created)).unwrap();
    let expected = r#"{
    "event": "created",
    "metadata": {
        "created": "2023-11-14T22:13:20Z",
        "id": "eth0/10.5.0.2/24",
        "namespace": "network",
        "owner": "network.AddressStatusController",
        "phase": "running",
        "type": "AddressStatuses.net.talos.dev",
        "updated": "2023-11-14T22:14:20Z",
        "version": 2
    },
    "node": "n",
    "spec": {
        "address": "10.5.0.2/24",
        "linkName": "eth0"
    }
}"#;
    assert_eq!(json_printer.take(), expected);
    let mut path_printer = printer("jsonpath={.metadata.id}={.spec.linkName}", Change::Hidden);
    path_printer.add("n", &address(), None).unwrap();
    assert_eq!(path_printer.take(), "eth0/10.5.0.2/24=eth0");
}

#[test]
fn a_jsonpath_that_leads_nowhere_is_an_error_and_an_empty_column_is_not() {
    let mut printer = printer("jsonpath={.spec.nope}", Change::Hidden);
    let error = printer.add("n", &address(), None).unwrap_err();
    assert_eq!(error.kind, crate::command_error::Kind::Failed);
    assert_eq!(stdx::error_chain(error.error.as_ref()), "formatting eth0/10.5.0.2/24: nope is not found");
    let mut table = self::printer("table", Change::Hidden);
    table.add("n", &resource("a", "{}", json!({})), None).unwrap();
    assert!(table.take().ends_with("AddressStatus   a    2                   "), "both cells are empty");
}

#[test]
fn other_outputs_are_refused() {
    let error = "wide".parse::<Format>().unwrap_err();
    assert_eq!(error.kind, crate::command_error::Kind::Usage);
    assert_eq!(error.error.to_string(), "output format \"wide\" is not supported");
    assert_eq!("jsonpath={.a".parse::<Format>().unwrap_err().kind, crate::command_error::Kind::Usage);
}
