use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use resources::{Definition, Sensitivity, Spec};
use serde_json::{Value, json};
use state::{Key, Phase, StateError};

use super::*;
use crate::{AccessError, Ctx, Destroyed, EdgeKind, Input, Output, ReconcileError, testing::Harness};

macro_rules! spec {
    ($name:ident, $type_name:literal) => {
        #[derive(Clone, Debug, Default, PartialEq)]
        struct $name(u32);

        impl Spec for $name {
            const DEFINITION: Definition = Definition {
                type_name: $type_name,
                namespace: "test",
                aliases: &[],
                columns: &[],
                sensitivity: Sensitivity::NonSensitive,
            };

            fn to_yaml(&self) -> Value {
                json!({ "value": self.0 })
            }

            fn to_proto(&self) -> Vec<u8> {
                Vec::new()
            }
        }
    };
}

spec!(Source, "Sources.test.talos.dev");
spec!(Target, "Targets.test.talos.dev");
spec!(Other, "Others.test.talos.dev");

/// Doubles each source into a target with the same id.
#[derive(Debug, Default)]
struct Doubler {
    passes: Arc<AtomicUsize>,
    /// Duration of a pass.
    takes: Duration,
}

#[async_trait]
impl Controller for Doubler {
    fn name(&self) -> &'static str {
        "test.DoublerController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<Source>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<Target>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.passes.fetch_add(1, Ordering::SeqCst);
        let sources = ctx.list::<Source>()?;
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        for source in sources {
            ctx.put(source.id(), Target(source.0 * 2))?;
        }
        ctx.keep_touched::<Target>()
    }
}

/// A controller made of closures.
struct Scripted<F> {
    name: &'static str,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    resync: Option<Duration>,
    script: F,
}

impl<F> Scripted<F> {
    fn new(inputs: Vec<Input>, outputs: Vec<Output>, script: F) -> Self {
        Self { name: "test.ScriptedController", inputs, outputs, resync: None, script }
    }
}

#[async_trait]
impl<F: FnMut(&mut Ctx) -> Result<(), ReconcileError> + Send + 'static> Controller for Scripted<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> Vec<Input> {
        self.inputs.clone()
    }

    fn outputs(&self) -> Vec<Output> {
        self.outputs.clone()
    }

    fn resync(&self) -> Option<Duration> {
        self.resync
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        (self.script)(ctx)
    }
}

const SCRIPTED: &str = "test.ScriptedController";

fn counted(counter: &Arc<AtomicUsize>) -> impl FnMut(&mut Ctx) -> Result<(), ReconcileError> + Send + 'static {
    let counter = Arc::clone(counter);
    move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_follow_inputs_and_stale_ones_go() {
    let harness = Harness::with(Doubler::default());
    harness.put("a", Source(1));
    harness.put("b", Source(2));
    harness.settle().await;
    assert_eq!(harness.get::<Target>("a").unwrap().0, 2);
    assert_eq!(harness.get::<Target>("b").unwrap().metadata.owner, "test.DoublerController");
    harness.put("a", Source(5));
    harness.destroy::<Source>("b");
    harness.settle().await;
    assert_eq!(harness.ids::<Target>(), ["a"]);
    assert_eq!(harness.get::<Target>("a").unwrap().0, 10);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_changes_nothing_writes_nothing() {
    let harness = Harness::with(Doubler::default());
    harness.put("a", Source(1));
    harness.settle().await;
    let before = harness.get::<Target>("a").unwrap().metadata.version;
    harness.put("b", Source(1));
    harness.settle().await;
    assert_eq!(harness.get::<Target>("a").unwrap().metadata.version, before);
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_give_one_pass() {
    let passes = Arc::new(AtomicUsize::new(0));
    let harness = Harness::with(Doubler { passes: Arc::clone(&passes), ..Doubler::default() });
    harness.settle().await;
    let before = passes.load(Ordering::SeqCst);
    for i in 0..100 {
        harness.put("a", Source(i));
    }
    harness.settle().await;
    assert_eq!(passes.load(Ordering::SeqCst), before + 1);
    assert_eq!(harness.get::<Target>("a").unwrap().0, 198);
}

#[tokio::test(start_paused = true)]
async fn a_change_between_reading_and_waiting_is_not_lost() {
    let harness = Harness::with(Doubler { takes: Duration::from_secs(1), ..Doubler::default() });
    harness.put("a", Source(1));
    // The pass has read 1 and sleeps.
    tokio::time::sleep(Duration::from_millis(500)).await;
    harness.put("a", Source(7));
    harness.settle().await;
    assert_eq!(harness.get::<Target>("a").unwrap().0, 14);
}

#[tokio::test]
async fn no_change_is_lost_under_real_concurrency() {
    let harness = Harness::with(Doubler::default());
    let writers: Vec<_> = (0..4u32)
        .map(|writer| {
            let store = harness.store.clone();
            stdx::tasks::spawn("writer", async move {
                for i in 0..200 {
                    store.put(&writer.to_string(), Source(i), "").unwrap();
                    if i % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().await.unwrap();
    }
    harness.settle().await;
    let values: BTreeMap<_, _> = harness.list::<Target>().iter().map(|t| (t.id().to_owned(), t.0)).collect();
    assert_eq!(values.into_values().collect::<Vec<_>>(), [398; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_the_controller_runs_again() {
    let mut passes = 0;
    let harness = Harness::with(Scripted::new(vec![], vec![Output::exclusive::<Target>()], move |ctx: &mut Ctx| {
        passes += 1;
        assert!(passes > 2, "pass {passes} is unlucky");
        ctx.put("done", Target(passes)).map(drop)
    }));
    harness.settle().await;
    let status = harness.status(SCRIPTED);
    assert_eq!((status.failures, status.last_error.as_deref()), (1, Some("panic: pass 1 is unlucky")));
    harness.advance(Duration::from_secs(3)).await;
    assert_eq!(harness.get::<Target>("done").unwrap().0, 3);
    let status = harness.status(SCRIPTED);
    assert_eq!((status.failures, status.last_error), (2, None));
}

#[tokio::test(start_paused = true)]
async fn a_failing_controller_is_retried_ever_more_slowly_and_leaves_the_others_alone() {
    let failing: fn(&mut Ctx) -> _ = |_| Err(ReconcileError::msg("no"));
    let harness = Harness::with(Scripted::new(vec![], vec![], failing));
    harness.run(Doubler::default());
    harness.put("a", Source(1));
    harness.advance(Duration::from_secs(300)).await;
    let failures = harness.status(SCRIPTED).failures;
    // 0.5, 1, 2, 4, 8, 16 and then 30 s at most; half of each at least.
    assert!((14..=28).contains(&failures), "{failures}");
    assert_eq!(harness.get::<Target>("a").unwrap().0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_changed_input_cuts_the_backoff_short() {
    let harness = Harness::with(Scripted::new(
        vec![Input::weak::<Source>()],
        vec![Output::exclusive::<Target>()],
        |ctx: &mut Ctx| match ctx.get::<Source>("a")? {
            Some(source) => ctx.put("a", Target(source.0)).map(drop),
            None => Err(ReconcileError::msg("no source")),
        },
    ));
    harness.advance(Duration::from_secs(120)).await;
    harness.put("a", Source(3));
    harness.advance(Duration::from_millis(200)).await;
    assert_eq!(harness.get::<Target>("a").unwrap().0, 3);
}

#[tokio::test(start_paused = true)]
async fn timers_run_passes() {
    let resynced = Arc::new(AtomicUsize::new(0));
    let mut controller = Scripted::new(vec![], vec![], counted(&resynced));
    controller.resync = Some(Duration::from_secs(10));
    let harness = Harness::with(controller);
    harness.advance(Duration::from_secs(35)).await;
    assert_eq!(resynced.load(Ordering::SeqCst), 4);

    let harness = Harness::with(Scripted::new(vec![], vec![Output::exclusive::<Target>()], |ctx: &mut Ctx| {
        let next = ctx.get::<Target>("n")?.map_or(1, |t| t.0 + 1);
        ctx.put("n", Target(next))?;
        if next == 1 {
            ctx.requeue_after(Duration::from_secs(60));
            ctx.requeue_after(Duration::from_secs(5));
        }
        Ok(())
    }));
    harness.advance(Duration::from_secs(4)).await;
    assert_eq!(harness.get::<Target>("n").unwrap().0, 1);
    harness.advance(Duration::from_secs(100)).await;
    assert_eq!(harness.get::<Target>("n").unwrap().0, 2);
}

#[tokio::test(start_paused = true)]
async fn an_input_by_id_wakes_for_that_id_only() {
    let passes = Arc::new(AtomicUsize::new(0));
    let inputs = vec![Input::weak::<Source>().id("mine")];
    let harness = Harness::with(Scripted::new(inputs, vec![], counted(&passes)));
    harness.settle().await;
    harness.put("theirs", Source(1));
    harness.settle().await;
    assert_eq!(passes.load(Ordering::SeqCst), 1);
    harness.put("mine", Source(1));
    harness.settle().await;
    assert_eq!(passes.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_declared_cannot_be_touched() {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&errors);
    let inputs = vec![Input::weak::<Source>().id("a")];
    let harness = Harness::with(Scripted::new(inputs, vec![Output::shared::<Target>()], move |ctx: &mut Ctx| {
        let attempts = [
            ctx.get::<Source>("a").map(drop),
            ctx.get::<Target>("own").map(drop),
            ctx.get::<Source>("b").map(drop),
            ctx.list::<Source>().map(drop),
            ctx.put("x", Other(1)).map(drop),
            ctx.destroy::<Source>("a").map(drop),
            ctx.keep_touched::<Other>(),
            ctx.add_finalizer::<Source>("a"),
        ];
        *seen.lock() = attempts.map(|a| a.err().map(|e| e.downcast_ref::<AccessError>().cloned())).to_vec();
        Ok(())
    }));
    harness.put("x", Other(0));
    harness.settle().await;
    let controller = SCRIPTED;
    let read = |what: &str| Some(Some(AccessError::UndeclaredRead { controller, what: what.into() }));
    let write = |type_name| Some(Some(AccessError::UndeclaredWrite { controller, type_name }));
    assert_eq!(
        *errors.lock(),
        [
            None,
            None,
            read("test/Sources.test.talos.dev/b"),
            read("test/Sources.test.talos.dev"),
            write("Others.test.talos.dev"),
            write("Sources.test.talos.dev"),
            write("Others.test.talos.dev"),
            Some(Some(AccessError::NotStrong { controller, what: "test/Sources.test.talos.dev/a".into() })),
        ]
    );
    assert_eq!(harness.get::<Other>("x").unwrap().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_strong_input_waits_for_its_holder() {
    // Holds every running source, mirrors it, and releases it when the mirror is destroyed.
    let harness = Harness::with(Scripted::new(
        vec![Input::strong::<Source>()],
        vec![Output::exclusive::<Target>()],
        |ctx: &mut Ctx| {
            for source in ctx.list::<Source>()? {
                if source.metadata.phase == Phase::Running {
                    ctx.add_finalizer::<Source>(source.id())?;
                    ctx.put(source.id(), Target(source.0))?;
                } else if ctx.destroy::<Target>(source.id())? == Destroyed::Gone {
                    ctx.remove_finalizer::<Source>(source.id())?;
                }
            }
            Ok(())
        },
    ));
    harness.put("a", Source(1));
    harness.settle().await;
    assert_eq!(harness.get::<Source>("a").unwrap().metadata.finalizers, [SCRIPTED]);
    harness.store.add_finalizer(&Key::of::<Target>("a"), "somebody").unwrap();
    assert!(!harness.teardown::<Source>("a"));
    harness.settle().await;
    // The mirror is held, so the source stays held too.
    assert_eq!(harness.get::<Target>("a").unwrap().metadata.phase, Phase::TearingDown);
    let error = harness.store.destroy(&Key::of::<Source>("a"), "").unwrap_err();
    assert!(matches!(error, StateError::PendingFinalizers { .. }), "{error:?}");
    // Its owner is woken when the holder releases it.
    harness.store.remove_finalizer(&Key::of::<Target>("a"), "somebody").unwrap();
    harness.settle().await;
    assert_eq!(harness.get::<Target>("a"), None);
    harness.destroy::<Source>("a");
}

#[tokio::test(start_paused = true)]
async fn destroy_ready_wakes_only_when_nobody_holds() {
    let passes = Arc::new(AtomicUsize::new(0));
    let harness = Harness::with(Scripted::new(vec![Input::destroy_ready::<Source>()], vec![], counted(&passes)));
    harness.put("a", Source(1));
    harness.store.add_finalizer(&Key::of::<Source>("a"), "x").unwrap();
    harness.teardown::<Source>("a");
    harness.settle().await;
    assert_eq!(passes.load(Ordering::SeqCst), 1);
    harness.store.remove_finalizer(&Key::of::<Source>("a"), "x").unwrap();
    harness.settle().await;
    assert_eq!(passes.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn an_output_wanted_again_while_it_goes_comes_back_when_it_is_free() {
    let harness = Harness::with(Doubler::default());
    harness.put("a", Source(1));
    harness.settle().await;
    let target = Key::of::<Target>("a");
    harness.store.add_finalizer(&target, "x").unwrap();
    harness.destroy::<Source>("a");
    harness.settle().await;
    harness.put("a", Source(4));
    harness.settle().await;
    assert_eq!(harness.get::<Target>("a").unwrap().metadata.phase, Phase::TearingDown);
    harness.store.remove_finalizer(&target, "x").unwrap();
    harness.advance(Duration::from_secs(1)).await;
    let target = harness.get::<Target>("a").unwrap();
    assert_eq!((target.0, target.metadata.phase), (8, Phase::Running));
}

#[tokio::test(start_paused = true)]
async fn inputs_can_follow_what_was_read() {
    let harness = Harness::with(Scripted::new(
        vec![Input::weak::<Source>()],
        vec![Output::exclusive::<Target>()],
        |ctx: &mut Ctx| {
            let mut inputs = vec![Input::weak::<Source>()];
            let sources = ctx.list::<Source>()?;
            inputs.extend(sources.iter().map(|source| Input::weak::<Other>().id(source.id())));
            ctx.set_inputs(inputs)?;
            for source in sources {
                let other = ctx.get::<Other>(source.id())?.map_or(0, |other| other.0);
                ctx.put(source.id(), Target(other))?;
            }
            Ok(())
        },
    ));
    harness.put("a", Source(0));
    harness.settle().await;
    harness.put("a", Other(9));
    harness.settle().await;
    assert_eq!(harness.get::<Target>("a").unwrap().0, 9);
    let by_id = |edge: &Edge| edge.kind == EdgeKind::InputWeak && edge.id == "a";
    assert!(harness.runtime.dependency_graph().iter().any(by_id));
}

#[tokio::test(start_paused = true)]
async fn a_spawned_task_wakes_its_controller_and_dies_with_it() {
    let passes = Arc::new(AtomicUsize::new(0));
    let (count, alive) = (Arc::clone(&passes), Arc::new(()));
    let held = Arc::downgrade(&alive);
    let mut alive = Some(alive);
    let harness = Harness::with(Scripted::new(vec![], vec![], move |ctx: &mut Ctx| {
        count.fetch_add(1, Ordering::SeqCst);
        if let Some(alive) = alive.take() {
            let waker = ctx.waker();
            ctx.spawn("ticker", async move {
                let _alive = alive;
                loop {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    waker.wake();
                }
            });
        }
        Ok(())
    }));
    harness.advance(Duration::from_secs(25)).await;
    assert_eq!(passes.load(Ordering::SeqCst), 3);
    assert!(held.upgrade().is_some());
    harness.runtime.stop(Duration::from_secs(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(passes.load(Ordering::SeqCst), 3);
    assert!(held.upgrade().is_none());
}

/// A pass that waited for ever ended its controller's work without a word.
#[tokio::test(start_paused = true)]
async fn a_pass_that_does_not_end_is_dropped_and_tried_again() {
    let doubler = Doubler { takes: Duration::from_secs(24 * 3600), ..Doubler::default() };
    let passes = Arc::clone(&doubler.passes);
    let harness = Harness::with(doubler);
    tokio::time::sleep(Duration::from_secs(150)).await;
    let status = harness.status("test.DoublerController");
    assert_eq!(status.last_error.as_deref(), Some("pass dropped: not done within 2m0s"));
    assert_eq!((status.failures, passes.load(Ordering::SeqCst)), (1, 2));
}

/// The controller never heard of it, so that nothing watched any more until a reboot.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_spawned_task_is_counted_and_wakes_the_controller_which_starts_it_again() {
    let mut task: Option<crate::TaskHandle> = None;
    let starts = Arc::new(AtomicUsize::new(0));
    let started = Arc::clone(&starts);
    let harness = Harness::with(Scripted::new(vec![], vec![], move |ctx: &mut Ctx| {
        if task.as_ref().is_none_or(crate::TaskHandle::is_finished) {
            let start = started.fetch_add(1, Ordering::SeqCst);
            task = Some(ctx.spawn("unlucky", async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(start > 0, "bug");
                std::future::pending::<()>().await;
            }));
        }
        Ok(())
    }));
    harness.advance(Duration::from_secs(10)).await;
    assert_eq!((starts.load(Ordering::SeqCst), harness.status(SCRIPTED).task_panics), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_watches_runs_after_each_change_and_asks_once() {
    let (sender, receiver) = tokio::sync::watch::channel(0);
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let harness = Harness::with(Scripted::new(vec![], vec![], move |ctx: &mut Ctx| {
        ctx.wake_on_change("number", &receiver);
        noted.lock().push(*receiver.borrow());
        Ok(())
    }));
    harness.settle().await;
    for number in [1, 2] {
        sender.send_replace(number);
        harness.settle().await;
    }
    assert_eq!(*seen.lock(), [0, 1, 2]);
    assert_eq!(sender.receiver_count(), 3, "the script's, the factory's and the task's");
}

#[tokio::test(start_paused = true)]
async fn stop_lets_a_pass_end_but_does_not_wait_for_ever() {
    let harness = Harness::with(Doubler { takes: Duration::from_secs(2), ..Doubler::default() });
    harness.put("a", Source(1));
    tokio::time::sleep(Duration::from_millis(10)).await;
    harness.runtime.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(harness.get::<Target>("a").unwrap().0, 2);

    let harness = Harness::with(Doubler { takes: Duration::from_secs(3600), ..Doubler::default() });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let stragglers = harness.runtime.stop(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(stragglers.names, ["test.DoublerController"]);
}

#[test]
fn declarations_that_cannot_be_are_refused() {
    let nothing: fn(&mut Ctx) -> _ = |_| Ok(());
    let runtime = Runtime::new(Store::new());
    runtime.register(Doubler::default()).unwrap();
    let refused = |inputs, outputs, name| {
        let mut controller = Scripted::new(inputs, outputs, nothing);
        controller.name = name;
        runtime.register(controller).unwrap_err()
    };
    assert_eq!(
        refused(vec![], vec![], "test.DoublerController"),
        GraphError::DuplicateController("test.DoublerController")
    );
    for output in [Output::exclusive::<Target>(), Output::shared::<Target>()] {
        assert_eq!(
            refused(vec![], vec![output], "test.B"),
            GraphError::OutputConflict {
                type_name: "Targets.test.talos.dev",
                first: "test.DoublerController",
                second: "test.B"
            }
        );
    }
    assert_eq!(
        refused(vec![Input::weak::<Source>(), Input::strong::<Source>()], vec![], "test.C"),
        GraphError::DuplicateInput { controller: "test.C", input: "test/Sources.test.talos.dev/*".into() }
    );
    assert_eq!(
        refused(vec![], vec![Output::shared::<Other>(), Output::exclusive::<Other>()], "test.D"),
        GraphError::DuplicateOutput { controller: "test.D", type_name: "Others.test.talos.dev" }
    );
    // None of the refused controllers is in the graph.
    assert!(runtime.dependency_graph().iter().all(|edge| edge.controller == "test.DoublerController"));
}

#[test]
fn the_graph_and_the_definitions_tell_what_was_declared() {
    let runtime = Runtime::new(Store::new());
    runtime.register(Doubler::default()).unwrap();
    let edges: Vec<_> = runtime
        .dependency_graph()
        .into_iter()
        .map(|edge| (edge.kind, edge.namespace, edge.type_name, edge.id))
        .collect();
    let empty = String::new;
    assert_eq!(
        edges,
        [
            (EdgeKind::OutputExclusive, "test".into(), "Targets.test.talos.dev".into(), empty()),
            (EdgeKind::InputWeak, "test".into(), "Sources.test.talos.dev".into(), empty()),
        ]
    );
    for id in ["sources.test.talos.dev", "targets.test.talos.dev"] {
        assert!(runtime.store().get_as::<resources::meta::ResourceDefinition>(id).unwrap().is_some(), "{id}");
    }
}
