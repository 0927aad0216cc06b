//! Files written by the controllers, read by a real containerd. Needs root, containerd and a static busybox.
#![expect(clippy::unwrap_used, reason = "tests")]

use containers::testing::{Daemon, Registry, Setup, in_time, pull_for_pods};
use controller::testing::Harness;
use domain_runtime::cri_config::CriRegistryConfigController;
use domain_runtime::cri_parts::{CONTAINERD_FILE, ContainerdFile, ContainerdLimits, CriConfigPartsController};
use domain_runtime::etc_file::EtcFileController;
use resources::config::MachineConfig;
use resources::files::EtcFileSpec;

const PASSWORD: &str = "open \"sesame\" \\ ü";

/// The controllers on a directory that stands for `/etc`.
fn controllers(etc: &std::path::Path) -> Harness {
    let limits = ContainerdLimits { restrict_oom_score: false };
    let file = ContainerdFile { rendered: etc.to_owned(), limits };
    file.write_first().unwrap();
    let harness = Harness::with(CriConfigPartsController::new(file));
    harness.run(CriRegistryConfigController::new(etc.to_owned()));
    harness.run(EtcFileController { rendered: etc.to_owned(), bound_over: None });
    harness
}

/// A registry that wants a password, asked for its own name and as the mirror of two others, of which one has a port and a
/// mirror before this one that nobody listens at; and registries that nobody asks.
fn configuration(registry: &Registry) -> MachineConfig {
    let host = registry.host();
    let registries = serde_json::json!({
        "mirrors": {
            "images.invalid": { "endpoints": [format!("http://{host}")] },
            "images.invalid:5000": { "endpoints": ["http://[::1]:9", format!("http://{host}")] },
        },
        "config": {
            host: { "auth": { "username": "me", "password": PASSWORD } },
            "docker.io": { "auth": { "auth": "bWU6eA==" } },
            "[fd00::1]:5000": { "auth": { "identityToken": "token" } },
        },
    });
    MachineConfig::new(format!("version: v1alpha1\nmachine:\n  registries: {registries}\n"))
}

#[tokio::test]
async fn pods_get_images_with_the_credentials_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path().join("etc");
    let harness = controllers(&etc);
    let config = std::path::Path::new("/etc").join(CONTAINERD_FILE);
    let mut daemon = Daemon::with(Setup { config: Some(config), etc: Some(etc) }).await;
    let registry = Registry::private("me", PASSWORD).await;
    let refused = in_time("pull", pull_for_pods(&daemon.socket(), &registry.reference())).await.unwrap_err();
    // containerd 1.6 and 1.7 say it differently.
    let reasons = ["401 Unauthorized", "authorization failed"];
    assert!(reasons.iter().any(|reason| refused.message().contains(reason)), "{refused}");

    harness.put(MachineConfig::ACTIVE_ID, configuration(&registry));
    harness.settle().await;
    daemon.kill().await;
    daemon.restart().await;
    let mirrored = ["images.invalid", "images.invalid:5000"].map(|host| format!("{host}/{}", registry.name()));
    for image in std::iter::once(registry.reference()).chain(mirrored) {
        let id = in_time("pull", pull_for_pods(&daemon.socket(), &image)).await;
        assert!(id.as_ref().is_ok_and(|id| id.starts_with("sha256:")), "{image}: {id:?}");
    }

    // These resources and logs are readable by every role.
    let specs = harness.list::<EtcFileSpec>();
    assert!(specs.iter().any(|spec| spec.id().ends_with("hosts.toml")), "{specs:?}");
    let open = specs.iter().map(|spec| String::from_utf8_lossy(&spec.contents).into_owned()).collect::<String>();
    for text in [open, daemon.log()] {
        assert!(!text.contains("sesame"), "{text}");
    }
    daemon.end().await;
}
