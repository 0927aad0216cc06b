use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use stdx::SystemClock;

use super::*;
use crate::{FnCondition, HealthCheck, HealthSettings, Restart, RunContext, ServiceError};

#[derive(Default)]
struct Fake {
    id: &'static str,
    needs: Vec<String>,
    runs: AtomicUsize,
    fail_runs: usize,
    panic_first: bool,
    healthy: Option<Arc<AtomicBool>>,
    gate: Option<Arc<AtomicBool>>,
    once: bool,
    /// Runs end by themselves, and others follow.
    ends: bool,
    /// How long a run takes to end after it was asked to.
    slow: Duration,
}

#[async_trait]
impl Service for Fake {
    fn id(&self) -> &str {
        self.id
    }

    fn depends_on(&self) -> Vec<String> {
        self.needs.clone()
    }

    fn conditions(&self) -> Vec<Arc<dyn crate::Condition>> {
        let gate = self.gate.clone();
        gate.map(|gate| {
            Arc::new(FnCondition::new("the gate", move || gate.load(Ordering::SeqCst))) as Arc<dyn crate::Condition>
        })
        .into_iter()
        .collect()
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        let n = self.runs.fetch_add(1, Ordering::SeqCst);
        assert!(!(self.panic_first && n == 0), "first run");
        run.running("up");
        if n < self.fail_runs {
            return Err("broken".into());
        }
        if !self.once && !self.ends {
            run.cancel.cancelled().await;
            tokio::time::sleep(self.slow).await;
            run.running("ended");
        }
        Ok(())
    }

    fn health(&self) -> Option<HealthCheck> {
        let healthy = self.healthy.clone()?;
        Some(HealthCheck::new(HealthSettings::default(), move || {
            let ok = healthy.load(Ordering::SeqCst);
            async move { if ok { Ok(()) } else { Err("ill".to_owned()) } }
        }))
    }

    fn restart(&self) -> Restart {
        if self.once { Restart::OnFailure } else { Restart::Always }
    }
}

fn supervisor() -> Supervisor {
    Supervisor::new(Arc::new(SystemClock))
}

async fn reaches(supervisor: &Supervisor, id: &str, what: impl Fn(&ServiceStatus) -> bool) {
    let mut revision = supervisor.revision();
    let wait = async {
        while !supervisor.get(id).is_some_and(|status| what(&status)) {
            revision.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(600), wait).await.unwrap_or_else(|_| panic!("{:?}", supervisor.get(id)));
}

#[tokio::test(start_paused = true)]
async fn a_service_waits_for_what_it_depends_on_and_says_so() {
    let supervisor = supervisor();
    let healthy = Arc::new(AtomicBool::new(false));
    supervisor.ensure(Arc::new(Fake { id: "b", needs: vec!["a".into()], ..Fake::default() }));
    reaches(&supervisor, "b", |s| s.change().message == "Waiting for service \"a\" to be \"up\"").await;
    supervisor.ensure(Arc::new(Fake { id: "a", healthy: Some(Arc::clone(&healthy)), ..Fake::default() }));
    reaches(&supervisor, "a", |s| !s.health.unknown && !s.health.healthy).await;
    assert_eq!(supervisor.get("b").unwrap().state, ServiceState::Waiting);
    healthy.store(true, Ordering::SeqCst);
    reaches(&supervisor, "b", |s| s.state == ServiceState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_condition_holds_a_service_back_until_it_is_met() {
    let supervisor = supervisor();
    let gate = Arc::new(AtomicBool::new(false));
    supervisor.ensure(Arc::new(Fake { id: "a", gate: Some(Arc::clone(&gate)), ..Fake::default() }));
    reaches(&supervisor, "a", |s| s.change().message == "Waiting for the gate").await;
    gate.store(true, Ordering::SeqCst);
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_are_followed_by_another_run() {
    let supervisor = supervisor();
    let fake = Arc::new(Fake { id: "a", fail_runs: 3, panic_first: true, ..Fake::default() });
    supervisor.ensure(fake.clone());
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running && fake.runs.load(Ordering::SeqCst) == 4).await;
    let messages: Vec<_> = supervisor.get("a").unwrap().events.iter().map(|e| e.message.clone()).collect();
    assert!(messages.contains(&"Failed to run: panicked: first run".to_owned()), "{messages:?}");
    assert!(messages.contains(&"Failed to run: broken".to_owned()), "{messages:?}");
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_the_end_and_ensure_starts_again() {
    let supervisor = supervisor();
    let fake = Arc::new(Fake { id: "a", ..Fake::default() });
    supervisor.ensure(fake.clone());
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running).await;
    supervisor.stop("a").await.unwrap();
    assert_eq!(supervisor.get("a").unwrap().state, ServiceState::Finished);
    supervisor.ensure(fake.clone());
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running).await;
    supervisor.replace(Arc::new(Fake { id: "a", ..Fake::default() })).await;
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running).await;
    assert_eq!(fake.runs.load(Ordering::SeqCst), 2);
    assert_eq!(supervisor.stop("none").await, Err(SupervisorError::Unknown("none".into())));
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_service_that_finished_counts_as_up() {
    let supervisor = supervisor();
    supervisor.ensure(Arc::new(Fake { id: "a", once: true, ..Fake::default() }));
    supervisor.ensure(Arc::new(Fake { id: "b", needs: vec!["a".into()], ..Fake::default() }));
    reaches(&supervisor, "b", |s| s.state == ServiceState::Running).await;
    assert_eq!(supervisor.get("a").unwrap().state, ServiceState::Finished);
}

#[tokio::test(start_paused = true)]
async fn a_service_between_two_runs_or_stopped_is_not_up() {
    let supervisor = supervisor();
    supervisor.ensure(Arc::new(Fake { id: "a", ends: true, ..Fake::default() }));
    reaches(&supervisor, "a", |s| s.state == ServiceState::Finished && !s.is_up()).await;
    supervisor.ensure(Arc::new(Fake { id: "b", ..Fake::default() }));
    reaches(&supervisor, "b", ServiceStatus::is_up).await;
    supervisor.stop("b").await.unwrap();
    assert!(!supervisor.get("b").unwrap().is_up());
}

#[tokio::test(start_paused = true)]
async fn a_run_has_time_to_terminate_for_half_a_minute_and_then_to_kill() {
    let supervisor = supervisor();
    supervisor.ensure(Arc::new(Fake { id: "a", slow: Duration::from_secs(31), ..Fake::default() }));
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running).await;
    supervisor.stop("a").await.unwrap();
    let messages: Vec<_> = supervisor.get("a").unwrap().events.iter().map(|e| e.message.clone()).collect();
    assert!(messages.contains(&"ended".to_owned()), "{messages:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_dependants_before_what_they_depend_on() {
    let supervisor = supervisor();
    supervisor.ensure(Arc::new(Fake { id: "a", ..Fake::default() }));
    supervisor.ensure(Arc::new(Fake { id: "b", needs: vec!["a".into()], ..Fake::default() }));
    reaches(&supervisor, "b", |s| s.state == ServiceState::Running).await;
    let mut changes = supervisor.changes();
    supervisor.shutdown().await;
    let mut finished = Vec::new();
    while let Ok(change) = changes.try_recv() {
        if change.state == ServiceState::Finished {
            finished.push(change.id);
        }
    }
    assert_eq!(finished, ["b", "a"]);
}
