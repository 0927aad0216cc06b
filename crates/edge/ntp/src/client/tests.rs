use proptest::prelude::*;

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

struct It {
    client: Client,
    now: Duration,
}

impl It {
    fn new(servers: &[&str]) -> Self {
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        Self { client: Client::new(servers, Duration::ZERO), now: Duration::ZERO }
    }

    /// Whom it asks next.
    fn asks(&mut self) -> Target {
        self.now = self.now.max(self.client.deadline().unwrap());
        match self.client.handle(self.now, Event::Tick) {
            Some(Action::Query(target)) => target,
            other => panic!("no query: {other:?}"),
        }
    }

    fn answer(&mut self, millis: i64) -> Option<Action> {
        let sample = sample(millis);
        self.client.handle(self.now, Event::Answered(Answer::Sample(sample), Some(ADDRESS)))
    }

    fn round(&mut self, millis: i64) -> Option<Action> {
        self.asks();
        self.answer(millis)
    }
}

fn sample(millis: i64) -> Sample {
    let round_trip = Duration::from_millis(20);
    Sample { offset: Offset::from_millis(millis), round_trip, leap: Leap::None, is_local: false }
}

#[test]
fn small_offsets_are_slewed_and_asked_about_less_and_less_often() {
    let mut it = It::new(&["a"]);
    let mut polls = Vec::new();
    for _ in 0..8 {
        let before = it.now;
        it.asks();
        polls.push((it.now - before).as_secs());
        let action = it.answer(1);
        let constant = i64::from(it.client.poll().as_secs().ilog2()) - 4;
        let slew = Adjustment::Slew { offset: Offset::from_millis(1), constant, leap: Leap::None };
        assert_eq!(action, Some(Action::Adjust(slew)));
    }
    assert_eq!(polls, [0, 64, 128, 256, 512, 1024, 2048, 2048]);
}

#[test]
fn large_offsets_are_stepped_and_very_large_ones_start_an_epoch() {
    for (millis, step, epoch) in
        [(400, false, false), (401, true, false), (-5000, true, false), (900_000, true, false), (900_001, true, true)]
    {
        match It::new(&["a"]).round(millis) {
            Some(Action::Adjust(Adjustment::Step { offset, is_epoch })) => {
                assert_eq!((offset, step, is_epoch), (Offset::from_millis(millis), true, epoch));
            }
            other => assert!(!step, "{millis}: {other:?}"),
        }
    }
}

#[test]
fn the_poll_follows_the_offset() {
    let mut it = It::new(&["a"]);
    for _ in 0..3 {
        it.round(1);
    }
    assert_eq!(it.client.poll().as_secs(), 256);
    for (millis, poll) in [(100, 256), (160, 128), (210, 32), (160, 32)] {
        it.round(millis);
        assert_eq!(it.client.poll().as_secs(), poll, "{millis}");
    }
}

#[test]
fn a_spike_adjusts_nothing() {
    let mut it = It::new(&["a"]);
    for _ in 0..4 {
        assert!(it.round(1).is_some());
    }
    let poll = it.client.poll();
    it.asks();
    let spike = Sample { round_trip: Duration::from_millis(300), ..sample(140) };
    assert_eq!(it.client.handle(it.now, Event::Answered(Answer::Sample(spike), None)), None);
    assert_eq!(it.client.poll(), poll / 2);
    let local = Sample { is_local: true, ..spike };
    it.asks();
    assert!(it.client.handle(it.now, Event::Answered(Answer::Sample(local), None)).is_some(), "a device has no spikes");
}

#[test]
fn a_server_that_fails_is_followed_by_the_next_after_a_second_and_an_address_that_answered_is_kept() {
    let mut it = It::new(&["a", "b"]);
    assert_eq!(it.asks(), Target { server: "a".into(), address: None });
    it.client.handle(it.now, Event::Failed);
    assert_eq!(it.client.deadline(), Some(Duration::from_secs(1)));
    assert_eq!(it.asks().server, "b");
    it.answer(1);
    assert_eq!(it.asks(), Target { server: "b".into(), address: Some(ADDRESS) });
    it.client.handle(it.now, Event::Failed);
    assert_eq!(it.asks().server, "a");
    it.client.handle(it.now, Event::Failed);
    assert_eq!(it.asks(), Target { server: "b".into(), address: None }, "its name is looked up again");
}

#[test]
fn a_server_that_wants_to_be_left_alone_is() {
    let mut it = It::new(&["a", "b"]);
    it.asks();
    it.client.handle(it.now, Event::Answered(Answer::KissOfDeath(*b"DENY"), None));
    for _ in 0..3 {
        assert_eq!(it.asks().server, "b");
        it.client.handle(it.now, Event::Failed);
    }
    let before = it.now;
    it.asks();
    it.client.handle(it.now, Event::Answered(Answer::KissOfDeath(*b"RSTR"), None));
    it.asks();
    assert!(it.now - before >= Duration::from_secs(2048), "when all refuse it waits long");
    let mut limited = It::new(&["a"]);
    limited.asks();
    limited.client.handle(limited.now, Event::Answered(Answer::KissOfDeath(*b"RATE"), None));
    assert_eq!(limited.client.deadline(), Some(Duration::from_secs(64)));
}

#[test]
fn other_servers_are_asked_at_once_and_an_old_answer_does_not_count() {
    let mut it = It::new(&["a"]);
    it.asks();
    it.client.handle(it.now, Event::Servers(vec!["b".into()]));
    assert_eq!(it.answer(1), None);
    assert_eq!(it.asks().server, "b");
    it.answer(1);
    let deadline = it.client.deadline();
    it.client.handle(it.now, Event::Servers(vec!["b".into()]));
    assert_eq!(it.client.deadline(), deadline, "the same servers are no news");
    it.client.handle(it.now, Event::Servers(Vec::new()));
    assert_eq!(it.client.deadline(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Tick(u64),
    Sample(i64, u64),
    Kiss(usize),
    Fail,
    Servers(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..3000).prop_map(Step::Tick),
        (-2_000_000i64..2_000_000, 0u64..500).prop_map(|(offset, round_trip)| Step::Sample(offset, round_trip)),
        (0usize..3).prop_map(Step::Kiss),
        Just(Step::Fail),
        (0usize..4).prop_map(Step::Servers),
    ]
}

proptest! {
    /// Whatever servers do: it asks at most once a second, stays within its polls, and never stops while there are servers.
    #[test]
    fn in_any_order_of_events_it_goes_on_and_does_not_flood(steps in prop::collection::vec(step(), 1..150)) {
        let mut it = It::new(&["a", "b"]);
        let mut servers = 2;
        let mut asking = false;
        let mut last: Option<Duration> = None;
        for step in steps {
            let event = match step {
                Step::Tick(seconds) => {
                    it.now += Duration::from_secs(seconds);
                    Event::Tick
                }
                Step::Sample(millis, round_trip) => {
                    let sample = Sample { round_trip: Duration::from_millis(round_trip), ..sample(millis) };
                    Event::Answered(Answer::Sample(sample), Some(ADDRESS))
                }
                Step::Kiss(code) => Event::Answered(Answer::KissOfDeath([*b"RATE", *b"DENY", *b"RSTR"][code]), None),
                Step::Fail => Event::Failed,
                Step::Servers(count) => {
                    servers = count;
                    last = None;
                    asking = false;
                    Event::Servers(["a", "b", "c"].iter().take(count).map(|name| (*name).to_owned()).collect())
                }
            };
            let answers = !matches!(event, Event::Tick | Event::Servers(_));
            match it.client.handle(it.now, event) {
                Some(Action::Query(_)) => {
                    prop_assert!(last.is_none_or(|last| it.now - last >= Duration::from_secs(1)));
                    last = Some(it.now);
                    asking = true;
                }
                Some(Action::Adjust(Adjustment::Slew { offset, constant, .. })) => {
                    prop_assert!(offset.size() <= MAX_SLEW && (1..=7).contains(&constant));
                }
                Some(Action::Adjust(Adjustment::Step { offset, .. })) => prop_assert!(offset.size() > MAX_SLEW),
                None => {}
            }
            if answers {
                asking = false;
            }
            prop_assert!((POLLS.0..=POLLS.1).contains(&it.client.poll()));
            let is_alive = it.client.deadline().is_some() || it.client.state == State::Asking;
            prop_assert_eq!(is_alive, servers > 0 || asking);
        }
    }
}
