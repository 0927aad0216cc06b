//! Gets the configuration: what the API handed in, else what is on disk, else what the platform holds, else the
//! machine asks for one in maintenance mode.
//!
//! A configuration on disk that cannot be used is left there for inspection and announced; the machine then waits in
//! maintenance mode for a better one, it does not loop.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use config::Documents;
use controller::{Controller, Ctx, Output, ReconcileError};
use platform::{Platform, PlatformError};
use resources::config::MachineConfig;
use resources::runtime::MaintenanceServiceRequest;
use resources::v1alpha1::AcquireConfigStatus;
use sequencer::{EventBus, Payload};
use stdx::ErrorChain;
use sys::files::{Access, FileError, write_atomic};

use crate::inbox::ConfigInbox;

/// The id of the one request for the maintenance API.
pub const MAINTENANCE_ID: &str = "maintenance";
/// The id of the one status of the acquisition.
pub const ACQUIRED_ID: &str = "acquired";

/// `config.AcquireController`.
#[derive(Debug)]
pub struct AcquireController {
    platform: Arc<dyn Platform>,
    path: PathBuf,
    inbox: ConfigInbox,
    events: EventBus,
    watching: bool,
    /// Disk and platform are asked once: later changes come through the API.
    asked: bool,
    /// There is a configuration.
    found: bool,
}

/// Why a configuration that was found is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Read(#[from] FileError),
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error("the configuration of {origin} is not valid")]
    Invalid {
        origin: String,
        #[source]
        source: config::ConfigErrors,
    },
    #[error("the configuration of {origin} has no root document (version: v1alpha1)")]
    Incomplete { origin: String },
}

impl AcquireController {
    /// `path` is where the configuration is kept.
    pub fn new(platform: Arc<dyn Platform>, path: PathBuf, inbox: ConfigInbox, events: EventBus) -> Self {
        Self { platform, path, inbox, events, watching: false, asked: false, found: false }
    }

    /// The first usable configuration of disk and platform.
    async fn find(&self) -> Result<Option<String>, Unusable> {
        let origin = self.path.display().to_string();
        if let Some(bytes) = sys::files::read(&self.path)? {
            return check(&origin, self.platform.mode(), &String::from_utf8_lossy(&bytes)).map(Some);
        }
        let origin = format!("platform {}", self.platform.name());
        let Some(text) = self.platform.configuration().await? else { return Ok(None) };
        let text = check(&origin, self.platform.mode(), &text)?;
        write_atomic(&self.path, text.as_bytes(), Access::SECRET)?;
        Ok(Some(text))
    }

    fn announce(&self, error: &Unusable) {
        let text = ErrorChain(error).to_string();
        tracing::error!(error = text, "configuration not usable, waiting for another one in maintenance mode");
        self.events.publish(match error {
            Unusable::Invalid { .. } | Unusable::Incomplete { .. } => Payload::ConfigValidationError { error: text },
            Unusable::Read(_) | Unusable::Platform(_) => Payload::ConfigLoadError { error: text },
        });
    }
}

fn check(origin: &str, mode: config::Mode, text: &str) -> Result<String, Unusable> {
    let invalid = |source| Unusable::Invalid { origin: origin.to_owned(), source };
    let documents = Documents::from_yaml(text.as_bytes()).map_err(invalid)?;
    let warnings = config::validate(&documents, mode).into_result().map_err(invalid)?;
    for warning in warnings {
        tracing::warn!(origin, %warning, "configuration");
    }
    if documents.v1alpha1().is_none() {
        return Err(Unusable::Incomplete { origin: origin.to_owned() });
    }
    Ok(text.to_owned())
}

#[async_trait]
impl Controller for AcquireController {
    fn name(&self) -> &'static str {
        "config.AcquireController"
    }

    fn inputs(&self) -> Vec<controller::Input> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::exclusive::<MachineConfig>(),
            Output::exclusive::<AcquireConfigStatus>(),
            Output::exclusive::<MaintenanceServiceRequest>(),
        ]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if !self.watching {
            let (waker, mut changes) = (ctx.waker(), self.inbox.subscribe());
            ctx.spawn("submitted configurations", async move {
                while changes.changed().await.is_ok() {
                    waker.wake();
                }
            });
            self.watching = true;
        }
        let mut text = self.inbox.latest();
        if text.is_none() && !self.asked {
            self.asked = true;
            text = self.find().await.unwrap_or_else(|error| {
                self.announce(&error);
                None
            });
        }
        let Some(text) = text else {
            // Also in the pass after one in which looking for it panicked.
            if !self.found {
                ctx.put(MAINTENANCE_ID, MaintenanceServiceRequest {})?;
            }
            return Ok(());
        };
        self.found = true;
        ctx.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text))?;
        ctx.put(ACQUIRED_ID, AcquireConfigStatus {})?;
        ctx.destroy::<MaintenanceServiceRequest>(MAINTENANCE_ID)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use controller::testing::Harness;

    use super::*;

    const GOOD: &str = include_str!("../testdata/worker.yaml");

    fn user_data(text: &str) -> Option<String> {
        Some(base64::engine::general_purpose::STANDARD.encode(text))
    }

    fn start(path: PathBuf, user_data: Option<String>) -> (Harness, ConfigInbox, EventBus) {
        let (inbox, events) = (ConfigInbox::default(), EventBus::new(Arc::new(stdx::SystemClock)));
        let platform = Arc::new(platform::Container::new(user_data, None));
        let harness = Harness::with(AcquireController::new(platform, path, inbox.clone(), events.clone()));
        (harness, inbox, events)
    }

    fn active(harness: &Harness) -> Option<String> {
        harness.get::<MachineConfig>(MachineConfig::ACTIVE_ID).map(|config| config.text.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn user_data_is_used_and_kept_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let (harness, _, _) = start(path.clone(), user_data(GOOD));
        harness.settle().await;
        assert_eq!(active(&harness).as_deref(), Some(GOOD));
        assert_eq!(std::fs::read_to_string(path).unwrap(), GOOD);
        assert!(harness.get::<MaintenanceServiceRequest>(MAINTENANCE_ID).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_disk_comes_before_the_platform() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let kept = format!("{GOOD}# kept\n");
        std::fs::write(&path, &kept).unwrap();
        let (harness, _, _) = start(path, user_data(GOOD));
        harness.settle().await;
        assert_eq!(active(&harness), Some(kept));
    }

    #[tokio::test(start_paused = true)]
    async fn a_corrupt_file_leads_to_maintenance_mode_and_a_new_configuration_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "machine: [broken").unwrap();
        let (harness, inbox, events) = start(path.clone(), user_data(GOOD));
        harness.settle().await;
        assert_eq!(active(&harness), None);
        assert!(harness.get::<MaintenanceServiceRequest>(MAINTENANCE_ID).is_some());
        assert!(matches!(events.kept()[0].payload, Payload::ConfigValidationError { .. }));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "machine: [broken", "left for inspection");
        inbox.submit(GOOD.into());
        harness.settle().await;
        assert_eq!(active(&harness).as_deref(), Some(GOOD));
        assert!(harness.get::<MaintenanceServiceRequest>(MAINTENANCE_ID).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_that_panicked_leads_to_maintenance_mode() {
        let dir = tempfile::tempdir().unwrap();
        let events = EventBus::new(Arc::new(stdx::SystemClock));
        let platform = Arc::new(platform::Container::new(None, None));
        let controller = AcquireController::new(platform, dir.path().join("c"), ConfigInbox::default(), events);
        // What the pass that panicked left.
        let harness = Harness::with(AcquireController { asked: true, ..controller });
        harness.settle().await;
        assert!(harness.get::<MaintenanceServiceRequest>(MAINTENANCE_ID).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_configuration_the_machine_asks_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let (harness, _, events) = start(dir.path().join("config.yaml"), None);
        harness.settle().await;
        assert!(harness.get::<MaintenanceServiceRequest>(MAINTENANCE_ID).is_some());
        assert!(events.kept().is_empty());
    }
}
