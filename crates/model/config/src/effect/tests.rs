use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

/// Every field of the schema: kind, path, type.
const SCHEMA: &str = include_str!("../../testdata/fields.txt");
/// Fields that are accepted besides those of the schema.
const BESIDE_THE_SCHEMA: [(&str, &str); 1] = [("v1alpha1", "persist")];
/// How many fields have no effect. It may only fall: lower it when a field takes effect.
const PENDING: usize = 106;

/// The fields that hold a value, without the mappings and lists around them.
fn leaves() -> impl Iterator<Item = (&'static str, &'static str)> {
    let fields = SCHEMA.lines().map(|line| {
        let mut parts = line.splitn(3, ' ');
        let mut next = || parts.next().unwrap();
        (next(), next(), next())
    });
    let outer = |what: &str| ["mapping", "list", "mappings"].contains(&what);
    // an empty mapping is a value where nothing is below it
    let holds = |kind: &str, path: &str| {
        SCHEMA
            .lines()
            .any(|line| line.split(' ').next() == Some(kind) && is_below(line.split(' ').nth(1).unwrap(), path))
    };
    fields
        .filter(move |(kind, path, what)| !(outer(what) && holds(kind, path)))
        .map(|(kind, path, _)| (kind, path))
        .chain(BESIDE_THE_SCHEMA)
}

/// The line of the table for a field: the longest path that leads to it.
fn line(kind: &str, path: &str) -> Option<&'static Field> {
    let fits = |field: &&Field| {
        field.kind == kind && (field.path == path || field.path.is_empty() || is_below(path, field.path))
    };
    FIELDS.iter().filter(fits).max_by_key(|field| field.path.len())
}

#[test]
fn every_field_is_read_or_waits_for_something() {
    let missing: Vec<_> = leaves().filter(|(kind, path)| line(kind, path).is_none()).collect();
    assert_eq!(missing, []);
}

#[test]
fn the_list_of_fields_without_effect_only_shrinks() {
    let pending =
        leaves().filter(|(kind, path)| !matches!(line(kind, path).unwrap().effect, Effect::ReadBy(_))).count();
    assert!(pending <= PENDING, "{pending} fields have no effect, {} more than before", pending - PENDING);
    assert_eq!(pending, PENDING, "fewer than before: lower the number in this test");
}

#[test]
fn every_line_is_about_a_field_and_no_line_is_hidden() {
    let known: Vec<_> = leaves().collect();
    for field in FIELDS {
        let used = known.iter().any(|(kind, path)| line(kind, path).is_some_and(|line| std::ptr::eq(line, field)));
        assert!(used, "{} {:?} is about no field", field.kind, field.path);
    }
}

#[test]
fn every_reader_is_in_the_source() {
    let mut text = String::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders: Vec<PathBuf> = vec![crates.join("domain"), crates.join("../bin/machined/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let readers = FIELDS.iter().filter_map(|field| match field.effect {
        Effect::ReadBy(reader) if reader != "config" => Some(reader),
        _ => None,
    });
    let missing: BTreeSet<_> = readers.filter(|reader| !text.contains(&format!("{reader:?}"))).collect();
    assert_eq!(missing, BTreeSet::new(), "no controller of these names");
}

fn found(text: &str) -> Vec<(usize, String, usize)> {
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    warnings(&documents).into_iter().map(|w| (w.document, w.path, w.line)).collect()
}

#[test]
fn fields_that_nobody_reads_are_warned_about_with_document_path_and_line() {
    let text = "\
machine:
    disks:
        - device: /dev/sdb
          partitions:
            - mountpoint: /var/mnt/data
              size: 1 GB
    udev:
        rules:
          - KERNEL==sda
    logging:
        destinations:
            - endpoint: udp://10.7.0.1:5514/
              format: json_lines
    kubelet:
        extraMounts:
            - destination: /var/a
              uidMappings: [{size: 1}]
---
apiVersion: v1alpha1
kind: KmsgLogConfig
name: remote
url: udp://10.7.0.1:5516/
---
apiVersion: v1alpha1
kind: SideroLinkConfig
apiUrl: grpc://10.7.0.1:5516
";
    let paths = [(0, "machine.kubelet.extraMounts[0].uidMappings", 17), (2, "", 24)];
    assert_eq!(found(text), paths.map(|(document, path, line)| (document, path.to_owned(), line)));
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    assert_eq!(
        warnings(&documents)[1].to_string(),
        "document 3 (SideroLinkConfig), line 24, column 1: has no effect yet: waits for SideroLink"
    );
}

#[test]
fn a_value_that_asks_for_what_happens_anyway_is_no_warning() {
    let text = "debug: no\nmachine:\n  features: {rbac: true, apidCheckExtKeyUsage: yes, hostDNS: {enabled: false}}\n  \
                network: {interfaces: [], kubespan: {enabled: false}}\n  time: {disabled: true}\n  files: []\ncluster:\n  \
                discovery: {registries: {kubernetes: {disabled: true}}}\n";
    assert_eq!(found(text), []);
}

#[test]
fn persistence_and_roles_do_not_claim_an_effect_that_they_have_not() {
    let text = "debug: true\npersist: false\nmachine:\n  type: worker\n  features: {rbac: false}\n";
    let report = crate::validate(&Documents::from_yaml(text.as_bytes()).unwrap(), crate::Mode::Container);
    assert_eq!(report.warnings, []);
    let effects = report.remarks.iter().filter(|remark| remark.message.contains("effect"));
    let pending: Vec<_> = effects.map(|w| (w.path.as_str(), w.message.as_str())).collect();
    let expected = [
        ("persist", "has no effect yet: waits for configurations that a reboot forgets"),
        ("machine.features.rbac", "has no effect: roles are always enforced"),
    ];
    assert_eq!(pending, expected);
}

#[test]
fn the_number_of_warnings_is_bounded() {
    let mounts: String =
        (0..5000).map(|n| format!("      - {{destination: /var/{n}, uidMappings: [{{size: 1}}]}}\n")).collect();
    let text = format!("machine:\n  kubelet:\n    extraMounts:\n{mounts}");
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    let warnings = warnings(&documents);
    assert_eq!(warnings.len(), MAX_WARNINGS);
    assert!(warnings[MAX_WARNINGS - 1].message.ends_with("more fields have no effect yet"), "{:?}", warnings.last());
}
