//! Trust in the boot of this machine, and its devices. A machine that is its host's guest has neither a chain of trust of its
//! own nor devices to wait for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::machine::{Ownership, PlatformCapabilities};
use resources::runtime::{DevicesStatus, SecurityState};
use resources::v1alpha1::Service;
use sys::udev::{Devices, Which};
use tokio::sync::watch;
use tokio::time::Instant;

/// The service that handles devices.
const UDEVD: &str = "udevd";

/// Whether the kernel is the host's; false as long as it is not known.
fn is_hosts(ctx: &Ctx) -> Result<bool, ReconcileError> {
    let capabilities = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)?;
    Ok(capabilities.is_some_and(|capabilities| capabilities.kernel == Ownership::Host))
}

fn capabilities() -> Vec<Input> {
    vec![Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID)]
}

/// Whether the firmware checked what it started: attributes of four bytes, and one byte of value (UEFI 2.10, 3.3).
const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// `runtime.SecurityStateController`.
#[derive(Debug)]
pub struct SecurityStateController {
    /// Where variables of the firmware are.
    pub efi_variables: PathBuf,
}

impl SecurityStateController {
    /// A machine without such a variable was not started by UEFI, or by one that checks nothing.
    fn is_secure_boot(&self) -> bool {
        std::fs::read(self.efi_variables.join(SECURE_BOOT)).is_ok_and(|value| value.get(4) == Some(&1))
    }
}

#[async_trait]
impl Controller for SecurityStateController {
    fn name(&self) -> &'static str {
        "runtime.SecurityStateController"
    }

    fn inputs(&self) -> Vec<Input> {
        capabilities()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<SecurityState>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(capabilities) = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)? else { return Ok(()) };
        let secure_boot = capabilities.kernel == Ownership::Machine && self.is_secure_boot();
        ctx.put(SecurityState::ID, SecurityState { secure_boot, ..SecurityState::default() })?;
        Ok(())
    }
}

/// How long devices may take in all: longer than udevd lets one event take (180 s, `udev.event_timeout`).
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Before udevd is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// `runtime.DevicesStatusController`: whether the devices that the machine started with are known.
///
/// On a kernel of the machine's own that is so once udevd has handled those that disks and links are found by. The others follow, and are
/// waited for by nobody. Known devices stay known: later ones come one by one.
#[derive(Debug)]
pub struct DevicesStatusController {
    devices: Arc<dyn Devices>,
    done: watch::Sender<bool>,
    asked: bool,
}

impl DevicesStatusController {
    #[must_use]
    pub fn new(devices: Arc<dyn Devices>) -> Self {
        Self { devices, done: watch::Sender::new(false), asked: false }
    }
}

#[async_trait]
impl Controller for DevicesStatusController {
    fn name(&self) -> &'static str {
        "runtime.DevicesStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = capabilities();
        inputs.push(Input::weak::<Service>().id(UDEVD));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<DevicesStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("devices", &self.done.subscribe());
        let is_running = ctx.get::<Service>(UDEVD)?.is_some_and(|service| service.running);
        if is_running && !self.asked {
            self.asked = true;
            let (devices, done) = (Arc::clone(&self.devices), self.done.clone());
            ctx.spawn("devices", async move {
                find_devices(devices.as_ref()).await;
                done.send_replace(true);
                if let Err(error) = devices.trigger(Which::All).await {
                    tracing::warn!(error = stdx::error_chain(&error), "going on without some devices");
                }
            });
        }
        if is_hosts(ctx)? || *self.done.borrow() {
            ctx.put(DevicesStatus::ID, DevicesStatus { ready: true })?;
        }
        ctx.keep_touched::<DevicesStatus>()
    }
}

/// Has udevd handle all devices. A slow machine takes its time: without its disks it would be taken for one that was never
/// installed. One device that hangs keeps no machine from starting.
async fn find_devices(devices: &dyn Devices) {
    let started = Instant::now();
    let mut is_triggered = false;
    let found = loop {
        let step = async {
            if !is_triggered {
                devices.ready().await?;
                devices.trigger(Which::Needed).await?;
                is_triggered = true;
            }
            devices.settle().await
        };
        let Err(error) = step.await else { break Ok(()) };
        if started.elapsed() >= PATIENCE {
            break Err(error);
        }
        let error = stdx::error_chain(&error);
        tracing::warn!(error, waited = ?started.elapsed(), at_most = ?PATIENCE, "still waiting for devices");
        tokio::time::sleep(PAUSE).await;
    };
    match found {
        Ok(()) => tracing::info!(duration = ?started.elapsed(), "devices are known"),
        Err(error) => tracing::warn!(error = stdx::error_chain(&error), "going on without some devices"),
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use parking_lot::Mutex;
    use resources::machine::PlatformMode;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use sys::process::ProcessError;
    use sys::udev::UdevError;

    use super::*;

    /// Notes what it is asked for, and never settles when it is told so.
    #[derive(Debug, Default)]
    struct FakeDevices {
        asked: Mutex<Vec<&'static str>>,
        never_settles: bool,
        /// How often udevd does not answer.
        is_silent: Mutex<usize>,
        /// How often udevd says that it has not settled yet.
        gives_up: Mutex<usize>,
    }

    /// Fails as often as `left` says.
    fn fails(left: &Mutex<usize>, operation: &'static str) -> Result<(), UdevError> {
        let mut left = left.lock();
        let Some(fewer) = left.checked_sub(1) else { return Ok(()) };
        *left = fewer;
        let source = ProcessError::Failed { program: "udevadm".into(), status: ExitStatus::from_raw(256) };
        Err(UdevError { operation, source })
    }

    #[async_trait]
    impl Devices for FakeDevices {
        async fn ready(&self) -> Result<(), UdevError> {
            self.asked.lock().push("ready");
            fails(&self.is_silent, "answer")
        }

        async fn reload(&self) -> Result<(), UdevError> {
            self.asked.lock().push("reload");
            Ok(())
        }

        async fn trigger(&self, which: Which) -> Result<(), UdevError> {
            self.asked.lock().push(match which {
                Which::Needed => "trigger needed",
                Which::All => "trigger all",
            });
            Ok(())
        }

        async fn settle(&self) -> Result<(), UdevError> {
            self.asked.lock().push("settle");
            if self.never_settles {
                std::future::pending::<()>().await;
            }
            fails(&self.gives_up, "settle")
        }
    }

    fn security(efi_variables: &std::path::Path) -> Harness {
        Harness::with(SecurityStateController { efi_variables: efi_variables.to_owned() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_of_its_host_has_no_secure_boot_and_waits_for_no_devices() {
        let harness = security(std::path::Path::new("/no/variables"));
        let devices = Arc::new(FakeDevices::default());
        harness.run(DevicesStatusController::new(Arc::clone(&devices) as _));
        harness.settle().await;
        assert_eq!(harness.get::<SecurityState>(SecurityState::ID), None, "the owner of the kernel is unknown");
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.settle().await;
        let state = harness.get::<SecurityState>(SecurityState::ID).unwrap();
        assert!(!state.secure_boot && state.uki_signing_key_fingerprint.is_empty());
        assert!(harness.get::<DevicesStatus>(DevicesStatus::ID).unwrap().ready);
        assert_eq!(*devices.asked.lock(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_is_ready_when_udevd_has_handled_its_devices() {
        let devices = Arc::new(FakeDevices::default());
        let harness = Harness::with(DevicesStatusController::new(Arc::clone(&devices) as _));
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        assert_eq!(harness.get::<DevicesStatus>(DevicesStatus::ID), None);
        let service = |running| Service { running, healthy: true, unknown: false };
        harness.put(UDEVD, service(true));
        harness.settle().await;
        assert_eq!(*devices.asked.lock(), ["ready", "trigger needed", "settle", "trigger all"]);
        assert!(harness.get::<DevicesStatus>(DevicesStatus::ID).unwrap().ready);
        harness.put(UDEVD, service(false));
        harness.settle().await;
        assert!(harness.get::<DevicesStatus>(DevicesStatus::ID).unwrap().ready, "known devices stay known");
    }

    #[tokio::test(start_paused = true)]
    async fn devices_that_do_not_settle_are_not_ready() {
        let devices = Arc::new(FakeDevices { never_settles: true, ..FakeDevices::default() });
        let harness = Harness::with(DevicesStatusController::new(devices));
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.put(UDEVD, Service { running: true, healthy: true, unknown: false });
        harness.settle().await;
        assert_eq!(harness.get::<DevicesStatus>(DevicesStatus::ID), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_machine_waits_until_its_devices_are_known() {
        let devices = Arc::new(FakeDevices { gives_up: Mutex::new(3), ..FakeDevices::default() });
        let begun = Instant::now();
        find_devices(devices.as_ref()).await;
        assert_eq!(*devices.asked.lock(), ["ready", "trigger needed", "settle", "settle", "settle", "settle"]);
        assert!(begun.elapsed() < PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn devices_are_triggered_also_when_udevd_does_not_answer_at_first() {
        let devices = FakeDevices { is_silent: Mutex::new(2), ..FakeDevices::default() };
        find_devices(&devices).await;
        assert_eq!(*devices.asked.lock(), ["ready", "ready", "ready", "trigger needed", "settle"]);
    }

    #[tokio::test(start_paused = true)]
    async fn devices_that_hang_are_given_up_in_the_end() {
        let devices = FakeDevices { gives_up: Mutex::new(usize::MAX), ..FakeDevices::default() };
        let begun = Instant::now();
        find_devices(&devices).await;
        assert!((PATIENCE..PATIENCE + 2 * PAUSE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn secure_boot_is_what_the_firmware_says() {
        for (value, expected) in [(vec![6, 0, 0, 0, 1], true), (vec![6, 0, 0, 0, 0], false), (vec![1], false)] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(SECURE_BOOT), &value).unwrap();
            let harness = security(directory.path());
            harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
            harness.settle().await;
            assert_eq!(harness.get::<SecurityState>(SecurityState::ID).unwrap().secure_boot, expected, "{value:?}");
        }
    }
}
