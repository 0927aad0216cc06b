//! Has the maintenance API served while it is asked for. How it is served is passed in: a server is not a controller's matter.

use std::sync::Arc;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError, Waker};
use resources::machine::{MaintenanceAccess, MaintenanceClients};
use resources::runtime::MaintenanceServiceRequest;
use resources::secrets::MaintenanceServiceCertificate;

/// The maintenance API cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("serving the maintenance API")]
pub struct ServeError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Clients of the maintenance API, and its certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct MaintenanceService {
    pub certificate: MaintenanceServiceCertificate,
    pub access: MaintenanceAccess,
}

/// Serves the maintenance API.
#[async_trait]
pub trait MaintenanceServer: Send + Sync + 'static {
    /// Starts to serve. `ended` has to be called when the server ended by itself, after [`Serving::has_ended`] says so.
    ///
    /// # Errors
    /// The port cannot be listened on, or the certificate not used.
    async fn start(
        &self,
        service: &MaintenanceService,
        ended: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Box<dyn Serving>, ServeError>;
}

/// A maintenance API that is served.
#[async_trait]
pub trait Serving: Send {
    /// Whether it ended by itself.
    fn has_ended(&self) -> bool;

    /// Has new connections see another certificate; others go on.
    ///
    /// # Errors
    /// The certificate cannot be used.
    fn renew(&self, certificate: &MaintenanceServiceCertificate) -> Result<(), ServeError>;

    /// Ends it.
    async fn stop(self: Box<Self>);
}

/// `runtime.MaintenanceServiceController`.
pub struct MaintenanceServiceController {
    server: Arc<dyn MaintenanceServer>,
    serving: Option<(MaintenanceService, Box<dyn Serving>)>,
}

impl std::fmt::Debug for MaintenanceServiceController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let service = self.serving.as_ref().map(|(service, _)| service);
        f.debug_struct("MaintenanceServiceController").field("serving", &service).finish_non_exhaustive()
    }
}

impl MaintenanceServiceController {
    pub fn new(server: Arc<dyn MaintenanceServer>) -> Self {
        Self { server, serving: None }
    }
}

#[async_trait]
impl Controller for MaintenanceServiceController {
    fn name(&self) -> &'static str {
        "runtime.MaintenanceServiceController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MaintenanceServiceRequest>(),
            Input::weak::<MaintenanceAccess>(),
            Input::weak::<MaintenanceServiceCertificate>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let wanted = wanted(ctx)?;
        let alive = self.serving.as_ref().filter(|(_, serving)| !serving.has_ended());
        if alive.map(|(service, _)| service) == wanted.as_ref() {
            return Ok(());
        }
        // Its certificate names the machine's addresses, which come one after another.
        if let (Some((served, serving)), Some(wanted)) = (&mut self.serving, &wanted)
            && !serving.has_ended()
            && served.access == wanted.access
        {
            serving.renew(&wanted.certificate)?;
            served.certificate.clone_from(&wanted.certificate);
            return Ok(());
        }
        if let Some((_, serving)) = self.serving.take() {
            // It hands the port to apid, so it must be gone.
            serving.stop().await;
            tracing::info!("maintenance mode ended");
        }
        if let Some(service) = wanted {
            let waker: Waker = ctx.waker();
            let serving = self.server.start(&service, Box::new(move || waker.wake())).await?;
            self.serving = Some((service, serving));
        }
        Ok(())
    }
}

fn wanted(ctx: &Ctx) -> Result<Option<MaintenanceService>, ReconcileError> {
    let asked = !ctx.list::<MaintenanceServiceRequest>()?.is_empty();
    let certificate = ctx.get::<MaintenanceServiceCertificate>(MaintenanceServiceCertificate::ID)?;
    let access = ctx.get::<MaintenanceAccess>(MaintenanceAccess::ID)?;
    let access = access.filter(|access| asked && access.clients != MaintenanceClients::Nobody);
    Ok(certificate.zip(access).map(|(certificate, access)| MaintenanceService {
        certificate: MaintenanceServiceCertificate::clone(&certificate),
        access: MaintenanceAccess::clone(&access),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use controller::testing::Harness;
    use parking_lot::Mutex;

    use super::*;

    type Journal = Arc<Mutex<Vec<&'static str>>>;

    /// Notes starts and stops; the last one that was started can be made to end.
    #[derive(Clone, Default)]
    struct Fake {
        journal: Journal,
        last: Arc<Mutex<Option<Started>>>,
    }

    struct Started {
        has_ended: Arc<AtomicBool>,
        ended: Box<dyn Fn() + Send + Sync>,
    }

    struct FakeServing {
        journal: Journal,
        has_ended: Arc<AtomicBool>,
    }

    #[async_trait]
    impl MaintenanceServer for Fake {
        async fn start(
            &self,
            _service: &MaintenanceService,
            ended: Box<dyn Fn() + Send + Sync>,
        ) -> Result<Box<dyn Serving>, ServeError> {
            self.journal.lock().push("start");
            let has_ended = Arc::new(AtomicBool::new(false));
            *self.last.lock() = Some(Started { has_ended: Arc::clone(&has_ended), ended });
            Ok(Box::new(FakeServing { journal: Arc::clone(&self.journal), has_ended }))
        }
    }

    #[async_trait]
    impl Serving for FakeServing {
        fn has_ended(&self) -> bool {
            self.has_ended.load(Ordering::SeqCst)
        }

        fn renew(&self, _certificate: &MaintenanceServiceCertificate) -> Result<(), ServeError> {
            self.journal.lock().push("renew");
            Ok(())
        }

        async fn stop(self: Box<Self>) {
            self.journal.lock().push("stop");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_served_while_asked_for_anew_for_other_clients_and_again_when_it_ended() {
        let fake = Fake::default();
        let harness = Harness::with(MaintenanceServiceController::new(Arc::new(fake.clone())));
        let access = |clients| MaintenanceAccess { clients, ..MaintenanceAccess::default() };
        harness.put("maintenance", MaintenanceServiceRequest {});
        harness.put(MaintenanceServiceCertificate::ID, MaintenanceServiceCertificate::default());
        harness.put(MaintenanceAccess::ID, access(MaintenanceClients::Nobody));
        harness.settle().await;
        assert_eq!(*fake.journal.lock(), [""; 0], "nobody may use it");
        harness.put(MaintenanceAccess::ID, access(MaintenanceClients::Anybody));
        harness.settle().await;
        assert_eq!(*fake.journal.lock(), ["start"]);
        harness.put(MaintenanceAccess::ID, access(MaintenanceClients::Administrators));
        harness.settle().await;
        assert_eq!(*fake.journal.lock(), ["start", "stop", "start"]);
        let ended = fake.last.lock().take().unwrap();
        ended.has_ended.store(true, Ordering::SeqCst);
        (ended.ended)();
        harness.settle().await;
        assert_eq!(fake.journal.lock()[3..], ["stop", "start"], "one that ended by itself was never started again");
        harness.destroy::<MaintenanceServiceRequest>("maintenance");
        harness.settle().await;
        assert_eq!(fake.journal.lock()[5..], ["stop"]);
    }

    /// It was opened anew for each address that the machine got, and the port was still in use then.
    #[tokio::test(start_paused = true)]
    async fn another_certificate_is_taken_by_the_server_that_runs() {
        let fake = Fake::default();
        let harness = Harness::with(MaintenanceServiceController::new(Arc::new(fake.clone())));
        harness.put("maintenance", MaintenanceServiceRequest {});
        harness.put(MaintenanceServiceCertificate::ID, MaintenanceServiceCertificate::default());
        let clients = MaintenanceClients::Anybody;
        harness.put(MaintenanceAccess::ID, MaintenanceAccess { clients, ..MaintenanceAccess::default() });
        harness.settle().await;
        let server = Some(Default::default());
        harness.put(MaintenanceServiceCertificate::ID, MaintenanceServiceCertificate { server, ca: None });
        harness.settle().await;
        assert_eq!(*fake.journal.lock(), ["start", "renew"]);
    }
}
