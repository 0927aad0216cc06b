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
fn endpoints_without_scheme_or_host_are_refused_with_a_hint() {
    for (endpoint, what) in [
        ("10.5.0.2:6443", "has no scheme"),
        ("10.5.0.2", "has no scheme"),
        ("http://10.5.0.2:6443", "must begin with https://"),
        ("https://:6443", "is not a URL"),
    ] {
        let error = check_endpoint(endpoint).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("for example https://10.5.0.1"), "{endpoint}: {error}");
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
fn an_endpoint_may_have_no_port() {
    let input = Input::new("x", "https://kube.example.org", bundle());
    let text = generate(&input, MachineType::ControlPlane, CommentStyle::NONE).unwrap();
    let documents = Documents::from_yaml(text.as_bytes()).unwrap();
    let cluster = documents.v1alpha1().unwrap().cluster();
    assert_eq!(cluster.api_server.as_ref().unwrap().cert_sans, ["kube.example.org"]);
    assert_eq!(cluster.endpoint().unwrap().port_or_known_default(), Some(443));
    assert!(validate(&documents, Mode::Metal).is_ok());
}

/// Fields that a configuration of a version has and that of the version before has not, and the other way round.
#[test]
fn older_contracts_leave_newer_fields_out() {
    let of = |version: &str| {
        let input = Input { contract: version.parse().unwrap(), allow_scheduling_on_control_planes: true, ..input() };
        let text = generate(&input, MachineType::ControlPlane, CommentStyle::NONE).unwrap();
        let documents = Documents::from_yaml(text.as_bytes()).unwrap();
        assert!(validate(&documents, Mode::Metal).strict().is_ok(), "{version}");
        documents.values().remove(0)
    };
    let table: [(&str, &str, &[&str], &[&str]); 7] = [
        ("v1.7", "v1.6.0", &["/machine/features/hostDNS"], &[]),
        ("v1.6", "v1.5", &["/machine/features/kubePrism"], &[]),
        (
            "v1.5",
            "v1.4",
            &["/machine/features/diskQuotaSupport", "/cluster/discovery/registries/kubernetes/disabled"],
            &[],
        ),
        (
            "v1.3",
            "v1.2",
            &[
                "/machine/features/apidCheckExtKeyUsage",
                "/machine/kubelet/disableManifestsDirectory",
                "/cluster/apiServer/auditPolicy",
            ],
            &["/machine/registries/mirrors"],
        ),
        (
            "v1.2",
            "v1.1",
            &[
                "/machine/features/stableHostname",
                "/machine/kubelet/defaultRuntimeSeccompProfileEnabled",
                "/cluster/allowSchedulingOnControlPlanes",
            ],
            &["/cluster/allowSchedulingOnMasters"],
        ),
        ("v1.1", "v1.0", &["/cluster/apiServer/admissionControl"], &[]),
        ("v1.0", "v0.14", &["/cluster/apiServer/disablePodSecurityPolicy"], &[]),
    ];
    for (newer, older, gained, lost) in table {
        let (new, old) = (of(newer), of(older));
        for (paths, with, without) in [(gained, &new, &old), (lost, &old, &new)] {
            for path in paths {
                assert!(with.pointer(path).is_some() && without.pointer(path).is_none(), "{newer} {older} {path}");
            }
        }
    }
    let mirrors = of("v1.2").pointer("/machine/registries/mirrors/k8s.gcr.io/endpoints").cloned();
    assert_eq!(mirrors, Some(serde_json::json!(["https://registry.k8s.io", "https://k8s.gcr.io"])));
    assert_eq!(of("v0.14").pointer("/machine/features"), Some(&serde_json::json!({"rbac": true})));
    assert_eq!("x".parse::<Contract>(), Err("\"x\" is not a version; for example v1.7".to_owned()));
}

#[test]
fn the_installer_is_that_of_this_version() {
    let text = generate(&input(), MachineType::Worker, CommentStyle::NONE).unwrap();
    assert!(text.contains(&format!("image: ghcr.io/siderolabs/installer:{}\n", stdx::version::TAG)));
}

#[test]
fn the_first_line_names_the_schema_where_there_are_explanations() {
    let first = |style| {
        let text = generate(&input(), MachineType::Worker, style).unwrap();
        let documents = Documents::from_yaml(text.as_bytes()).unwrap();
        assert_eq!(write_with_comments(&documents, style), text);
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(first(CommentStyle::FULL), "# yaml-language-server: $schema=config.schema.json");
    assert!(first(CommentStyle::NONE).starts_with("version:"));
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
