//! Installation of another version beside the one that runs, and what makes it the next one to be started.

use domain_storage::{Evidence, TrialEdges};
use machine::cmdline::Cmdline;
use machine::trial::{Check, LIMIT, Record};
use parking_lot::Mutex;
use resources::config::MachineConfig;
use sequencer::{Parameters, Request, TaskContext, TaskError};
use services::installation::{Installation, Installer};
use state::Store;
use sys::early::EarlySystem;

use super::install;
use crate::components::Components;
use crate::system_disk;

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
}

/// Runs the installer image of the request. What starts the machine stays as it is.
pub(crate) async fn install(
    components: &Components,
    system: &dyn EarlySystem,
    installer: &dyn Installer,
    request: &Request,
    context: &TaskContext,
) -> Result<(), TaskError> {
    let Parameters::Upgrade(upgrade) = &request.options.parameters else { return Err("no image to upgrade to".into()) };
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
    let installation = Installation { image: upgrade.image.clone(), arguments, environment, configuration };
    let registries = domain_runtime::cri_config::pull_registries(active.as_deref());
    installer.install(&installation, &registries, install::output(components), context.cancel.clone()).await?;
    tracing::info!(image = upgrade.image, "the new version is installed");
    Ok(())
}

/// Has the boot loader start the new version the next time, on trial.
pub(crate) async fn prepare_trial(edges: &TrialEdges, held: &Held) -> Result<(), TaskError> {
    let slots = edges.loader.slots().await?;
    let running = slots.booted.as_ref().or(slots.default.as_ref()).ok_or("it is not known which version runs")?;
    let former = slots.version(running).ok_or_else(|| format!("the boot loader does not know {running}"))?;
    let new = slots.other().ok_or("the installer has left no new version")?;
    let record = Record::prepared(new, former, held.0.lock().clone(), LIMIT);
    Ok(edges.prepare(&record).await?)
}
