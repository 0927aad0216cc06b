//! How a control plane becomes a voting member of etcd and stays the same one: decided over what is on its disk and what the
//! cluster says. No I/O and no clock here; a decision has no memory, so that a node may crash between any two of them.
//!
//! **Guarantees.** A member that runs is removed by nobody but itself. No removal takes the quorum. One member at a time is
//! on its way in. A node founds a cluster with permission only, and never beside one that answers. Data of a voting member
//! are never wiped. A member is known by its id and the addresses that others reach it at, never by its name.
//!
//! **Assumptions.** [`Cluster::members`] was true at the time when [`Cluster::running`] was asked, or later; etcd refuses a
//! second learner, and changes that its own view of the quorum forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::{Member, MemberId};

/// How long a member may be on its way in before it is given up: by itself, or by others where it does not run (Talos 1.7
/// gives up to be promoted after the same time).
pub const GIVE_UP: Duration = Duration::from_secs(600);

/// What a node keeps beside etcd's data, written before what it announces. Data without a record are a voting member's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// It is on its way in: data on disk are no voting member's, and may be wiped.
    Joining(Option<MemberId>),
    /// It is this voting member.
    Voting(MemberId),
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joining(None) => f.write_str("joining"),
            Self::Joining(Some(id)) => write!(f, "joining {id}"),
            Self::Voting(id) => write!(f, "voting {id}"),
        }
    }
}

/// A record that says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of etcd membership is `joining`, `joining ID` or `voting ID`, not {0:?}")]
pub struct RecordError(String);

impl std::str::FromStr for Record {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let failed = || RecordError(text.chars().take(40).collect());
        let id = |text: &str| u64::from_str_radix(text, 16).map(MemberId).map_err(|_| failed());
        match text.trim().split_once(' ') {
            None if text.trim() == "joining" => Ok(Self::Joining(None)),
            Some(("joining", text)) => Ok(Self::Joining(Some(id(text)?))),
            Some(("voting", text)) => Ok(Self::Voting(id(text)?)),
            _ => Err(failed()),
        }
    }
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The name of its member.
    pub name: String,
    /// Where other members reach it: `https://10.5.0.2:2380`.
    pub peer_urls: Vec<String>,
    /// The data directory holds a member's log.
    pub has_data: bool,
    /// What it keeps beside that.
    pub record: Option<Record>,
    /// It may found a cluster.
    pub may_found: bool,
    /// Its member, while that answers.
    pub running: Option<Running>,
    /// For how long nothing of what keeps it waiting has changed.
    pub stuck_for: Duration,
}

/// A member that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    pub id: MemberId,
    /// It does not vote yet.
    pub is_learner: bool,
}

/// The cluster, as its members on other nodes say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    pub members: Vec<Member>,
    /// Those that answered, wherever they were asked.
    pub running: BTreeSet<MemberId>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is a voting member.
    Settled,
    /// Nothing yet.
    Wait(Waits),
    /// Keep this record.
    Keep(Record),
    /// Run etcd in this way.
    Run(Start),
    /// Ask the others to take this node in; `Own::peer_urls` are its own.
    AddLearner,
    /// Ask for a vote.
    Promote(MemberId),
    /// Ask the others to remove a member.
    Remove(MemberId, Removal),
    /// End etcd and delete its data: they are of a member that never voted and is removed.
    Wipe,
}

/// How etcd starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// As the first member of a new cluster.
    Found,
    /// As a member that the cluster has added: label and peer URL of each member, this node's with its name.
    Join(Vec<(String, String)>),
    /// From its data.
    Resume,
}

/// Why a member is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It was this node, which has lost its data.
    DataLost,
    /// This node did not catch up, and tries again from the start.
    NeverCaughtUp,
    /// Another node was on its way in, and is gone.
    Abandoned,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// The operator's `bootstrap`, or a cluster that answers.
    Cluster,
    /// Another node is on its way in.
    Joining(String),
    /// The cluster could not do without a member that is to be removed.
    Quorum(MemberId),
    /// A member that answers has this node's address.
    AddressTaken(MemberId),
    /// This node was removed from the cluster, and has its data.
    Removed(MemberId),
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str(
                "etcd to be bootstrapped: it is waiting to join the cluster; if this node is the first node in the \
                 cluster, please run `talosctl bootstrap` against one of its control plane nodes",
            ),
            Self::Joining(who) => write!(f, "member {who} of etcd, which is joining, to be promoted"),
            Self::Quorum(id) => write!(f, "more members of etcd: its quorum would end with the removal of {id}"),
            Self::AddressTaken(id) => {
                write!(f, "an address of its own: the member {id} of etcd is running, and is reached at this node's")
            }
            Self::Removed(id) => write!(
                f,
                "a reset of this node: its member {id} was removed from etcd, and its data are kept (`talosctl reset`)"
            ),
        }
    }
}

/// Decides the next step. `cluster` is nothing where no member on another node answers.
#[must_use]
pub fn decide(own: &Own, cluster: Option<&Cluster>) -> Step {
    match (own.running, own.has_data) {
        (Some(running), _) => settle(own, running),
        (None, true) => resume(own, cluster),
        (None, false) => match cluster {
            Some(cluster) => join(own, cluster),
            None if own.may_found => Step::Run(Start::Found),
            None => Step::Wait(Waits::Cluster),
        },
    }
}

/// The member here answers.
fn settle(own: &Own, running: Running) -> Step {
    let record = if running.is_learner { Record::Joining(Some(running.id)) } else { Record::Voting(running.id) };
    if own.record != Some(record) {
        Step::Keep(record)
    } else if !running.is_learner {
        Step::Settled
    } else if own.stuck_for > GIVE_UP {
        Step::Remove(running.id, Removal::NeverCaughtUp)
    } else {
        Step::Promote(running.id)
    }
}

/// There are data, and etcd does not answer here.
fn resume(own: &Own, cluster: Option<&Cluster>) -> Step {
    let Some(cluster) = cluster else { return Step::Run(Start::Resume) };
    let is_member = |id: MemberId| cluster.members.iter().any(|member| member.id == id);
    match own.record {
        Some(Record::Voting(id)) if !is_member(id) => Step::Wait(Waits::Removed(id)),
        Some(Record::Joining(id)) => {
            let known =
                id.map_or_else(|| own.member_in(cluster).map(|member| member.id), |id| is_member(id).then_some(id));
            match known {
                None => Step::Wipe,
                Some(id) if own.stuck_for > GIVE_UP => Step::Remove(id, Removal::NeverCaughtUp),
                Some(_) => Step::Run(Start::Resume),
            }
        }
        _ => Step::Run(Start::Resume),
    }
}

/// There are no data, and there is a cluster.
fn join(own: &Own, cluster: &Cluster) -> Step {
    let Some(member) = own.member_in(cluster) else { return enter(own, cluster) };
    if cluster.running.contains(&member.id) {
        return Step::Wait(Waits::AddressTaken(member.id));
    }
    if !member.name.is_empty() {
        // It ran here once, and has nothing of what it promised to keep: as another member it may come back.
        return remove(cluster, member.id, Removal::DataLost);
    }
    if own.stuck_for > GIVE_UP {
        return Step::Remove(member.id, Removal::NeverCaughtUp);
    }
    let record = Record::Joining(Some(member.id));
    if own.record == Some(record) { Step::Run(Start::Join(own.initial_cluster(cluster))) } else { Step::Keep(record) }
}

/// The cluster knows nothing of this node.
fn enter(own: &Own, cluster: &Cluster) -> Step {
    if let Some(other) = cluster.members.iter().find(|member| member.is_learner || member.name.is_empty()) {
        let is_gone = own.stuck_for > GIVE_UP && !cluster.running.contains(&other.id);
        return if is_gone {
            remove(cluster, other.id, Removal::Abandoned)
        } else {
            Step::Wait(Waits::Joining(other.label()))
        };
    }
    let record = Record::Joining(None);
    if own.record == Some(record) { Step::AddLearner } else { Step::Keep(record) }
}

fn remove(cluster: &Cluster, id: MemberId, why: Removal) -> Step {
    if cluster.can_lose(id) { Step::Remove(id, why) } else { Step::Wait(Waits::Quorum(id)) }
}

impl Own {
    /// The member that others reach at this node.
    fn member_in<'c>(&self, cluster: &'c Cluster) -> Option<&'c Member> {
        cluster.members.iter().find(|member| member.peer_urls.iter().any(|url| self.peer_urls.contains(url)))
    }

    /// etcd compares addresses; two members of one label would be one to it.
    fn initial_cluster(&self, cluster: &Cluster) -> Vec<(String, String)> {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &cluster.members {
            *names.entry(&member.name).or_default() += 1;
        }
        let mut all: Vec<(String, String)> =
            self.peer_urls.iter().map(|url| (self.name.clone(), url.clone())).collect();
        let own = self.member_in(cluster).map(|member| member.id);
        for member in cluster.members.iter().filter(|member| Some(member.id) != own) {
            let is_unique = !member.name.is_empty() && member.name != self.name && names[member.name.as_str()] == 1;
            let label = if is_unique { member.name.clone() } else { member.id.to_string() };
            all.extend(member.peer_urls.iter().map(|url| (label.clone(), url.clone())));
        }
        all
    }
}

impl Cluster {
    /// Whether the members that run are a quorum without this one. One that does not vote takes none.
    #[must_use]
    pub fn can_lose(&self, id: MemberId) -> bool {
        let voting = |member: &&Member| !member.is_learner;
        if self.members.iter().filter(voting).all(|member| member.id != id) {
            return true;
        }
        let rest: Vec<&Member> = self.members.iter().filter(voting).filter(|member| member.id != id).collect();
        let running = rest.iter().filter(|member| self.running.contains(&member.id)).count();
        running > rest.len() / 2
    }
}

impl Member {
    /// Its name, or its id while it has none.
    fn label(&self) -> String {
        if self.name.is_empty() { self.id.to_string() } else { self.name.clone() }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
