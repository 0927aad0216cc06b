use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_task_gives_its_result() {
    assert_eq!(spawn("sum", async { 1 + 1 }).join().await, Ok(2));
}

#[tokio::test]
async fn a_panic_becomes_an_error_with_its_message() {
    let task = spawn("boom", async { panic!("no {}", "luck") });
    assert_eq!(task.join().await, Err::<(), _>(TaskError::Panicked { name: "boom".into(), message: "no luck".into() }));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_aborts_the_task() {
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = SetOnDrop(Arc::clone(&dropped));
    let task = spawn("forever", async move {
        let _guard = guard;
        std::future::pending::<()>().await;
    });
    tokio::task::yield_now().await;
    drop(task);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_detached_task_runs_to_its_end() {
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = SetOnDrop(Arc::clone(&dropped));
    spawn("short", async move {
        let _guard = guard;
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .detach();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!dropped.load(Ordering::SeqCst));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn join_cancels_and_waits_for_tasks_that_notice() {
    let set = TaskSet::new("owner");
    let token = set.token().clone();
    set.spawn("polite", async move { token.cancelled().await });
    assert_eq!(set.running(), 1);
    assert_eq!(set.join(Duration::from_secs(1)).await, Ok(()));
    assert_eq!(set.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn join_names_and_aborts_what_does_not_stop() {
    let set = TaskSet::new("owner");
    set.spawn("stuck", std::future::pending());
    set.spawn("also stuck", std::future::pending());
    set.spawn("done", async {});
    let error = set.join(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(error.names, ["also stuck", "stuck"]);
    assert_eq!(error.to_string(), "tasks of owner did not stop within 3s: also stuck, stuck");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_task_leaves_the_others() {
    let set = TaskSet::new("owner");
    let token = set.token().clone();
    set.spawn("boom", async { panic!("boom") });
    set.spawn("polite", async move { token.cancelled().await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(set.running(), 1);
    assert_eq!(set.join(Duration::from_secs(1)).await, Ok(()));
}

/// Without supervision it would go unnoticed until a join.
#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_told_to_the_owner_when_it_happens() {
    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    let set = TaskSet::new("owner").on_panic(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let before = panics();
    set.spawn("boom", async { panic!("boom") });
    spawn("detached", async { panic!("boom") }).detach();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(told.load(Ordering::SeqCst), 1);
    // Other tests of this process count as well.
    assert!(panics() >= before + 2);
}

#[tokio::test(start_paused = true)]
async fn a_kept_task_starts_again_after_each_panic_and_ends_when_its_work_does() {
    let runs = Arc::new(AtomicU64::new(0));
    let told = Arc::new(AtomicU64::new(0));
    let (counted, count) = (Arc::clone(&runs), Arc::clone(&told));
    let set = TaskSet::new("owner").on_panic(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let handle = set.keep("unlucky", move || {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move { assert!(run >= 2, "run {run}") }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    assert_eq!(told.load(Ordering::SeqCst), 2);
    assert!(handle.is_finished());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_of_a_kept_task_ends_it() {
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let task = keep("unlucky", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { panic!("again") }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(task);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_parents_cancellation_reaches_the_child_set_only_downwards() {
    let parent = CancellationToken::new();
    let set = TaskSet::child_of(&parent, "child");
    set.cancel();
    assert!(!parent.is_cancelled());
    let other = TaskSet::child_of(&parent, "other");
    parent.cancel();
    assert!(other.token().is_cancelled());
}
