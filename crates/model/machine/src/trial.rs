//! The trial of a new version: it is started once, on the word of the version before it, and gets its slot when the node has
//! shown what it had shown under that version. Decisions alone; who reads and writes is elsewhere.
//!
//! A boot loader knows two things that outlive a power cut: the slot that it starts by itself, and one that it starts the next
//! time only. META knows the [`Record`] of the trial. Until the version is good, the former one is what the boot loader starts
//! by itself: a version that cannot even start has lost its slot by the next power-on. One that comes as far as
//! `machined` is started again a few times, so that a power cut is not taken for its fault.

use serde::{Deserialize, Serialize};

/// How often a version is started before it has to be good.
pub const BOOTS: u32 = crate::loader::TRIES;
/// How long a node may take to show itself good, in seconds, where its configuration names no other limit.
pub const LIMIT: u64 = 15 * 60;
/// Longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 1024;
/// Longest record that is read.
const LONGEST: usize = 16 * 1024;

/// A place for a version: `A` or `B` of GRUB, the entry of systemd-boot (`Talos-v1.7.0.efi`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(String);

impl SlotId {
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SlotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub slot: SlotId,
    /// `v1.7.0`
    pub version: String,
    /// How often the boot loader would still start it; none where it does not count.
    pub tries_left: Option<u32>,
}

/// What the boot loader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// What it starts by itself; none where it has to guess.
    pub default: Option<SlotId>,
    /// What it starts the next time, and only then.
    pub next: Option<SlotId>,
    /// What this machine was started from; none where that is not known.
    pub booted: Option<SlotId>,
    pub installed: Vec<Installed>,
}

impl Slots {
    #[must_use]
    pub fn version(&self, slot: &SlotId) -> Option<&Installed> {
        self.installed.iter().find(|installed| installed.slot == *slot)
    }

    /// The version beside the one that runs.
    #[must_use]
    pub fn other(&self) -> Option<&Installed> {
        let running = self.booted.as_ref().or(self.default.as_ref());
        self.installed.iter().find(|installed| running.is_none_or(|running| installed.slot != *running))
    }
}

/// Something that a node shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Check {
    /// The machine API answers on the network.
    Api,
    /// The member of etcd is healthy.
    Etcd,
    /// The kubelet is healthy, and its Node is Ready.
    Kubelet,
    /// All static pods run and are ready.
    StaticPods,
}

impl Check {
    pub const ALL: [Self; 4] = [Self::Api, Self::Etcd, Self::Kubelet, Self::StaticPods];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Etcd => "etcd",
            Self::Kubelet => "kubelet",
            Self::StaticPods => "staticPods",
        }
    }
}

/// How far a trial has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The version is installed. It is not certain that the boot loader starts it.
    Prepared,
    /// The boot loader starts it the next time, and it was not seen running.
    Armed,
    /// It was started and is judged.
    Running,
    Good,
    /// The former version has its place again.
    Failed,
}

/// What META keeps of the last trial: JSON under [`crate::meta::tag::TRIAL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub version: String,
    pub slot: SlotId,
    pub former_version: String,
    pub former: SlotId,
    pub phase: Phase,
    /// What the node showed before, and has to show again.
    pub checks: Vec<Check>,
    /// Seconds that it may take.
    pub limit: u64,
    /// How often the version was seen running.
    #[serde(default)]
    pub boots: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record of the trial has {0} bytes; at most {LONGEST} are read")]
    TooLong(usize),
    #[error("the record of the trial is damaged")]
    Damaged(#[source] serde_json::Error),
}

impl Record {
    /// The trial of `slot`, before it is started.
    #[must_use]
    pub fn prepared(new: &Installed, former: &Installed, checks: Vec<Check>, limit: u64) -> Self {
        Self {
            version: new.version.clone(),
            slot: new.slot.clone(),
            former_version: former.version.clone(),
            former: former.slot.clone(),
            phase: Phase::Prepared,
            checks,
            limit,
            boots: 0,
            reason: String::new(),
        }
    }

    /// # Errors
    /// See [`RecordError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > LONGEST {
            return Err(RecordError::TooLong(bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(RecordError::Damaged)
    }

    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether the version still has to show itself good.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Prepared | Phase::Armed | Phase::Running)
    }

    fn failed(&self, reason: &str) -> Self {
        let mut end = reason.len().min(LONGEST_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { phase: Phase::Failed, reason: reason[..end].to_owned(), ..self.clone() }
    }
}

/// One thing to do. It is durable before the next one is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write the record to META.
    Record(Record),
    /// Have the boot loader start a slot the next time only, or nothing but the default.
    Next(Option<SlotId>),
    /// Have the boot loader start a slot by itself from now on, without counting its boots.
    Default(SlotId),
    /// Leave this version: reboot through the firmware.
    Leave,
}

/// What the judgement of a running version has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Pending,
    Good,
    Bad(String),
}

/// What is to be done first, after an upgrade wrote a version into its slot and before the machine leaves the former one.
#[must_use]
pub fn prepare(wanted: &Record, kept: Option<&Record>, slots: &Slots) -> Option<Action> {
    let armed = Record { phase: Phase::Armed, ..wanted.clone() };
    if kept == Some(&armed) {
        return None;
    }
    // The record first: a version that starts without one would be nobody's.
    if kept != Some(wanted) {
        return Some(Action::Record(wanted.clone()));
    }
    if slots.default.as_ref() != Some(&wanted.former) {
        return Some(Action::Default(wanted.former.clone()));
    }
    if slots.next.as_ref() != Some(&wanted.slot) {
        return Some(Action::Next(Some(wanted.slot.clone())));
    }
    // The boot loader first: a version that was not started has not failed.
    Some(Action::Record(armed))
}

/// What is to be done when the machine has started, before anything that the version may fail in. `seen` tells whether this boot
/// is in the record already.
#[must_use]
pub fn boot(record: &Record, slots: &Slots, seen: bool) -> Option<Action> {
    match record.phase {
        Phase::Good | Phase::Failed => settle(record, slots),
        Phase::Prepared | Phase::Armed | Phase::Running => {
            let runs = slots.booted.as_ref().is_some_and(|booted| *booted == record.slot);
            // It was good; the record did not get there.
            if slots.default.as_ref() == Some(&record.slot) {
                return Some(Action::Record(Record { phase: Phase::Good, ..record.clone() }));
            }
            if !runs {
                return Some(back(record, slots, &how_it_ended(record)));
            }
            if !seen {
                let boots = record.boots.saturating_add(1);
                return Some(Action::Record(Record { phase: Phase::Running, boots, ..record.clone() }));
            }
            let tries = slots.version(&record.slot).and_then(|installed| installed.tries_left);
            let again = record.boots < BOOTS && tries != Some(0);
            let next = again.then(|| record.slot.clone());
            (slots.next != next).then_some(Action::Next(next))
        }
    }
}

/// What is to be done once a running version was judged.
#[must_use]
pub fn judged(record: &Record, slots: &Slots, verdict: &Verdict) -> Option<Action> {
    match (record.phase, verdict) {
        (_, Verdict::Pending) => None,
        (Phase::Prepared | Phase::Armed | Phase::Running, Verdict::Good) => {
            if slots.default.as_ref() != Some(&record.slot) {
                return Some(Action::Default(record.slot.clone()));
            }
            Some(Action::Record(Record { phase: Phase::Good, ..record.clone() }))
        }
        (Phase::Prepared | Phase::Armed | Phase::Running, Verdict::Bad(reason)) => Some(back(record, slots, reason)),
        (Phase::Good, _) => settle(record, slots),
        (Phase::Failed, _) => {
            let leaves = slots.booted.as_ref() == Some(&record.slot);
            settle(record, slots).or_else(|| leaves.then_some(Action::Leave))
        }
    }
}

/// The former version gets its place back: nothing starts the new one any more before the record says so.
fn back(record: &Record, slots: &Slots, reason: &str) -> Action {
    if slots.default.as_ref() != Some(&record.former) {
        return Action::Default(record.former.clone());
    }
    if slots.next.is_some() {
        return Action::Next(None);
    }
    Action::Record(record.failed(reason))
}

/// The boot loader, as the end of a trial leaves it.
fn settle(record: &Record, slots: &Slots) -> Option<Action> {
    let is_of_trial = slots.next.as_ref() == Some(&record.slot);
    is_of_trial.then_some(Action::Next(None))
}

fn how_it_ended(record: &Record) -> String {
    let Record { version, phase, boots, .. } = record;
    match (phase, boots) {
        (Phase::Prepared, 0) => format!("the upgrade to {version} was cut off before that was started"),
        (_, 0) => format!(
            "{version} did not start: its kernel, its initramfs or its root file system is damaged, or the machine went off \
             before its trial began"
        ),
        (_, 1) => format!("{version} was started, and the machine went off, hung or crashed before it was good"),
        (_, more) => format!("{version} was started {more} times, and the machine went off, hung or crashed each time"),
    }
}

/// What a node shows now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Each check that does not hold, with what it waits for. Those that are absent hold.
    pub unmet: Vec<(Check, String)>,
}

/// Judges a running version: good once all checks of the record hold at the same time, bad when its time is over.
#[must_use]
pub fn judge(record: &Record, shown: &Shown, elapsed: u64) -> Verdict {
    let unmet: Vec<String> = shown
        .unmet
        .iter()
        .filter(|(check, _)| record.checks.contains(check))
        .map(|(check, waits_for)| format!("{}: {waits_for}", check.name()))
        .collect();
    if unmet.is_empty() {
        return Verdict::Good;
    }
    if elapsed < record.limit {
        return Verdict::Pending;
    }
    Verdict::Bad(format!("{} was not good after {} s: {}", record.version, record.limit, unmet.join("; ")))
}

#[cfg(test)]
mod tests;
