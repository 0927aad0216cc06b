//! Serves the maintenance API while it is asked for.

use std::path::Path;

use apid::maintenance::Clients;
use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::machine::{MaintenanceAccess, MaintenanceClients};
use resources::runtime::MaintenanceServiceRequest;
use resources::secrets::MaintenanceServiceCertificate;
use stdx::error_chain;
use stdx::tasks::{CancellationToken, Task};
use tokio::net::TcpListener;
use transport::{Roots, Slot};

use crate::paths::MACHINE_SOCKET;

/// `runtime.MaintenanceServiceController`.
#[derive(Debug, Default)]
pub(crate) struct MaintenanceServiceController {
    serving: Option<Serving>,
}

#[derive(Debug)]
struct Serving {
    certificate: MaintenanceServiceCertificate,
    access: MaintenanceAccess,
    stop: CancellationToken,
    task: Task<()>,
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
        let asked = !ctx.list::<MaintenanceServiceRequest>()?.is_empty();
        let certificate = ctx.get::<MaintenanceServiceCertificate>(MaintenanceServiceCertificate::ID)?;
        let access = ctx.get::<MaintenanceAccess>(MaintenanceAccess::ID)?;
        let access = access.filter(|access| asked && access.clients != MaintenanceClients::Nobody);
        let wanted = certificate.zip(access).map(|(certificate, access)| {
            (MaintenanceServiceCertificate::clone(&certificate), MaintenanceAccess::clone(&access))
        });
        let served = self.serving.as_ref().map(|serving| (&serving.certificate, &serving.access));
        if served == wanted.as_ref().map(|(certificate, access)| (certificate, access)) {
            return Ok(());
        }
        if let Some(serving) = self.serving.take() {
            serving.stop.cancel();
            // It hands the port to apid, so it must be gone.
            serving.task.join().await?;
            tracing::info!("maintenance mode ended");
        }
        if let Some((certificate, access)) = wanted {
            self.serving = Some(start(certificate, access).await?);
        }
        Ok(())
    }
}

async fn start(
    certificate: MaintenanceServiceCertificate,
    access: MaintenanceAccess,
) -> Result<Serving, ReconcileError> {
    let clients = match access.clients {
        MaintenanceClients::Anybody => Clients::Anybody,
        MaintenanceClients::Administrators | MaintenanceClients::Nobody => {
            let authorities = access.accepted_cas.iter().map(|ca| String::from_utf8_lossy(ca.crt.as_bytes()));
            Clients::Administrators(Roots::from_pem(authorities)?)
        }
    };
    let pair = certificate.server.clone().unwrap_or_default();
    let (crt, key) = (String::from_utf8_lossy(&pair.crt.0), String::from_utf8_lossy(&pair.key.0));
    let config = Slot::new(apid::maintenance::tls(&crt, &key, &clients)?);
    let listener = TcpListener::bind(transport::program::wildcard_address(apid::PORT)).await?;
    let fingerprint = pki::Certificate::from_pem(&crt)?.fingerprint();
    tracing::info!(
        port = apid::PORT,
        fingerprint = %fingerprint,
        clients = access.clients.as_str(),
        "this machine is reachable in maintenance mode: apply a configuration with `talosctl apply-config --insecure`",
    );
    let stop = CancellationToken::new();
    let until = stop.clone();
    let task = stdx::tasks::spawn("maintenance api", async move {
        let served = apid::maintenance::serve(listener, config, clients, Path::new(MACHINE_SOCKET), until).await;
        if let Err(error) = served {
            tracing::error!(error = error_chain(&error), "maintenance API ended");
        }
    });
    Ok(Serving { certificate, access, stop, task })
}
