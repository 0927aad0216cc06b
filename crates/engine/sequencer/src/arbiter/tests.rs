use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::sequence::ActorId;

fn by_table(sequence: Sequence) -> Request {
    Request::new(sequence, ActorId::new("someone"))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An arbiter that runs `sequence`.
fn running(sequence: Sequence) -> (Arbiter, SequenceId) {
    let mut arbiter = Arbiter::default();
    let (id, effects) = arbiter.request(secs(0), by_table(sequence)).unwrap();
    assert_eq!(effects, [Effect::Start(id, by_table(sequence))]);
    (arbiter, id)
}

#[test]
fn the_table_of_takeovers_is_that_of_talos_but_for_staged_upgrades() {
    let yields: Vec<_> = Sequence::ALL
        .into_iter()
        .map(|running_one| {
            let (mut allowed, mut forced) = (Vec::new(), 0);
            for asked in Sequence::ALL {
                if running(running_one).0.request(secs(1), by_table(asked)).is_ok() {
                    allowed.push(asked.name());
                }
                let taken = running(running_one).0.request(secs(1), by_table(asked).taking_over());
                forced += usize::from(taken.is_ok());
            }
            assert_eq!(forced, Sequence::ALL.len(), "everything yields to a forced request");
            (running_one.name(), allowed.join(" "))
        })
        .collect();
    assert_eq!(
        yields,
        [
            ("initialize", "shutdown maintenanceUpgrade".to_owned()),
            ("install", "shutdown".to_owned()),
            ("boot", "reboot shutdown reset upgrade stageUpgrade".to_owned()),
            ("reboot", "reboot shutdown".to_owned()),
            ("shutdown", String::new()),
            ("reset", "reboot shutdown".to_owned()),
            ("upgrade", "shutdown".to_owned()),
            ("stageUpgrade", "shutdown".to_owned()),
            ("maintenanceUpgrade", "shutdown".to_owned()),
        ]
    );
}

#[test]
fn a_refused_request_changes_nothing_and_names_the_holder() {
    let (mut arbiter, id) = running(Sequence::Upgrade);
    let locked = arbiter.request(secs(1), by_table(Sequence::Reboot)).unwrap_err();
    assert_eq!(locked.to_string(), "reboot cannot start while upgrade runs");
    assert_eq!(arbiter.finished(secs(2), id, Finish::Done(Then::Idle)), []);
    arbiter.request(secs(3), by_table(Sequence::Reboot)).unwrap();
}

#[test]
fn a_sequence_that_is_taken_over_has_a_minute() {
    let (mut arbiter, boot) = running(Sequence::Boot);
    let (reboot, effects) = arbiter.request(secs(5), by_table(Sequence::Reboot)).unwrap();
    assert_eq!(effects, [Effect::Cancel(boot)]);
    assert_eq!(arbiter.next_deadline(), Some(secs(65)));
    assert_eq!(arbiter.tick(secs(64)), []);
    let start = Effect::Start(reboot, by_table(Sequence::Reboot));
    assert_eq!(arbiter.tick(secs(65)), [Effect::Drop(boot), start]);
    assert_eq!(arbiter.finished(secs(66), boot, Finish::Failed), [], "a dropped sequence has no say");
    let end = Finish::Done(Then::End(Outcome::Reboot));
    assert_eq!(arbiter.finished(secs(67), reboot, end), [Effect::End(Outcome::Reboot)]);
}

#[test]
fn the_next_one_can_itself_be_superseded_and_time_goes_on() {
    let (mut arbiter, boot) = running(Sequence::Boot);
    let (reset, _) = arbiter.request(secs(5), by_table(Sequence::Reset)).unwrap();
    let locked = arbiter.request(secs(6), by_table(Sequence::Upgrade)).unwrap_err();
    assert_eq!(locked.holder, "reset", "boot yields to it, reset does not");
    let (reboot, effects) = arbiter.request(secs(7), by_table(Sequence::Reboot)).unwrap();
    assert_eq!(effects, [Effect::Superseded(reset, by_table(Sequence::Reset))]);
    assert_eq!(arbiter.next_deadline(), Some(secs(65)));
    let start = Effect::Start(reboot, by_table(Sequence::Reboot));
    assert_eq!(arbiter.finished(secs(8), boot, Finish::Canceled), [start]);
}

#[test]
fn a_failure_reboots_the_machine_after_ten_seconds_unless_it_is_told_to_stop() {
    let (mut arbiter, boot) = running(Sequence::Boot);
    assert_eq!(arbiter.finished(secs(5), boot, Finish::Failed), []);
    arbiter.request(secs(6), by_table(Sequence::Upgrade)).unwrap_err();
    assert_eq!(arbiter.tick(secs(14)), []);
    assert_eq!(arbiter.tick(secs(15)), [Effect::End(Outcome::Reboot)]);
    let locked = arbiter.request(secs(16), by_table(Sequence::Shutdown).taking_over()).unwrap_err();
    assert_eq!(locked.holder, "the end of the machine");

    let (mut arbiter, boot) = running(Sequence::Boot);
    arbiter.finished(secs(5), boot, Finish::Failed);
    arbiter.request(secs(6), by_table(Sequence::Shutdown)).unwrap();
    assert_eq!(arbiter.next_deadline(), None);
}

#[test]
fn a_second_signal_does_not_start_the_shutdown_over() {
    let mut arbiter = Arbiter::default();
    let shutdown = by_table(Sequence::Shutdown).taking_over();
    arbiter.request(secs(0), shutdown.clone()).unwrap();
    let locked = arbiter.request(secs(1), shutdown).unwrap_err();
    assert_eq!(locked.holder, "shutdown");
}

#[test]
fn initialize_is_followed_by_boot_for_the_same_actor() {
    let (mut arbiter, id) = running(Sequence::Initialize);
    let effects = arbiter.finished(secs(1), id, Finish::Done(Then::Follow(Sequence::Boot)));
    assert_eq!(effects, [Effect::Start(SequenceId(2), by_table(Sequence::Boot))]);
}

#[derive(Debug, Clone)]
enum Step {
    Request(Request),
    /// The current run ends.
    Finish(Finish),
    /// A run that was dropped, or never was, reports an end.
    Stray(u64, Finish),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sequence = || (0..Sequence::ALL.len()).prop_map(|index| Sequence::ALL[index]);
    let request = (sequence(), any::<bool>(), 0..3_u8).prop_map(|(sequence, forced, actor)| {
        let request = Request::new(sequence, ActorId::new(format!("actor {actor}")));
        if forced { request.taking_over() } else { request }
    });
    let finish = || {
        prop_oneof![
            Just(Finish::Failed),
            Just(Finish::Refused),
            Just(Finish::Canceled),
            Just(Finish::Done(Then::Idle)),
            Just(Finish::Done(Then::End(Outcome::PowerOff))),
            sequence().prop_map(|sequence| Finish::Done(Then::Follow(sequence))),
        ]
    };
    let step = prop_oneof![
        4 => request.prop_map(Step::Request),
        3 => finish().prop_map(Step::Finish),
        1 => (0..20_u64, finish()).prop_map(|(id, finish)| Step::Stray(id, finish)),
        2 => (0..90_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

/// The environment of an arbiter: started runs that have not ended.
#[derive(Default)]
struct World {
    running: Option<SequenceId>,
    canceled_at: Option<Duration>,
    /// Accepted, neither started nor superseded.
    waiting: BTreeSet<SequenceId>,
    started: BTreeSet<SequenceId>,
    ended: Option<Outcome>,
    fates: BTreeMap<SequenceId, &'static str>,
}

impl World {
    fn apply(&mut self, now: Duration, effects: Vec<Effect>) {
        for effect in effects {
            assert_eq!(self.ended, None, "{effect:?} after the end");
            match effect {
                Effect::Start(id, _) => {
                    assert_eq!(self.running, None, "two run at once");
                    assert!(self.started.insert(id), "{id} starts twice");
                    self.waiting.remove(&id);
                    self.running = Some(id);
                    self.canceled_at = None;
                }
                Effect::Cancel(id) => {
                    assert_eq!(self.running, Some(id));
                    assert_eq!(self.canceled_at, None, "{id} is canceled twice");
                    self.canceled_at = Some(now);
                }
                Effect::Drop(id) => {
                    assert_eq!(self.running.take(), Some(id));
                    assert_eq!(self.canceled_at.unwrap() + GRACE_OF_TAKEOVER, now, "it has the whole minute");
                    self.fates.insert(id, "dropped");
                }
                Effect::Superseded(id, _) => {
                    assert!(self.waiting.remove(&id), "{id} was not waiting");
                    self.fates.insert(id, "superseded");
                }
                Effect::End(outcome) => {
                    assert_eq!(self.running, None);
                    self.ended = Some(outcome);
                }
            }
        }
    }

    fn finish(&mut self, arbiter: &mut Arbiter, now: Duration, finish: Finish) {
        let Some(id) = self.running.take() else { return };
        self.fates.insert(id, "finished");
        let effects = arbiter.finished(now, id, finish);
        self.apply(now, effects);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn at_most_one_runs_and_every_accepted_request_has_a_fate(steps in steps()) {
        let (mut arbiter, mut world, mut now) = (Arbiter::default(), World::default(), Duration::ZERO);
        let (mut accepted, mut last) = (BTreeSet::new(), 0);
        for step in steps {
            match step {
                Step::Request(request) => {
                    let idle = world.running.is_none() && world.ended.is_none() && arbiter.next_deadline().is_none();
                    match arbiter.request(now, request) {
                        Ok((id, effects)) => {
                            prop_assert!(id.0 > last, "ids count up");
                            last = id.0;
                            accepted.insert(id);
                            world.waiting.insert(id);
                            world.apply(now, effects);
                        }
                        Err(locked) => prop_assert!(!idle, "{locked} on an idle machine"),
                    }
                }
                Step::Finish(finish) => world.finish(&mut arbiter, now, finish),
                Step::Stray(id, finish) => {
                    if world.running != Some(SequenceId(id)) {
                        let effects = arbiter.finished(now, SequenceId(id), finish);
                        prop_assert_eq!(effects, Vec::new());
                    }
                }
                Step::Wait(seconds) => {
                    let until = now + secs(seconds);
                    // As the driver does: not later than the deadline.
                    while let Some(deadline) = arbiter.next_deadline().filter(|deadline| *deadline <= until) {
                        now = now.max(deadline);
                        let effects = arbiter.tick(now);
                        prop_assert!(!effects.is_empty());
                        world.apply(now, effects);
                    }
                    now = until;
                }
            }
            last = last.max(world.started.last().map_or(0, |id| id.0));
        }
        // Every accepted request was started or superseded when the last run has ended.
        for _ in 0..4 {
            if let Some(deadline) = arbiter.next_deadline() {
                now = now.max(deadline);
                let effects = arbiter.tick(now);
                world.apply(now, effects);
            }
            world.finish(&mut arbiter, now, Finish::Done(Then::Idle));
        }
        prop_assert!(world.waiting.is_empty(), "{:?} never started", world.waiting);
        for id in accepted {
            prop_assert!(world.fates.contains_key(&id), "{id} has no fate");
        }
    }
}

#[test]
fn after_a_refusal_the_machine_runs_on_unless_another_sequence_was_interrupted_for_it() {
    let (mut arbiter, reset) = running(Sequence::Reset);
    assert_eq!(arbiter.finished(secs(1), reset, Finish::Refused), []);
    assert_eq!(arbiter.next_deadline(), None);
    let (mut arbiter, boot) = running(Sequence::Boot);
    let (reset, _) = arbiter.request(secs(1), by_table(Sequence::Reset)).unwrap();
    arbiter.finished(secs(2), boot, Finish::Canceled);
    assert_eq!(arbiter.finished(secs(3), reset, Finish::Refused), []);
    assert_eq!(arbiter.next_deadline(), Some(secs(3) + REBOOT_AFTER_FAILURE));
}
