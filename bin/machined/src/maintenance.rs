//! The maintenance API of this machine, on apid's port.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apid::maintenance::Clients;
use async_trait::async_trait;
use domain_runtime::maintenance::{MaintenanceServer, MaintenanceService, ServeError, Serving};
use resources::machine::MaintenanceClients;
use resources::network::NodeAddress;
use state::{Kind, Store, WatchOptions};
use stdx::error_chain;
use stdx::tasks::{CancellationToken, Task};
use tokio::net::TcpListener;
use transport::{Roots, Slot};

use crate::paths::MACHINE_SOCKET;

/// All addresses of the node.
const CURRENT: &str = "current";

/// Serves it as apid would, in this process: there are no certificates for apid yet.
#[derive(Debug)]
pub(crate) struct InProcess {
    pub(crate) store: Store,
}

#[derive(Debug)]
struct Served {
    stop: CancellationToken,
    task: Task<()>,
    _console: Task<()>,
    has_ended: Arc<AtomicBool>,
}

#[async_trait]
impl MaintenanceServer for InProcess {
    async fn start(
        &self,
        service: &MaintenanceService,
        ended: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Box<dyn Serving>, ServeError> {
        Ok(Box::new(start(&self.store, service, ended).await.map_err(ServeError)?))
    }
}

async fn start(
    store: &Store,
    service: &MaintenanceService,
    ended: Box<dyn Fn() + Send + Sync>,
) -> Result<Served, Box<dyn std::error::Error + Send + Sync>> {
    let access = &service.access;
    let clients = match access.clients {
        MaintenanceClients::Anybody => Clients::Anybody,
        MaintenanceClients::Administrators | MaintenanceClients::Nobody => {
            let authorities = access.accepted_cas.iter().map(|ca| String::from_utf8_lossy(ca.crt.as_bytes()));
            Clients::Administrators(Roots::from_pem(authorities)?)
        }
    };
    let pair = service.certificate.server.clone().unwrap_or_default();
    let (crt, key) = (String::from_utf8_lossy(&pair.crt.0), String::from_utf8_lossy(&pair.key.0));
    let config = Slot::new(apid::maintenance::tls(&crt, &key, &clients)?);
    let listener = TcpListener::bind(transport::program::wildcard_address(apid::PORT)).await?;
    let fingerprint = pki::Certificate::from_pem(&crt)?.fingerprint();
    tracing::info!(port = apid::PORT, %fingerprint, clients = access.clients.as_str(), "maintenance mode is served");
    let console = show_addresses(store.clone(), fingerprint.to_string());
    let (stop, has_ended) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let until = stop.clone();
    let end = TellEnd { has_ended: Arc::clone(&has_ended), ended };
    let task = stdx::tasks::spawn("maintenance api", async move {
        let _end = end;
        let served = apid::maintenance::serve(listener, config, clients, Path::new(MACHINE_SOCKET), until).await;
        if let Err(error) = served {
            tracing::error!(error = error_chain(&error), "maintenance API ended");
        }
    });
    Ok(Served { stop, task, _console: console, has_ended })
}

/// Says on the console where an operator reaches the machine, each time that its addresses are others.
fn show_addresses(store: Store, fingerprint: String) -> Task<()> {
    stdx::tasks::keep("maintenance console", move || {
        let (store, fingerprint) = (store.clone(), fingerprint.clone());
        async move {
            let mut shown = Vec::new();
            loop {
                // The watch first: a change after the look is an event.
                let Ok(mut changes) = store.watch_kind(&Kind::of::<NodeAddress>(), WatchOptions::default()) else {
                    return;
                };
                let known = store.get_as::<NodeAddress>(CURRENT).ok().flatten();
                let addresses: Vec<String> =
                    known.iter().flat_map(|known| &known.addresses).map(|address| address.addr().to_string()).collect();
                if addresses != shown && !addresses.is_empty() {
                    tracing::info!(
                        addresses = addresses.join(", "),
                        fingerprint,
                        "this machine is reachable in maintenance mode: apply a configuration with `talosctl apply-config \
                         --insecure --nodes {} --file CONFIG`",
                        addresses.first().map_or("", String::as_str),
                    );
                }
                shown = addresses;
                drop(changes.next().await);
            }
        }
    })
}

/// Tells the end of the server, also one by a panic.
struct TellEnd {
    has_ended: Arc<AtomicBool>,
    ended: Box<dyn Fn() + Send + Sync>,
}

impl Drop for TellEnd {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        (self.ended)();
    }
}

#[async_trait]
impl Serving for Served {
    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    async fn stop(self: Box<Self>) {
        let Self { stop, task, .. } = *self;
        stop.cancel();
        // A panic in it was reported when it happened.
        task.join().await.ok();
    }
}
