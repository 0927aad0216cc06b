//! The merged host name takes effect.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::network::{HostnameSpec, HostnameStatus};

/// Sets the kernel's host name.
pub type SetHostname = Arc<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// `HostnameSpec` → the kernel's host name and `HostnameStatus`. Without a spec the last name stays.
pub struct HostnameSpecController {
    set: SetHostname,
    last: Option<String>,
}

impl HostnameSpecController {
    /// Sets names by `set`.
    pub fn new(set: SetHostname) -> Self {
        Self { set, last: None }
    }
}

impl fmt::Debug for HostnameSpecController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostnameSpecController").field("last", &self.last).finish_non_exhaustive()
    }
}

/// The kernel refused a name.
#[derive(Debug, thiserror::Error)]
#[error("setting the host name {name}")]
pub(crate) struct SetHostnameError {
    name: String,
    #[source]
    cause: io::Error,
}

#[async_trait]
impl Controller for HostnameSpecController {
    fn name(&self) -> &'static str {
        "network.HostnameSpecController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<HostnameSpec>().id(HostnameSpec::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<HostnameStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(spec) = ctx.get::<HostnameSpec>(HostnameSpec::ID)? else {
            return Ok(());
        };
        if self.last.as_ref() != Some(&spec.hostname) {
            let name = spec.hostname.clone();
            (self.set)(&name).map_err(|cause| SetHostnameError { name: name.clone(), cause })?;
            self.last = Some(name);
        }
        let status = HostnameStatus { hostname: spec.hostname.clone(), domainname: spec.domainname.clone() };
        ctx.put(HostnameStatus::ID, status)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_kernel_is_told_once_a_change_and_the_status_says_so() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&told);
        let set: SetHostname = Arc::new(move |name: &str| {
            ears.lock().push(name.to_owned());
            Ok(())
        });
        let harness = Harness::with(HostnameSpecController::new(set));
        let spec = |name: &str, domain: &str| HostnameSpec {
            hostname: name.into(),
            domainname: domain.into(),
            ..HostnameSpec::default()
        };
        harness.put("hostname", spec("a", ""));
        harness.settle().await;
        harness.put("hostname", spec("a", "example.org"));
        harness.settle().await;
        harness.put("hostname", spec("b", "example.org"));
        harness.settle().await;
        assert_eq!(*told.lock(), ["a", "b"]);
        let status = harness.get::<HostnameStatus>("hostname").unwrap();
        assert_eq!((status.hostname.as_str(), status.domainname.as_str()), ("b", "example.org"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_the_kernel_refuses_is_not_in_the_status() {
        let set: SetHostname = Arc::new(|_: &str| Err(io::Error::from(io::ErrorKind::PermissionDenied)));
        let harness = Harness::with(HostnameSpecController::new(set));
        harness.put("hostname", HostnameSpec { hostname: "a".into(), ..HostnameSpec::default() });
        harness.settle().await;
        assert_eq!(harness.get::<HostnameStatus>("hostname"), None);
    }
}
