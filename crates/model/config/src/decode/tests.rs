use crate::{ConfigError, Document, Documents, MachineType};

fn errors(text: &str) -> Vec<ConfigError> {
    Documents::from_yaml(text.as_bytes()).expect_err("the text has errors").0
}

fn one(text: &str) -> ConfigError {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

#[test]
fn an_unknown_field_is_refused_with_document_path_and_line() {
    let text = "\
apiVersion: v1alpha1
kind: EventSinkConfig
endpoint: 10.0.0.1:8080
---
version: v1alpha1
machine:
    type: worker
    certSAN: []
";
    let error = one(text);
    assert_eq!(
        error.to_string(),
        "document 2 (v1alpha1), line 8, column 5, machine.certSAN: unknown field \"certSAN\" (did you mean certSANs?)"
    );
}

#[test]
fn several_errors_are_told_at_once_in_the_order_of_the_text() {
    let text = "\
machine:
    type: boss
    kubelet:
        clusterDNS: [10.96.0.300]
        registerWithFQDN: maybe
    network:
        interfaces:
            - interface: eth0
              mtu: huge
              adresses: []
cluster:
    network:
        podSubnets: [10.244.0.0]
    controlPlane:
        endpoint: 10.5.0.2:6443
";
    let found: Vec<_> = errors(text).into_iter().map(|e| (e.line, e.path)).collect();
    let expected = [
        (2, "machine.type"),
        (4, "machine.kubelet.clusterDNS[0]"),
        (5, "machine.kubelet.registerWithFQDN"),
        (9, "machine.network.interfaces[0].mtu"),
        (10, "machine.network.interfaces[0].adresses"),
        (13, "cluster.network.podSubnets[0]"),
        (15, "cluster.controlPlane.endpoint"),
    ];
    let expected: Vec<_> = expected.iter().map(|(line, path)| (*line, (*path).to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_second_document_of_the_same_name_is_refused() {
    let rule = |name: &str| {
        format!(
            "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: {name}\nportSelector:\n  ports: [80]\n  protocol: tcp\n"
        )
    };
    assert_eq!(
        Documents::from_yaml(format!("{}---\n{}", rule("a"), rule("b")).as_bytes()).unwrap().documents().len(),
        2
    );
    let error = one(&format!("{}---\n{}", rule("a"), rule("a")));
    assert_eq!((error.document, error.line), (1, 8));
    assert!(error.message.contains("named \"a\""), "{error}");
    let error = one("machine: {}\n---\nversion: v1alpha1\n");
    assert_eq!((error.document, error.kind.as_str()), (1, "v1alpha1"));
}

#[test]
fn kinds_and_versions_that_are_not_known_are_refused() {
    assert!(one("kind: Pod\napiVersion: v1\n").message.contains("unknown kind \"Pod\""));
    assert!(one("version: v2\n").message.contains("unknown version \"v2\""));
    assert!(one("kind: EventSinkConfig\nendpoint: a:1\n").message.contains("needs apiVersion"));
    assert!(one("- a\n").message.contains("expected a mapping, found a list"));
}

#[test]
fn text_that_is_no_yaml_is_refused_with_its_line() {
    let error = one("machine:\n  type: worker\n  token: \"open\n");
    assert!(error.message.starts_with("not valid YAML"), "{error}");
    let error = one("machine:\n  type: worker\n  type: worker\n");
    assert_eq!((error.line, error.column), (3, 3));
    assert!(error.message.contains("duplicate key \"type\""), "{error}");
    let error = Documents::from_yaml(b"machine:\n  token: \xff\n").unwrap_err();
    assert_eq!(error.0[0].line, 2);
}

#[test]
fn old_ways_to_write_values_are_understood() {
    let text = "\
debug: no
machine:
    type: worker
    token: ~
    env: {HTTP: 1, EMPTY: }
    files:
        - permissions: 0644
          path: /var/a
          op: create
    kubelet:
        extraArgs:
            feature-gates: true
            v: 4
cluster:
";
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    let config = documents.v1alpha1().unwrap();
    assert_eq!(config.debug, Some(false));
    assert_eq!(config.machine_type(), MachineType::Worker);
    assert!(config.machine().token.is_empty());
    assert_eq!(config.machine().env["HTTP"], "1");
    assert_eq!(config.machine().env["EMPTY"], "");
    assert_eq!(config.machine().files[0].permissions, Some(0o644));
    let arguments = &config.machine().kubelet.as_ref().unwrap().extra_args;
    assert_eq!((arguments["feature-gates"].as_str(), arguments["v"].as_str()), ("true", "4"));
    assert!(config.cluster.is_none());
}

#[test]
fn the_text_is_kept_as_it_was_given() {
    let text = "# mine\nmachine:\n  type: worker # yes\n\n---\n";
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    assert_eq!(documents.raw(), text.as_bytes());
    assert_eq!(documents.to_yaml(), "machine:\n    type: worker\n");
    assert!(matches!(documents.documents(), [Document::V1alpha1(_)]));
}

#[test]
fn a_secret_of_the_wrong_form_is_not_repeated() {
    let text =
        "machine:\n  network:\n    interfaces:\n      - interface: wg0\n        wireguard: {privateKey: tell-nobody}\n";
    let error = one(text);
    assert!(!error.to_string().contains("tell-nobody"), "{error}");
    assert_eq!(error.path, "machine.network.interfaces[0].wireguard.privateKey");
}

#[test]
fn byte_order_marks_and_windows_line_ends_are_understood() {
    let text = "\u{feff}version: v1alpha1\r\nmachine:\r\n  type: worker\r\n";
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    assert_eq!(documents.v1alpha1().unwrap().machine_type(), MachineType::Worker);
    assert_eq!(documents.raw(), text.as_bytes());
}

#[test]
fn an_endpoint_may_leave_its_port_to_the_scheme() {
    let text = "cluster: {controlPlane: {endpoint: \"https://kube.example.org\"}}";
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    let url = documents.v1alpha1().unwrap().cluster().endpoint().unwrap();
    assert_eq!(url.port_or_known_default(), Some(443));
}

#[test]
fn names_that_no_certificate_can_carry_are_refused() {
    let good = "machine:\n  certSANs: [10.0.0.1, \"fd00::1\", api.example.org, \"*.example.org\"]\n";
    assert!(Documents::from_yaml(good.as_bytes()).unwrap().v1alpha1().is_some());
    for bad in ["bad name", "https://a", "10.0.0.0/8", "kn\u{f6}ten.example.org", "a:6443"] {
        let error = one(&format!("cluster:\n  apiServer:\n    certSANs:\n      - {bad:?}\n"));
        assert_eq!((error.path.as_str(), error.line), ("cluster.apiServer.certSANs[0]", 4), "{bad}");
    }
}

#[test]
fn anchors_and_merges_are_followed_within_bounds() {
    let text = "machine:\n  env: &e {a: b}\n  sysctls:\n    <<: *e\n    c: d\n";
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    assert_eq!(documents.v1alpha1().unwrap().machine().sysctls["a"], "b");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let refs = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    assert!(one(&bomb).message.contains("more than 200000 values"), "{:?}", one(&bomb));
    let deep: String = (0..70).map(|level| format!("{:1$}a:\n", "", level)).collect();
    assert!(one(&deep).message.contains("nested more than 64"), "{:?}", one(&deep));
    let flow = format!("{}{}", "[".repeat(500), "]".repeat(500));
    assert!(one(&flow).message.contains("recursion limit"), "{:?}", one(&flow));
}
