//! One application of a configuration, from its request to its result. Texts are those of Talos 1.7.

use std::time::Duration;

use config::Documents;
use config::acquire::{Step, SubmitError};
use config::revision::{self, Revisions};
use controller::Ctx;
use resources::machine::MaintenanceClients;
use resources::revision::{ApplyMode, ConfigCaller, ConfigOutcome, MachineConfigRequest, MachineConfigResult};
use stdx::error_chain;
use sys::files::FileError;

use super::files::Files;
use super::{ConfigurationController, Phase};

const NOT_IN_FORCE: &str = "volume STATE is not mounted: the machine does not run yet, or ends";
const NOT_INSTALLED: &str = "the machine is not installed yet, and a reboot would lose its configuration: use \
                             --mode=auto, no-reboot or try";

/// An application that ended without effect.
#[derive(Debug)]
struct Refusal {
    outcome: ConfigOutcome,
    why: String,
}

impl Refusal {
    fn new(outcome: ConfigOutcome, why: impl Into<String>) -> Self {
        Self { outcome, why: why.into() }
    }
}

impl From<config::ConfigErrors> for Refusal {
    fn from(errors: config::ConfigErrors) -> Self {
        Self::new(ConfigOutcome::NotValid, format!("configuration is not valid: {errors}"))
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        Self::new(ConfigOutcome::Failed, format!("persisting the configuration: {}", error_chain(&error)))
    }
}

impl ConfigurationController {
    /// Judges a configuration and applies it; nothing has changed where it is refused, but the timer of a trial.
    pub(super) async fn apply(
        &mut self,
        ctx: &Ctx,
        files: Option<&Files>,
        request: &MachineConfigRequest,
    ) -> MachineConfigResult {
        let applied = match &self.phase {
            Phase::Acquiring(_) => self.apply_first(files, request).await,
            Phase::Configured(revisions) => {
                let revisions = revisions.clone();
                self.apply_next(ctx, files, request, revisions).await
            }
        };
        let mode = request.mode.as_str();
        match applied {
            Ok(result) => {
                let effective = result.mode.as_str();
                tracing::info!(mode, effective, dry_run = request.dry_run, "configuration applied");
                for warning in &result.warnings {
                    tracing::warn!(warning, "configuration");
                }
                result
            }
            Err(Refusal { outcome, why }) => {
                // The reason may quote the configuration, so it is for the caller alone.
                tracing::warn!(mode, outcome = outcome.as_str(), "configuration refused");
                MachineConfigResult { outcome, mode: request.mode, details: why.into(), warnings: Vec::new() }
            }
        }
    }

    /// Documents for a machine in maintenance mode.
    async fn apply_first(
        &mut self,
        files: Option<&Files>,
        request: &MachineConfigRequest,
    ) -> Result<MachineConfigResult, Refusal> {
        let Phase::Acquiring(acquisition) = &self.phase else { return Err(not_possible(NOT_IN_FORCE)) };
        let clients = self.access.as_ref().map(|access| access.clients);
        match (clients, request.caller) {
            (None, _) => return Err(not_possible(SubmitError::NotInMaintenance.to_string())),
            (Some(MaintenanceClients::Anybody), _)
            | (Some(MaintenanceClients::Administrators), ConfigCaller::Administrator) => {}
            (Some(MaintenanceClients::Administrators | MaintenanceClients::Nobody), _) => {
                let why = "this machine belongs to a cluster: changing its configuration needs role os:admin";
                return Err(Refusal::new(ConfigOutcome::NotAllowed, why));
            }
        }
        if matches!(request.mode, ApplyMode::NoReboot | ApplyMode::Staged) {
            let why = format!("apply configuration --mode='{}' is not supported in maintenance mode", request.mode);
            return Err(Refusal::new(ConfigOutcome::NotSupported, why));
        }
        let documents = Documents::from_yaml(request.config.0.as_bytes())?;
        if documents.documents().is_empty() {
            return Err(Refusal::new(ConfigOutcome::NotValid, "the configuration has no document"));
        }
        let mut next = acquisition.clone();
        let warnings = next.submit(documents).map_err(|error| match error {
            SubmitError::NotInMaintenance => not_possible(error.to_string()),
            error => {
                Refusal::new(ConfigOutcome::NotValid, format!("configuration is not valid: {}", error_chain(&error)))
            }
        })?;
        if let Step::Done { documents, .. } = next.step() {
            config::validate::reachable(&documents).map_err(not_reachable)?;
        }
        let result = |details: &str| MachineConfigResult {
            outcome: ConfigOutcome::Applied,
            // Nothing runs that would have to be restarted.
            mode: ApplyMode::NoReboot,
            details: details.into(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
        };
        if request.dry_run {
            let said = "Dry run summary:\nNode is running in maintenance mode and does not have a config yet.";
            return Ok(result(said));
        }
        let Step::Done { documents, source } = next.step() else {
            self.phase = Phase::Acquiring(next);
            return Ok(result("Kept the configuration; the machine waits for its root document (version: v1alpha1)"));
        };
        if files.is_none() && !self.has_own_disks() {
            return Err(not_possible(NOT_IN_FORCE));
        }
        self.configured(files, documents, source).await?;
        Ok(result("Applied configuration to a node in maintenance mode"))
    }

    /// Another configuration for a machine that has one.
    async fn apply_next(
        &mut self,
        ctx: &Ctx,
        files: Option<&Files>,
        request: &MachineConfigRequest,
        mut revisions: Revisions,
    ) -> Result<MachineConfigResult, Refusal> {
        if request.caller != ConfigCaller::Administrator {
            let why = "the machine has a configuration: changing it needs role os:admin";
            return Err(Refusal::new(ConfigOutcome::NotAllowed, why));
        }
        let lasting = Duration::from(request.lasting);
        if request.mode != ApplyMode::Try {
            revisions.stop_timer();
            self.phase = Phase::Configured(revisions.clone());
        }
        let documents = Documents::from_yaml(request.config.0.as_bytes())?;
        let warnings = config::validate(&documents, self.platform.mode()).into_result()?;
        if documents.v1alpha1().is_none() {
            let why = "the configuration has no root document (version: v1alpha1), without which a machine cannot run";
            return Err(Refusal::new(ConfigOutcome::NotValid, why));
        }
        let mode = request.mode.to_model(lasting);
        let judged = if self.unsaved {
            Revisions::judge_unwritten(mode).ok_or_else(|| not_possible(NOT_INSTALLED))?
        } else {
            let judged = revisions.judge(&documents, mode);
            judged.map_err(|error| Refusal::new(ConfigOutcome::NotValid, error.to_string()))?
        };
        let mut result = MachineConfigResult {
            outcome: ConfigOutcome::Applied,
            mode: judged.mode.into(),
            details: "".into(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
        };
        let reachable = config::validate::reachable(&documents).map_err(not_reachable);
        if request.dry_run {
            // a dry run may show a step on the way, such as a worker that becomes a control plane and gets its keys later
            result.warnings.extend(reachable.err().map(|refusal| format!("it would be refused: {}", refusal.why)));
            let diff = config::diff::diff(revisions.active(), &documents);
            let diff = if diff.is_empty() { "No changes.".to_owned() } else { diff };
            let said = format!("Dry run summary:\n{} (skipped in dry-run).\nConfig diff:\n{diff}", judged.details);
            result.details = said.into();
            return Ok(result);
        }
        reachable?;
        let mut details = judged.details;
        if let revision::ApplyMode::Try(lasting) = judged.mode {
            let lasting = stdx::duration::format(lasting);
            let remark = "The config is applied in 'try' mode and will be automatically reverted back in";
            details = format!("{details}\n{remark} {lasting}");
        }
        if let Some(because) = judged.because {
            details = format!("{details}: {because}");
        }
        result.details = details.into();
        let next = revisions.applied(documents, judged.mode, self.uptime());
        if !matches!(judged.mode, revision::ApplyMode::Try(_)) {
            match files {
                Some(files) => files.write(next.persistent()).await?,
                // It is written when the machine has been installed.
                None if self.unsaved => {}
                None => return Err(not_possible(NOT_IN_FORCE)),
            }
        }
        if next.trial().is_some() {
            self.reverts_at = (ctx.clock().now() + lasting).into();
        }
        self.phase = Phase::Configured(next);
        Ok(result)
    }
}

/// Taken, such a configuration would be the last one.
fn not_reachable(errors: config::ConfigErrors) -> Refusal {
    let why = format!("the machine could not be reached through its API with this configuration: {errors}");
    Refusal::new(ConfigOutcome::NotValid, why)
}

fn not_possible(why: impl Into<String>) -> Refusal {
    Refusal::new(ConfigOutcome::NotPossible, why)
}
