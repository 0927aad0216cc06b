//! A DHCP client as a task: the state machine, its sockets and its timers.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use controller::{Ctx, TaskHandle, Waker};
use dhcp::{Action, Client, Event, Lease, LinkAddress, NameRequest, Settings, Socket, SocketError, Sockets};
use resources::enums::ConfigLayer;
use resources::network::{HostnameStatus, OperatorSpec};
use stdx::error_chain;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a name has to stay before the server is told.
const SETTLING: Duration = Duration::from_secs(1);

/// A client that runs.
pub(super) struct Running {
    pub(super) spec: OperatorSpec,
    link: LinkAddress,
    /// The lease in force, without a name unless the server was asked for one.
    lease: watch::Receiver<Option<Lease>>,
    name: watch::Sender<NameRequest>,
    task: TaskHandle,
}

impl Running {
    pub(super) fn start(ctx: &mut Ctx, spec: OperatorSpec, link: LinkAddress, sockets: Arc<dyn Sockets>) -> Self {
        let (lease_sender, lease) = watch::channel(None);
        let (name, names) = watch::channel(first_request(&spec));
        let (waker, first) = (ctx.waker(), first_request(&spec));
        let task = Task { sockets, link: link.clone(), names, lease: lease_sender, waker, name: first };
        let task = ctx.spawn("dhcp4", task.run());
        tracing::info!(link = link.name, "DHCP client started");
        Self { spec, link, lease, name, task }
    }

    /// Whether it still is what is wanted. One that ended, by a panic, is not.
    pub(super) fn is_for(&self, spec: &OperatorSpec, link: &LinkAddress) -> bool {
        is_same(&self.spec, spec) && self.link == *link && !self.task.is_finished()
    }

    pub(super) fn stop(&self) {
        tracing::info!(link = self.link.name, "DHCP client stopped");
        self.task.abort();
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        self.lease.borrow().clone()
    }

    /// The server is asked for a name at first. When this host turns out to have another one and keeps it for a while, the
    /// server is told that.
    pub(super) fn tell_name(&self, hostname: Option<&HostnameStatus>) {
        let Some(hostname) = hostname.filter(|_| !self.spec.dhcp4.skip_hostname_request) else { return };
        let Some(lease) = self.lease.borrow().clone() else { return };
        let is_this = |name: &str| name.split('.').next() == Some(hostname.hostname.as_str());
        let name = if lease.host_name.as_deref().is_some_and(is_this) {
            NameRequest::Ask
        } else {
            NameRequest::Tell { host: hostname.hostname.clone(), domain: hostname.domainname.clone() }
        };
        self.name.send_if_modified(|known| {
            let changed = *known != name;
            *known = name;
            changed
        });
    }
}

struct Task {
    sockets: Arc<dyn Sockets>,
    link: LinkAddress,
    names: watch::Receiver<NameRequest>,
    lease: watch::Sender<Option<Lease>>,
    waker: Waker,
    /// What the client does about names now.
    name: NameRequest,
}

/// What ended a wait.
enum Woken {
    Time,
    Message(Vec<u8>),
    Broken(SocketError),
    Renamed,
    Stopped,
}

impl Task {
    async fn run(mut self) {
        let start = Instant::now();
        let settings = Settings { hardware: self.link.hardware, name: self.name.clone(), seed: seed() };
        let mut client = Client::new(settings, Duration::ZERO);
        let mut socket: Option<Box<dyn Socket>> = None;
        let mut rename_at: Option<Instant> = None;
        loop {
            let deadline = client.deadline().map(|deadline| start + deadline);
            let until = [deadline, rename_at].into_iter().flatten().min();
            let woken = wait(until, socket.as_deref(), &mut self.names).await;
            let now = start.elapsed();
            let actions = match woken {
                Woken::Stopped => return,
                Woken::Renamed => {
                    rename_at = Some(Instant::now() + SETTLING);
                    continue;
                }
                Woken::Broken(error) => {
                    self.complain(&error);
                    // It is opened again with the next message.
                    socket = None;
                    continue;
                }
                Woken::Message(message) => client.handle(now, Event::Received(&message)),
                Woken::Time if rename_at.is_some_and(|at| at <= Instant::now()) => {
                    rename_at = None;
                    self.name = self.names.borrow().clone();
                    client.handle(now, Event::Rename(self.name.clone()))
                }
                Woken::Time => client.handle(now, Event::Tick),
            };
            for action in actions {
                if let Err(error) = self.act(action, &mut socket).await {
                    self.complain(&error);
                }
            }
            if !client.is_listening() {
                socket = None;
            }
        }
    }

    fn complain(&self, error: &SocketError) {
        tracing::warn!(
            link = self.link.name,
            error = error_chain(error),
            "DHCP client cannot reach its link; retrying"
        );
    }

    async fn act(&self, action: Action, socket: &mut Option<Box<dyn Socket>>) -> Result<(), SocketError> {
        match action {
            Action::Send { message, to } => {
                if socket.is_none() {
                    *socket = Some(self.sockets.open(&self.link).await?);
                }
                if let Some(socket) = socket {
                    socket.send(&message, to).await?;
                }
            }
            Action::Bound(mut lease) => {
                if self.name != NameRequest::Ask {
                    lease.host_name = None;
                }
                let (address, server, time) = (lease.address, lease.server, lease.time);
                let changed = self.lease.send_if_modified(|known| {
                    let changed = known.as_ref() != Some(&*lease);
                    *known = Some(*lease);
                    changed
                });
                if changed {
                    tracing::info!(link = self.link.name, %address, %server, ?time, "DHCP lease in force");
                    self.waker.wake();
                }
            }
            Action::Lost(loss) => {
                tracing::warn!(link = self.link.name, ?loss, "DHCP lease ended");
                self.lease.send_replace(None);
                self.waker.wake();
            }
        }
        Ok(())
    }
}

/// Waits for a time, a message or another name. Every arm is cancel-safe: a message that was not returned stays in its
/// socket, and a name that was not seen is still new.
async fn wait(until: Option<Instant>, socket: Option<&dyn Socket>, names: &mut watch::Receiver<NameRequest>) -> Woken {
    let time = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    let message = async {
        match socket {
            Some(socket) => socket.receive().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = time => Woken::Time,
        message = message => match message {
            Ok(message) => Woken::Message(message),
            Err(error) => Woken::Broken(error),
        },
        changed = names.changed() => if changed.is_ok() { Woken::Renamed } else { Woken::Stopped },
    }
}

/// Random, so that machines differ; zero if there is no randomness, which only makes their transactions alike.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    if rand::fill(&mut bytes).is_err() {
        tracing::warn!("no randomness for the DHCP client");
    }
    u64::from_ne_bytes(bytes)
}

/// Equal but for the layer, which changes nothing about a running operator.
fn is_same(left: &OperatorSpec, right: &OperatorSpec) -> bool {
    let without = |spec: &OperatorSpec| OperatorSpec { layer: ConfigLayer::Default, ..spec.clone() };
    without(left) == without(right)
}

/// What a client does about names at its start.
fn first_request(spec: &OperatorSpec) -> NameRequest {
    if spec.dhcp4.skip_hostname_request { NameRequest::Silent } else { NameRequest::Ask }
}
