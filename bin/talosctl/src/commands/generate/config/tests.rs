use clap::Parser;

use super::*;
use crate::command_error::Kind;
use crate::environment::Environment;
use crate::output::Output;
use crate::session::GlobalFlags;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: GenConfigArgs,
}

fn generate_in(directory: &Path, flags: &[&str]) -> Result<(), CommandError> {
    let output = format!("{}/", directory.display());
    let line = ["gen", "demo", "https://10.5.0.2:6443", "--output", &output];
    let args = Line::try_parse_from(line.into_iter().chain(flags.iter().copied())).unwrap().args;
    let session = Session::new(GlobalFlags::default(), Environment::default(), Output::plain());
    run(&args, Overwrite::Refuse, &session)
}

fn bundle(directory: &Path) -> PathBuf {
    let path = directory.join("secrets.yaml");
    let options = SecretsOptions { service_account: pki::Algorithm::EcdsaP256, ..SecretsOptions::default() };
    let bundle = SecretsBundle::generate(SystemClock.now(), options).unwrap();
    std::fs::write(&path, bundle.to_yaml()).unwrap();
    path
}

#[test]
fn the_same_secrets_give_the_same_files_and_a_talosconfig_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle(dir.path());
    let bundle = bundle.to_str().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    generate_in(&one, &["--with-secrets", bundle]).unwrap();
    generate_in(&two, &["--with-secrets", bundle]).unwrap();
    for name in ["controlplane.yaml", "worker.yaml"] {
        assert_eq!(std::fs::read(one.join(name)).unwrap(), std::fs::read(two.join(name)).unwrap());
    }
    let talosconfig = TalosConfig::load(&one.join("talosconfig")).unwrap();
    let (name, context) = talosconfig.select(None).unwrap();
    assert_eq!(name, "demo");
    context.credentials().unwrap();
    let taken = secrets::of_control_plane(&one.join("controlplane.yaml")).unwrap();
    assert_eq!(taken.to_yaml(), std::fs::read_to_string(bundle).unwrap());
    let error = secrets::of_control_plane(&one.join("worker.yaml")).unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
}

#[test]
fn patches_reach_the_machines_they_are_for() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = bundle(dir.path());
    let flags = [
        "--with-secrets",
        secrets.to_str().unwrap(),
        "--config-patch",
        "machine: {network: {nameservers: [9.9.9.9]}}",
        "--config-patch-worker",
        r#"[{"op": "replace", "path": "/machine/install/disk", "value": "/dev/vdb"}]"#,
    ];
    generate_in(dir.path(), &flags).unwrap();
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(text("controlplane.yaml").contains("9.9.9.9") && text("worker.yaml").contains("9.9.9.9"));
    assert!(!text("controlplane.yaml").contains("/dev/vdb") && text("worker.yaml").contains("disk: /dev/vdb"));
}

#[test]
fn nothing_is_written_when_a_file_exists_or_the_line_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("worker.yaml"), "mine").unwrap();
    let exists = generate_in(dir.path(), &[]).unwrap_err().error.to_string();
    assert!(exists.ends_with("worker.yaml\" already exists, use --force to overwrite"), "{exists}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let refusal = |flags: &[&str]| generate_in(dir.path(), flags).unwrap_err().error.to_string();
    assert_eq!(refusal(&["-t", "init"]), "invalid output type: \"init\"");
    assert_eq!(refusal(&["-t", ""]), "at least one output type must be specified");
    assert_eq!(generate_in(dir.path(), &["--registry-mirror", "x"]).unwrap_err().kind, Kind::Usage);
    assert_eq!(check_endpoint("10.5.0.2").unwrap_err().kind, Kind::Usage);
    let error = generate_in(&dir.path().join("new"), &["--kubernetes-version", "latest", "-t", "worker,worker"]);
    assert!(stdx::error_chain(error.unwrap_err().error.as_ref()).contains("\"latest\" is not a version of Kubernetes"));
    assert!(!dir.path().join("new").exists());
}

#[test]
fn one_type_may_have_its_own_file_name_or_go_to_standard_output() {
    let files = |paths: &[&str]| Targets::Files(paths.iter().map(Into::into).collect());
    let all = [OutputType::ControlPlane, OutputType::Worker, OutputType::Talosconfig];
    assert_eq!(targets(None, &all).unwrap(), files(&["controlplane.yaml", "worker.yaml", "talosconfig"]));
    assert_eq!(targets(Some(Path::new("x.yaml")), &all[..1]).unwrap(), files(&["x.yaml"]));
    assert_eq!(targets(Some(Path::new("d/")), &all[..1]).unwrap(), files(&["d/controlplane.yaml"]));
    assert_eq!(targets(Some(Path::new("-")), &all[1..2]).unwrap(), Targets::Stdout);
    let several = targets(Some(Path::new("-")), &all).unwrap_err();
    assert_eq!(several.error.to_string(), "can't use multiple output types with stdout");
}

#[test]
fn the_old_name_of_the_flag_for_the_directory_is_still_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (secrets, new) = (bundle(dir.path()), dir.path().join("new"));
    let run_with = |flags: &[&str]| {
        let line =
            ["gen", "demo", "https://10.5.0.2:6443", "-t", "worker", "--with-secrets", secrets.to_str().unwrap()];
        let args = Line::try_parse_from(line.into_iter().chain(flags.iter().copied())).unwrap().args;
        run(&args, Overwrite::Refuse, &Session::new(GlobalFlags::default(), Environment::default(), Output::plain()))
    };
    // Also with a single type it is a directory.
    run_with(&["--output-dir", new.to_str().unwrap()]).unwrap();
    assert!(new.join("worker.yaml").is_file());
    assert_eq!(run_with(&["--output-dir", "x", "--output", "y"]).unwrap_err().kind, Kind::Usage);
}

#[test]
fn mirrors_of_one_host_are_kept_in_order() {
    let flags = ["docker.io=http://a", "ghcr.io=http://b", "docker.io=http://c"].map(str::to_owned);
    let expected = vec![
        ("docker.io".to_owned(), vec!["http://a".to_owned(), "http://c".to_owned()]),
        ("ghcr.io".to_owned(), vec!["http://b".to_owned()]),
    ];
    assert_eq!(mirrors(&flags).unwrap(), expected);
}

#[test]
fn an_older_version_gets_the_fields_and_the_secrets_that_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    generate_in(dir.path(), &["--talos-version", "v1.2", "-t", "controlplane,worker"]).unwrap();
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let control_plane = text("controlplane.yaml");
    for (part, is_there) in [
        ("    aescbcEncryptionSecret: ", true),
        ("k8s.gcr.io:\n", true),
        ("    secretboxEncryptionSecret: ", false),
        ("auditPolicy:\n                apiVersion", false),
        ("disableManifestsDirectory: true", false),
    ] {
        assert_eq!(control_plane.contains(part), is_there, "{part}");
    }
    assert!(text("worker.yaml").contains("k8s.gcr.io:\n"));
    assert!(text("worker.yaml").contains(&format!("installer:{} ", stdx::version::TAG)));
}

#[test]
fn empty_patches_and_endpoints_without_a_port_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = bundle(dir.path());
    let empty = dir.path().join("empty.yaml");
    std::fs::write(&empty, "# nothing for this node\n").unwrap();
    let (plain, patched) = (dir.path().join("plain"), dir.path().join("patched"));
    let with_secrets = ["--with-secrets", secrets.to_str().unwrap()];
    generate_in(&plain, &with_secrets).unwrap();
    let patch = format!("@{}", empty.display());
    generate_in(&patched, &[&with_secrets[..], &["--config-patch", patch.as_str()]].concat()).unwrap();
    for name in ["controlplane.yaml", "worker.yaml"] {
        assert_eq!(std::fs::read(plain.join(name)).unwrap(), std::fs::read(patched.join(name)).unwrap());
    }
    check_endpoint("https://kube.example.org").unwrap();
}
