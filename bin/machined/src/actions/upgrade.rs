//! Installation of another version beside the one that runs, and what makes it the next one to be started.

use std::time::Duration;

use config::{Document, Documents};
use domain_storage::{Evidence, TrialEdges};
use machine::cmdline::Cmdline;
use machine::meta::{self, tag};
use machine::staged::{self, StagedUpgrade};
use machine::trial::{Check, LIMIT, Record};
use machine_api::{MetaRefused, MetaValues};
use parking_lot::Mutex;
use resources::MachineType;
use resources::config::MachineConfig;
use resources::runtime::{MetaKey, MetaLoad};
use sequencer::{Parameters, Request, TaskContext, TaskError};
use services::installation::{Installation, Installer};
use state::{Kind, Store, WatchOptions};
use sys::early::EarlySystem;

use super::install;
use crate::components::Components;
use crate::system_disk;

/// How often META is looked at while it was not read.
const LOOK: Duration = Duration::from_secs(1);

/// What the node showed before anything of it stopped: a new version has to show it as well.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Vec<Check>>);

impl Held {
    /// Keeps in mind what holds now.
    pub(crate) fn note(&self, store: &Store) -> Result<(), TaskError> {
        let held = Evidence::of(&store.list_as()?, &store.list_as()?, &store.list_as()?).held();
        tracing::info!(?held, "what a new version has to show");
        *self.0.lock() = held;
        Ok(())
    }

    pub(crate) fn checks(&self) -> Vec<Check> {
        self.0.lock().clone()
    }
}

/// The upgrade that was staged for this start, from the moment on at which META has it no more.
#[derive(Debug, Default)]
pub(crate) struct Staged(Mutex<Option<StagedUpgrade>>);

impl Staged {
    pub(crate) fn get(&self) -> Option<StagedUpgrade> {
        self.0.lock().clone()
    }

    /// Takes it out of META. It is performed only once it is durably gone there, so that no start performs it again.
    ///
    /// # Errors
    /// META cannot be read or written, or has values that are no staged upgrade: this start is one without.
    pub(crate) async fn take_from(
        &self,
        store: &Store,
        meta: &dyn MetaValues,
        context: &TaskContext,
    ) -> Result<(), TaskError> {
        loaded(store, context).await?;
        let value = |tag| {
            let value = store.get_as::<MetaKey>(&meta::resource_id(tag));
            value.map(|value| value.map(|value| value.value.clone()))
        };
        let (image, options, checks) =
            (value(tag::STAGED_IMAGE)?, value(tag::STAGED_OPTIONS)?, value(tag::STAGED_CHECKS)?);
        let staged = StagedUpgrade::parse(image.as_deref(), options.as_deref(), checks.as_deref());
        // The image first: without it nothing is staged.
        for tag in staged::TAGS.into_iter().rev() {
            match meta.delete(tag).await {
                Ok(()) | Err(MetaRefused::Absent(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(staged) = staged? else { return Ok(()) };
        if let Some(trial) = crate::versions::record(store).filter(Record::is_open) {
            return Err(
                format!("the upgrade to {} is not performed: {} is on trial", staged.image, trial.version).into()
            );
        }
        tracing::info!(image = staged.image, preserve = staged.preserve, "a staged upgrade is performed");
        *self.0.lock() = Some(staged);
        Ok(())
    }

    /// The image of the upgrade: that of the request, or the staged one where a start performs it.
    pub(crate) fn image(&self, request: &Request) -> Result<String, TaskError> {
        if let Parameters::Upgrade(upgrade) = &request.options.parameters {
            return Ok(upgrade.image.clone());
        }
        Ok(self.get().ok_or("no image to upgrade to")?.image)
    }

    /// What the new version has to show where it was staged; all that a node of its kind shows, where another system staged it.
    pub(crate) fn checks(&self, store: &Store) -> Result<Option<Vec<Check>>, TaskError> {
        let Some(staged) = self.get() else { return Ok(None) };
        let kind = store.get_as::<MachineType>(MachineType::ID)?;
        let of_kind = || match kind.as_deref() {
            Some(kind) if kind.is_control_plane() => Check::ALL.to_vec(),
            _ => vec![Check::Api, Check::Kubelet],
        };
        Ok(Some(staged.checks.unwrap_or_else(of_kind)))
    }
}

/// Waits until META was read.
async fn loaded(store: &Store, context: &TaskContext) -> Result<(), TaskError> {
    loop {
        // The watch first: a change after the look is an event.
        let mut changes = store.watch_kind(&Kind::of::<MetaLoad>(), WatchOptions::default())?;
        if store.get_as::<MetaLoad>(MetaLoad::ID)?.is_some_and(|load| load.done) {
            return Ok(());
        }
        // All arms are cancel-safe: a missed change is seen at the next look.
        tokio::select! {
            event = changes.next() => drop(event),
            () = context.cancel.cancelled() => return Err("META was not read in time".into()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Leaves the upgrade of a request to the next start.
///
/// # Errors
/// META cannot be written: nothing is staged.
pub(crate) async fn stage(meta: &dyn MetaValues, held: &Held, request: &Request) -> Result<(), TaskError> {
    let Parameters::Upgrade(upgrade) = &request.options.parameters else { return Err("no image to upgrade to".into()) };
    let checks = Some(held.checks());
    let staged = StagedUpgrade { image: upgrade.image.clone(), preserve: upgrade.preserve, checks };
    for (tag, value) in staged.values() {
        meta.set(tag, value.into_bytes()).await?;
    }
    tracing::info!(image = staged.image, "the upgrade is staged for the next start");
    Ok(())
}

/// Runs an installer image. What starts the machine stays as it is.
pub(crate) async fn install(
    components: &Components,
    system: &dyn EarlySystem,
    installer: &dyn Installer,
    image: String,
    context: &TaskContext,
) -> Result<(), TaskError> {
    let disk = system_disk::device(&components.store)?.ok_or("no disk has the system")?;
    let active = components.store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let root = MachineConfig::root_of(active.as_deref())?;
    let section = root.and_then(|config| config.machine().install.clone()).unwrap_or_default();
    let running = Cmdline::parse(&system.read(install::CMDLINE.as_ref())?);
    let source = running.config_source().unwrap_or("none");
    let mut arguments = vec![
        "/bin/installer".to_owned(),
        "install".to_owned(),
        format!("--disk={}", disk.display()),
        format!("--platform={}", components.platform.name()),
        format!("--config={source}"),
        "--upgrade=true".to_owned(),
        "--force=false".to_owned(),
        "--zero=false".to_owned(),
    ];
    for argument in &section.extra_kernel_args {
        arguments.extend(["--extra-kernel-arg".to_owned(), argument.clone()]);
    }
    let environment = install::environment(&running, root.map(|config| &config.machine().env));
    let configuration = active.as_ref().map(|active| active.text.as_bytes().into()).unwrap_or_default();
    let installation = Installation { image: image.clone(), arguments, environment, configuration };
    let registries = domain_runtime::cri_config::pull_registries(active.as_deref());
    installer.install(&installation, &registries, install::output(components), context.cancel.clone()).await?;
    tracing::info!(image, "the new version is installed");
    Ok(())
}

/// Has the boot loader start the new version the next time, on trial.
pub(crate) async fn prepare_trial(store: &Store, edges: &TrialEdges, checks: Vec<Check>) -> Result<(), TaskError> {
    let slots = edges.loader.slots().await?;
    let running = slots.booted.as_ref().or(slots.default.as_ref()).ok_or("it is not known which version runs")?;
    let former = slots.version(running).ok_or_else(|| format!("the boot loader does not know {running}"))?;
    let new = slots.other().ok_or("the installer has left no new version")?;
    let record = Record::prepared(new, former, checks, limit(store)?.as_secs());
    Ok(edges.prepare(&record).await?)
}

/// How long the new version may take: as the configuration says.
fn limit(store: &Store) -> Result<Duration, TaskError> {
    let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
    let documents = active.as_deref().map(MachineConfig::documents).transpose()?;
    let configured = documents.into_iter().flat_map(Documents::documents).find_map(|document| match document {
        // What is no duration was refused with the configuration.
        Document::UpgradeTrial(trial) => stdx::duration::parse(&trial.limit).ok(),
        _ => None,
    });
    Ok(configured.unwrap_or(Duration::from_secs(LIMIT)))
}

#[cfg(test)]
mod tests;
