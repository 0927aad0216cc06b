//! Every field of the schema is accepted, survives, and is documented; every example fits its field.
//!
//! `testdata/fields.txt` lists the schema: kind, path (`[]` a list step, `*` any key), and type.

use serde_json::{Value, json};

use crate::Documents;
use crate::generate::DOCS;

const FIELDS: &str = include_str!("../../testdata/fields.txt");

fn fields() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    FIELDS.lines().map(|line| {
        let mut parts = line.splitn(3, ' ');
        let mut next = || parts.next().unwrap();
        (next(), next(), next())
    })
}

/// A document with one value at a path.
fn document(kind: &str, path: &str, leaf: Value) -> Value {
    let mut value = leaf;
    for part in path.rsplit('.') {
        let (name, lists) = part.find('[').map_or((part, 0), |at| (&part[..at], (part.len() - at) / 2));
        for _ in 0..lists {
            value = json!([value]);
        }
        let name = if name == "*" { "any" } else { name };
        value = json!({ name: value });
    }
    if kind != "v1alpha1" {
        value["apiVersion"] = json!("v1alpha1");
        value["kind"] = json!(kind);
    }
    value
}

fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let mut value = value;
    for part in path.split('.') {
        let (name, lists) = part.find('[').map_or((part, 0), |at| (&part[..at], (part.len() - at) / 2));
        value = value.get(if name == "*" { "any" } else { name })?;
        for _ in 0..lists {
            value = value.get(0)?;
        }
    }
    Some(value)
}

/// Values of the right type for a field, each with the expected result if it differs.
fn samples(path: &str, kind: &str) -> Vec<(Value, Value)> {
    let same = |value: Value| (value.clone(), value);
    let name = path.rsplit('.').next().unwrap_or_default();
    match kind {
        "text" if path.ends_with("endpoint") && path.starts_with("machine.logging") => vec![same(json!("tcp://a:1"))],
        "text" => vec![same(json!(text_sample(path)))],
        "texts" if name == "certSANs" => vec![same(json!(["a.example"]))],
        "texts" => vec![same(json!([text_sample(path)]))],
        "boolean" => vec![same(json!(true)), same(json!(false))],
        "number" if name == "size" && path.starts_with("machine.disks") => {
            vec![same(json!(5000)), (json!("5 KB"), json!(5000))]
        }
        "number" if name == "mtu" => vec![same(json!(1300))],
        "number" => vec![same(json!(7))],
        "ports" => vec![same(json!([80, "90-100"]))],
        "pairs" if name == "nodeTaints" => vec![same(json!({"a": "b:NoSchedule"}))],
        "pairs" => vec![same(json!({"a": "b"}))],
        "object" => vec![same(json!({"a": {"b": [1, true, "c", null]}}))],
        "objects" => vec![same(json!([{"a": 1}]))],
        "mapping" => vec![same(json!({}))],
        "list" => vec![same(json!([{}]))],
        "mappings" => vec![same(json!({"any": {}}))],
        words if words.starts_with("enum:") && name == "options" => {
            vec![same(json!(["same_cpu_crypt"])), (json!("same_cpu_crypt"), json!(["same_cpu_crypt"]))]
        }
        words if words.starts_with("enum:") => words[5..].split('|').map(|word| same(json!(word))).collect(),
        "pem:crt" => {
            let one = json!({"crt": "YQ=="});
            vec![same(json!([one])), (one.clone(), json!([one]))]
        }
        pem => vec![same(pem[4..].split('|').map(|key| (key.to_owned(), json!("YQ=="))).collect())],
    }
}

/// A text that has the form of its field.
fn text_sample(path: &str) -> &'static str {
    let name = path.rsplit('.').next().unwrap_or_default();
    match name {
        "ip" | "gateway" | "source" | "nameservers" | "clusterDNS" | "arpIPTarget" => "10.0.0.1",
        "subnet" | "except" | "network" | "allowedIPs" | "podSubnets" | "serviceSubnets" => "10.0.0.0/8",
        "addresses" | "validSubnets" | "advertisedSubnets" | "listenSubnets" => "10.0.0.0/8",
        "endpoints" if path.contains("filters") => "10.0.0.0/8",
        "endpoints" | "urls" | "extraManifests" | "manifests" | "apiUrl" => "https://a.example/",
        "endpoint" if path.contains("peers") || path == "endpoint" => "a.example:80",
        "endpoint" => "https://a.example:6443",
        "url" => "udp://a.example:1",
        "timeout" | "limit" | "persistentKeepaliveInterval" | "bootTimeout" | "certLifetime" => "1m30s",
        "privateKey" | "publicKey" => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "hardwareAddr" => "00:11:22:*",
        "allowedRoles" => "os:reader",
        "lacpRate" => "fast",
        "adSelect" => "bandwidth",
        "arpValidate" | "failOverMac" => "none",
        "arpAllTargets" => "all",
        "primaryReselect" => "better",
        "size" => ">= 1TB",
        "xmitHashPolicy" => "layer2",
        "provider" => "luks2",
        "mode" if path.contains("bond") => "802.3ad",
        "mode" => "ipvs",
        "device" | "path" | "mountPath" | "mountpoint" | "destination" => "/var/a",
        _ => "some-text",
    }
}

#[test]
fn every_field_of_the_schema_is_accepted_and_survives() {
    let mut count = 0;
    for (kind, path, what) in fields() {
        for (given, expected) in samples(path, what) {
            let text = yaml::to_text(&document(kind, path, given));
            let documents = Documents::from_yaml(text.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}\n{text}"));
            let written = documents.documents()[0].to_value();
            assert_eq!(at(&written, path), Some(&expected), "{kind} {path}");
            count += 1;
        }
    }
    assert!(count > 380, "{count}");
}

#[test]
fn the_networks_of_our_own_are_accepted() {
    let text = yaml::to_text(&document("v1alpha1", "cluster.network.cni.name", json!("native")));
    Documents::from_yaml(text.as_bytes()).unwrap();
}

#[test]
fn a_field_of_the_wrong_type_is_refused_at_its_path() {
    for (kind, path, what) in fields() {
        let wrong = match what {
            "boolean" | "number" | "text" => json!({"a": ["b"]}),
            "object" | "pairs" | "mapping" => json!("text"),
            _ => continue,
        };
        // the kind and version of a document are looked at before its fields
        if ["kind", "apiVersion", "version"].contains(&path) {
            continue;
        }
        let text = yaml::to_text(&document(kind, path, wrong));
        let errors = Documents::from_yaml(text.as_bytes()).expect_err(path).0;
        let generic = path.replace("[]", "[0]").replace(".*", ".any");
        assert_eq!(errors[0].path, generic, "{errors:?}");
        assert!(errors[0].line > 0);
    }
}

#[test]
fn every_comment_belongs_to_a_field() {
    let known: Vec<String> = fields()
        .map(|(kind, path, _)| if kind == "v1alpha1" { path.to_owned() } else { format!("{kind}.{path}") })
        .chain(fields().map(|(kind, _, _)| kind.to_owned()))
        .chain(["persist".to_owned()])
        .collect();
    for path in DOCS.keys() {
        let part_of_pem = path.rsplit_once('.').is_some_and(|(parent, field)| {
            ["crt", "key"].contains(&field) && known.iter().any(|k| k == parent.trim_end_matches("[]"))
        });
        assert!(part_of_pem || known.iter().any(|k| k == path), "{path} is no field");
    }
}

#[test]
fn every_example_fits_its_field() {
    let mut count = 0;
    for (path, doc) in DOCS.iter().filter(|(_, doc)| !doc.example.is_empty()) {
        let example = super::values(&doc.example.join("\n")).unwrap().remove(0);
        let text = yaml::to_text(&document("v1alpha1", path, example));
        Documents::from_yaml(text.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}"));
        count += 1;
    }
    assert!(count > 40, "{count}");
}
