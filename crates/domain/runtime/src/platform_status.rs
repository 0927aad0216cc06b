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
use sys::udev::{Devices, UdevError};
use tokio::sync::watch;
use tokio::time::Instant;

/// The service that handles devices.
const UDEVD: &str = "udevd";
const APID: &str = "apid";

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
/// Before udevd is asked again: it may have begun to listen only after it was asked.
const AGAIN: Duration = Duration::from_secs(15);
/// Before udevd is asked again whether it has settled.
const PAUSE: Duration = Duration::from_secs(1);
/// How long drivers may take: an emulated machine on a busy host takes seconds.
const DRIVERS: Duration = Duration::from_secs(120);
/// How often it is looked what udevd has handled.
const LOOK: Duration = Duration::from_millis(20);
/// How long other devices are left alone after disks and links are known, unless apid runs earlier: drivers of all kinds would
/// take the processor from the start of the API.
const OTHERS_AFTER: Duration = Duration::from_secs(10);

/// `runtime.DevicesStatusController`: whether the devices that the machine started with are known.
///
/// On a kernel of the machine's own that is so once the drivers of disks and links are loaded, and udevd has handled those. The
/// others follow, and are waited for by nobody. Known devices stay known: later ones come one by one.
#[derive(Debug)]
pub struct DevicesStatusController {
    devices: Arc<dyn Devices>,
    done: watch::Sender<bool>,
    is_apid_running: watch::Sender<bool>,
    asked: bool,
}

impl DevicesStatusController {
    #[must_use]
    pub fn new(devices: Arc<dyn Devices>) -> Self {
        Self { devices, done: watch::Sender::new(false), is_apid_running: watch::Sender::new(false), asked: false }
    }
}

#[async_trait]
impl Controller for DevicesStatusController {
    fn name(&self) -> &'static str {
        "runtime.DevicesStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = capabilities();
        inputs.extend([UDEVD, APID].map(|id| Input::weak::<Service>().id(id)));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<DevicesStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        ctx.wake_on_change("devices", &self.done.subscribe());
        let is_running = |id| Ok::<_, ReconcileError>(ctx.get::<Service>(id)?.is_some_and(|service| service.running));
        self.is_apid_running.send_replace(is_running(APID)?);
        if is_running(UDEVD)? && !self.asked {
            self.asked = true;
            let (devices, done) = (Arc::clone(&self.devices), self.done.clone());
            let mut apid = self.is_apid_running.subscribe();
            ctx.spawn("devices", async move {
                find_devices(devices.as_ref()).await;
                done.send_replace(true);
                // Both ends of the wait are the same to it.
                tokio::time::timeout(OTHERS_AFTER, apid.wait_for(|is_running| *is_running)).await.ok();
                if let Err(error) = devices.trigger_all().await {
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

/// Has udevd handle disks and links, once their drivers are loaded. A slow machine takes its time: without its disks it would be
/// taken for one that was never installed. One device that hangs keeps no machine from starting.
async fn find_devices(devices: &dyn Devices) {
    let started = Instant::now();
    let drivers = tokio::time::timeout(DRIVERS, devices.drivers());
    let (listens, drivers) = tokio::join!(devices.listens(), drivers);
    let mut last = listens.err();
    if !drivers.unwrap_or_default() {
        tracing::warn!(waited = ?started.elapsed(), "drivers are missing or hang; udevd loads them");
        last = load_by_udevd(devices, started).await.err().or(last);
    }
    let mut asked: Option<Instant> = None;
    loop {
        let unhandled = devices.unhandled().await;
        if unhandled.is_empty() {
            tracing::info!(duration = ?started.elapsed(), "devices are known");
            return;
        }
        let error = last.as_ref().map(|error| stdx::error_chain(error));
        if started.elapsed() >= PATIENCE {
            tracing::warn!(devices = unhandled.join(", "), error, "going on without some devices");
            return;
        }
        if asked.is_none_or(|asked| asked.elapsed() >= AGAIN) {
            if asked.is_some() {
                let waited = started.elapsed();
                tracing::warn!(devices = unhandled.join(", "), error, ?waited, at_most = ?PATIENCE, "still waiting for devices");
            }
            last = devices.handle_disks_and_links().await.err();
            asked = Some(Instant::now());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Has udevd load drivers, which it does in processes of its own: one that hangs keeps no other back.
async fn load_by_udevd(devices: &dyn Devices, started: Instant) -> Result<(), UdevError> {
    let mut is_asked = false;
    loop {
        let loaded = async {
            if !is_asked {
                devices.trigger_all().await?;
                is_asked = true;
            }
            devices.settle().await
        };
        match loaded.await {
            Err(error) if started.elapsed() < PATIENCE => {
                let error = stdx::error_chain(&error);
                tracing::warn!(error, waited = ?started.elapsed(), at_most = ?PATIENCE, "still waiting for drivers");
                tokio::time::sleep(PAUSE).await;
            }
            loaded => return loaded,
        }
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use parking_lot::Mutex;
    use resources::machine::PlatformMode;
    use sys::udev::Cause;

    use super::*;

    /// Notes what it is asked for, with the seconds since it was made.
    #[derive(Debug)]
    struct FakeDevices {
        made: Instant,
        asked: Mutex<Vec<(&'static str, u64)>>,
        /// Disks and links that are not handled until they were asked for this often.
        unhandled: Mutex<usize>,
        has_hanging_driver: bool,
        lacks_drivers: bool,
        /// How often udevd does not settle.
        is_busy: Mutex<u64>,
        is_deaf: bool,
    }

    impl FakeDevices {
        fn new() -> Self {
            let (asked, unhandled, is_busy) = (Mutex::default(), Mutex::new(1), Mutex::default());
            let made = Instant::now();
            Self { made, asked, unhandled, has_hanging_driver: false, lacks_drivers: false, is_busy, is_deaf: false }
        }

        fn note(&self, what: &'static str) {
            self.asked.lock().push((what, self.made.elapsed().as_secs()));
        }
    }

    #[async_trait]
    impl Devices for FakeDevices {
        async fn ready(&self) -> Result<(), UdevError> {
            self.note("ready");
            Ok(())
        }

        async fn listens(&self) -> Result<(), UdevError> {
            self.note("listens");
            if self.is_deaf { Err(UdevError { operation: "listen", source: Cause::Deaf }) } else { Ok(()) }
        }

        async fn reload(&self) -> Result<(), UdevError> {
            self.note("reload");
            Ok(())
        }

        async fn drivers(&self) -> bool {
            if self.has_hanging_driver {
                std::future::pending::<()>().await;
            }
            !self.lacks_drivers
        }

        async fn unhandled(&self) -> Vec<String> {
            if *self.unhandled.lock() == 0 { Vec::new() } else { vec!["vda".to_owned()] }
        }

        async fn handle_disks_and_links(&self) -> Result<(), UdevError> {
            self.note("handle");
            let mut unhandled = self.unhandled.lock();
            *unhandled = unhandled.saturating_sub(1);
            Ok(())
        }

        async fn trigger_all(&self) -> Result<(), UdevError> {
            self.note("trigger all");
            Ok(())
        }

        async fn settle(&self) -> Result<(), UdevError> {
            self.note("settle");
            let mut is_busy = self.is_busy.lock();
            let Some(fewer) = is_busy.checked_sub(1) else { return Ok(()) };
            *is_busy = fewer;
            Err(UdevError { operation: "settle", source: Cause::Deaf })
        }
    }

    fn security(efi_variables: &std::path::Path) -> Harness {
        Harness::with(SecurityStateController { efi_variables: efi_variables.to_owned() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_of_its_host_has_no_secure_boot_and_waits_for_no_devices() {
        let harness = security(std::path::Path::new("/no/variables"));
        let devices = Arc::new(FakeDevices::new());
        harness.run(DevicesStatusController::new(Arc::clone(&devices) as _));
        harness.settle().await;
        assert_eq!(harness.get::<SecurityState>(SecurityState::ID), None, "the owner of the kernel is unknown");
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.settle().await;
        let state = harness.get::<SecurityState>(SecurityState::ID).unwrap();
        assert!(!state.secure_boot && state.uki_signing_key_fingerprint.is_empty());
        assert!(harness.get::<DevicesStatus>(DevicesStatus::ID).unwrap().ready);
        assert_eq!(*devices.asked.lock(), []);
    }

    fn service(running: bool) -> Service {
        Service { running, healthy: true, unknown: false }
    }

    fn machine() -> (Harness, Arc<FakeDevices>) {
        let devices = Arc::new(FakeDevices::new());
        let harness = Harness::with(DevicesStatusController::new(Arc::clone(&devices) as _));
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        (harness, devices)
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_is_ready_when_udevd_has_handled_disks_and_links() {
        let (harness, devices) = machine();
        harness.settle().await;
        assert_eq!(harness.get::<DevicesStatus>(DevicesStatus::ID), None);
        harness.put(UDEVD, service(true));
        harness.advance(Duration::from_secs(1)).await;
        assert_eq!(*devices.asked.lock(), [("listens", 0), ("handle", 0)]);
        assert!(harness.get::<DevicesStatus>(DevicesStatus::ID).unwrap().ready);
        harness.put(UDEVD, service(false));
        harness.settle().await;
        assert!(harness.get::<DevicesStatus>(DevicesStatus::ID).unwrap().ready, "known devices stay known");
    }

    #[tokio::test(start_paused = true)]
    async fn other_devices_wait_for_apid_or_ten_seconds() {
        let (harness, devices) = machine();
        harness.put(UDEVD, service(true));
        harness.advance(OTHERS_AFTER * 2).await;
        assert_eq!(devices.asked.lock().last(), Some(&("trigger all", OTHERS_AFTER.as_secs())));
        let (harness, devices) = machine();
        harness.put(UDEVD, service(true));
        harness.advance(Duration::from_secs(3)).await;
        harness.put(APID, service(true));
        harness.settle().await;
        assert_eq!(devices.asked.lock().last(), Some(&("trigger all", 3)));
    }

    #[tokio::test(start_paused = true)]
    async fn disks_and_links_that_udevd_does_not_handle_are_announced_again() {
        let devices = FakeDevices { unhandled: Mutex::new(3), ..FakeDevices::new() };
        find_devices(&devices).await;
        assert_eq!(*devices.asked.lock(), [("listens", 0), ("handle", 0), ("handle", 15), ("handle", 30)]);
    }

    #[tokio::test(start_paused = true)]
    async fn devices_are_announced_also_when_udevd_is_not_seen_to_listen() {
        let devices = FakeDevices { is_deaf: true, ..FakeDevices::new() };
        find_devices(&devices).await;
        assert_eq!(*devices.asked.lock(), [("listens", 0), ("handle", 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_hangs_keeps_no_machine_from_its_disks() {
        let devices = FakeDevices { has_hanging_driver: true, ..FakeDevices::new() };
        find_devices(&devices).await;
        let after = DRIVERS.as_secs();
        assert_eq!(
            *devices.asked.lock(),
            [("listens", 0), ("trigger all", after), ("settle", after), ("handle", after)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn drivers_that_are_not_loaded_here_are_loaded_by_udevd_however_long_it_takes() {
        let devices = FakeDevices { lacks_drivers: true, is_busy: Mutex::new(2), ..FakeDevices::new() };
        find_devices(&devices).await;
        let settles = [("settle", 0), ("settle", 1), ("settle", 2)];
        let expected = [&[("listens", 0), ("trigger all", 0)], &settles[..], &[("handle", 2)]].concat();
        assert_eq!(*devices.asked.lock(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn devices_that_hang_are_given_up_in_the_end() {
        let devices = FakeDevices { unhandled: Mutex::new(usize::MAX), ..FakeDevices::new() };
        let begun = Instant::now();
        find_devices(&devices).await;
        assert!((PATIENCE..PATIENCE + 2 * LOOK).contains(&begun.elapsed()), "{:?}", begun.elapsed());
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
