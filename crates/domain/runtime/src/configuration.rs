//! The configuration of the machine: acquired once, then changed by the API. One controller owns it, so that validation sees
//! the configuration that is replaced, and "applied" means in force.
//!
//! The decisions are `config::acquire` and `config::revision`; here are files, time and resources. A configuration on disk
//! that cannot be used stays there for inspection and is announced.

mod access;
mod clock;
mod files;
mod request;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::Documents;
use config::acquire::{Acquisition, Failure, Source, Step};
use config::revision::{Revisions, Uptime};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use platform::{Inventory, Platform};
use resources::block::{DiscoveredVolume, VolumePhase, VolumeStatus};
use resources::config::MachineConfig;
use resources::machine::{MaintenanceAccess, MaintenanceClients, Ownership};
use resources::revision::{MachineConfigRequest, MachineConfigResult, MachineConfigRevision};
use resources::runtime::{MaintenanceServiceRequest, MetaKey, MountStatus};
use resources::v1alpha1::{AcquireConfigSpec, AcquireConfigStatus};
use resources::values::Timestamp;
use sequencer::events::Action;
use sequencer::{EventBus, Payload};
use stdx::{Clock as _, SystemClock};
use sys::files::FileError;
use tokio::time::Instant;

use access::Evidence;
use files::{Authorities, ConfigurationError, Files};

/// The id of the request for the maintenance API.
pub const MAINTENANCE_ID: &str = "maintenance";
/// How often a medium with the configuration is looked for beside changes of volumes: one may have failed to mount.
const MEDIUM: Duration = Duration::from_secs(30);
/// Timeout of a request to the platform; then it is retried. It may wait for what the machine says of itself for a part of
/// that.
const PLATFORM_ANSWER: Duration = Duration::from_secs(180);

/// Traces of a cluster below the volume EPHEMERAL, and their names for people.
const TRACES: [(&str, &str); 2] =
    [("lib/etcd/member", "data of etcd"), ("lib/kubelet/pki/kubelet-client-current.pem", "a kubelet's certificate")];

/// `config.ConfigurationController`.
#[derive(Debug)]
pub struct ConfigurationController {
    platform: Arc<dyn Platform>,
    inventory: Arc<dyn Inventory>,
    events: EventBus,
    /// Set where it shows an impossible time; none is touched without it.
    clock: Option<Arc<dyn ntp::SystemTime>>,
    started: Instant,
    phase: Phase,
    /// When the trial in force reverts, for people: decided when it began, since the wall clock may jump.
    reverts_at: Timestamp,
    /// The configuration in force waits for the volume STATE, to be written there.
    unsaved: bool,
    /// Maintenance mode as it was announced.
    access: Option<MaintenanceAccess>,
    /// The last failure that was announced, so that retries do not announce it again.
    announced: Option<String>,
}

#[derive(Debug)]
enum Phase {
    Acquiring(Acquisition),
    Configured(Revisions),
}

impl ConfigurationController {
    pub fn new(platform: Arc<dyn Platform>, inventory: Arc<dyn Inventory>, events: EventBus) -> Self {
        let phase = Phase::Acquiring(Acquisition::new(platform.mode()));
        Self {
            platform,
            inventory,
            events,
            clock: None,
            started: Instant::now(),
            phase,
            reverts_at: Timestamp::default(),
            unsaved: false,
            access: None,
            announced: None,
        }
    }

    /// Sets this clock where it is the machine's own and shows a time before the cluster's authorities were made.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn ntp::SystemTime>) -> Self {
        let own = self.platform.capabilities().clock == Ownership::Machine;
        Self { clock: own.then_some(clock), ..self }
    }

    fn set_clock(&self, documents: &Documents) {
        let Some(clock) = &self.clock else { return };
        let Some(behind) = clock::behind(documents, SystemClock.now()) else { return };
        let days = behind.as_secs() / (24 * 60 * 60);
        match clock.advance(behind) {
            Ok(()) => {
                tracing::warn!(days, "the clock showed a time before the cluster was made, and is set forward to it");
            }
            Err(error) => {
                let error = stdx::error_chain(&error);
                tracing::error!(error, days, "the clock shows a time before the cluster was made");
            }
        }
    }

    /// Whether there may be no volume for the configuration yet.
    fn has_own_disks(&self) -> bool {
        self.platform.capabilities().disks == Ownership::Machine
    }

    fn uptime(&self) -> Uptime {
        self.started.elapsed()
    }

    /// Says once that a configuration cannot be used.
    fn announce(&mut self, error: &ConfigurationError) -> Failure {
        let text = stdx::error_chain(error);
        if self.announced.as_ref() != Some(&text) {
            tracing::error!(error = text, retried = error.failure() != Failure::Lasting, "configuration not usable");
            self.events.publish(match error {
                ConfigurationError::Invalid { .. } | ConfigurationError::Empty { .. } => {
                    Payload::ConfigValidationError { error: text.clone() }
                }
                ConfigurationError::Read(_) | ConfigurationError::Volume { .. } | ConfigurationError::Platform(_) => {
                    Payload::ConfigLoadError { error: text.clone() }
                }
            });
            self.announced = Some(text);
        }
        error.failure()
    }

    /// The configuration on disk; a machine without the volume has none.
    fn read(&self, place: &Place) -> Result<Option<Documents>, ConfigurationError> {
        match place {
            Place::Mounted(files) => files.read(self.platform.mode()),
            Place::Absent => Ok(None),
            Place::Unusable(reason) => Err(ConfigurationError::Volume { reason: reason.clone() }),
        }
    }

    async fn ask_platform(&self) -> Result<Option<Documents>, ConfigurationError> {
        let answer = tokio::time::timeout(PLATFORM_ANSWER, self.platform.configuration(self.inventory.as_ref())).await;
        let unavailable = |source| platform::PlatformError::Unavailable {
            platform: self.platform.name(),
            source: Box::new(source) as Box<_>,
        };
        let Some(text) = answer.map_err(unavailable)?? else { return Ok(None) };
        let origin = format!("platform {}", self.platform.name());
        files::decode(&origin, text.as_bytes(), self.platform.mode()).map(Some)
    }

    async fn report_platform(&mut self) {
        let outcome = self.ask_platform().await.map_err(|error| self.announce(&error));
        let now = self.uptime();
        if let Phase::Acquiring(acquisition) = &mut self.phase {
            acquisition.platform(outcome, now);
        }
    }

    /// Goes on until there is a configuration, or something to wait for.
    async fn acquire(&mut self, ctx: &mut Ctx, place: &Place) -> Result<(), ReconcileError> {
        let mut has_looked_for_medium = false;
        loop {
            let now = self.uptime();
            let Phase::Acquiring(acquisition) = &self.phase else { return Ok(()) };
            let outcome = match acquisition.step() {
                Step::ReadDisk { not_before } | Step::AskPlatform { not_before } if not_before > now => {
                    ctx.requeue_after(not_before.saturating_sub(now));
                    return Ok(());
                }
                Step::ReadDisk { .. } => self.read(place),
                Step::Maintain { read_disk_at: Some(at) } if at <= now => self.read(place),
                Step::AskPlatform { .. } => {
                    has_looked_for_medium = true;
                    self.report_platform().await;
                    continue;
                }
                Step::Maintain { .. } if acquisition.awaits_medium() && !has_looked_for_medium => {
                    has_looked_for_medium = true;
                    self.report_platform().await;
                    continue;
                }
                Step::Maintain { read_disk_at } => {
                    if let Some(at) = read_disk_at {
                        ctx.requeue_after(at.saturating_sub(now));
                    }
                    if acquisition.awaits_medium() {
                        ctx.requeue_after(MEDIUM);
                    }
                    return Ok(());
                }
                Step::Done { documents, source } => {
                    return Ok(self.configured(place.files(), documents, source).await?);
                }
            };
            let outcome = outcome.map_err(|error| self.announce(&error));
            if let Phase::Acquiring(acquisition) = &mut self.phase {
                acquisition.disk(outcome, now);
            }
        }
    }

    /// Persists the acquired configuration; then it is in force. A failure is retried with the pass. A machine that has no
    /// volume for it yet is configured all the same: it is written when there is one.
    async fn configured(
        &mut self,
        files: Option<&Files>,
        documents: Documents,
        source: Source,
    ) -> Result<(), FileError> {
        self.unsaved = files.is_none();
        // Before anything is signed.
        self.set_clock(&documents);
        match source {
            // Nodes of an earlier version have no authorities beside it. The configuration is in force also when they
            // cannot be written.
            Source::Disk => {
                if let Some(files) = files
                    && let Err(error) = files.renew_authorities(&documents).await
                {
                    tracing::error!(error = stdx::error_chain(&error), "the authorities of the API are not kept");
                }
            }
            Source::Platform | Source::Maintenance => {
                if let Some(files) = files {
                    files.write(&documents).await?;
                }
            }
        }
        tracing::info!(?source, "configuration acquired");
        self.phase = Phase::Configured(Revisions::booted(documents.clone(), documents));
        self.announced = None;
        Ok(())
    }

    /// Makes the resources say what the phase is. It is called again within a pass, so that nothing is left to
    /// `keep_touched`.
    fn publish(&self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let revisions = match &self.phase {
            Phase::Acquiring(acquisition) => {
                if let Some(partial) = acquisition.partial() {
                    ctx.put(MachineConfig::MAINTENANCE_ID, MachineConfig::new(text(partial)))?;
                }
                return Ok(());
            }
            Phase::Configured(revisions) => revisions,
        };
        ctx.put(MachineConfig::ACTIVE_ID, MachineConfig::new(text(revisions.active())))?;
        ctx.destroy::<MachineConfig>(MachineConfig::MAINTENANCE_ID)?;
        let none = Timestamp::default();
        Self::publish_revision(ctx, MachineConfigRevision::ACTIVE, Some(revisions.active()), none)?;
        let persistent = (!self.unsaved).then(|| revisions.persistent());
        Self::publish_revision(ctx, MachineConfigRevision::PERSISTENT, persistent, none)?;
        Self::publish_revision(ctx, MachineConfigRevision::STAGED, revisions.staged(), none)?;
        let trial = revisions.trial();
        if let Some(trial) = trial {
            ctx.requeue_after(trial.reverts_at.saturating_sub(self.uptime()));
        }
        let documents = trial.map(|trial| &trial.documents);
        Self::publish_revision(ctx, MachineConfigRevision::TRIAL, documents, self.reverts_at)?;
        ctx.put(AcquireConfigStatus::ID, AcquireConfigStatus {})?;
        Ok(())
    }

    fn publish_revision(
        ctx: &mut Ctx,
        id: &str,
        documents: Option<&Documents>,
        revert_at: Timestamp,
    ) -> Result<(), ReconcileError> {
        match documents {
            Some(documents) => {
                ctx.put(id, MachineConfigRevision { config: text(documents).into(), revert_at })?;
            }
            None => {
                ctx.destroy::<MachineConfigRevision>(id)?;
            }
        }
        Ok(())
    }
}

fn text(documents: &Documents) -> String {
    String::from_utf8_lossy(documents.raw()).into_owned()
}

/// Where the configuration is kept.
#[derive(Debug)]
enum Place {
    /// The machine has no volume for it.
    Absent,
    Mounted(Files),
    /// The machine has a volume STATE, and this is why it is not mounted. What was kept there still counts.
    Unusable(String),
}

impl Place {
    const fn files(&self) -> Option<&Files> {
        match self {
            Self::Mounted(files) => Some(files),
            Self::Absent | Self::Unusable(_) => None,
        }
    }
}

fn place(ctx: &mut Ctx) -> Result<Place, ReconcileError> {
    if let Some(status) = ctx.hold_while_running::<MountStatus>(MountStatus::STATE)? {
        return Ok(Place::Mounted(Files::below(Path::new(&status.target))));
    }
    Ok(match ctx.get::<VolumeStatus>(MountStatus::STATE)?.as_deref() {
        Some(VolumeStatus { phase: VolumePhase::Failed | VolumePhase::Locked, reason, .. }) => {
            Place::Unusable(reason.clone())
        }
        Some(VolumeStatus { phase: VolumePhase::Preparing, .. }) => Place::Unusable("it is being prepared".to_owned()),
        _ => Place::Absent,
    })
}

/// The traces of a cluster on this machine, besides a valid configuration.
fn evidence(
    place: &Place,
    ephemeral: Option<&MountStatus>,
    kept: Option<&MetaKey>,
    acquisition: &Acquisition,
) -> Evidence {
    let files = place.files();
    let mut traces = Vec::new();
    if matches!(place, Place::Unusable(_)) {
        traces.push("a volume STATE that cannot be used".to_owned());
    }
    // Documents that only wait for their root say nothing of a cluster.
    if files.is_some_and(Files::has_config) && acquisition.partial().is_none() {
        traces.push("a configuration that cannot be used".to_owned());
    }
    let below = ephemeral.map(|status| Path::new(&status.target));
    let found = |path: &&(&str, &str)| below.is_some_and(|below| below.join(path.0).try_exists().unwrap_or(true));
    traces.extend(TRACES.iter().filter(found).map(|(_, name)| (*name).to_owned()));
    let authorities = match (files, place) {
        (Some(files), _) => files.authorities(),
        (None, Place::Unusable(_)) => Authorities::of_meta(kept),
        (None, _) => Authorities::Absent,
    };
    Evidence { traces, authorities }
}

impl ConfigurationController {
    /// Asks for maintenance mode while it is needed, and says whose configurations it takes.
    fn maintain(&mut self, ctx: &mut Ctx, place: &Place) -> Result<(), ReconcileError> {
        let acquisition = match &self.phase {
            Phase::Acquiring(acquisition) if matches!(acquisition.step(), Step::Maintain { .. }) => acquisition,
            _ => {
                if self.access.take().is_some() {
                    self.events.publish(running_maintenance(Action::Stop));
                    tracing::info!("maintenance mode is not needed any more");
                }
                ctx.destroy::<MaintenanceServiceRequest>(MAINTENANCE_ID)?;
                ctx.destroy::<MaintenanceAccess>(MaintenanceAccess::ID)?;
                return Ok(());
            }
        };
        let ephemeral = ctx.get::<MountStatus>(MountStatus::EPHEMERAL)?;
        let kept = ctx.get::<MetaKey>(&machine::meta::resource_id(machine::meta::tag::API_AUTHORITIES))?;
        let access = access::decide(&evidence(place, ephemeral.as_deref(), kept.as_deref(), acquisition));
        if self.access.as_ref() != Some(&access) {
            announce_access(&access);
            if self.access.is_none() {
                self.events.publish(running_maintenance(Action::Start));
            }
            self.access = Some(access.clone());
        }
        ctx.put(MaintenanceAccess::ID, access)?;
        ctx.put(MAINTENANCE_ID, MaintenanceServiceRequest {})?;
        Ok(())
    }

    /// Answers requests in the order in which they were made. Results go with their requests.
    async fn answer(&mut self, ctx: &mut Ctx, files: Option<&Files>) -> Result<(), ReconcileError> {
        let mut requests = ctx.list::<MachineConfigRequest>()?;
        requests.sort_by_key(|request| request.metadata.created);
        for request in requests {
            let id = request.id().to_owned();
            if ctx.get::<MachineConfigResult>(&id)?.is_some() {
                continue;
            }
            let result = self.apply(ctx, files, &request).await;
            // In force and on disk before it is said to be.
            self.publish(ctx)?;
            ctx.put(&id, result)?;
        }
        let requests: Vec<String> = ctx.list::<MachineConfigRequest>()?.iter().map(|r| r.id().to_owned()).collect();
        for result in ctx.list::<MachineConfigResult>()? {
            if !requests.iter().any(|id| id == result.id()) {
                ctx.destroy::<MachineConfigResult>(result.id())?;
            }
        }
        Ok(())
    }
}

/// The event by which clients see that the machine waits for an operator (Talos 1.7).
fn running_maintenance(action: Action) -> Payload {
    Payload::Task { task: "runningMaintenance".to_owned(), action }
}

fn announce_access(access: &MaintenanceAccess) {
    let reason = access.reason.as_str();
    match access.clients {
        MaintenanceClients::Anybody => {
            tracing::info!(reason, "maintenance mode accepts a configuration from any client");
        }
        MaintenanceClients::Administrators => tracing::warn!(
            reason,
            "maintenance mode takes a configuration only from a client of the cluster with role os:admin: `talosctl \
             apply-config --insecure` with the talosconfig of the cluster"
        ),
        MaintenanceClients::Nobody => tracing::error!(
            reason,
            "maintenance mode serves nobody: put config.yaml back into the volume STATE, or wipe the system disk: on BIOS by \
             the entry \"Reset Talos installation\" of the boot menu, on UEFI by that of the ISO, or by the kernel argument \
             talos.experimental.wipe=system"
        ),
    }
}

#[async_trait]
impl Controller for ConfigurationController {
    fn name(&self) -> &'static str {
        "config.ConfigurationController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<AcquireConfigSpec>().id(AcquireConfigSpec::ID),
            Input::strong::<MountStatus>().id(MountStatus::STATE),
            Input::weak::<MountStatus>().id(MountStatus::EPHEMERAL),
            Input::weak::<VolumeStatus>().id(MountStatus::STATE),
            // For administrators of a machine whose STATE does not open.
            Input::weak::<MetaKey>(),
            // A medium with the configuration may be attached in maintenance mode.
            Input::weak::<DiscoveredVolume>(),
            Input::weak::<MachineConfigRequest>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::exclusive::<MachineConfig>(),
            Output::exclusive::<MachineConfigRevision>(),
            Output::exclusive::<MachineConfigResult>(),
            Output::exclusive::<AcquireConfigStatus>(),
            Output::exclusive::<MaintenanceServiceRequest>(),
            Output::exclusive::<MaintenanceAccess>(),
        ]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let place = place(ctx)?;
        let is_asked = ctx.get::<AcquireConfigSpec>(AcquireConfigSpec::ID)?.is_some();
        // The boot asks after it mounted the volume, where there is one.
        if matches!(self.phase, Phase::Acquiring(_)) && is_asked && (place.files().is_some() || self.has_own_disks()) {
            self.acquire(ctx, &place).await?;
            self.maintain(ctx, &place)?;
        }
        if let (Phase::Configured(revisions), Some(files), true) = (&self.phase, place.files(), self.unsaved) {
            files.write(revisions.persistent()).await?;
            self.unsaved = false;
            tracing::info!("the configuration is on the volume STATE");
        }
        let now = self.uptime();
        if let Phase::Configured(revisions) = &mut self.phase
            && revisions.expire(now)
        {
            tracing::info!("the configuration on trial is reverted");
        }
        self.publish(ctx)?;
        self.answer(ctx, place.files()).await?;
        if matches!(self.phase, Phase::Configured(_)) {
            self.maintain(ctx, &place)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
