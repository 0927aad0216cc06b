use std::time::SystemTime;

use pki::{Certificate, Role, SecretsOptions};

use super::*;
use crate::{Mode, validate};

fn bundle() -> SecretsBundle {
    let options = SecretsOptions { service_account: Algorithm::EcdsaP256, ..SecretsOptions::default() };
    SecretsBundle::generate(SystemTime::UNIX_EPOCH, options).unwrap()
}

fn input() -> Input {
    Input::new("demo", "https://10.5.0.2:6443", bundle())
}

#[test]
fn generated_configurations_are_valid_in_every_mode() {
    let input = input();
    for kind in [MachineType::ControlPlane, MachineType::Worker] {
        for comments in [CommentStyle::FULL, CommentStyle::NONE] {
            let text = generate(&input, kind, comments).unwrap();
            let documents = Documents::from_yaml(text.as_bytes()).unwrap();
            for mode in [Mode::Metal, Mode::Cloud, Mode::Container] {
                let report = validate(&documents, mode).strict();
                assert!(report.is_ok(), "{kind} {mode}: {:?}", report.errors);
            }
        }
    }
}

#[test]
fn the_same_secrets_give_the_same_bytes() {
    let input = input();
    let again = Input::new("demo", "https://10.5.0.2:6443", input.secrets.clone());
    for kind in [MachineType::ControlPlane, MachineType::Worker] {
        let one = generate(&input, kind, CommentStyle::FULL).unwrap();
        assert!(one == generate(&again, kind, CommentStyle::FULL).unwrap());
    }
}

#[test]
fn a_worker_gets_no_key() {
    let input = input();
    let text = generate(&input, MachineType::Worker, CommentStyle::NONE).unwrap();
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    let config = documents.v1alpha1().unwrap();
    assert_eq!(config.machine().ca.as_ref().unwrap().key, "");
    assert_eq!(config.cluster().ca.as_ref().unwrap().key, "");
    for secret in [&input.secrets.certs.os, &input.secrets.certs.k8s, &input.secrets.certs.etcd] {
        assert!(!text.contains(&tree::base64(&secret.key)));
    }
    assert!(!text.contains(&input.secrets.secrets.secretbox_encryption_secret));
}

#[test]
fn secrets_come_back_from_a_control_plane_configuration() {
    let input = input();
    let text = generate(&input, MachineType::ControlPlane, CommentStyle::NONE).unwrap();
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    assert!(secrets_from_config(documents.v1alpha1().unwrap()).unwrap() == input.secrets);
    let text = generate(&input, MachineType::Worker, CommentStyle::NONE).unwrap();
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    let error = secrets_from_config(documents.v1alpha1().unwrap()).unwrap_err();
    assert!(matches!(error, PkiError::Bundle { .. }), "{error:?}");
}

#[test]
fn endpoints_without_scheme_or_port_are_refused_with_a_hint() {
    for (endpoint, what) in [
        ("10.5.0.2:6443", "has no scheme"),
        ("10.5.0.2", "has no scheme"),
        ("https://10.5.0.2", "has no port"),
        ("http://10.5.0.2:6443", "must begin with https://"),
        ("https://:6443", "is not a URL"),
    ] {
        let error = check_endpoint(endpoint).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("for example https://10.5.0.1:6443"), "{endpoint}: {error}");
    }
    check_endpoint("https://[fd00::1]:6443").unwrap();
    check_endpoint("https://kube.example.org:443").unwrap();
}

#[test]
fn choices_reach_the_document() {
    let mut input = input();
    input.additional_sans = vec!["kube.example.org".into(), "10.5.0.2".into()];
    input.registry_mirrors = vec![("docker.io".into(), vec!["http://10.5.0.1:5000".into()])];
    input.cni = Some("native".into());
    input.kubernetes_version = "v1.30.14".into();
    input.discovery_endpoint = Some("http://10.5.0.1:3000".into());
    let text = generate(&input, MachineType::ControlPlane, CommentStyle::NONE).unwrap();
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    let config = documents.v1alpha1().unwrap();
    assert_eq!(config.cluster().cni(), crate::v1alpha1::CniKind::Native);
    assert_eq!(config.cluster().discovery_service(), Some("http://10.5.0.1:3000"));
    let server = config.cluster().api_server.as_ref().unwrap();
    assert_eq!(server.cert_sans, ["10.5.0.2", "kube.example.org"]);
    assert_eq!(server.admission_control.len(), 1);
    let mirror = &config.machine().registries.as_ref().unwrap().mirrors["docker.io"];
    assert_eq!(mirror.endpoints, ["http://10.5.0.1:5000"]);
    assert_eq!(config.machine().kubeprism_port(), Some(7445));
}

#[test]
fn older_contracts_leave_newer_fields_out() {
    let mut input = input();
    input.contract = "v1.4.2".parse().unwrap();
    let text = generate(&input, MachineType::Worker, CommentStyle::NONE).unwrap();
    assert!(text.contains("apidCheckExtKeyUsage") && !text.contains("kubePrism") && !text.contains("hostDNS"));
    assert_eq!("x".parse::<Contract>(), Err("\"x\" is not a version; for example v1.7".to_owned()));
}

#[test]
fn an_administrator_gets_a_certificate_of_the_cluster() {
    let bundle = bundle();
    let roles = RoleSet::from([Role::Admin]);
    let context =
        client_context("demo", vec!["10.5.0.2".into()], &bundle, &roles, SystemTime::UNIX_EPOCH, CLIENT_LIFETIME)
            .unwrap();
    let crt = pki::pem::base64_text::decode(&context.crt).unwrap();
    let certificate = Certificate::from_pem(&crt).unwrap();
    assert_eq!(certificate.roles(), roles);
    assert_eq!(certificate.issuer().to_string(), "O=talos");
    assert!(!format!("{context:?}").contains(&context.key));
}

/// Secrets with fixed text, so that the files can be compared; not usable as certificates.
fn fixed() -> SecretsBundle {
    use pki::secrets::*;
    let pair = |name: &str| PemPair::new(format!("{name} certificate\n"), format!("{name} key\n"));
    SecretsBundle {
        cluster: ClusterSecrets { id: "id-of-the-cluster=".into(), secret: "c2VjcmV0IG9mIHRoZSBjbHVzdGVy".into() },
        secrets: BootstrapSecrets {
            bootstrap_token: "abcdef.0123456789abcdef".into(),
            aescbc_encryption_secret: String::new(),
            secretbox_encryption_secret: "c2VjcmV0Ym94".into(),
        },
        trustd: TrustdSecrets { token: "ghijkl.0123456789abcdef".into() },
        certs: CertificateSecrets {
            etcd: pair("etcd"),
            k8s: pair("kubernetes"),
            k8s_aggregator: pair("aggregator"),
            k8s_service_account: ServiceAccountKey { key: "service account key\n".into() },
            os: pair("os"),
        },
    }
}

#[test]
fn files_are_as_the_golden_ones() {
    let input = Input::new("demo", "https://10.5.0.2:6443", fixed());
    for (name, kind, comments) in [
        ("controlplane.yaml", MachineType::ControlPlane, CommentStyle::FULL),
        ("worker.yaml", MachineType::Worker, CommentStyle::FULL),
        ("controlplane-bare.yaml", MachineType::ControlPlane, CommentStyle::NONE),
        ("worker-bare.yaml", MachineType::Worker, CommentStyle::NONE),
        ("worker-docs.yaml", MachineType::Worker, CommentStyle { docs: true, examples: false }),
    ] {
        golden(name, &generate(&input, kind, comments).unwrap());
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is renewed by a variable of its environment")]
fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(expected == text, "{name} differs; renew with UPDATE_GOLDEN=1");
}
