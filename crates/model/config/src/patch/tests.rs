use super::*;

const BASE: &str = "\
version: v1alpha1
machine:
    type: worker
    certSANs: []
    network:
        nameservers:
            - 1.1.1.1
        interfaces:
            - interface: eth0
              mtu: 1500
              addresses:
                  - 10.0.0.1/24
              vlans:
                  - vlanId: 5
                    mtu: 1400
            - deviceSelector:
                  driver: virtio
              dhcp: true
    sysctls:
        a: b
cluster:
    network:
        podSubnets:
            - 10.244.0.0/16
    apiServer:
        auditPolicy:
            kind: Policy
            rules:
                - level: Metadata
";

fn patched(patches: &[&str]) -> Result<String, PatchError> {
    let base = Documents::from_yaml(BASE.as_bytes()).unwrap();
    let patches: Vec<_> = patches.iter().map(|text| Patch::parse(text)).collect::<Result<_, _>>()?;
    apply(&base, &patches).map(|documents| String::from_utf8(documents.raw().to_vec()).unwrap())
}

fn value(text: &str) -> Value {
    crate::decode::values(text).unwrap().remove(0)
}

#[test]
fn maps_merge_lists_append_and_values_are_replaced() {
    let text =
        patched(&["machine:\n  type: controlplane\n  network:\n    nameservers: [8.8.8.8]\n  sysctls:\n    c: 1\n"])
            .unwrap();
    let value = value(&text);
    assert_eq!(value["machine"]["type"], "controlplane");
    assert_eq!(value["machine"]["network"]["nameservers"], serde_json::json!(["1.1.1.1", "8.8.8.8"]));
    assert_eq!(value["machine"]["sysctls"], serde_json::json!({"a": "b", "c": "1"}));
    assert_eq!(value["machine"]["certSANs"], serde_json::json!([]));
}

#[test]
fn subnets_and_the_audit_policy_are_replaced() {
    let patch = "cluster:\n  network: {podSubnets: [10.0.0.0/8]}\n  apiServer: {auditPolicy: {kind: Other}}\n";
    let value = value(&patched(&[patch]).unwrap());
    assert_eq!(value["cluster"]["network"]["podSubnets"], serde_json::json!(["10.0.0.0/8"]));
    assert_eq!(value["cluster"]["apiServer"]["auditPolicy"], serde_json::json!({"kind": "Other"}));
}

#[test]
fn links_merge_by_name_or_selector_and_vlans_by_number() {
    let patch = "\
machine:
    network:
        interfaces:
            - interface: eth0
              mtu: 9000
              vlans:
                  - vlanId: 5
                    dhcp: true
                  - vlanId: 6
            - deviceSelector: {driver: virtio}
              mtu: 1200
            - interface: eth1
";
    let value = value(&patched(&[patch]).unwrap());
    let interfaces = value["machine"]["network"]["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 3);
    assert_eq!(interfaces[0]["mtu"], 9000);
    assert_eq!(interfaces[0]["addresses"], serde_json::json!(["10.0.0.1/24"]));
    assert_eq!(interfaces[0]["vlans"], serde_json::json!([{"vlanId": 5, "mtu": 1400, "dhcp": true}, {"vlanId": 6}]));
    assert_eq!(interfaces[1], serde_json::json!({"deviceSelector": {"driver": "virtio"}, "dhcp": true, "mtu": 1200}));
}

#[test]
fn other_documents_merge_by_kind_and_name_or_are_added() {
    let rule = |name: &str, port: u16| {
        format!(
            "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: {name}\nportSelector: {{ports: [{port}], protocol: tcp}}\n"
        )
    };
    let text = patched(&[&format!("{}---\n{}", rule("a", 1), rule("b", 2)), &rule("a", 3)]).unwrap();
    let values = crate::decode::values(&text).unwrap();
    assert_eq!(values.len(), 3);
    assert_eq!(values[1]["portSelector"]["ports"], serde_json::json!([1, 3]));
    assert_eq!(values[2]["name"], "b");
}

#[test]
fn a_json_patch_works_from_json_and_from_yaml() {
    let json = r#"[{"op": "add", "path": "/machine/certSANs/-", "value": "a.example"}]"#;
    let yaml = "- op: replace\n  path: /machine/network/interfaces/0/mtu\n  value: 1300\n- op: remove\n  path: /machine/sysctls/a\n";
    let value = value(&patched(&[json, yaml]).unwrap());
    assert_eq!(value["machine"]["certSANs"], serde_json::json!(["a.example"]));
    assert_eq!(value["machine"]["network"]["interfaces"][0]["mtu"], 1300);
    assert_eq!(value["machine"]["sysctls"], serde_json::json!({}));
}

#[test]
fn patches_that_do_not_fit_say_why() {
    let error = patched(&["- op: remove\n  path: /machine/none\n"]).unwrap_err();
    assert!(matches!(error, PatchError::Apply { index: 1, ref path, .. } if path == "/machine/none"), "{error:?}");
    let error = patched(&["- op: jump\n  path: /a\n"]).unwrap_err();
    assert!(matches!(error, PatchError::Operation { index: 1, .. }), "{error:?}");
    let error = patched(&["machine:\n  nope: 1\n"]).unwrap_err();
    assert!(matches!(error, PatchError::Parse(ref e) if e.0[0].path == "machine.nope"), "{error:?}");
    let error = patched(&["- op: add\n  path: /machine/nope\n  value: 1\n"]).unwrap_err();
    assert!(matches!(error, PatchError::Result(ref e) if e.0[0].path == "machine.nope"), "{error:?}");
    let error = patched(&["---\n"]).unwrap_err();
    assert!(matches!(error, PatchError::Empty), "{error:?}");
    let link = "apiVersion: v1alpha1\nkind: SideroLinkConfig\napiUrl: https://a/\n";
    let error = patched(&[link, "- op: remove\n  path: /machine/sysctls\n"]).unwrap_err();
    assert!(matches!(error, PatchError::SeveralDocuments(2)), "{error:?}");
}

#[test]
fn nothing_to_do_keeps_the_text() {
    assert_eq!(patched(&[]).unwrap(), BASE);
}
