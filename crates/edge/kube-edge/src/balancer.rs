//! A TCP load balancer with health checks, for API servers behind one address on loopback.
//!
//! Upstreams are tried in the order of their latency class; one that cannot be reached is left out until a check
//! succeeds. It copies bytes and knows nothing of TLS or HTTP.

mod health;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stdx::tasks::TaskSet;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use health::Table;

/// How often every upstream is checked.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// How long a check may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(15);
/// While nothing is healthy, checks come faster: a starting cluster waits for this.
const EAGER_INTERVAL: Duration = Duration::from_millis(500);
/// How long one upstream may take to accept a connection before the next is tried.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// An address to balance over; the host may be a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upstream {
    pub host: String,
    pub port: u16,
}

impl Upstream {
    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("listening on {address} for the load balancer")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Listens until dropped; connections end with it.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
    poke: watch::Sender<u64>,
    healthy: watch::Receiver<bool>,
    _tasks: TaskSet,
}

impl Balancer {
    /// Starts without upstreams.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let error = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let table = Arc::new(Mutex::new(Table::default()));
        let poke = watch::Sender::new(0);
        let (healthy_sender, healthy) = watch::channel(false);
        let tasks = TaskSet::new("load balancer");
        tasks.spawn("health checks", check_all(Arc::clone(&table), poke.subscribe(), healthy_sender));
        tasks.spawn("accept", accept(listener, Arc::clone(&table)));
        Ok(Self { address, table, poke, healthy, _tasks: tasks })
    }

    /// Where it listens; of use with port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Balances over these from now on; running connections stay.
    pub fn set_upstreams(&self, upstreams: impl IntoIterator<Item = Upstream>) {
        if self.table.lock().set(upstreams) {
            self.poke.send_modify(|count| *count += 1);
        }
    }

    /// Whether at least one upstream passed its last check.
    #[must_use]
    pub fn healthy(&self) -> watch::Receiver<bool> {
        self.healthy.clone()
    }
}

async fn accept(listener: TcpListener, table: Arc<Mutex<Table>>) {
    let connections = TaskSet::new("load balancer connections");
    loop {
        match listener.accept().await {
            Ok((client, _peer)) => {
                connections.spawn("connection", serve(client, Arc::clone(&table)));
            }
            Err(error) => {
                // Out of descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "load balancer cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Connects to the first upstream that answers and copies until one side ends.
async fn serve(mut client: TcpStream, table: Arc<Mutex<Table>>) {
    let candidates = table.lock().candidates();
    for upstream in candidates {
        match timeout(DIAL_TIMEOUT, upstream.connect()).await {
            Ok(Ok(mut server)) => {
                let _unimportant = client.set_nodelay(true);
                if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
                    tracing::debug!(%error, host = upstream.host, "balanced connection broke");
                }
                return;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, host = upstream.host, "upstream refuses connections");
                table.lock().failed(&upstream);
            }
            Err(_) => {
                tracing::debug!(host = upstream.host, "upstream does not answer");
                table.lock().failed(&upstream);
            }
        }
    }
}

async fn check_all(table: Arc<Mutex<Table>>, mut poke: watch::Receiver<u64>, healthy: watch::Sender<bool>) {
    loop {
        let upstreams = table.lock().all();
        let checks = upstreams.into_iter().map(|upstream| check(upstream, &table, &healthy));
        futures::future::join_all(checks).await;
        let any = table.lock().any_healthy();
        publish(&healthy, any);
        let pause = if any { CHECK_INTERVAL } else { EAGER_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Cancel-safe: a change that is not seen now stays marked as unseen.
            changed = poke.changed() => if changed.is_err() { return },
        }
    }
}

async fn check(upstream: Upstream, table: &Mutex<Table>, healthy: &watch::Sender<bool>) {
    let started = tokio::time::Instant::now();
    let passed = matches!(timeout(CHECK_TIMEOUT, upstream.connect()).await, Ok(Ok(_)));
    if passed {
        table.lock().passed(&upstream, started.elapsed());
        // At once: another upstream may take the whole timeout.
        publish(healthy, true);
    } else {
        table.lock().failed(&upstream);
    }
}

fn publish(healthy: &watch::Sender<bool>, now: bool) {
    healthy.send_if_modified(|before| std::mem::replace(before, now) != now);
}

#[cfg(test)]
mod tests;
