//! The life of one service: wait, prepare, run, and again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use stdx::{Backoff, ErrorChain};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::condition::Condition;
use crate::service::{Restart, RunContext, Service, ServiceError};
use crate::shared::Shared;
use crate::status::ServiceState;

/// The shortest pause between two looks at unmet conditions, or at a service that was never healthy yet: others wait for the
/// first good answer. Dependencies are watched and need no polling.
const FIRST_POLL: Duration = Duration::from_millis(100);

/// The longest pause between two looks at unmet conditions.
const CONDITION_POLL_MAX: Duration = Duration::from_secs(2);

/// How long a run may take to end after it was asked to. Longer than any service waits between its own SIGTERM and
/// SIGKILL (the kubelet: 30 s): a run that is dropped before it has killed leaves its process behind.
const STOP_GRACE: Duration = Duration::from_secs(45);

/// A run of at least this length resets the backoff.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// The pause before the next look at something that has been waited for that long: at most 2 % of the wait is added to it, and
/// so that a condition that is never met is not polled ten times a second forever.
fn poll_after(waited: Duration, max: Duration) -> Duration {
    (waited / 50).clamp(FIRST_POLL.min(max), max)
}

enum Ended {
    Stopped,
    Well,
    Badly,
}

pub(crate) async fn keep(shared: &Arc<Shared>, service: &dyn Service, generation: u64, stop: &CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    loop {
        let started = Instant::now();
        match once(shared, service, generation, stop).await {
            Ended::Stopped => {
                shared.enter(service.id(), generation, ServiceState::Finished, "Service finished successfully");
                return;
            }
            Ended::Well if service.restart() != Restart::Always => {
                shared.enter(service.id(), generation, ServiceState::Finished, "Service finished successfully");
                return;
            }
            Ended::Badly if service.restart() == Restart::Never => return,
            Ended::Well | Ended::Badly => {}
        }
        if started.elapsed() > GOOD_RUN {
            backoff.reset();
        }
        let delay = backoff.next_delay(stdx::backoff::random_jitter());
        let message = format!("Restarting service in {delay:.1?}");
        tracing::debug!(service = service.id(), message);
        // Both arms are cancel-safe.
        tokio::select! {
            () = stop.cancelled() => {
                shared.enter(service.id(), generation, ServiceState::Finished, "Service finished successfully");
                return;
            }
            () = tokio::time::sleep(delay) => {}
        }
    }
}

async fn once(shared: &Arc<Shared>, service: &dyn Service, generation: u64, stop: &CancellationToken) -> Ended {
    let id = service.id();
    // Both arms are cancel-safe: waiting changes nothing.
    tokio::select! {
        () = stop.cancelled() => return Ended::Stopped,
        () = wait(shared, service, generation) => {}
    }
    shared.enter(id, generation, ServiceState::Preparing, "Preparing to run");
    let prepared = tokio::select! {
        // Dropping `prepare` half way is allowed by its contract: the next run prepares again.
        () = stop.cancelled() => return Ended::Stopped,
        result = prepare(service, stop) => result,
    };
    if let Err(error) = prepared {
        shared.enter(id, generation, ServiceState::Failed, &format!("Failed to prepare: {}", ErrorChain(&*error)));
        return Ended::Badly;
    }
    let result = run(shared, service, generation, stop).await;
    match result {
        _ if stop.is_cancelled() => Ended::Stopped,
        Ok(()) => {
            shared.enter(id, generation, ServiceState::Finished, "Service finished successfully");
            Ended::Well
        }
        Err(error) => {
            shared.enter(id, generation, ServiceState::Failed, &format!("Failed to run: {}", ErrorChain(&*error)));
            Ended::Badly
        }
    }
}

async fn prepare(service: &dyn Service, stop: &CancellationToken) -> Result<(), ServiceError> {
    let deadline = service.prepare_deadline();
    let work = AssertUnwindSafe(service.prepare(stop.child_token())).catch_unwind();
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => flatten(result),
        Err(_) => Err(format!("not done within {}", stdx::duration::format(deadline)).into()),
    }
}

async fn run(
    shared: &Arc<Shared>,
    service: &dyn Service,
    generation: u64,
    stop: &CancellationToken,
) -> Result<(), ServiceError> {
    let id = service.id().to_owned();
    shared.enter(&id, generation, ServiceState::Starting, "Starting");
    let up = CancellationToken::new();
    let running = {
        let (shared, id, up) = (Arc::clone(shared), id.clone(), up.clone());
        Arc::new(move |message: &str| {
            shared.enter(&id, generation, ServiceState::Running, message);
            up.cancel();
        })
    };
    let cancel = stop.child_token();
    let work = AssertUnwindSafe(service.run(RunContext::new(cancel.clone(), running))).catch_unwind();
    let health = async {
        up.cancelled().await;
        watch_health(shared, service, generation).await;
    };
    let stopping = async {
        stop.cancelled().await;
        shared.enter(&id, generation, ServiceState::Stopping, "Stopping");
        tokio::time::sleep(STOP_GRACE).await;
    };
    // Only `work` carries a result; it is dropped only when it did not end within its grace.
    tokio::select! {
        result = work => flatten(result),
        () = health => Err("health watch ended".into()),
        () = stopping => Err(format!("did not end within {STOP_GRACE:?}").into()),
    }
}

fn flatten(result: Result<Result<(), ServiceError>, Box<dyn std::any::Any + Send>>) -> Result<(), ServiceError> {
    result.unwrap_or_else(|panic| Err(format!("panicked: {}", stdx::tasks::panic_message(&*panic)).into()))
}

async fn watch_health(shared: &Arc<Shared>, service: &dyn Service, generation: u64) {
    let Some(check) = service.health() else { return std::future::pending().await };
    let mut was_healthy = false;
    let mut delay = check.settings.initial_delay.min(FIRST_POLL);
    let begun = Instant::now();
    loop {
        tokio::time::sleep(delay).await;
        let answer = check.ask().await;
        was_healthy |= answer.is_ok();
        // A service that is still coming up is not called unhealthy before its first check is due.
        if answer.is_ok() || begun.elapsed() >= check.settings.initial_delay {
            shared.update(service.id(), generation, |status, now| status.set_health(Some(&answer), now));
        }
        let period = check.settings.period;
        delay = if was_healthy { period } else { poll_after(begun.elapsed(), period) };
    }
}

/// Returns once all dependencies are up and all conditions are met; reports the missing one meanwhile.
async fn wait(shared: &Arc<Shared>, service: &dyn Service, generation: u64) {
    let mut revision = shared.revision.subscribe();
    let conditions = service.conditions();
    let begun = Instant::now();
    loop {
        revision.borrow_and_update();
        let missing = missing(shared, &service.depends_on(), &conditions).await;
        if missing.is_empty() {
            return;
        }
        let message = format!("Waiting for {}", missing.join(", "));
        shared.enter(service.id(), generation, ServiceState::Waiting, &message);
        let poll = poll_after(begun.elapsed(), CONDITION_POLL_MAX);
        // Cancel-safe: a missed revision is seen at the next poll.
        drop(tokio::time::timeout(poll, revision.changed()).await);
    }
}

async fn missing(shared: &Shared, depends_on: &[String], conditions: &[Arc<dyn Condition>]) -> Vec<String> {
    let mut missing: Vec<String> = {
        let entries = shared.entries.lock();
        let is_up = |id: &&String| entries.get(*id).is_some_and(|entry| entry.status.is_up());
        depends_on.iter().filter(|id| !is_up(id)).map(|id| format!("service \"{id}\" to be \"up\"")).collect()
    };
    for condition in conditions {
        match AssertUnwindSafe(condition.is_met()).catch_unwind().await {
            Ok(true) => {}
            Ok(false) => missing.push(condition.describe()),
            Err(panic) => {
                let message = stdx::tasks::panic_message(&*panic);
                missing.push(format!("{} (looking panicked: {message})", condition.describe()));
            }
        }
    }
    missing
}
