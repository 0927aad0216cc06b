//! Serves the maintenance API while it is asked for.

use std::path::Path;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::runtime::MaintenanceServiceRequest;
use resources::secrets::MaintenanceServiceCertificate;
use stdx::error_chain;
use stdx::tasks::{CancellationToken, Task};
use tokio::net::TcpListener;
use transport::Slot;

use crate::api::MACHINE_SOCKET;

/// `runtime.MaintenanceServiceController`.
#[derive(Debug, Default)]
pub(crate) struct MaintenanceServiceController {
    serving: Option<Serving>,
}

#[derive(Debug)]
struct Serving {
    certificate: MaintenanceServiceCertificate,
    stop: CancellationToken,
    task: Task<()>,
}

#[async_trait]
impl Controller for MaintenanceServiceController {
    fn name(&self) -> &'static str {
        "runtime.MaintenanceServiceController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MaintenanceServiceRequest>(), Input::weak::<MaintenanceServiceCertificate>()]
    }

    fn outputs(&self) -> Vec<Output> {
        Vec::new()
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let asked = !ctx.list::<MaintenanceServiceRequest>()?.is_empty();
        let certificate = ctx.get::<MaintenanceServiceCertificate>(MaintenanceServiceCertificate::ID)?;
        let wanted = certificate.filter(|_| asked).map(|certificate| (*certificate.spec).clone());
        if self.serving.as_ref().map(|serving| &serving.certificate) == wanted.as_ref() {
            return Ok(());
        }
        if let Some(serving) = self.serving.take() {
            serving.stop.cancel();
            // It hands the port to apid, so it must be gone.
            serving.task.join().await?;
            tracing::info!("maintenance mode ended");
        }
        if let Some(certificate) = wanted {
            self.serving = Some(start(certificate).await?);
        }
        Ok(())
    }
}

async fn start(certificate: MaintenanceServiceCertificate) -> Result<Serving, ReconcileError> {
    let pair = certificate.server.clone().unwrap_or_default();
    let (crt, key) = (String::from_utf8_lossy(&pair.crt.0), String::from_utf8_lossy(&pair.key.0));
    let config = Slot::new(apid::maintenance::tls(&crt, &key)?);
    let listener = TcpListener::bind(transport::program::everywhere(apid::PORT)).await?;
    let fingerprint = pki::Certificate::from_pem(&crt)?.fingerprint();
    tracing::info!(
        port = apid::PORT,
        fingerprint = %fingerprint,
        "this machine is reachable in maintenance mode: apply a configuration with `talosctl apply-config --insecure`",
    );
    let stop = CancellationToken::new();
    let until = stop.clone();
    let task = stdx::tasks::spawn("maintenance api", async move {
        let served = apid::maintenance::serve(listener, config, Path::new(MACHINE_SOCKET), until).await;
        if let Err(error) = served {
            tracing::error!(error = error_chain(&error), "maintenance API ended");
        }
    });
    Ok(Serving { certificate, stop, task })
}
