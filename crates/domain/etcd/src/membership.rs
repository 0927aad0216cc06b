//! Makes this node a voting member of etcd, by the steps that [`etcd_edge::membership`] decides.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use etcd_edge::membership::{Cluster, Own, Record, Running, Start, Step, Waits, decide};
use etcd_edge::{Connector, EtcdError, Tls};
use resources::etcd::{EtcdSpec, EtcdStart};
use resources::k8s::Endpoint;
use resources::runtime::MountStatus;
use services::bootstrap::{BootstrapGate, has_member};
use services::{ETCD_DATA, InitialCluster};
use sys::files::{self, Access, FileError};
use tokio::time::Instant;

use crate::local::{self, LocalEtcd};
use crate::others::{self, Others};

/// The file on STATE that keeps the record.
const RECORD_FILE: &str = "etcd-member";
/// Data that are being deleted, beside those of a member.
const REMOVED: &str = "member.removed";
/// How often a node on its way in looks again.
const SOON: Duration = Duration::from_secs(1);
/// How often one that waits for others does (Talos 1.7).
const LATER: Duration = Duration::from_secs(3);
/// How often a voting member does, beside all changes of its service.
const SELDOM: Duration = Duration::from_secs(30);
/// How long the member here may take to answer.
const LOCAL_ANSWER: Duration = Duration::from_secs(2);
/// Steps of one pass: none needs more, and a mistake here keeps nobody busy.
const MOST_STEPS: usize = 8;

/// `etcd.MembershipController`: `EtcdStart`, the record on STATE, and the requests to the other members.
#[derive(Debug)]
pub struct MembershipController {
    connector: Arc<dyn Connector>,
    local: LocalEtcd,
    gate: BootstrapGate,
    seen: Option<Seen>,
}

/// What a pass saw, and since when it is the same.
#[derive(Debug)]
struct Seen {
    since: Instant,
    what: (Option<Cluster>, Option<Running>),
}

/// Where this node keeps things.
struct Places {
    record: PathBuf,
    data: PathBuf,
}

impl MembershipController {
    /// `gate` lets this node found a cluster.
    #[must_use]
    pub fn new(connector: Arc<dyn Connector>, gate: BootstrapGate) -> Self {
        let local = LocalEtcd::new(Arc::clone(&connector));
        Self { connector, local, gate, seen: None }
    }

    /// The member here, where its service runs and it answers.
    async fn running(&mut self, ctx: &Ctx) -> Result<Option<Running>, ReconcileError> {
        if !local::service(ctx)?.is_some_and(|service| service.running) {
            return Ok(None);
        }
        let Some(etcd) = self.local.connection(ctx).await? else { return Ok(None) };
        let answer = tokio::time::timeout(LOCAL_ANSWER, etcd.status()).await;
        Ok(answer.ok().and_then(Result::ok).map(|status| Running { id: status.id, is_learner: status.is_learner }))
    }

    /// For how long what is seen has been the same.
    fn stuck_for(&mut self, cluster: Option<&Cluster>, running: Option<Running>) -> Duration {
        let what = (cluster.cloned(), running);
        let now = Instant::now();
        match &self.seen {
            Some(seen) if seen.what == what => now - seen.since,
            _ => {
                self.seen = Some(Seen { since: now, what });
                Duration::ZERO
            }
        }
    }

    /// Takes steps until one has to be waited for, and says for how long.
    async fn advance(
        &mut self,
        ctx: &mut Ctx,
        spec: &EtcdSpec,
        places: &Places,
        tls: &Tls,
    ) -> Result<Duration, ReconcileError> {
        let running = self.running(ctx).await?;
        let record = read_record(&places.record)?;
        let is_settled = running.is_some_and(|own| !own.is_learner && record == Some(Record::Voting(own.id)));
        // A member with data starts at once: asking others that are starting as well would keep it.
        let is_first = ctx.get::<EtcdStart>(EtcdStart::ID)?.is_none() && has_member(&places.data);
        let others = if is_settled || is_first { None } else { self.others(ctx, spec, tls).await? };
        let cluster = others.as_ref().map(|others| &others.cluster);
        let stuck_for = self.stuck_for(cluster, running);
        let mut own = Own {
            name: spec.name.clone(),
            peer_urls: local::peer_urls(&spec.advertised_addresses),
            has_data: has_member(&places.data),
            record,
            may_found: self.gate.is_open(),
            running,
            stuck_for,
        };
        for _ in 0..MOST_STEPS {
            let step = decide(&own, cluster);
            match self.take(ctx, &step, places, others.as_ref(), &mut own).await? {
                Some(pause) => return Ok(pause),
                None => tracing::debug!(?step, "step to membership of etcd taken"),
            }
        }
        Ok(SOON)
    }

    /// Takes a step. Nothing where the next one can be decided at once.
    async fn take(
        &mut self,
        ctx: &mut Ctx,
        step: &Step,
        places: &Places,
        others: Option<&Others>,
        own: &mut Own,
    ) -> Result<Option<Duration>, ReconcileError> {
        let pause = match (step, others.map(|others| &others.etcd)) {
            (Step::Keep(record), _) => {
                files::write_atomic(&places.record, format!("{record}\n").as_bytes(), Access::SECRET)?;
                own.record = Some(*record);
                return Ok(None);
            }
            (Step::Wipe, _) => return wipe(ctx, places, own).await,
            (Step::Settled, _) => {
                start(ctx, &Start::Resume, own)?;
                SELDOM
            }
            (Step::Run(how), _) => {
                remove_remains(&places.data)?;
                start(ctx, how, own)?;
                if matches!(how, Start::Resume) { LATER } else { SOON }
            }
            (Step::Wait(waits), _) => {
                let ends = matches!(waits, Waits::Removed(_));
                ctx.put(EtcdStart::ID, EtcdStart { waits_for: waits.to_string(), ends, ..EtcdStart::default() })?;
                LATER
            }
            (Step::AddLearner, Some(etcd)) => told(step, etcd.add_learner(&own.peer_urls).await.map(drop)),
            (Step::Promote(id), Some(etcd)) => told(step, etcd.promote(*id).await),
            (Step::Remove(id, why), Some(etcd)) => {
                tracing::warn!(member = %id, reason = ?why, "removing a member of etcd");
                told(step, etcd.remove(*id).await)
            }
            (Step::AddLearner | Step::Promote(_) | Step::Remove(..), None) => LATER,
        };
        Ok(Some(pause))
    }

    async fn others(&self, ctx: &Ctx, spec: &EtcdSpec, tls: &Tls) -> Result<Option<Others>, ReconcileError> {
        let endpoints = ctx.list::<Endpoint>()?;
        let known = endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().copied());
        let mut addresses: Vec<IpAddr> = known.filter(|address| !spec.advertised_addresses.contains(address)).collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            return Ok(None);
        }
        Ok(others::ask(&self.connector, tls, &addresses).await)
    }
}

/// What became of a request to another member. One that failed is decided anew.
fn told(step: &Step, asked: Result<(), EtcdError>) -> Duration {
    match asked {
        Ok(()) => tracing::info!(?step, "members of etcd changed"),
        Err(error) => tracing::info!(?step, error = stdx::error_chain(&error), "members of etcd not changed yet"),
    }
    SOON
}

/// Lets etcd start. A start that is under way stays as it is: arguments of a new member mean nothing to one with data, and
/// another value would restart it.
fn start(ctx: &mut Ctx, how: &Start, own: &Own) -> Result<(), ReconcileError> {
    let members = match how {
        Start::Resume => {
            let runs = ctx.get::<EtcdStart>(EtcdStart::ID)?.is_some_and(|start| start.waits_for.is_empty());
            if !runs {
                ctx.put(EtcdStart::ID, EtcdStart { state: EtcdStart::DATA.to_owned(), ..EtcdStart::default() })?;
            }
            return Ok(());
        }
        Start::Found => own.peer_urls.iter().map(|url| (own.name.clone(), url.clone())).collect(),
        Start::Join(members) => members.clone(),
    };
    let state = if matches!(how, Start::Found) { InitialCluster::NEW } else { InitialCluster::EXISTING };
    let members: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
    let start = EtcdStart { state: state.to_owned(), initial_cluster: members.join(","), ..EtcdStart::default() };
    ctx.put(EtcdStart::ID, start)?;
    Ok(())
}

/// Deletes what is left of removed data, if there is any.
fn remove_remains(data: &Path) -> Result<(), FileError> {
    let removed = data.join(REMOVED);
    if removed.symlink_metadata().is_ok() { files::remove_tree(&removed) } else { Ok(()) }
}

/// Ends etcd, and deletes what it had once it has ended.
async fn wipe(ctx: &mut Ctx, places: &Places, own: &mut Own) -> Result<Option<Duration>, ReconcileError> {
    let waits_for = "its data to be deleted: they are of a member that was removed".to_owned();
    ctx.put(EtcdStart::ID, EtcdStart { waits_for, ends: true, ..EtcdStart::default() })?;
    if local::service(ctx)?.is_some() {
        return Ok(Some(SOON));
    }
    tracing::warn!("deleting data of etcd: they are of a member that never voted and was removed");
    let data = places.data.clone();
    let removed = tokio::task::spawn_blocking(move || {
        remove_remains(&data)?;
        // In one moment, so that no part of it is taken for a member's.
        std::fs::rename(data.join("member"), data.join(REMOVED))?;
        Ok::<_, ReconcileError>(remove_remains(&data)?)
    });
    removed.await??;
    own.has_data = false;
    Ok(None)
}

/// A record that cannot be read is as good as none: data without one are a voting member's, and are kept.
fn read_record(file: &Path) -> Result<Option<Record>, ReconcileError> {
    let Some(text) = files::read(file)? else { return Ok(None) };
    let record = String::from_utf8_lossy(&text).parse();
    Ok(record.inspect_err(|error| tracing::warn!(file = %file.display(), %error, "record is ignored")).ok())
}

#[async_trait]
impl Controller for MembershipController {
    fn name(&self) -> &'static str {
        "etcd.MembershipController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = LocalEtcd::inputs();
        inputs.extend([
            Input::weak::<EtcdSpec>().id(EtcdSpec::ID),
            Input::weak::<Endpoint>(),
            Input::strong::<MountStatus>().id(MountStatus::STATE),
            Input::strong::<MountStatus>().id(MountStatus::EPHEMERAL),
        ]);
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<EtcdStart>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("permission to found a cluster", &self.gate.changes());
        let Some(spec) = ctx.get::<EtcdSpec>(EtcdSpec::ID)? else {
            ctx.destroy::<EtcdStart>(EtcdStart::ID)?;
            return Ok(());
        };
        let state = ctx.hold_while_running::<MountStatus>(MountStatus::STATE)?;
        let ephemeral = ctx.hold_while_running::<MountStatus>(MountStatus::EPHEMERAL)?;
        let (Some(state), Some(ephemeral)) = (state, ephemeral) else { return Ok(()) };
        let Some(tls) = local::tls(ctx)? else { return Ok(()) };
        let record = Path::new(&state.target).join(RECORD_FILE);
        let places = Places { record, data: Path::new(&ephemeral.target).join(ETCD_DATA) };
        let pause = self.advance(ctx, &spec, &places, &tls).await?;
        ctx.requeue_after(pause);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
