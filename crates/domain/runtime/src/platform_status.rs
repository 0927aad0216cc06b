//! What follows from a machine's being its host's guest: it was booted without a chain of trust of its own, and has no
//! devices to wait for.
//!
//! A machine with a kernel of its own learns both from its firmware and from udev; nobody writes them there yet.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::machine::{Ownership, PlatformCapabilities};
use resources::runtime::{DevicesStatus, SecurityState};

/// Whether the kernel is the host's; false as long as it is not known.
fn is_hosts(ctx: &Ctx) -> Result<bool, ReconcileError> {
    let capabilities = ctx.get::<PlatformCapabilities>(PlatformCapabilities::ID)?;
    Ok(capabilities.is_some_and(|capabilities| capabilities.kernel == Ownership::Host))
}

fn capabilities() -> Vec<Input> {
    vec![Input::weak::<PlatformCapabilities>().id(PlatformCapabilities::ID)]
}

/// `runtime.SecurityStateController`.
#[derive(Debug)]
pub struct SecurityStateController;

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
        if is_hosts(ctx)? {
            ctx.put(SecurityState::ID, SecurityState::default())?;
        }
        ctx.keep_touched::<SecurityState>()
    }
}

/// `runtime.DevicesStatusController`.
#[derive(Debug)]
pub struct DevicesStatusController;

#[async_trait]
impl Controller for DevicesStatusController {
    fn name(&self) -> &'static str {
        "runtime.DevicesStatusController"
    }

    fn inputs(&self) -> Vec<Input> {
        capabilities()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<DevicesStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if is_hosts(ctx)? {
            ctx.put(DevicesStatus::ID, DevicesStatus { ready: true })?;
        }
        ctx.keep_touched::<DevicesStatus>()
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use resources::machine::PlatformMode;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_guest_of_its_host_has_no_secure_boot_and_waits_for_no_devices() {
        let harness = Harness::with(SecurityStateController);
        harness.run(DevicesStatusController);
        harness.settle().await;
        assert_eq!(harness.get::<SecurityState>(SecurityState::ID), None, "the owner of the kernel is unknown");
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::default());
        harness.settle().await;
        let state = harness.get::<SecurityState>(SecurityState::ID).unwrap();
        assert!(!state.secure_boot && state.uki_signing_key_fingerprint.is_empty());
        assert!(harness.get::<DevicesStatus>(DevicesStatus::ID).unwrap().ready);
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.settle().await;
        assert_eq!(harness.get::<DevicesStatus>(DevicesStatus::ID), None, "a machine of its own has to look");
        assert_eq!(harness.get::<SecurityState>(SecurityState::ID), None);
    }
}
