//! The clock of the machine and whether it can be relied on.
//!
//! A clock that is the host's is the host's to set: it counts as synced, and `syncDisabled` says that this machine does
//! nothing for it. A clock of the machine's own is synced when a time server has adjusted it, when the configuration says to
//! leave it alone, or when waiting for it has taken longer than the configuration allows; the client goes on then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::v1alpha1::Time;
use controller::{Controller, Ctx, Input, Output, ReconcileError, TaskHandle, Waker};
use ntp::{Action, Adjustment, Ask, Client, Event, SystemTime, Target};
use resources::config::MachineConfig;
use resources::machine::{Ownership, PlatformCapabilities};
use resources::network::TimeServerStatus;
use resources::time::TimeStatus;
use stdx::error_chain;
use tokio::sync::watch;
use tokio::time::Instant;

/// `time.SyncController`: runs the client of time servers.
#[derive(Debug)]
pub struct SyncController {
    ask: Arc<dyn Ask>,
    clock: Arc<dyn SystemTime>,
    progress: watch::Sender<Progress>,
    servers: watch::Sender<Vec<String>>,
    client: Option<TaskHandle>,
    /// When this controller ran first.
    start: Option<Instant>,
}

/// What the client has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// It has adjusted the clock.
    synced: bool,
    /// How often it set the clock by so much that certificates have to be made anew.
    epoch: i64,
}

impl SyncController {
    /// Asks servers by `ask` and adjusts `clock`.
    pub fn new(ask: Arc<dyn Ask>, clock: Arc<dyn SystemTime>) -> Self {
        let (progress, servers) = (watch::Sender::default(), watch::Sender::default());
        Self { ask, clock, progress, servers, client: None, start: None }
    }

    /// Runs the client with these servers.
    fn run(&mut self, ctx: &mut Ctx, servers: Vec<String>) {
        self.servers.send_if_modified(|known| {
            let changed = *known != servers;
            *known = servers;
            changed
        });
        if self.client.as_ref().is_none_or(TaskHandle::is_finished) {
            let task = Task {
                ask: Arc::clone(&self.ask),
                clock: Arc::clone(&self.clock),
                servers: self.servers.subscribe(),
                progress: self.progress.clone(),
                waker: ctx.waker(),
            };
            self.client = Some(ctx.spawn("ntp", task.run()));
        }
    }

    fn stop(&mut self) {
        if let Some(client) = self.client.take() {
            client.abort();
        }
    }

    /// Whether waiting for the first adjustment is over; if not, this runs again when it will be.
    fn is_timed_out(&self, ctx: &mut Ctx, timeout: Duration) -> bool {
        let Some(start) = self.start.filter(|_| !timeout.is_zero()) else { return false };
        let left = timeout.saturating_sub(start.elapsed());
        if !left.is_zero() {
            ctx.requeue_after(left);
        }
        left.is_zero()
    }
}

#[async_trait]
impl Controller for SyncController {
    fn name(&self) -> &'static str {
        "time.SyncController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID),
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<TimeServerStatus>().id(TimeServerStatus::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<TimeStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        self.start.get_or_insert_with(Instant::now);
        let Some(capabilities) = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)? else { return Ok(()) };
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let machine = MachineConfig::root_of(active.as_deref())?.map(|config| config.machine());
        let time = machine.and_then(|machine| machine.time.clone()).unwrap_or_default();
        let sync_disabled = capabilities.clock == Ownership::Host || time.disabled == Some(true);
        if sync_disabled {
            self.stop();
            let epoch = self.progress.borrow().epoch;
            ctx.put(TimeStatus::ID, TimeStatus { synced: true, epoch, sync_disabled })?;
            return Ok(());
        }
        let servers = ctx.get::<TimeServerStatus>(TimeServerStatus::ID)?;
        self.run(ctx, servers.map(|servers| servers.time_servers.clone()).unwrap_or_default());
        let Progress { synced, epoch } = *self.progress.borrow();
        let synced = synced || self.is_timed_out(ctx, boot_timeout(&time)?);
        ctx.put(TimeStatus::ID, TimeStatus { synced, epoch, sync_disabled })?;
        Ok(())
    }
}

/// Zero without one.
fn boot_timeout(time: &Time) -> Result<Duration, ReconcileError> {
    if time.boot_timeout.is_empty() {
        return Ok(Duration::ZERO);
    }
    Ok(stdx::duration::parse(&time.boot_timeout)?)
}

struct Task {
    ask: Arc<dyn Ask>,
    clock: Arc<dyn SystemTime>,
    servers: watch::Receiver<Vec<String>>,
    progress: watch::Sender<Progress>,
    waker: Waker,
}

impl Task {
    async fn run(mut self) {
        let start = Instant::now();
        let servers = self.servers.borrow_and_update().clone();
        let mut client = Client::new(servers, Duration::ZERO);
        let mut failures = 0_u32;
        loop {
            let deadline = client.deadline().map(|deadline| start + deadline);
            let Some(event) = self.wait(deadline).await else { return };
            let mut action = client.handle(start.elapsed(), event);
            while let Some(Action::Query(target)) = action {
                let Some(event) = self.ask(&target, &mut failures).await else { return };
                action = client.handle(start.elapsed(), event);
            }
            if let Some(Action::Adjust(adjustment)) = action {
                self.adjust(adjustment);
            }
        }
    }

    /// Asks a server, but waits for its answer no longer than it is in use: a name may take seconds to be looked up, and DHCP
    /// tells the servers of the network meanwhile. Both arms are cancel-safe.
    async fn ask(&mut self, target: &Target, failures: &mut u32) -> Option<Event> {
        let known = self.servers.borrow().clone();
        tokio::select! {
            answer = self.ask.ask(target) => Some(match answer {
                Ok((answer, address)) => {
                    *failures = 0;
                    Event::Answered(answer, address)
                }
                Err(error) => {
                    // The first failure of a row; the client goes on to ask each second.
                    if *failures == 0 {
                        tracing::warn!(error = error_chain(&error), "time server does not answer; retrying");
                    }
                    *failures = failures.saturating_add(1);
                    Event::Failed
                }
            }),
            others = self.servers.wait_for(|servers| *servers != known) => Some(Event::Servers(others.ok()?.clone())),
        }
    }

    /// Waits for a time or for other servers, whichever comes first; both arms are cancel-safe.
    async fn wait(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let time = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => Some(Event::Tick),
            changed = self.servers.changed() => {
                changed.ok()?;
                Some(Event::Servers(self.servers.borrow_and_update().clone()))
            }
        }
    }

    fn adjust(&self, adjustment: Adjustment) {
        if let Err(error) = self.clock.adjust(adjustment) {
            tracing::error!(error = error_chain(&error), "the clock cannot be adjusted");
            return;
        }
        let is_epoch = match adjustment {
            Adjustment::Slew { offset, .. } => {
                tracing::debug!(%offset, "clock slewed");
                false
            }
            Adjustment::Step { offset, is_epoch } => {
                tracing::info!(%offset, "clock set");
                is_epoch
            }
        };
        let changed = self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.synced = true;
            progress.epoch += i64::from(is_epoch);
            *progress != before
        });
        if changed {
            self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use ntp::{Answer, FakeAsk, FakeTime};
    use resources::machine::PlatformMode;

    use super::*;

    fn machine(capabilities: PlatformCapabilities) -> (FakeAsk, FakeTime, Harness) {
        let (ask, clock) = (FakeAsk::default(), FakeTime::default());
        let harness = Harness::with(SyncController::new(Arc::new(ask.clone()), Arc::new(clock.clone())));
        harness.put(PlatformCapabilities::ID, capabilities);
        (ask, clock, harness)
    }

    fn metal() -> PlatformCapabilities {
        PlatformCapabilities::owning_all(PlatformMode::Metal)
    }

    fn servers(harness: &Harness, servers: &[&str]) {
        let time_servers = servers.iter().map(|server| (*server).to_owned()).collect();
        harness.put(TimeServerStatus::ID, TimeServerStatus { time_servers });
    }

    fn configure(harness: &Harness, time: &str) {
        let text = format!("version: v1alpha1\nmachine:\n  type: worker\n  time: {time}\n");
        harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(&text));
    }

    fn status(harness: &Harness) -> (bool, i64, bool) {
        let status = harness.get::<TimeStatus>(TimeStatus::ID).unwrap();
        (status.synced, status.epoch, status.sync_disabled)
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_a_host_counts_as_synced_and_is_left_alone() {
        let container = PlatformCapabilities { clock: Ownership::Host, ..metal() };
        let (ask, clock, harness) = machine(container);
        ask.tells("a", 5000);
        servers(&harness, &["a"]);
        harness.advance(Duration::from_secs(60)).await;
        assert_eq!(status(&harness), (true, 0, true));
        assert!(ask.asked().is_empty() && clock.adjustments().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_clock_is_synced_by_the_first_server_that_answers() {
        let (ask, clock, harness) = machine(metal());
        servers(&harness, &["absent", "a"]);
        ask.tells("a", 200);
        harness.settle().await;
        assert_eq!(status(&harness), (false, 0, false));
        harness.advance(Duration::from_secs(2)).await;
        assert_eq!(ask.asked(), ["absent", "a"]);
        assert_eq!(status(&harness), (true, 0, false));
        assert!(matches!(&clock.adjustments()[..], [Adjustment::Slew { .. }]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_more_than_a_quarter_of_an_hour_starts_an_epoch() {
        let (ask, clock, harness) = machine(metal());
        ask.tells("a", 20 * 60 * 1000);
        servers(&harness, &["a"]);
        harness.settle().await;
        assert_eq!(status(&harness), (true, 1, false));
        ask.tells("a", 10 * 60 * 1000);
        harness.advance(Duration::from_secs(33)).await;
        assert_eq!((status(&harness), clock.adjustments().len()), ((true, 1, false), 2), "a smaller step is no epoch");
    }

    #[tokio::test(start_paused = true)]
    async fn the_configuration_switches_the_client_off_and_on_and_bounds_the_wait() {
        let (ask, clock, harness) = machine(metal());
        servers(&harness, &["a"]);
        configure(&harness, "{bootTimeout: 2m}");
        harness.advance(Duration::from_secs(100)).await;
        assert_eq!(status(&harness), (false, 0, false));
        harness.advance(Duration::from_secs(21)).await;
        assert_eq!(status(&harness), (true, 0, false), "the wait is over");
        let before = ask.asked().len();
        harness.advance(Duration::from_secs(5)).await;
        assert!(ask.asked().len() > before, "it still asks");
        configure(&harness, "{disabled: true}");
        harness.settle().await;
        assert_eq!(status(&harness), (true, 0, true));
        let before = ask.asked().len();
        ask.tells("a", 1);
        harness.advance(Duration::from_secs(5)).await;
        assert_eq!((ask.asked().len(), clock.adjustments().len()), (before, 0));
        configure(&harness, "{}");
        harness.advance(Duration::from_secs(1)).await;
        assert_eq!((status(&harness), clock.adjustments().len()), ((true, 0, false), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_left_at_once_for_those_of_the_network() {
        let (ask, _, harness) = machine(metal());
        ask.silence("time.example.org");
        ask.tells("10.5.0.1", 1);
        servers(&harness, &["time.example.org"]);
        harness.settle().await;
        servers(&harness, &["10.5.0.1"]);
        harness.settle().await;
        assert_eq!(ask.asked(), ["time.example.org", "10.5.0.1"]);
        assert_eq!(status(&harness), (true, 0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn other_servers_take_over_while_the_client_runs() {
        let (ask, _, harness) = machine(metal());
        ask.answers("a", Answer::KissOfDeath(*b"DENY"));
        ask.tells("b", 1);
        servers(&harness, &["a"]);
        harness.advance(Duration::from_secs(10)).await;
        assert_eq!(status(&harness), (false, 0, false));
        servers(&harness, &["b"]);
        harness.advance(Duration::from_secs(1)).await;
        assert_eq!(ask.asked(), ["a", "b"]);
        assert_eq!(status(&harness), (true, 0, false));
    }
}
