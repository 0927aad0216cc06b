//! The maintenance API of this machine, on apid's port.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apid::maintenance::Clients;
use async_trait::async_trait;
use domain_runtime::maintenance::{MaintenanceServer, MaintenanceService, ServeError, Serving};
use resources::machine::MaintenanceClients;
use resources::network::NodeAddress;
use resources::secrets::MaintenanceServiceCertificate;
use state::{Kind, Store, WatchOptions};
use stdx::error_chain;
use stdx::tasks::{CancellationToken, Task};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use transport::{Roots, Slot};

use crate::paths::MACHINE_SOCKET;

/// How long the port may stay in use after the server before this one has ended: its socket goes with a task of its own.
const PORT_FREED: Duration = Duration::from_secs(5);
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
    /// Of new connections.
    config: Slot<rustls::ServerConfig>,
    clients: Clients,
    fingerprint: watch::Sender<String>,
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
    let (config, fingerprint) = tls(&service.certificate, &clients)?;
    let config = Slot::new(config);
    let listener = listen(transport::program::wildcard_address(apid::PORT)).await?;
    tracing::info!(port = apid::PORT, %fingerprint, clients = access.clients.as_str(), "maintenance mode is served");
    let fingerprint = watch::Sender::new(fingerprint);
    let console = show_addresses(store.clone(), fingerprint.subscribe());
    let (stop, has_ended) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let until = stop.clone();
    let end = TellEnd { has_ended: Arc::clone(&has_ended), ended };
    let (served_config, served_clients) = (config.clone(), clients.clone());
    let task = stdx::tasks::spawn("maintenance api", async move {
        let _end = end;
        let (config, clients) = (served_config, served_clients);
        let served = apid::maintenance::serve(listener, config, clients, Path::new(MACHINE_SOCKET), until).await;
        if let Err(error) = served {
            tracing::error!(error = error_chain(&error), "maintenance API ended");
        }
    });
    Ok(Served { stop, task, config, clients, fingerprint, _console: console, has_ended })
}

/// The TLS configuration with a certificate, and the fingerprint of that.
fn tls(
    certificate: &MaintenanceServiceCertificate,
    clients: &Clients,
) -> Result<(rustls::ServerConfig, String), Box<dyn std::error::Error + Send + Sync>> {
    let pair = certificate.server.clone().unwrap_or_default();
    let (crt, key) = (String::from_utf8_lossy(&pair.crt.0), String::from_utf8_lossy(&pair.key.0));
    let config = apid::maintenance::tls(&crt, &key, clients)?;
    Ok((config, pki::Certificate::from_pem(&crt)?.fingerprint().to_string()))
}

/// Listens on an address that may be in use for a moment.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < PORT_FREED => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            listening => return listening,
        }
    }
}

/// Says on the console where an operator reaches the machine, each time that its addresses are others.
fn show_addresses(store: Store, fingerprint: watch::Receiver<String>) -> Task<()> {
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
                        fingerprint = *fingerprint.borrow(),
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

    fn renew(&self, certificate: &MaintenanceServiceCertificate) -> Result<(), ServeError> {
        let (config, fingerprint) = tls(certificate, &self.clients).map_err(ServeError)?;
        tracing::info!(%fingerprint, "maintenance mode has another certificate");
        self.config.set(config);
        self.fingerprint.send_replace(fingerprint);
        Ok(())
    }

    async fn stop(self: Box<Self>) {
        let Self { stop, task, .. } = *self;
        stop.cancel();
        // A panic in it was reported when it happened.
        task.join().await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_freed_is_waited_for() {
        let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = before.local_addr().unwrap();
        let closing = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(before);
        };
        let (listening, ()) = tokio::join!(listen(address), closing);
        assert_eq!(listening.unwrap().local_addr().unwrap(), address);
    }
}
