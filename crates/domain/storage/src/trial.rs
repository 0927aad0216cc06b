//! The trial of a new version: what `machine::trial` decides, carried out on META and the boot loader.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::slots::{BootLoader, SlotsError};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use machine::meta::{self, tag};
use machine::trial::{self, Action, Check, Phase, Record, Shown, Slots, Verdict};
use resources::block::SystemDisk;
use resources::k8s::{NodeStatus, StaticPodStatus};
use resources::machine::{TrialPhase, UpgradeTrial};
use resources::runtime::{MetaKey, MetaLoad};
use resources::v1alpha1::Service;
use resources::values::Nanoseconds;
use state::Resource;
use tokio::time::Instant;

use crate::meta::{MetaError, MetaHandle};

mod watchdog;

use watchdog::TrialWatchdog;
pub use watchdog::TrialWatchdogs;

/// How often an open trial is looked at without a change.
const LOOK: Duration = Duration::from_secs(5);

/// How long a trial may go on after its limit: the boot loader or META may be away for a moment.
const UNJUDGED: Duration = Duration::from_secs(120);

/// Leaves a version that failed, and tells of it.
pub trait Leave: Debug + Send + Sync {
    /// Reboots through the firmware, whatever runs.
    fn leave(&self, reason: &str);

    /// Announces an event: `version` has lost its slot.
    fn tell(&self, version: &str, reason: &str);
}

/// A trial cannot be carried on.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("the boot loader")]
    Slots(#[from] SlotsError),
    #[error("the record of the trial in META")]
    Meta(#[from] MetaError),
}

/// What actions are carried out on.
#[derive(Debug, Clone)]
pub struct TrialEdges {
    pub loader: Arc<dyn BootLoader>,
    pub meta: MetaHandle,
    pub leave: Arc<dyn Leave>,
    pub watchdogs: Arc<dyn TrialWatchdogs>,
}

impl TrialEdges {
    /// Carries out an action.
    ///
    /// # Errors
    /// [`TrialError`]; the action may or may not be done, and is asked for again.
    pub async fn perform(&self, action: &Action) -> Result<(), TrialError> {
        tracing::info!(?action, "trial of a version");
        match action {
            Action::Record(record) => self.meta.set(tag::TRIAL, record.encode().into_bytes()).await?,
            Action::Next(slot) => self.loader.start_next(slot.as_ref()).await?,
            Action::Default(slot) => self.loader.make_default(slot).await?,
            Action::Leave => self.leave.leave("the version failed its trial"),
        }
        Ok(())
    }

    /// Makes everything ready for the first start of a version that was installed beside the running one.
    ///
    /// # Errors
    /// [`TrialError`]; the running version stays the one that is started.
    pub async fn prepare(&self, wanted: &Record) -> Result<(), TrialError> {
        let mut kept = None;
        while let Some(action) = trial::prepare(wanted, kept.as_ref(), &self.loader.slots().await?) {
            self.perform(&action).await?;
            if let Action::Record(record) = action {
                kept = Some(record);
            }
        }
        Ok(())
    }
}

/// What a node shows: services, its Node, its static pods.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    pub services: Vec<(String, Service)>,
    pub node: Option<NodeStatus>,
    /// Each static pod with whether it is ready.
    pub static_pods: Vec<(String, bool)>,
}

impl Evidence {
    /// What these resources of a node show.
    #[must_use]
    pub fn of(
        services: &[Resource<Service>],
        nodes: &[Resource<NodeStatus>],
        pods: &[Resource<StaticPodStatus>],
    ) -> Self {
        Self {
            services: services.iter().map(|one| (one.id().to_owned(), (**one).clone())).collect(),
            node: nodes.first().map(|node| (**node).clone()),
            static_pods: pods.iter().map(|pod| (pod.id().to_owned(), is_ready(pod))).collect(),
        }
    }

    fn is_healthy(&self, id: &str) -> bool {
        self.services.iter().any(|(name, service)| name == id && service.running && service.healthy)
    }

    /// The checks that do not hold, each with what it waits for.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let service = |id: &str| (!self.is_healthy(id)).then(|| format!("service {id} is not healthy"));
        let node = || match &self.node {
            None => Some("its Node is not known".to_owned()),
            Some(node) => (!node.node_ready).then(|| format!("Node {} is not Ready", node.nodename)),
        };
        let pods = || {
            let unready: Vec<&str> =
                self.static_pods.iter().filter(|(_, ready)| !ready).map(|(name, _)| name.as_str()).collect();
            match (self.static_pods.is_empty(), unready.is_empty()) {
                (true, _) => Some("there are none".to_owned()),
                (_, false) => Some(format!("not ready: {}", unready.join(", "))),
                (_, true) => None,
            }
        };
        let unmet = |check: &Check| match check {
            Check::Api => service("apid"),
            Check::Etcd => service("etcd"),
            Check::Kubelet => service("kubelet").or_else(node),
            Check::StaticPods => pods(),
        };
        Shown { unmet: Check::ALL.iter().filter_map(|check| Some((*check, unmet(check)?))).collect() }
    }

    /// The checks that hold: what a new version has to show as well.
    #[must_use]
    pub fn held(&self) -> Vec<Check> {
        let shown = self.shown();
        Check::ALL.into_iter().filter(|check| shown.unmet.iter().all(|(unmet, _)| unmet != check)).collect()
    }
}

/// Whether a static pod's status says that it is ready.
fn is_ready(status: &StaticPodStatus) -> bool {
    let conditions = status.pod_status.get("conditions").and_then(|conditions| conditions.as_array());
    conditions.into_iter().flatten().any(|condition| {
        let text = |key: &str| condition.get(key).and_then(|value| value.as_str());
        text("type") == Some("Ready") && text("status") == Some("True")
    })
}

/// `runtime.UpgradeTrialController`: judges a version after an upgrade, and says what came of it.
#[derive(Debug)]
pub struct UpgradeTrialController {
    edges: TrialEdges,
    /// Since when the version may show itself good.
    started: Option<Instant>,
    /// What the boot loader had at the last look.
    slots: Option<Slots>,
    /// Whether this machine was started with an open trial; none until META was read. One that an upgrade prepares later is for
    /// the next start.
    started_open: Option<bool>,
    /// This start is in the record.
    seen: bool,
    /// All that is to be done at a start is done.
    is_settled: bool,
    left: bool,
    /// The failure was announced. Events do not outlive a start: each start announces that of the last trial.
    told: bool,
    watchdog: TrialWatchdog,
}

impl UpgradeTrialController {
    #[must_use]
    pub fn new(edges: TrialEdges) -> Self {
        let watchdog = TrialWatchdog::new(Arc::clone(&edges.watchdogs));
        Self {
            edges,
            started: None,
            slots: None,
            started_open: None,
            seen: false,
            is_settled: false,
            left: false,
            told: false,
            watchdog,
        }
    }

    fn record(ctx: &Ctx) -> Result<Option<Record>, ReconcileError> {
        let Some(value) = ctx.get::<MetaKey>(&meta::resource_id(tag::TRIAL))? else { return Ok(None) };
        match Record::parse(value.value.as_bytes()) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::error!(error = stdx::error_chain(&error), "no trial is carried on: the running version stays");
                Ok(None)
            }
        }
    }

    /// Does what is to be done first at this start, and then what the judgement asks for.
    async fn carry_on(&mut self, mut record: Record, evidence: &Evidence) -> Result<Record, TrialError> {
        let started = *self.started.get_or_insert_with(Instant::now);
        let verdict = match record.phase {
            Phase::Running => trial::judge(&record, &evidence.shown(), started.elapsed().as_secs()),
            _ => Verdict::Pending,
        };
        loop {
            let slots = self.edges.loader.slots().await?;
            // The start is over once it has nothing to do: what it sets up is for the judgement to take back.
            let of_start = if self.is_settled { None } else { trial::boot(&record, &slots, self.seen) };
            self.is_settled |= of_start.is_none();
            let action = of_start.or_else(|| trial::judged(&record, &slots, &verdict));
            self.slots = Some(slots);
            let Some(action) = action else { return Ok(record) };
            if action == Action::Leave {
                if !std::mem::replace(&mut self.left, true) {
                    self.edges.leave.leave(&record.reason);
                }
                return Ok(record);
            }
            self.edges.perform(&action).await?;
            if let Action::Record(next) = action {
                self.seen = true;
                if next.phase == Phase::Failed {
                    tracing::error!(version = next.version, reason = next.reason, "the version failed its trial");
                } else {
                    tracing::info!(version = next.version, phase = ?next.phase, "trial of the version");
                }
                record = next;
            }
        }
    }

    fn status(&self, record: &Record, shown: &Shown) -> UpgradeTrial {
        let running = self.slots.as_ref().and_then(|slots| slots.booted.as_ref());
        let is_open = record.phase == Phase::Running;
        let asked = |check: &Check| record.checks.contains(check);
        let unmet = shown.unmet.iter().filter(|(check, _)| is_open && asked(check));
        UpgradeTrial {
            version: record.version.clone(),
            slot: record.slot.to_string(),
            former_version: record.former_version.clone(),
            former_slot: record.former.to_string(),
            phase: match record.phase {
                Phase::Prepared | Phase::Armed => TrialPhase::Prepared,
                Phase::Running => TrialPhase::Running,
                Phase::Good => TrialPhase::Good,
                Phase::Failed => TrialPhase::Failed,
            },
            running: running.map(ToString::to_string).unwrap_or_default(),
            reason: record.reason.clone(),
            checks: record.checks.iter().map(|check| check.name().to_owned()).collect(),
            unmet: unmet.map(|(check, why)| format!("{}: {why}", check.name())).collect(),
            boots: record.boots,
            limit: Nanoseconds::from(Duration::from_secs(record.limit)),
        }
    }
}

#[async_trait]
impl Controller for UpgradeTrialController {
    fn name(&self) -> &'static str {
        "runtime.UpgradeTrialController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MetaKey>().id(meta::resource_id(tag::TRIAL)),
            Input::weak::<MetaLoad>().id(MetaLoad::ID),
            Input::weak::<SystemDisk>().id(SystemDisk::ID),
            Input::weak::<Service>(),
            Input::weak::<NodeStatus>(),
            Input::weak::<StaticPodStatus>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<UpgradeTrial>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.watchdog.runs();
        let is_installed = ctx.get::<SystemDisk>(SystemDisk::ID)?.is_some_and(|disk| disk.installed);
        let is_loaded = ctx.get::<MetaLoad>(MetaLoad::ID)?.is_some_and(|load| load.done);
        if is_installed && is_loaded {
            let record = Self::record(ctx)?;
            let is_open = record.as_ref().is_some_and(Record::is_open);
            let carries_on = *self.started_open.get_or_insert(is_open);
            if let Some(record) = record {
                if carries_on && record.is_open() {
                    let over = Duration::from_secs(record.limit) + UNJUDGED;
                    // A trial that nobody can judge is not kept up for ever.
                    if self.started.is_none_or(|started| started.elapsed() < over) {
                        self.watchdog.feed();
                    }
                }
                let evidence = Evidence::of(&ctx.list()?, &ctx.list()?, &ctx.list()?);
                let record = if carries_on { self.carry_on(record, &evidence).await? } else { record };
                if carries_on {
                    let booted = self.slots.as_ref().and_then(|slots| slots.booted.as_ref());
                    match record.phase {
                        Phase::Failed if booted == Some(&record.slot) => self.watchdog.leave(),
                        // The former version that has found the trial open stays.
                        Phase::Good | Phase::Failed => self.watchdog.disarm(),
                        Phase::Prepared | Phase::Armed | Phase::Running => {}
                    }
                }
                if self.slots.is_none() {
                    self.slots = Some(self.edges.loader.slots().await?);
                }
                ctx.put(UpgradeTrial::ID, self.status(&record, &evidence.shown()))?;
                if record.phase == Phase::Failed && !std::mem::replace(&mut self.told, true) {
                    self.edges.leave.tell(&record.version, &record.reason);
                }
                if carries_on && record.is_open() {
                    ctx.requeue_after(LOOK);
                }
            }
        }
        ctx.keep_touched::<UpgradeTrial>()
    }
}

#[cfg(test)]
mod tests;
