//! Seccomp profiles of the configuration, as files to which pods refer by `localhostProfile: profiles/NAME`.

use std::path::Path;

use async_trait::async_trait;
use config::v1alpha1::Config;
use controller::{Controller, Ctx, Input, Output, Projection, ReconcileError};
use resources::config::MachineConfig;
use resources::cri::SeccompProfile;
use resources::runtime::MountStatus;
use serde_json::Value;
use sys::files::{self, Access};

/// Below the volume EPHEMERAL. Everything in it is of the profiles.
const DIRECTORY: &str = "lib/kubelet/seccomp/profiles";

/// `machine.seccompProfiles` as resources; the id is the name.
#[must_use]
pub fn config_controller() -> Box<dyn Controller> {
    Projection::boxed("cri.SeccompProfileController", profiles)
}

fn profiles(config: &Config) -> Vec<(String, SeccompProfile)> {
    let spec = |profile: &config::v1alpha1::SeccompProfile| {
        let name = profile.name.clone();
        (name.clone(), SeccompProfile { name, value: profile.value.clone() })
    };
    config.machine().seccomp_profiles.iter().map(spec).collect()
}

/// `cri.SeccompProfileFileController`: writes the profiles, and removes files that are none.
#[derive(Debug, Default)]
pub struct SeccompProfileFileController;

#[async_trait]
impl Controller for SeccompProfileFileController {
    fn name(&self) -> &'static str {
        "cri.SeccompProfileFileController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<SeccompProfile>(),
            // Without a configuration nothing is known of profiles, and none is removed.
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::strong::<MountStatus>().id(MountStatus::EPHEMERAL),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(volume) = ctx.hold_while_running::<MountStatus>(MountStatus::EPHEMERAL)? else { return Ok(()) };
        if ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?.is_none() {
            return Ok(());
        }
        let directory = Path::new(&volume.target).join(DIRECTORY);
        let profiles = ctx.list::<SeccompProfile>()?;
        // A profile that fails does not keep the others back.
        let mut failures = Vec::new();
        for profile in &profiles {
            if let Err(error) = write(&directory, profile) {
                failures.push(format!("{:?}: {error}", profile.id()));
            }
        }
        for name in files::list(&directory)? {
            if profiles.iter().all(|profile| name != profile.id()) {
                files::remove_tree(&directory.join(name))?;
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(ReconcileError::msg(failures.join("; "))) }
    }
}

fn write(directory: &Path, profile: &SeccompProfile) -> Result<(), ReconcileError> {
    let name = &profile.name;
    if name.is_empty() || matches!(name.as_str(), "." | "..") || name.contains(['/', '\0']) {
        return Err(ReconcileError::msg("cannot be the name of a file"));
    }
    let text = serde_json::to_vec(&Value::Object(profile.value.clone()))?;
    files::write_atomic(&directory.join(name), &text, Access::PUBLIC)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    fn configure(harness: &Harness, profiles: &str) {
        let text = format!("version: v1alpha1\nmachine:\n  seccompProfiles: {profiles}\n");
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text));
    }

    #[tokio::test(start_paused = true)]
    async fn profiles_are_files_and_go_with_the_configuration() {
        let volume = tempfile::tempdir().unwrap();
        let directory = volume.path().join(DIRECTORY);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("old.json"), "{}").unwrap();
        let harness = Harness::with(SeccompProfileFileController);
        harness.runtime.register_boxed(config_controller()).unwrap();
        let target = volume.path().display().to_string();
        harness.put(MountStatus::EPHEMERAL, MountStatus { target, ..MountStatus::default() });
        harness.settle().await;
        assert!(directory.join("old.json").exists(), "there is no configuration yet");
        configure(&harness, "[{name: audit.json, value: {defaultAction: SCMP_ACT_LOG, syscalls: [{names: [a]}]}}]");
        harness.settle().await;
        assert_eq!(
            std::fs::read_to_string(directory.join("audit.json")).unwrap(),
            r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["a"]}]}"#
        );
        assert_eq!(harness.ids::<SeccompProfile>(), ["audit.json"]);
        assert_eq!(files::list(&directory).unwrap(), ["audit.json"]);
        configure(&harness, "[]");
        harness.settle().await;
        assert!(harness.ids::<SeccompProfile>().is_empty() && files::list(&directory).unwrap().is_empty());
        assert!(
            harness.teardown::<MountStatus>(MountStatus::EPHEMERAL) || {
                harness.settle().await;
                harness.teardown::<MountStatus>(MountStatus::EPHEMERAL)
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_leads_elsewhere_is_refused_and_the_others_are_written() {
        let volume = tempfile::tempdir().unwrap();
        let harness = Harness::with(SeccompProfileFileController);
        let target = volume.path().display().to_string();
        harness.put(MountStatus::EPHEMERAL, MountStatus { target, ..MountStatus::default() });
        configure(&harness, "[]");
        for name in ["../../stolen", "z.json"] {
            harness.put(name, SeccompProfile { name: name.to_owned(), ..SeccompProfile::default() });
        }
        harness.settle().await;
        assert_eq!(files::list(&volume.path().join(DIRECTORY)).unwrap(), ["z.json"]);
        let said = harness.status("cri.SeccompProfileFileController").last_error.unwrap();
        assert!(said.contains("stolen") && said.contains("cannot be the name of a file"), "{said}");
    }
}
