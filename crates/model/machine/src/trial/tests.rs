use super::*;

/// What a version does once the boot loader starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Its kernel, initramfs, root or `machined` ends before anything is written.
    NeverStarts,
    /// It ends after `machined` has looked at the trial.
    DiesLater,
    /// It runs and does not get good.
    StaysBad,
    Good,
}

#[derive(Debug, Clone)]
struct Machine {
    version: Version,
    /// Whether the boot loader counts.
    counts: bool,
    wanted: Record,
    slots: Slots,
    record: Option<Record>,
    /// Power cuts while the new version ran, after its first look.
    cut_running: u32,
    /// Power cuts at any other time.
    cut_else: u32,
    boots: u32,
    /// The boot loader has started the new version.
    was_started: bool,
}

fn slot(id: &str) -> SlotId {
    SlotId::new(id)
}

fn machine(version: Version, counts: bool) -> Machine {
    let installed =
        |id: &str, version: &str, tries_left| Installed { slot: slot(id), version: version.into(), tries_left };
    let (former, new) = (installed("A", "v1", None), installed("B", "v2", counts.then_some(BOOTS)));
    let wanted = Record::prepared(&new, &former, vec![Check::Api, Check::Kubelet], 60);
    let slots = Slots { default: Some(slot("A")), next: None, booted: Some(slot("A")), installed: vec![former, new] };
    Machine { version, counts, wanted, slots, record: None, cut_running: 0, cut_else: 0, boots: 0, was_started: false }
}

impl Machine {
    fn perform(&mut self, action: Action) {
        match action {
            Action::Record(record) => self.record = Some(record),
            Action::Next(next) => self.slots.next = next,
            Action::Default(default) => {
                for installed in &mut self.slots.installed {
                    if installed.slot == default {
                        installed.tries_left = None;
                    }
                }
                self.slots.default = Some(default);
            }
            Action::Leave => {}
        }
    }

    /// The firmware and the boot loader: from power-on to the slot that is started.
    fn power_on(&mut self) {
        self.boots += 1;
        assert!(self.boots < 40, "it boots for ever: {self:?}");
        let chosen = self.slots.next.take().or_else(|| self.slots.default.clone()).unwrap();
        for installed in &mut self.slots.installed {
            if installed.slot == chosen {
                installed.tries_left = installed.tries_left.map(|left| left.saturating_sub(1));
            }
        }
        self.slots.booted = Some(chosen);
        self.was_started |= self.runs_new();
    }

    fn runs_new(&self) -> bool {
        self.slots.booted == Some(slot("B"))
    }
}

/// Follows every course of events: at each action the power may be cut before it, `cuts` times in all.
fn explore(machine: Machine, cuts: u32, ends: &mut Vec<Machine>) {
    if machine.runs_new() && machine.version == Version::NeverStarts {
        restart(machine, cuts, ends);
    } else if machine.boots > 0 {
        // The former version that was cut off in its upgrade. An operator would begin again; here it stays.
        boots(machine, false, cuts, ends);
    } else {
        prepares(machine, cuts, ends);
    }
}

fn restart(mut machine: Machine, cuts: u32, ends: &mut Vec<Machine>) {
    machine.power_on();
    explore(machine, cuts, ends);
}

fn cut(machine: &Machine, running: bool, cuts: u32, ends: &mut Vec<Machine>) {
    let Some(left) = cuts.checked_sub(1) else { return };
    let mut machine = machine.clone();
    if running {
        machine.cut_running += 1;
    } else {
        machine.cut_else += 1;
    }
    restart(machine, left, ends);
}

fn prepares(mut machine: Machine, cuts: u32, ends: &mut Vec<Machine>) {
    while let Some(action) = prepare(&machine.wanted, machine.record.as_ref(), &machine.slots) {
        cut(&machine, false, cuts, ends);
        machine.perform(action);
    }
    cut(&machine, false, cuts, ends);
    restart(machine, cuts, ends);
}

fn boots(mut machine: Machine, mut seen: bool, cuts: u32, ends: &mut Vec<Machine>) {
    while let Some(record) = machine.record.clone() {
        let Some(action) = boot(&record, &machine.slots, seen) else { break };
        cut(&machine, false, cuts, ends);
        seen |= matches!(action, Action::Record(_));
        machine.perform(action);
    }
    judges(machine, cuts, ends);
}

fn judges(mut machine: Machine, cuts: u32, ends: &mut Vec<Machine>) {
    let open = machine.record.as_ref().is_some_and(Record::is_open);
    let verdict = match machine.version {
        _ if !machine.runs_new() || !open => Verdict::Pending,
        Version::DiesLater => return restart(machine, cuts, ends),
        Version::StaysBad => Verdict::Bad("it does not get good".into()),
        Version::Good | Version::NeverStarts => Verdict::Good,
    };
    if verdict != Verdict::Pending {
        cut(&machine, true, cuts, ends);
    }
    while let Some(record) = machine.record.clone() {
        match judged(&record, &machine.slots, &verdict) {
            Some(Action::Leave) => return restart(machine, cuts, ends),
            Some(action) => {
                machine.perform(action);
                // A verdict that was begun to be carried out is no fault of the version.
                cut(&machine, false, cuts, ends);
            }
            None => break,
        }
    }
    ends.push(machine);
}

#[test]
fn every_course_of_events_ends_on_one_of_both_versions_and_says_which_and_why() {
    let mut courses = 0;
    for version in [Version::NeverStarts, Version::DiesLater, Version::StaysBad, Version::Good] {
        for counts in [false, true] {
            let mut ends = Vec::new();
            explore(machine(version, counts), 5, &mut ends);
            courses += ends.len();
            for end in &ends {
                check(end);
            }
            let told = |what: &str| ends.iter().flat_map(|end| &end.record).any(|record| record.reason.contains(what));
            assert!(told("the upgrade to v2 was cut off before that was started"), "{version:?}");
            assert!(told("did not start"), "{version:?}");
            let reached = |phase| ends.iter().any(|end| end.record.as_ref().map(|record| record.phase) == Some(phase));
            assert!(reached(Phase::Failed) && reached(Phase::Good) == (version == Version::Good), "{version:?}");
        }
    }
    assert!(courses > 400, "{courses}");
}

fn check(end: &Machine) {
    let is_new = end.runs_new();
    let Some(record) = &end.record else {
        assert!(!is_new && end.cut_else > 0, "{end:?}");
        return;
    };
    assert_eq!(end.slots.default, end.slots.booted, "what runs is what comes next: {end:?}");
    assert_eq!(end.slots.next, None, "{end:?}");
    match record.phase {
        Phase::Good => assert!(is_new && end.version == Version::Good, "{end:?}"),
        Phase::Failed => {
            assert!(!is_new && !record.reason.is_empty(), "{end:?}");
            // What was cut off is not told as a version that does not start.
            assert!(end.was_started || !record.reason.contains("did not start"), "{end:?}");
            assert!(end.cut_else > 0 || !record.reason.contains("cut off"), "{end:?}");
            // A good version is given up when the power was cut before it was seen, or too often.
            let excused = end.cut_else > 0 || end.cut_running >= BOOTS;
            assert!(end.version != Version::Good || excused, "{end:?}");
        }
        Phase::Prepared | Phase::Armed | Phase::Running => panic!("the trial never ends: {end:?}"),
    }
    assert!(end.counts || end.slots.installed.iter().all(|installed| installed.tries_left.is_none()));
}

#[test]
fn a_version_that_dies_is_started_three_times_and_power_cuts_below_that_are_forgiven() {
    let mut ends = Vec::new();
    explore(machine(Version::DiesLater, true), 0, &mut ends);
    let [end] = ends.as_slice() else { panic!("{ends:?}") };
    assert_eq!(end.record.as_ref().map(|record| record.boots), Some(BOOTS));
    assert_eq!(
        end.record.as_ref().map(|record| record.reason.as_str()),
        Some("v2 was started 3 times, and the machine went off, hung or crashed each time")
    );
    let mut ends = Vec::new();
    explore(machine(Version::NeverStarts, false), 0, &mut ends);
    assert_eq!(ends.iter().map(|end| end.boots).collect::<Vec<_>>(), [2], "its first failure was its last");
    let reason = ends[0].record.as_ref().map(|record| record.reason.as_str()).unwrap_or_default();
    assert!(reason.starts_with("v2 did not start: "), "{reason}");
}

#[test]
fn a_version_is_good_once_all_that_held_before_holds_at_the_same_time() {
    let record = machine(Version::Good, false).wanted;
    let shown = |unmet: &[(Check, &str)]| Shown {
        unmet: unmet.iter().map(|(check, why)| (*check, (*why).to_owned())).collect(),
    };
    assert_eq!(judge(&record, &shown(&[]), 0), Verdict::Good);
    assert_eq!(judge(&record, &shown(&[(Check::Etcd, "no member")]), 0), Verdict::Good, "it had no member before");
    let waits = shown(&[(Check::Kubelet, "its Node is not Ready"), (Check::Etcd, "no member")]);
    assert_eq!(judge(&record, &waits, 59), Verdict::Pending);
    assert_eq!(
        judge(&record, &waits, 60),
        Verdict::Bad("v2 was not good after 60 s: kubelet: its Node is not Ready".into())
    );
}

#[test]
fn records_are_read_back_and_damaged_ones_are_errors() {
    let record = machine(Version::Good, false).wanted;
    assert_eq!(Record::parse(record.encode().as_bytes()).unwrap(), record);
    let failed = record.failed(&"ä".repeat(LONGEST_REASON));
    assert_eq!(failed.reason.len(), LONGEST_REASON);
    assert!(matches!(Record::parse(b"{"), Err(RecordError::Damaged(_))));
    assert!(matches!(Record::parse(&vec![b' '; LONGEST + 1]), Err(RecordError::TooLong(_))));
}
