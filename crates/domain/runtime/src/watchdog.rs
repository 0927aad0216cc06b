//! The watchdog of the configuration: armed, fed, and disarmed when it is not configured any more.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::machine::{Ownership, PlatformCapabilities};
use resources::runtime::{WatchdogTimerConfig, WatchdogTimerStatus};
use stdx::error_chain;
use sys::watchdog::{Watchdog, WatchdogError, Watchdogs};

use crate::document_config::WATCHDOG;

/// A watchdog is fed so many times within its timeout (Talos 1.7).
const FEEDS: u32 = 3;

/// `runtime.WatchdogTimerController`: `WatchdogTimerConfig` → an armed watchdog and its `WatchdogTimerStatus`, on machines with a
/// kernel of their own.
///
/// It feeds within its passes, from what it reads in the store: where passes do not run any more, as workers or the store hang,
/// nobody feeds, and the watchdog resets the machine. When controllers stop, it is disarmed: a kernel that is started by kexec
/// has nobody who feeds.
#[derive(Debug)]
pub struct WatchdogTimerController {
    watchdogs: Arc<dyn Watchdogs>,
    armed: Option<Armed>,
    /// The configuration has no effect here, and that was said.
    said: bool,
}

#[derive(Debug)]
struct Armed {
    dog: Box<dyn Watchdog>,
    config: WatchdogTimerConfig,
    /// What the device has taken.
    timeout: Duration,
}

impl WatchdogTimerController {
    #[must_use]
    pub fn new(watchdogs: Arc<dyn Watchdogs>) -> Self {
        Self { watchdogs, armed: None, said: false }
    }

    fn disarm(&mut self) {
        let Some(Armed { dog, config, .. }) = self.armed.take() else { return };
        match dog.disarm() {
            Ok(()) => tracing::info!(device = config.device, "watchdog disarmed"),
            Err(error) => tracing::warn!(error = error_chain(&error), "watchdog stays armed"),
        }
    }

    /// Feeds the watchdog of `config`, which is armed first if it is another one. Returns its timeout.
    fn feed(&mut self, config: &WatchdogTimerConfig) -> Result<Duration, WatchdogError> {
        if self.armed.as_ref().is_some_and(|armed| armed.config.device != config.device) {
            self.disarm();
        }
        if let Some(armed) = self.armed.as_mut().filter(|armed| armed.config == *config) {
            armed.dog.feed()?;
            return Ok(armed.timeout);
        }
        // Its only user is this process: it is not opened twice.
        let mut dog = match self.armed.take() {
            Some(armed) => armed.dog,
            None => self.watchdogs.open(Path::new(&config.device))?,
        };
        let timeout = match dog.set_timeout(config.timeout.into()) {
            Ok(timeout) => timeout,
            Err(error) => {
                if let Err(error) = dog.disarm() {
                    tracing::warn!(error = error_chain(&error), "watchdog stays armed");
                }
                return Err(error);
            }
        };
        tracing::info!(device = config.device, ?timeout, "watchdog armed");
        self.armed = Some(Armed { dog, config: config.clone(), timeout });
        Ok(timeout)
    }
}

impl Drop for WatchdogTimerController {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[async_trait]
impl Controller for WatchdogTimerController {
    fn name(&self) -> &'static str {
        "runtime.WatchdogTimerController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID),
            Input::weak::<WatchdogTimerConfig>().id(WATCHDOG),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<WatchdogTimerStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(capabilities) = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)? else { return Ok(()) };
        let config = ctx.get::<WatchdogTimerConfig>(WATCHDOG)?;
        let Some(config) = config else {
            self.disarm();
            return ctx.keep_touched::<WatchdogTimerStatus>();
        };
        if capabilities.kernel == Ownership::Host {
            if !std::mem::replace(&mut self.said, true) {
                tracing::warn!(device = config.device, "watchdog is not armed: it is the host's");
            }
            return ctx.keep_touched::<WatchdogTimerStatus>();
        }
        match self.feed(&config) {
            Ok(timeout) => {
                let feed_interval = timeout / FEEDS;
                let status = WatchdogTimerStatus {
                    device: config.device.clone(),
                    timeout: timeout.into(),
                    feed_interval: feed_interval.into(),
                };
                ctx.put(WATCHDOG, status)?;
                ctx.requeue_after(feed_interval);
                Ok(())
            }
            // Tried again soon: nobody is told that it is fed.
            Err(error) => {
                ctx.keep_touched::<WatchdogTimerStatus>()?;
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::machine::PlatformMode;
    use resources::values::Nanoseconds;
    use sys::watchdog::FakeWatchdogs;

    use super::*;

    const DEVICE: &str = "/dev/watchdog0";

    fn start(watchdogs: &FakeWatchdogs) -> Harness {
        let harness = Harness::with(WatchdogTimerController::new(Arc::new(watchdogs.clone())));
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness
    }

    fn configure(harness: &Harness, device: &str, seconds: u64) {
        let timeout = Duration::from_secs(seconds).into();
        harness.put(WATCHDOG, WatchdogTimerConfig { device: device.to_owned(), timeout });
    }

    fn device() -> FakeWatchdogs {
        FakeWatchdogs::default().with(DEVICE, Duration::from_secs(300))
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_fed_three_times_within_its_timeout_for_as_long_as_it_is_configured() {
        let watchdogs = device();
        let harness = start(&watchdogs);
        harness.settle().await;
        assert_eq!(watchdogs.armed(DEVICE), None, "nothing is configured");
        configure(&harness, DEVICE, 60);
        harness.settle().await;
        assert_eq!(watchdogs.armed(DEVICE), Some(Duration::from_secs(60)));
        let status = harness.get::<WatchdogTimerStatus>(WATCHDOG).unwrap();
        let nanoseconds = |seconds| Nanoseconds::from(Duration::from_secs(seconds));
        assert_eq!((status.device.as_str(), status.timeout), (DEVICE, nanoseconds(60)));
        assert_eq!(status.feed_interval, nanoseconds(20));
        let before = watchdogs.feeds(DEVICE);
        tokio::time::sleep(Duration::from_secs(601)).await;
        assert_eq!(watchdogs.feeds(DEVICE) - before, 30);
        assert!(!watchdogs.has_bitten(DEVICE));
        configure(&harness, DEVICE, 30);
        harness.settle().await;
        assert_eq!(watchdogs.armed(DEVICE), Some(Duration::from_secs(30)), "it is not closed for another timeout");
        harness.destroy::<WatchdogTimerConfig>(WATCHDOG);
        harness.settle().await;
        assert_eq!(watchdogs.armed(DEVICE), None);
        assert_eq!(harness.get::<WatchdogTimerStatus>(WATCHDOG), None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_device_takes_over_and_the_first_one_bites_nobody() {
        let watchdogs = device().with("/dev/watchdog1", Duration::from_secs(60));
        let harness = start(&watchdogs);
        configure(&harness, DEVICE, 60);
        harness.settle().await;
        configure(&harness, "/dev/watchdog1", 60);
        harness.settle().await;
        assert_eq!((watchdogs.armed(DEVICE), watchdogs.armed("/dev/watchdog1").is_some()), (None, true));
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert!(!watchdogs.has_bitten(DEVICE) && !watchdogs.has_bitten("/dev/watchdog1"));
    }

    /// A device that was opened is armed, also where it has no such timeout.
    #[tokio::test(start_paused = true)]
    async fn a_device_that_does_not_have_the_timeout_is_left_disarmed_and_has_no_status() {
        let watchdogs = FakeWatchdogs::default().with(DEVICE, Duration::from_secs(30));
        let harness = start(&watchdogs);
        configure(&harness, DEVICE, 60);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!((watchdogs.armed(DEVICE), watchdogs.has_bitten(DEVICE)), (None, false));
        assert_eq!(harness.get::<WatchdogTimerStatus>(WATCHDOG), None);
        let status = harness.status("runtime.WatchdogTimerController");
        assert!(status.last_error.unwrap_or_default().contains("setting its timeout"));
        configure(&harness, DEVICE, 30);
        harness.settle().await;
        assert!(watchdogs.armed(DEVICE).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_comes_later_is_armed_then() {
        let watchdogs = FakeWatchdogs::default();
        let harness = start(&watchdogs);
        configure(&harness, DEVICE, 60);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let watchdogs = watchdogs.with(DEVICE, Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(watchdogs.armed(DEVICE).is_some() && !watchdogs.has_bitten(DEVICE));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_disarmed_when_controllers_stop() {
        let watchdogs = device();
        let harness = start(&watchdogs);
        configure(&harness, DEVICE, 60);
        harness.settle().await;
        assert!(watchdogs.armed(DEVICE).is_some());
        harness.runtime.stop(Duration::from_secs(5)).await.unwrap();
        assert_eq!(watchdogs.armed(DEVICE), None);
    }

    #[tokio::test]
    async fn it_bites_when_controllers_hang() {
        let watchdogs = device();
        let harness = start(&watchdogs);
        configure(&harness, DEVICE, 1);
        let armed = async {
            while watchdogs.armed(DEVICE).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), armed).await.expect("it is not armed");
        #[expect(clippy::disallowed_methods, reason = "the worker is to hang")]
        std::thread::sleep(Duration::from_millis(1200));
        assert!(watchdogs.has_bitten(DEVICE));
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_of_a_host_is_left_alone() {
        let watchdogs = device();
        let harness = Harness::with(WatchdogTimerController::new(Arc::new(watchdogs.clone())));
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        configure(&harness, DEVICE, 60);
        harness.settle().await;
        assert_eq!(watchdogs.armed(DEVICE), None);
        assert_eq!(harness.get::<WatchdogTimerStatus>(WATCHDOG), None);
    }
}
