//! When a cluster's conditions were reached while it came up, and what services on the nodes waited for.
//!
//! Three see it: this program, which asks; the nodes, whose services keep their last changes of state; and Kubernetes, whose
//! objects have times in whole seconds. All run on one host and so by one clock.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use kube_edge::Node;
use tokio::time::Instant;
use wire::machine::ServiceInfo;

use super::Progress;

/// Shorter waits are a normal part of a start.
const WORTH_TELLING: Duration = Duration::from_millis(10);

/// The observer of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// This program: later than it happened by up to a fifth of a second, its pause between two looks.
    Create,
    Node,
    /// In whole seconds.
    Kubernetes,
}

impl Witness {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Node => "node",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// Something that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Since the creation began.
    pub after: Duration,
    pub what: String,
    /// None for the cluster as a whole.
    pub node: Option<String>,
    pub witness: Witness,
}

/// A service that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceWait {
    pub node: String,
    pub service: String,
    /// Since the creation began.
    pub from: Duration,
    /// None while it still waits.
    pub took: Option<Duration>,
    pub waited_for: String,
}

/// All of it, by time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timings {
    pub reached: Vec<Reached>,
    pub waits: Vec<ServiceWait>,
}

impl Timings {
    /// Adds the events of a node's services.
    pub(super) fn add_services(&mut self, node: &str, services: &[ServiceInfo], began: SystemTime) {
        for service in services {
            self.add_service(node, service, began);
        }
    }

    fn add_service(&mut self, node: &str, service: &ServiceInfo, began: SystemTime) {
        let events = service.events.as_ref().map(|events| events.events.as_slice()).unwrap_or_default();
        let since = |time: &Option<prost_types::Timestamp>| {
            let time = SystemTime::try_from((*time)?).ok()?;
            Some(time.duration_since(began).unwrap_or_default())
        };
        for (index, event) in events.iter().enumerate() {
            let Some(from) = since(&event.ts) else { continue };
            let waited_for = match event.state.as_str() {
                "Waiting" => event.msg.strip_prefix("Waiting for ").unwrap_or(&event.msg).to_owned(),
                "Preparing" => "its preparation".to_owned(),
                _ => continue,
            };
            let took = events.get(index + 1).and_then(|next| since(&next.ts)).map(|until| until.saturating_sub(from));
            if took.is_none_or(|took| took >= WORTH_TELLING) {
                let (node, service) = (node.to_owned(), service.id.clone());
                self.waits.push(ServiceWait { node, service, from, took, waited_for });
            }
        }
        let reached = |after, what: &str| Reached {
            after,
            what: format!("{} {what}", service.id),
            node: Some(node.to_owned()),
            witness: Witness::Node,
        };
        let running = events.iter().find(|event| event.state == "Running").and_then(|event| since(&event.ts));
        self.reached.extend(running.map(|after| reached(after, "runs")));
        let healthy = service.health.as_ref().filter(|health| health.healthy && !health.unknown);
        let healthy = healthy.and_then(|health| since(&health.last_change));
        self.reached.extend(healthy.map(|after| reached(after, "is healthy")));
    }

    /// Adds the conditions of nodes in Kubernetes.
    pub(super) fn add_nodes(&mut self, nodes: &[Node], began: SystemTime) {
        for node in nodes {
            let steps = [("registered", node.created_at), ("Ready", node.ready_since.filter(|_| node.ready))];
            let reached = steps.into_iter().filter_map(|(what, time)| {
                let after = time?.duration_since(began).unwrap_or_default();
                let (what, node) = (what.to_owned(), Some(node.name.clone()));
                Some(Reached { after, what, node, witness: Witness::Kubernetes })
            });
            self.reached.extend(reached);
        }
    }

    pub(super) fn sort(&mut self) {
        self.reached.sort_by_key(|reached| reached.after);
        self.waits.sort_by(|a, b| (&a.node, a.from, &a.service).cmp(&(&b.node, b.from, &b.service)));
    }
}

/// Passes progress on and notes when steps ended.
pub(super) struct Recorder<'a> {
    progress: &'a dyn Progress,
    began: Instant,
    reached: RefCell<Vec<Reached>>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, began: Instant::now(), reached: RefCell::default() }
    }

    /// Notes that something of a node was reached, the first time.
    pub(super) fn reached(&self, what: &str, node: Option<&str>) {
        let mut all = self.reached.borrow_mut();
        if all.iter().all(|reached| reached.what != what || reached.node.as_deref() != node) {
            let (after, node) = (self.began.elapsed(), node.map(str::to_owned));
            all.push(Reached { after, what: what.to_owned(), node, witness: Witness::Create });
        }
    }

    pub(super) fn timings(&self) -> Timings {
        Timings { reached: self.reached.borrow().clone(), waits: Vec::new() }
    }
}

impl Progress for Recorder<'_> {
    fn begin(&self, step: &str) {
        self.progress.begin(step);
    }

    fn detail(&self, text: &str) {
        self.progress.detail(text);
    }

    fn end(&self, step: &str, took: Duration) {
        self.reached(step, None);
        self.progress.end(step, took);
    }

    fn notice(&self, text: &str) {
        self.progress.notice(text);
    }

    fn wants_timings(&self) -> bool {
        self.progress.wants_timings()
    }

    fn timings(&self, timings: &Timings) {
        self.progress.timings(timings);
    }
}

#[cfg(test)]
mod tests {
    use wire::machine::{ServiceEvent, ServiceEvents, ServiceHealth};

    use super::*;

    fn at(began: SystemTime, millis: u64) -> Option<prost_types::Timestamp> {
        Some((began + Duration::from_millis(millis)).into())
    }

    #[test]
    fn what_a_service_waited_for_is_told_with_its_time() {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let event = |millis, state: &str, msg: &str| ServiceEvent {
            ts: at(began, millis),
            state: state.to_owned(),
            msg: msg.to_owned(),
        };
        let events = vec![
            event(100, "Waiting", "Waiting for service \"cri\" to be \"up\""),
            event(105, "Waiting", "Waiting for time sync"),
            event(1605, "Preparing", "Preparing to run"),
            event(2000, "Starting", "Starting"),
            event(2050, "Running", "Started task"),
        ];
        let health = ServiceHealth { healthy: true, last_change: at(began, 2500), ..ServiceHealth::default() };
        let service = ServiceInfo {
            id: "kubelet".to_owned(),
            state: "Running".to_owned(),
            events: Some(ServiceEvents { events }),
            health: Some(health),
        };
        let mut timings = Timings::default();
        timings.add_services("one", &[service], began);
        let millis = |time: Duration| time.as_millis();
        let waits: Vec<_> = timings
            .waits
            .iter()
            .map(|wait| (millis(wait.from), wait.took.map(millis), wait.waited_for.as_str()))
            .collect();
        // A wait of five milliseconds is left out.
        assert_eq!(waits, [(105, Some(1500), "time sync"), (1605, Some(395), "its preparation")]);
        let reached: Vec<_> = timings.reached.iter().map(|r| (millis(r.after), r.what.as_str())).collect();
        assert_eq!(reached, [(2050, "kubelet runs"), (2500, "kubelet is healthy")]);
    }

    #[test]
    fn a_service_that_still_waits_is_told_without_an_end() {
        let began = SystemTime::UNIX_EPOCH;
        let events =
            vec![ServiceEvent { ts: at(began, 7), state: "Waiting".to_owned(), msg: "Waiting for etcd".to_owned() }];
        let events = Some(ServiceEvents { events });
        let service = ServiceInfo { id: "a".to_owned(), events, ..ServiceInfo::default() };
        let mut timings = Timings::default();
        timings.add_services("one", &[service], began);
        assert_eq!((timings.waits.len(), timings.waits[0].took, timings.reached.len()), (1, None, 0));
    }

    #[test]
    fn kubernetes_tells_when_nodes_registered_and_became_ready() {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let seconds = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let ready = Node {
            name: "a".to_owned(),
            ready: true,
            created_at: seconds(105),
            ready_since: seconds(109),
            ..Node::default()
        };
        let not_ready = Node { name: "b".to_owned(), ready: false, ready_since: seconds(104), ..Node::default() };
        let mut timings = Timings::default();
        timings.add_nodes(&[ready, not_ready], began);
        timings.sort();
        let reached: Vec<_> = timings.reached.iter().map(|r| (r.after.as_secs(), r.what.as_str())).collect();
        assert_eq!(reached, [(5, "registered"), (9, "Ready")]);
    }
}
