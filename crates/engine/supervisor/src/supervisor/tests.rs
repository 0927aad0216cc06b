use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use stdx::SystemClock;

use super::*;
use crate::status::ServiceState;
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
    assert_eq!(fake.runs.load(Ordering::SeqCst), 2);
    assert_eq!(supervisor.stop("none").await, Err(SupervisorError::Unknown("none".into())));
    assert_eq!(supervisor.request_stop("none"), Err(SupervisorError::Unknown("none".into())));
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
    supervisor.shutdown().await.unwrap();
    let mut finished = Vec::new();
    while let Ok(change) = changes.try_recv() {
        if change.state == ServiceState::Finished {
            finished.push(change.id);
        }
    }
    assert_eq!(finished, ["b", "a"]);
}

/// A controller about to start a service must not undo a shutdown.
#[tokio::test(start_paused = true)]
async fn nothing_starts_once_the_node_stops() {
    let supervisor = supervisor();
    supervisor.ensure(Arc::new(Fake { id: "a", ..Fake::default() }));
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running).await;
    supervisor.shutdown().await.unwrap();
    supervisor.ensure(Arc::new(Fake { id: "a", ..Fake::default() }));
    supervisor.ensure(Arc::new(Fake { id: "b", ..Fake::default() }));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(supervisor.get("a").unwrap().state, ServiceState::Finished);
    assert!(supervisor.get("b").is_none());
}

/// Dependencies are not stopped while a dependent is still running.
#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_keeps_no_other_from_being_told_to_end() {
    let supervisor = supervisor();
    let hangs = Duration::from_secs(3600);
    supervisor.ensure(Arc::new(Fake { id: "a", ..Fake::default() }));
    for (id, need) in [("b", "a"), ("c", "b"), ("d", "c")] {
        supervisor.ensure(Arc::new(Fake { id, needs: vec![need.into()], slow: hangs, ..Fake::default() }));
        reaches(&supervisor, id, |s| s.state == ServiceState::Running).await;
    }
    // Each is dropped after its grace of 45 s: the second one's is not over after a minute.
    let still = supervisor.shutdown().await.unwrap_err();
    assert_eq!(still, SupervisorError::StillRunning(vec!["b".into(), "c".into()]));
    assert_eq!(supervisor.get("a").unwrap().state, ServiceState::Finished);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_was_requested_changes_the_revision_when_it_is_done() {
    let supervisor = supervisor();
    supervisor.ensure(Arc::new(Fake { id: "a", slow: Duration::from_secs(5), ..Fake::default() }));
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running).await;
    assert_eq!(supervisor.request_stop("a"), Ok(Stopped::Ending));
    let mut revision = supervisor.revision();
    let mut looks = 0;
    while supervisor.request_stop("a") == Ok(Stopped::Ending) {
        looks += 1;
        tokio::time::timeout(Duration::from_secs(60), revision.changed()).await.unwrap().unwrap();
    }
    assert!((1..6).contains(&looks), "{looks}");
}

/// The health of a service whose check panicked was never looked at again, nor was the service.
#[tokio::test(start_paused = true)]
async fn a_check_that_panics_is_a_failed_check() {
    struct Panics;
    #[async_trait]
    impl Service for Panics {
        fn id(&self) -> &'static str {
            "a"
        }
        async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
            run.running("up");
            run.cancel.cancelled().await;
            Ok(())
        }
        fn health(&self) -> Option<HealthCheck> {
            Some(HealthCheck::new(HealthSettings::default(), || async { panic!("no answer") }))
        }
    }
    let supervisor = supervisor();
    supervisor.ensure(Arc::new(Panics));
    reaches(&supervisor, "a", |s| s.health.last_message == "the check panicked: no answer").await;
    assert_eq!(supervisor.get("a").unwrap().state, ServiceState::Running);
}

/// A service that was never healthy was asked ten times a second for ever.
#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_is_asked_less_and_less_often() {
    #[derive(Default)]
    struct Ill(Arc<AtomicUsize>);
    #[async_trait]
    impl Service for Ill {
        fn id(&self) -> &'static str {
            "a"
        }
        async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
            run.running("up");
            run.cancel.cancelled().await;
            Ok(())
        }
        fn health(&self) -> Option<HealthCheck> {
            let asked = Arc::clone(&self.0);
            Some(HealthCheck::new(HealthSettings::default(), move || {
                asked.fetch_add(1, Ordering::SeqCst);
                async { Err("ill".to_owned()) }
            }))
        }
    }
    let supervisor = supervisor();
    let asked = Arc::new(AtomicUsize::new(0));
    supervisor.ensure(Arc::new(Ill(Arc::clone(&asked))));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let early = asked.load(Ordering::SeqCst);
    assert!(early >= 15, "quick at first: {early}");
    tokio::time::sleep(Duration::from_secs(598)).await;
    let at_ten_minutes = asked.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let a_minute_later = asked.load(Ordering::SeqCst);
    assert!((11..=13).contains(&(a_minute_later - at_ten_minutes)), "as often as its period then");
}

#[tokio::test(start_paused = true)]
async fn a_preparation_that_hangs_is_dropped_and_tried_again() {
    #[derive(Default)]
    struct Hangs(AtomicUsize);
    #[async_trait]
    impl Service for Hangs {
        fn id(&self) -> &'static str {
            "a"
        }
        async fn prepare(&self, _cancel: CancellationToken) -> Result<(), ServiceError> {
            if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        fn prepare_deadline(&self) -> Duration {
            Duration::from_secs(60)
        }
        async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
            run.running("up");
            run.cancel.cancelled().await;
            Ok(())
        }
    }
    let supervisor = supervisor();
    supervisor.ensure(Arc::new(Hangs::default()));
    reaches(&supervisor, "a", |s| s.change().message == "Failed to prepare: not done within 1m0s").await;
    reaches(&supervisor, "a", |s| s.state == ServiceState::Running).await;
}
