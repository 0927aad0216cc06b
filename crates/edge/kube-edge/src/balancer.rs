//! A TCP load balancer with health checks, for API servers behind one address on loopback.
//!
//! Upstreams are tried in the order of their latency class; one that cannot be reached is left out until a check
//! succeeds. It copies bytes and knows nothing of TLS or HTTP.
//!
//! A connection that no upstream takes is held for some seconds and handed to the first one that answers again: clients of
//! an API server that is starting are then served the moment it is there, where a refusal would send each of them into a
//! pause of its own, of up to half a minute. In a longer outage nothing listens, so that the kernel refuses connections.

mod health;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stdx::tasks::TaskSet;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use health::Table;

/// How often every upstream is checked.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// How long a check may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(15);
/// While nothing is healthy, checks come faster: a starting cluster waits for this.
const EAGER_INTERVAL: Duration = Duration::from_millis(100);
/// How long such a check may take, so that one upstream that drops packets does not keep the others from being seen.
const EAGER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connections are held from the moment since which no upstream takes one; then the listener is closed until one
/// does. Clients written in Go give up a TLS handshake after 10 s; ending it first lets them see a closed connection, which
/// they repeat up to ten times, with pauses. A refused connection they take as the answer, and that matters: a kubelet that
/// starts again mounts no volume, that of the API server's own pod included, until its question for its node has failed.
const HOLD: Duration = Duration::from_secs(8);
/// Pause after the address could not be listened on again.
const BIND_PAUSE: Duration = Duration::from_millis(100);
/// How many connections are held at a time; more are closed at once. A node has a handful of clients, each with a few.
const MOST_HELD: usize = 256;
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

/// Listens until dropped, except in an outage; connections end with it.
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
        let (checked, poked, healthy_sender) = (Arc::clone(&table), poke.clone(), Arc::new(healthy_sender));
        tasks
            .keep("health checks", move || check_all(Arc::clone(&checked), poked.clone(), Arc::clone(&healthy_sender)));
        let ways = Ways {
            table: Arc::clone(&table),
            poke: poke.clone(),
            healthy: healthy.clone(),
            holds: Arc::new(Semaphore::new(MOST_HELD)),
            outage: Arc::new(watch::Sender::new(None)),
        };
        let mut first = Some(listener);
        tasks.keep("accept", move || accept(address, first.take(), ways.clone()));
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

/// Dependencies of serving a connection.
#[derive(Debug, Clone)]
struct Ways {
    table: Arc<Mutex<Table>>,
    /// Asks for a check at once.
    poke: watch::Sender<u64>,
    healthy: watch::Receiver<bool>,
    /// One for each connection that may be held.
    holds: Arc<Semaphore>,
    /// Since when no upstream took a connection.
    outage: Arc<watch::Sender<Option<Instant>>>,
}

/// Accepts connections at `address`, except in an outage that is not held any more.
async fn accept(address: SocketAddr, first: Option<TcpListener>, ways: Ways) {
    let connections = TaskSet::new("load balancer connections");
    let mut listener = first;
    loop {
        let open = match listener.take() {
            Some(listener) => listener,
            None => match TcpListener::bind(address).await {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::warn!(%error, %address, "load balancer cannot listen");
                    tokio::time::sleep(BIND_PAUSE).await;
                    continue;
                }
            },
        };
        // Both are cancel-safe: no connection is taken from the listener before it is accepted.
        tokio::select! {
            never = accept_all(&open, &connections, &ways) => match never {},
            () = ways.outage_is_long() => {}
        }
        drop(open);
        tracing::info!(%address, "no upstream answers; connections are refused");
        let mut healthy = ways.healthy.clone();
        if healthy.wait_for(|healthy| *healthy).await.is_err() {
            return;
        }
        tracing::info!(%address, "an upstream answers; connections are accepted");
    }
}

async fn accept_all(listener: &TcpListener, connections: &TaskSet, ways: &Ways) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((client, _peer)) => {
                connections.spawn("connection", serve(client, ways.clone()));
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
async fn serve(mut client: TcpStream, ways: Ways) {
    let server = match ways.connect().await {
        Some(server) => Some(server),
        None => ways.hold().await,
    };
    let Some(mut server) = server else { return };
    let _unimportant = client.set_nodelay(true);
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%error, "balanced connection broke");
    }
}

impl Ways {
    /// A connection to the first upstream that takes one.
    async fn connect(&self) -> Option<TcpStream> {
        let candidates = self.table.lock().candidates();
        for upstream in candidates {
            match timeout(DIAL_TIMEOUT, upstream.connect()).await {
                Ok(Ok(server)) => {
                    self.outage.send_if_modified(|outage| outage.take().is_some());
                    return Some(server);
                }
                Ok(Err(error)) => tracing::debug!(%error, host = upstream.host, "upstream refuses connections"),
                Err(_) => tracing::debug!(host = upstream.host, "upstream does not answer"),
            }
            self.table.lock().failed(&upstream);
        }
        None
    }

    /// Since when there is an outage; it begins now if there is none.
    fn outage_since(&self) -> Instant {
        let now = Instant::now();
        self.outage.send_if_modified(|outage| outage.replace(outage.unwrap_or(now)).is_none());
        (*self.outage.borrow()).unwrap_or(now)
    }

    /// Returns once no upstream took a connection for as long as connections are held, and none passes its check.
    async fn outage_is_long(&self) {
        let (mut outage, mut healthy) = (self.outage.subscribe(), self.healthy.clone());
        loop {
            let since = *outage.borrow_and_update();
            let long = async {
                match since {
                    Some(since) => tokio::time::sleep_until(since + HOLD).await,
                    None => std::future::pending().await,
                }
                healthy.wait_for(|healthy| !*healthy).await.is_ok()
            };
            // Both are cancel-safe: a change that is not seen now stays marked as unseen.
            tokio::select! {
                changed = outage.changed() => if changed.is_err() { return std::future::pending().await },
                is_long = long => if is_long { return } else { return std::future::pending().await },
            }
        }
    }

    /// As [`Self::connect`], once a check finds an upstream that answers; gives up when the outage is older than [`HOLD`].
    async fn hold(&self) -> Option<TcpStream> {
        let Ok(_held) = self.holds.try_acquire() else { return None };
        let until = self.outage_since() + HOLD;
        let mut healthy = self.healthy.clone();
        let wait = async {
            loop {
                // Former health checks are repeated after a failed connection.
                self.poke.send_modify(|count| *count += 1);
                tokio::time::sleep(EAGER_INTERVAL).await;
                healthy.wait_for(|healthy| *healthy).await.ok()?;
                if let Some(server) = self.connect().await {
                    return Some(server);
                }
            }
        };
        timeout_at(until, wait).await.ok().flatten()
    }
}

async fn check_all(table: Arc<Mutex<Table>>, poke: watch::Sender<u64>, healthy: Arc<watch::Sender<bool>>) {
    let mut poked = poke.subscribe();
    loop {
        let (upstreams, limit) = {
            let table = table.lock();
            (table.all(), if table.any_healthy() { CHECK_TIMEOUT } else { EAGER_TIMEOUT })
        };
        let checks = upstreams.into_iter().map(|upstream| check(upstream, limit, &table, &healthy));
        futures::future::join_all(checks).await;
        let any = table.lock().any_healthy();
        publish(&healthy, any);
        let pause = if any { CHECK_INTERVAL } else { EAGER_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Cancel-safe: a change that is not seen now stays marked as unseen.
            changed = poked.changed() => if changed.is_err() { return },
        }
    }
}

async fn check(upstream: Upstream, limit: Duration, table: &Mutex<Table>, healthy: &watch::Sender<bool>) {
    let started = Instant::now();
    let passed = matches!(timeout(limit, upstream.connect()).await, Ok(Ok(_)));
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
