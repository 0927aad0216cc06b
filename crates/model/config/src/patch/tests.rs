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
    assert_eq!(values[1]["portSelector"]["ports"], serde_json::json!([3]));
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
    let link = "apiVersion: v1alpha1\nkind: SideroLinkConfig\napiUrl: https://a/\n";
    let error = patched(&[link, "- op: remove\n  path: /machine/sysctls\n"]).unwrap_err();
    assert!(matches!(error, PatchError::SeveralDocuments(2)), "{error:?}");
}

#[test]
fn nothing_to_do_keeps_the_text() {
    assert_eq!(patched(&[]).unwrap(), BASE);
    for empty in ["", "---\n", "# only a comment\n", "---\n# a\n---\n", "[]"] {
        assert_eq!(patched(&[empty, empty]).unwrap(), BASE, "{empty:?}");
    }
}

#[test]
fn a_value_that_says_nothing_undoes_nothing_and_false_does() {
    let patch = "machine:\n  type: ''\n  certSANs: []\n  network:\n    nameservers:\n    interfaces:\n      - interface: eth0\n        \
                 mtu: 0\n        addresses: []\n      - deviceSelector: {driver: virtio, busPath: ''}\n        dhcp: false\n  sysctls:\n    \
                 a: ''\n";
    let value = value(&patched(&[patch]).unwrap());
    assert_eq!(value["machine"]["type"], "worker");
    assert_eq!(value["machine"]["network"]["nameservers"], serde_json::json!(["1.1.1.1"]));
    let interfaces = &value["machine"]["network"]["interfaces"];
    assert_eq!(interfaces[0]["mtu"], 1500);
    assert_eq!(interfaces[1]["dhcp"], false);
    assert_eq!(value["machine"]["sysctls"]["a"], "", "names of the user's choice may be empty");
}

#[test]
fn entries_of_one_link_in_one_patch_become_one() {
    let patch = "machine:\n  network:\n    interfaces:\n      - interface: eth9\n        mtu: 9000\n        vlans: [{vlanId: 1}, {vlanId: 1, \
                 mtu: 5}]\n      - interface: eth9\n        dhcp: true\n";
    let expected =
        serde_json::json!({"interface": "eth9", "mtu": 9000, "vlans": [{"vlanId": 1, "mtu": 5}], "dhcp": true});
    assert_eq!(value(&patched(&[patch]).unwrap())["machine"]["network"]["interfaces"][2], expected);
    let base = Documents::from_yaml(b"machine: {type: worker}\n").unwrap();
    let patched = apply(&base, &[Patch::parse(patch).unwrap()]).unwrap();
    assert_eq!(patched.values()[0]["machine"]["network"]["interfaces"], serde_json::json!([expected]));
}

#[test]
fn a_later_patch_may_put_a_value_right() {
    let wrong = "machine: {network: {hostname: '${name}'}}\ncluster: {controlPlane: {endpoint: ''}}\n";
    let right = "machine: {network: {hostname: node-1}}\n";
    let base = Documents::unjudged(BASE.as_bytes()).unwrap();
    let patches = [wrong, right].map(|text| Patch::parse(text).unwrap());
    let of = |patches: &[Patch]| {
        let report = crate::validate(&apply(&base, patches).unwrap(), crate::Mode::Container);
        report
            .errors
            .into_iter()
            .filter(|error| error.path.ends_with("hostname"))
            .map(|error| error.line)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&patches[..1]).len(), 1);
    assert_eq!(of(&patches), Vec::<usize>::new());
}

#[test]
fn json_replace_sets_an_absent_member_of_an_object_that_is_there() {
    let patch = "- op: replace\n  path: /machine/network/hostname\n  value: node-1\n";
    assert_eq!(value(&patched(&[patch]).unwrap())["machine"]["network"]["hostname"], "node-1");
    for path in ["/machine/time/servers", "/machine/network/nameservers/5"] {
        let patch = format!("- op: replace\n  path: {path}\n  value: a\n");
        let error = patched(&[&patch]).unwrap_err();
        assert!(matches!(error, PatchError::Apply { index: 1, .. }), "{path}: {error:?}");
    }
}

#[test]
fn yaml_words_survive_a_patch() {
    let base = Documents::from_yaml(b"debug: no\nmachine:\n  acceptedCAs: {crt: YQ==}\n  env: {A: yes}\n").unwrap();
    let patch = Patch::parse("machine: {acceptedCAs: [{crt: Yg==}], kubelet: {registerWithFQDN: on}}\n").unwrap();
    let patched = apply(&base, &[patch]).unwrap();
    let root = patched.v1alpha1().unwrap();
    assert_eq!((root.debug, root.machine().accepted_cas.len()), (Some(false), 2));
    assert_eq!(root.machine().env["A"], "yes");
    assert_eq!(root.machine().kubelet.as_ref().unwrap().register_with_fqdn, Some(true));
}

#[test]
fn selectors_are_the_same_whatever_the_order_of_their_fields() {
    let patch = |selector: &str| {
        format!("machine: {{network: {{interfaces: [{{deviceSelector: {{{selector}}}, mtu: 1400}}]}}}}\n")
    };
    let value =
        value(&patched(&[&patch("busPath: '0*', driver: e"), &patch("driver: e, busPath: '0*', pciID: ''")]).unwrap());
    assert_eq!(value["machine"]["network"]["interfaces"].as_array().unwrap().len(), 3);
}

#[test]
fn a_patch_with_many_entries_is_merged_in_linear_time() {
    let links: String = (0..40_000).map(|n| format!("      - interface: l{n}\n")).collect();
    let patch = Patch::parse(&format!("machine:\n  network:\n    interfaces:\n{links}")).unwrap();
    let base = Documents::from_yaml(b"machine: {type: worker}\n").unwrap();
    let merged = apply(&base, &[patch.clone(), patch]).unwrap();
    assert_eq!(merged.values()[0]["machine"]["network"]["interfaces"].as_array().unwrap().len(), 40_000);
}

#[test]
fn a_json_patch_cannot_make_a_document_larger_than_one_that_is_read() {
    let doubled = r#"{"op": "copy", "from": "/machine/sysctls", "path": "/machine/sysctls/NAME"}"#;
    let doublings: Vec<_> = (0..20).map(|name| doubled.replace("NAME", &name.to_string())).collect();
    let error = patched(&[&format!("[{}]", doublings.join(","))]).unwrap_err();
    assert!(matches!(error, PatchError::TooLarge { index: 17 }), "{error:?}");
    let nested: Vec<_> = (1..=80)
        .map(|depth| format!(r#"{{"op": "add", "path": "/machine{}", "value": {{}}}}"#, "/x".repeat(depth)))
        .collect();
    let error = patched(&[&format!("[{}]", nested.join(","))]).unwrap_err();
    assert!(matches!(error, PatchError::TooLarge { index: 63 }), "{error:?}");
}

#[test]
fn an_operation_that_is_none_is_told_in_plain_words() {
    let error = Patch::parse("- op: remove\n  path: /debug\n- debug\n").unwrap_err();
    let PatchError::Operation { index: 2, error } = error else { panic!("{error:?}") };
    assert_eq!(error.to_string(), "expected a mapping with op and path");
}
