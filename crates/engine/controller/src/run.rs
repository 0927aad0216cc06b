//! The life of one controller: wait, pass, retry.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use parking_lot::Mutex;
use stdx::{
    Backoff,
    backoff::random_jitter,
    tasks::{CancellationToken, panic_message},
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{Controller, ReconcileError, ctx::Ctx, signal::Signal};

/// Retry delay after a failure: at least a quarter of this even if inputs change, up to [`RETRY_MAX`] otherwise.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait of a controller that keeps failing.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Counters of a controller.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) passes: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Of tasks that the controller started.
    pub(crate) task_panics: AtomicU64,
    pub(crate) running: AtomicBool,
    pub(crate) last_error: Mutex<Option<String>>,
}

/// Runs `controller` until `token` fires. Never returns early: failures and panics are counted and retried.
pub(crate) async fn run(
    mut controller: Box<dyn Controller>,
    mut ctx: Ctx,
    signal: Arc<Signal>,
    stats: Arc<Stats>,
    token: CancellationToken,
) {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    let mut deadline: Option<Instant> = None;
    signal.wake();
    loop {
        // Each arm is cancel-safe: token and timer hold no state, the signal is consumed only if it wins.
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = signal.woken() => {}
            () = until(deadline) => {}
        }
        stats.running.store(true, Ordering::SeqCst);
        signal.take();
        ctx.begin_pass();
        let outcome = pass(controller.as_mut(), &mut ctx).await;
        stats.passes.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(()) => {
                if stats.last_error.lock().take().is_some() {
                    tracing::info!(attempts = backoff.attempts(), "controller recovered");
                }
                backoff.reset();
                let resync = controller.resync().map(|after| Instant::now() + after);
                deadline = earlier(ctx.requeue(), resync);
                stats.running.store(false, Ordering::SeqCst);
            }
            Err(error) => {
                stats.failures.fetch_add(1, Ordering::Relaxed);
                let delay = backoff.next_delay(random_jitter());
                tracing::warn!(%error, retry_in = %stdx::duration::format(delay), "controller failed");
                *stats.last_error.lock() = Some(error.to_string());
                deadline = Some(Instant::now() + delay);
                stats.running.store(false, Ordering::SeqCst);
                // A change may resolve the failure, so it shortens the delay, but not to zero: a storm of changes must
                // not spin.
                tokio::select! {
                    biased;
                    () = token.cancelled() => return,
                    () = sleep(delay.min(RETRY_MIN / 4)) => {}
                }
            }
        }
    }
}

/// One pass; a panic in it is an error, and so is one that does not end within the controller's deadline.
async fn pass(controller: &mut dyn Controller, ctx: &mut Ctx) -> Result<(), ReconcileError> {
    let deadline = controller.pass_deadline();
    let pass = AssertUnwindSafe(controller.reconcile(ctx)).catch_unwind();
    match tokio::time::timeout(deadline, pass).await {
        Ok(Ok(result)) => result,
        Ok(Err(payload)) => Err(ReconcileError::msg(format!("panic: {}", panic_message(&*payload)))),
        Err(_) => {
            Err(ReconcileError::msg(format!("pass dropped: not done within {}", stdx::duration::format(deadline))))
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
