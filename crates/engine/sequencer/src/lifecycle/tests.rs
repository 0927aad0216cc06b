use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::events::Action;
use crate::plan::{OnFailure, Task, TaskContext, TaskError};
use crate::status::{PHASES_KEPT, PhaseTime};

const DEADLINE: Duration = Duration::from_secs(5);

type Plans = Box<dyn Fn(&Request) -> Option<Plan> + Send + Sync>;

struct FakePlanner(Plans);

impl Planner for FakePlanner {
    fn plan(&self, request: &Request) -> Option<Plan> {
        (self.0)(request)
    }
}

struct World {
    lifecycle: Lifecycle,
    events: EventBus,
    config: watch::Sender<u64>,
    driver: tasks::Task<Outcome>,
}

fn world(plans: impl Fn(&Request) -> Option<Plan> + Send + Sync + 'static) -> World {
    let events = EventBus::new(Arc::new(stdx::SystemClock));
    let config = watch::Sender::new(0);
    let lifecycle = Lifecycle::new(FakePlanner(Box::new(plans)), events.clone(), config.subscribe());
    let driver = {
        let lifecycle = lifecycle.clone();
        tasks::spawn("driver", async move { lifecycle.outcome().await })
    };
    World { lifecycle, events, config, driver }
}

impl World {
    fn request(&self, sequence: Sequence, actor: &str) -> Result<SequenceId, Refused> {
        self.lifecycle.request(Request::new(sequence, ActorId::new(actor)))
    }

    /// Waits until no sequence runs, and returns the last one.
    async fn last(&self) -> Last {
        let mut status = self.lifecycle.status();
        let idle = status.wait_for(|status| status.current.is_none() && status.last.is_some()).await.unwrap();
        idle.last.clone().unwrap()
    }

    fn announced(&self, actor: &str) -> Vec<Payload> {
        self.events.kept().into_iter().filter(|event| event.actor == actor).map(|event| event.payload).collect()
    }
}

fn one(task: Task, then: Then) -> Plan {
    Plan::new(then).phase("one", vec![task])
}

fn nothing(then: Then) -> Plan {
    one(Task::new("nothing", DEADLINE, |_| async { Ok(()) }), then)
}

/// Ends `after` it was canceled.
fn cancelable(after: Duration) -> Task {
    Task::waiting("waits", move |context: TaskContext| async move {
        context.cancel.cancelled().await;
        tokio::time::sleep(after).await;
        Err("canceled".into())
    })
}

fn failure(text: &'static str) -> TaskError {
    text.into()
}

#[tokio::test(start_paused = true)]
async fn phases_run_in_order_and_each_step_is_announced_for_its_actor() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let world = world(move |_| {
        let note = |what: &'static str, after: u64| {
            let order = Arc::clone(&noted);
            Task::new(what, DEADLINE, move |_| {
                let order = Arc::clone(&order);
                async move {
                    tokio::time::sleep(Duration::from_secs(after)).await;
                    order.lock().push(what);
                    Ok(())
                }
            })
        };
        let plan = Plan::new(Then::Idle).phase("one", vec![note("slow", 2), note("fast", 1)]);
        Some(plan.phase("two", vec![note("last", 0)]))
    });
    let id = world.request(Sequence::Boot, "me").unwrap();
    let last = world.last().await;
    assert_eq!((last.id, last.sequence, last.result), (id, Sequence::Boot, LastResult::Done));
    assert_eq!(*order.lock(), ["fast", "slow", "last"]);
    let announced = world.announced("me");
    assert_eq!(announced.len(), 2 + 2 * 2 + 3 * 2);
    let sequence = |action| Payload::Sequence { sequence: "boot".into(), action, error: None };
    assert_eq!(announced[0], sequence(SequenceAction::Start));
    assert_eq!(announced[1], Payload::Phase { phase: "one".into(), action: Action::Start });
    assert_eq!(announced.last(), Some(&sequence(SequenceAction::Stop)));
    assert!(!world.driver.is_finished(), "the machine runs on");
}

#[tokio::test(start_paused = true)]
async fn a_failed_phase_names_every_failed_task_and_the_machine_reboots_ten_seconds_later() {
    let world = world(|_| {
        let tasks = vec![
            Task::new("fails", DEADLINE, |_| async { Err(failure("no disk")) }),
            Task::new("panics", DEADLINE, |_| async { panic!("bug") }),
            Task::new("hangs", DEADLINE, |_| std::future::pending()),
            Task::new("ignored", DEADLINE, |_| async { Err(failure("no matter")) }).on_failure(OnFailure::Ignore),
        ];
        let never = Task::new("never", DEADLINE, |_| async { panic!("must not run") });
        Some(Plan::new(Then::Idle).phase("one", tasks).phase("two", vec![never]))
    });
    world.request(Sequence::Boot, "me").unwrap();
    let LastResult::Failed(error) = world.last().await.result else { panic!("it failed") };
    let failed_at = Instant::now();
    let expected = "boot: phase one: task fails: no disk; task panics: panicked: bug; task hangs: not done within 5s";
    assert_eq!(error, expected);
    let fatal = Some(SequenceError { code: ErrorCode::Fatal, message: error });
    let stopped = Payload::Sequence { sequence: "boot".into(), action: SequenceAction::Stop, error: fatal };
    assert_eq!(world.announced("me").last(), Some(&stopped));
    assert_eq!(world.driver.join().await.unwrap(), Outcome::Reboot);
    assert_eq!(failed_at.elapsed(), REBOOT_AFTER_FAILURE);
    assert_eq!(world.events.kept().last().unwrap().payload, Payload::Restart { command: 0x0123_4567 });
}

/// A sequence that found at its beginning that it cannot be carried out once cost the machine a reboot.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_announced_and_the_machine_runs_on() {
    let world = world(|request| {
        let refuses =
            || Task::new("check", DEADLINE, |_| async { Err(failure("no disk")) }).on_failure(OnFailure::Refuse);
        Some(match request.sequence {
            Sequence::Reset => Plan::new(Then::End(Outcome::PowerOff)).phase("one", vec![refuses()]),
            // Something was done before.
            Sequence::Upgrade => nothing(Then::End(Outcome::Reboot)).phase("two", vec![refuses()]),
            _ => nothing(Then::Idle),
        })
    });
    world.request(Sequence::Boot, "boot").unwrap();
    let booted = world.last().await;
    world.request(Sequence::Reset, "me").unwrap();
    let mut status = world.lifecycle.status();
    status.wait_for(|status| status.current.is_none()).await.unwrap();
    tokio::time::sleep(10 * REBOOT_AFTER_FAILURE).await;
    assert!(!world.driver.is_finished(), "it reboots");
    assert_eq!(world.last().await, booted);
    let message = "reset: phase one: task check: no disk".to_owned();
    let fatal = Some(SequenceError { code: ErrorCode::Fatal, message });
    let stopped = Payload::Sequence { sequence: "reset".into(), action: SequenceAction::Stop, error: fatal };
    assert_eq!(world.announced("me").last(), Some(&stopped));
    world.request(Sequence::Upgrade, "me").unwrap();
    assert_eq!(world.driver.join().await.unwrap(), Outcome::Reboot);
    assert!(matches!(world.lifecycle.status().borrow().last.clone().unwrap().result, LastResult::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_planner_is_a_failure_too() {
    let asked = AtomicUsize::new(0);
    let world = world(move |_| {
        assert!(asked.fetch_add(1, Ordering::SeqCst) == 0, "second look");
        Some(nothing(Then::Idle))
    });
    world.request(Sequence::Boot, "me").unwrap();
    let last = world.last().await;
    assert_eq!(last.result, LastResult::Failed("boot: panicked: second look".into()));
    assert_eq!(world.driver.join().await.unwrap(), Outcome::Reboot);
}

#[tokio::test(start_paused = true)]
async fn initialize_is_followed_by_boot_and_shutdown_takes_over_from_it() {
    let world = world(|request| {
        Some(match request.sequence {
            Sequence::Initialize => nothing(Then::Follow(Sequence::Boot)),
            Sequence::Boot => one(cancelable(Duration::from_secs(2)), Then::Idle),
            _ => nothing(Then::End(Outcome::PowerOff)),
        })
    });
    world.request(Sequence::Initialize, "").unwrap();
    let mut status = world.lifecycle.status();
    let booting = |status: &Status| status.current.as_ref().is_some_and(|current| current.tasks == ["waits"]);
    status.wait_for(booting).await.unwrap();
    let asked = Instant::now();
    world.request(Sequence::Shutdown, "me").unwrap();
    assert!(status.borrow().current.as_ref().unwrap().canceled);
    assert_eq!(world.driver.join().await.unwrap(), Outcome::PowerOff);
    assert_eq!(asked.elapsed(), Duration::from_secs(2), "it had its time to end");
    let canceled = SequenceError { code: ErrorCode::Canceled, message: "boot was canceled".into() };
    let stopped = Payload::Sequence { sequence: "boot".into(), action: SequenceAction::Stop, error: Some(canceled) };
    assert!(world.events.kept().iter().any(|event| event.payload == stopped));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_its_cancellation_is_dropped() {
    let world = world(|request| {
        Some(match request.sequence {
            Sequence::Boot => one(cancelable(Duration::from_secs(3600)), Then::Idle),
            _ => nothing(Then::End(Outcome::Reboot)),
        })
    });
    world.request(Sequence::Boot, "").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    world.request(Sequence::Reboot, "me").unwrap();
    assert_eq!(world.driver.join().await.unwrap(), Outcome::Reboot);
    assert_eq!(asked.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_an_event_of_its_actor() {
    let world = world(|request| {
        let supported = request.sequence != Sequence::Install;
        supported.then(|| one(cancelable(Duration::ZERO), Then::Idle))
    });
    world.request(Sequence::Upgrade, "first").unwrap();
    let refused = world.request(Sequence::Reboot, "second").unwrap_err();
    assert_eq!(refused.to_string(), "reboot cannot start while upgrade runs");
    let locked = Some(SequenceError { code: ErrorCode::Locked, message: refused.to_string() });
    let noop = Payload::Sequence { sequence: "reboot".into(), action: SequenceAction::Noop, error: locked };
    assert_eq!(world.announced("second"), [noop]);
    assert_eq!(world.request(Sequence::Install, "third"), Err(Refused::Unsupported(Sequence::Install)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_superseded_hears_of_it() {
    let world = world(|_| Some(one(cancelable(Duration::from_secs(1)), Then::Idle)));
    world.request(Sequence::Boot, "").unwrap();
    world.request(Sequence::Reset, "first").unwrap();
    let reboot = world.request(Sequence::Reboot, "second").unwrap();
    let Payload::Sequence { action, error, .. } = &world.announced("first")[0] else { panic!("of a sequence") };
    assert_eq!((*action, error.as_ref().unwrap().code), (SequenceAction::Noop, ErrorCode::Canceled));
    let mut status = world.lifecycle.status();
    status.wait_for(|status| status.current.as_ref().is_some_and(|current| current.id == reboot)).await.unwrap();
}

/// A task that works once the configuration has this revision.
fn needs_revision(config: watch::Receiver<u64>, wanted: u64, tries: Arc<AtomicUsize>) -> Task {
    let task = Task::new("userDisks", DEADLINE, move |_| {
        tries.fetch_add(1, Ordering::SeqCst);
        let revision = *config.borrow();
        async move { if revision < wanted { Err(failure("no such disk")) } else { Ok(()) } }
    });
    task.on_failure(OnFailure::PauseForConfig { at_most: crate::plan::CONFIG_PAUSE })
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_tried_again_with_each_new_configuration() {
    let tries = Arc::new(AtomicUsize::new(0));
    let (seen, counted) = (watch::Sender::new(0), Arc::clone(&tries));
    let config = seen.subscribe();
    let world = world(move |_| Some(one(needs_revision(config.clone(), 2, Arc::clone(&counted)), Then::Idle)));
    world.request(Sequence::Boot, "").unwrap();
    for revision in 1..=2 {
        tokio::time::sleep(Duration::from_secs(17 * 60)).await;
        assert_eq!(tries.load(Ordering::SeqCst), revision);
        seen.send_replace(revision as u64);
        world.config.send_replace(revision as u64);
    }
    assert_eq!(world.last().await.result, LastResult::Done);
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn without_a_configuration_that_helps_the_sequence_fails_after_thirty_five_minutes() {
    let never = watch::Sender::new(0);
    let config = never.subscribe();
    let world = world(move |_| Some(one(needs_revision(config.clone(), 1, Arc::default()), Then::Idle)));
    let asked = Instant::now();
    world.request(Sequence::Boot, "").unwrap();
    let LastResult::Failed(error) = world.last().await.result else { panic!("it failed") };
    assert_eq!(error, "boot: phase one: task userDisks: no such disk; no configuration mended it within 35m0s");
    assert_eq!(asked.elapsed(), Duration::from_secs(35 * 60));
}

#[tokio::test(start_paused = true)]
async fn a_task_past_its_deadline_is_told_and_may_clean_up() {
    let cleaned = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&cleaned);
    let world = world(move |_| {
        let cleaned = Arc::clone(&counted);
        let task = Task::new("slow", DEADLINE, move |context: TaskContext| {
            let cleaned = Arc::clone(&cleaned);
            async move {
                context.cancel.cancelled().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                cleaned.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        });
        Some(one(task, Then::Idle))
    });
    world.request(Sequence::Boot, "").unwrap();
    let LastResult::Failed(error) = world.last().await.result else { panic!("it failed") };
    assert_eq!(error, "boot: phase one: task slow: not done within 5s");
    assert_eq!(cleaned.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_decides_how_the_machine_ends() {
    let world = world(|_| Some(nothing(Then::End(Outcome::PowerOff))));
    let reset = Request::new(Sequence::Reset, ActorId::new("me")).ending_in(Outcome::Reboot);
    world.lifecycle.request(reset).unwrap();
    assert_eq!(world.driver.join().await.unwrap(), Outcome::Reboot);
}

#[tokio::test(start_paused = true)]
async fn the_first_phases_are_kept_with_their_times() {
    const LONG: Duration = Duration::from_secs(3);
    let sleep = |_| async {
        tokio::time::sleep(LONG).await;
        Ok(())
    };
    let sleeps = move || Task::new("sleeps", 2 * LONG, sleep);
    let world = world(move |request| {
        Some(match request.sequence {
            Sequence::Initialize => {
                Plan::new(Then::Follow(Sequence::Boot)).phase("a", vec![sleeps()]).phase("b", vec![])
            }
            Sequence::Boot => one(sleeps(), Then::Idle),
            _ => (0..PHASES_KEPT).fold(Plan::new(Then::Idle), |plan, _| plan.phase("more", vec![])),
        })
    });
    let begun = Instant::now();
    world.request(Sequence::Initialize, "").unwrap();
    let mut status = world.lifecycle.status();
    let running = status.wait_for(|status| status.phases.len() == 3).await.unwrap().phases.clone();
    let phase = |sequence, phase, after, took| PhaseTime { sequence, phase, started: begun + after, took };
    let initialized = [
        phase(Sequence::Initialize, "a", Duration::ZERO, Some(LONG)),
        phase(Sequence::Initialize, "b", LONG, Some(Duration::ZERO)),
    ];
    assert_eq!(running[..2], initialized);
    assert_eq!(running[2], phase(Sequence::Boot, "one", LONG, None));
    assert_eq!(world.last().await.sequence, Sequence::Boot);
    assert_eq!(status.borrow().phases[2], phase(Sequence::Boot, "one", LONG, Some(LONG)));
    world.request(Sequence::Reset, "me").unwrap();
    status.wait_for(|status| status.last.as_ref().is_some_and(|last| last.sequence == Sequence::Reset)).await.unwrap();
    assert_eq!(status.borrow().phases.len(), PHASES_KEPT);
}
