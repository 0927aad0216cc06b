//! The machine as a whole: its components are made here, handed to each other, and run until the machine ends.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use block::disk::KernelDisks;
use platform::Platform;
use resources::config::MachineConfig;
use resources::machine::Ownership;
use sequencer::{ActorId, EventBus, Lifecycle, Outcome, Parameters, Payload, Request, Sequence, ShutdownParameters};
use state::{Kind, Store, WatchOptions};
use stdx::{error_chain, tasks};
use supervisor::{LogStore, Supervisor};
use sys::drivers::Drivers;
use sys::early::KernelEarlySystem;
use sys::late::KernelLateSystem;
use sys::power_button::PowerButton;
use sys::signals::{self, Requests};
use sys::udev::Udevadm;
use tokio::sync::{broadcast, watch};

use crate::actions::NodeActions;
use crate::actions::dbus::DBus;
use crate::actions::upgrade::{Held, Staged};
use crate::actions::wipe::Wiped;
use crate::boot_times::{self, Before};
use crate::components::{Components, Machine};
use crate::plans::{Actions, MachineKind, NodePlanner};
use crate::wiring;

/// The actor of sequences that a signal asked for.
const SIGNAL: &str = "signal";
/// The actor of a shutdown by the power button.
const BUTTON: &str = "power button";

/// Runs the machine until it is decided how it ends. `before` is what was before machined on a machine of its own.
///
/// # Errors
/// When it cannot even be brought to where it could be managed.
pub(crate) async fn run(
    platform: Arc<dyn Platform>,
    logs: LogStore,
    before: Option<Before>,
) -> anyhow::Result<Outcome> {
    tracing::info!(version = stdx::version::TAG, kernel = sys::host::kernel_release(), "machined starts");
    let requests = Requests::listen().context("listening to signals")?;
    let _reaper = tasks::keep("reaper", || async {
        // It returns only with an error.
        while let Err(error) = sys::process::reap_orphans().await {
            tracing::error!(error = error_chain(&error), "orphans are not reaped");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let kind = match platform.capabilities().kernel {
        Ownership::Host => MachineKind::Container,
        Ownership::Machine => MachineKind::Machine,
    };
    if kind == MachineKind::Machine
        && let Err(error) = sys::power::disable_ctrl_alt_del()
    {
        tracing::warn!(error = error_chain(&error), "Ctrl-Alt-Del reboots at once");
    }
    // From the first moment: they take one core while all else takes another.
    let drivers = (kind == MachineKind::Machine).then(Drivers::start).transpose().context("loading drivers")?;
    let components = Components::new(platform, logs);
    let _announcer = announce_services(&components.supervisor, &components.events);
    let (_revisions, config) = config_revisions(&components.store);
    let slot = Arc::new(OnceLock::<Arc<dyn Actions>>::new());
    let planner = NodePlanner { kind, actions: Arc::clone(&slot) };
    let lifecycle = Lifecycle::new(planner, components.events.clone(), config);
    let machine = Machine { components, lifecycle: lifecycle.clone() };
    wiring::register(&machine, drivers.map(Udevadm::with_drivers).unwrap_or_default())?;
    let controllers = machine.components.controllers.clone();
    let actions = NodeActions {
        kind,
        machine,
        system: Arc::new(KernelEarlySystem),
        late: Arc::new(KernelLateSystem),
        disks: Arc::new(KernelDisks),
        wiped: Wiped::new(),
        held: Held::default(),
        dbus: DBus::default(),
        staged: Staged::default(),
    };
    slot.set(Arc::new(actions)).ok();
    let _signals = request_by_signals(requests, kind, lifecycle.clone());
    let _button = (kind == MachineKind::Machine).then(|| shut_down_by_button(lifecycle.clone()));
    let _boot_times = before.map(|before| boot_times::tell(before, &lifecycle));
    lifecycle.request(Request::new(Sequence::Initialize, ActorId::machine()))?;
    let outcome = lifecycle.outcome().await;
    tracing::info!(?outcome, "shutting down");
    controllers.stop(Duration::from_secs(5)).await.ok();
    Ok(outcome)
}

/// A request that takes over from any other. Who sends a signal or presses a button waits for no drain.
fn at_once(sequence: Sequence, actor: &str) -> Request {
    let request = Request::new(sequence, ActorId::new(actor)).taking_over();
    match sequence {
        Sequence::Shutdown => request.with(Parameters::Shutdown(ShutdownParameters { force: true })),
        _ => request,
    }
}

/// Asks for the sequences that signals mean; they take over from any other.
fn request_by_signals(requests: Requests, kind: MachineKind, lifecycle: Lifecycle) -> tasks::Task<()> {
    let mut first = Some(requests);
    tasks::keep("signals", move || {
        let (requests, lifecycle) = (first.take().map_or_else(Requests::listen, Ok), lifecycle.clone());
        async move {
            let mut requests = match requests {
                Ok(requests) => requests,
                Err(error) => return tracing::error!(error = error_chain(&error), "signals are not heard any more"),
            };
            loop {
                let sequence = match requests.next().await {
                    signals::Request::Shutdown => Sequence::Shutdown,
                    // Ctrl-Alt-Del on a machine.
                    signals::Request::Interrupt if kind == MachineKind::Machine => Sequence::Reboot,
                    signals::Request::Interrupt => Sequence::Shutdown,
                    signals::Request::Reboot => Sequence::Reboot,
                };
                // A refusal is logged by the lifecycle, and means that the machine is ending already.
                lifecycle.request(at_once(sequence, SIGNAL)).ok();
            }
        }
    })
}

/// Shuts the machine down when its power button is pressed.
fn shut_down_by_button(lifecycle: Lifecycle) -> tasks::Task<()> {
    tasks::keep("power button", move || {
        let lifecycle = lifecycle.clone();
        async move {
            let button = async { PowerButton::open()?.pressed().await };
            match button.await {
                Ok(()) => {
                    tracing::info!("power button pressed");
                    lifecycle.request(at_once(Sequence::Shutdown, BUTTON)).ok();
                }
                Err(error) => {
                    tracing::warn!(error = error_chain(&error), "the power button is not heard");
                    std::future::pending::<()>().await;
                }
            }
        }
    })
}

/// Counts revisions of the configuration in force.
fn config_revisions(store: &Store) -> (tasks::Task<()>, watch::Receiver<u64>) {
    let (sender, receiver) = watch::channel(0);
    let (store, sender) = (store.clone(), Arc::new(sender));
    let task = tasks::keep("configuration revisions", move || {
        let (store, sender) = (store.clone(), Arc::clone(&sender));
        async move {
            loop {
                let changes = store.watch_kind(&Kind::of::<MachineConfig>(), WatchOptions::default());
                // Checked after the watch began: a change in between is an event.
                let active = store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID).ok().flatten();
                if let Some(active) = active {
                    let version = active.metadata.version;
                    sender.send_if_modified(|known| std::mem::replace(known, version) != version);
                }
                match changes {
                    Ok(mut changes) => drop(changes.next().await),
                    Err(error) => {
                        tracing::error!(error = error_chain(&error), "revisions of the configuration are not seen");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
    });
    (task, receiver)
}

fn announce_services(supervisor: &Supervisor, events: &EventBus) -> tasks::Task<()> {
    let (supervisor, events) = (supervisor.clone(), events.clone());
    tasks::keep("service events", move || {
        let (mut changes, events) = (supervisor.changes(), events.clone());
        async move {
            loop {
                match changes.recv().await {
                    Ok(change) => events.publish(Payload::ServiceState {
                        service: change.id,
                        state: change.state.to_string(),
                        message: change.message,
                        health: Some(sequencer::events::ServiceHealth {
                            unknown: change.health.unknown,
                            healthy: change.health.healthy,
                            message: change.health.last_message,
                        }),
                    }),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "service events were missed");
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        }
    })
}
