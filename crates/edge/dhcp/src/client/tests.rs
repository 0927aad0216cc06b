use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SERVER: [u8; 4] = [10, 0, 2, 2];
const OTHER_SERVER: [u8; 4] = [10, 0, 2, 9];
const ADDRESS: [u8; 4] = [10, 0, 2, 15];

/// A client with its clock.
struct It {
    client: Client,
    now: Duration,
}

impl It {
    fn new() -> Self {
        let settings = Settings { hardware: MAC, name: NameRequest::Ask, seed: 1 };
        Self { client: Client::new(settings, Duration::ZERO), now: Duration::ZERO }
    }

    /// Lets time go on to the next deadline.
    fn tick(&mut self) -> Vec<Action> {
        self.now = self.now.max(self.client.deadline().unwrap());
        self.client.handle(self.now, Event::Tick)
    }

    fn receive(&mut self, message: &Message) -> Vec<Action> {
        self.client.handle(self.now, Event::Received(&message.encode()))
    }

    /// With a lease of that many seconds.
    fn bound(seconds: u32) -> Self {
        let mut it = Self::new();
        let discover = sent(&it.tick());
        let request = sent(&it.receive(&answer(&discover, MessageType::Offer, SERVER, seconds)));
        let actions = it.receive(&answer(&request, MessageType::Ack, SERVER, seconds));
        assert!(matches!(&actions[..], [Action::Bound(lease)] if lease.address.to_string() == "10.0.2.15/24"));
        it
    }
}

fn answer(to: &Message, kind: MessageType, server: [u8; 4], seconds: u32) -> Message {
    let mut message = to
        .reply()
        .of(kind)
        .with(Code::ServerId, server)
        .with(Code::SubnetMask, [255, 255, 255, 0])
        .with(Code::LeaseTime, seconds.to_be_bytes());
    message.yiaddr = ADDRESS.into();
    message
}

fn nak(to: &Message, server: [u8; 4]) -> Message {
    to.reply().of(MessageType::Nak).with(Code::ServerId, server)
}

/// The only action, which is to send a message.
fn sent(actions: &[Action]) -> Message {
    sent_to(actions).0
}

fn sent_to(actions: &[Action]) -> (Message, Destination) {
    match actions {
        [Action::Send { message, to }] => (Message::decode(message).unwrap(), *to),
        other => panic!("not one message: {other:?}"),
    }
}

#[test]
fn the_first_offer_is_requested_from_its_server() {
    let mut it = It::new();
    let discover = sent(&it.tick());
    assert_eq!((discover.kind(), discover.broadcast, discover.chaddr), (Some(MessageType::Discover), false, MAC));
    assert_eq!(discover.option(Code::ParameterList), Some(&[1, 3, 15, 6, 121, 119, 42, 26, 12][..]));
    assert_eq!(discover.option(Code::MaxSize), Some(&[5, 220][..]));
    let (request, to) = sent_to(&it.receive(&answer(&discover, MessageType::Offer, SERVER, 600)));
    assert_eq!((request.kind(), request.xid, to), (Some(MessageType::Request), discover.xid, Destination::Everybody));
    assert_eq!(request.address(Code::RequestedAddress), Some(ADDRESS.into()));
    assert_eq!(request.address(Code::ServerId), Some(SERVER.into()));
    assert!(it.receive(&answer(&discover, MessageType::Offer, OTHER_SERVER, 600)).is_empty(), "one is enough");
    let actions = it.receive(&answer(&request, MessageType::Ack, SERVER, 600));
    assert!(matches!(&actions[..], [Action::Bound(_)]), "{actions:?}");
    assert!(!it.client.is_listening());
    assert_eq!(it.client.deadline(), Some(Duration::from_secs(300)));
}

#[test]
fn without_an_answer_it_asks_three_times_and_starts_anew_after_a_pause() {
    let mut it = It::new();
    let mut at = Vec::new();
    for _ in 0..3 {
        assert_eq!(sent(&it.tick()).kind(), Some(MessageType::Discover));
        at.push(it.now.as_secs());
    }
    assert!((5..=6).contains(&at[1]) && (15..=17).contains(&at[2]), "{at:?}");
    assert!(it.tick().is_empty());
    assert!(!it.client.is_listening(), "it pauses");
    let paused = it.now;
    assert_eq!(sent(&it.tick()).kind(), Some(MessageType::Discover));
    assert!((5..=6).contains(&(it.now - paused).as_secs()));
}

#[test]
fn pauses_grow_to_a_minute() {
    let mut it = It::new();
    let mut longest = Duration::ZERO;
    for _ in 0..60 {
        let before = it.now;
        let was_listening = it.client.is_listening();
        it.tick();
        if !was_listening {
            longest = longest.max(it.now - before);
        }
    }
    assert!((60..=61).contains(&longest.as_secs()), "{longest:?}");
}

#[test]
fn answers_to_others_and_of_other_kinds_are_ignored() {
    let mut it = It::new();
    let discover = sent(&it.tick());
    let offer = answer(&discover, MessageType::Offer, SERVER, 600);
    let others = [
        Message { xid: offer.xid ^ 1, ..offer.clone() },
        Message { chaddr: [2, 0, 0, 0, 0, 9], ..offer.clone() },
        Message { op: Op::Request, ..offer.clone() },
        Message { yiaddr: Ipv4Addr::BROADCAST, ..offer.clone() },
        offer.clone().of(MessageType::Ack),
        nak(&discover, SERVER),
    ];
    for other in others {
        assert!(it.receive(&other).is_empty(), "{other:?}");
    }
    assert!(it.client.handle(it.now, Event::Received(b"noise")).is_empty());
    assert_eq!(sent(&it.receive(&offer)).kind(), Some(MessageType::Request));
}

#[test]
fn an_acknowledgement_of_another_address_is_ignored() {
    let mut it = It::new();
    let discover = sent(&it.tick());
    let request = sent(&it.receive(&answer(&discover, MessageType::Offer, SERVER, 600)));
    let mut other = answer(&request, MessageType::Ack, SERVER, 600);
    other.yiaddr = [10, 0, 2, 16].into();
    assert!(it.receive(&other).is_empty());
}

#[test]
fn a_refused_request_starts_anew_after_a_pause() {
    let mut it = It::new();
    let discover = sent(&it.tick());
    let request = sent(&it.receive(&answer(&discover, MessageType::Offer, SERVER, 600)));
    assert!(it.receive(&nak(&request, OTHER_SERVER)).is_empty());
    assert!(it.client.is_listening(), "another server has no say");
    assert!(it.receive(&nak(&request, SERVER)).is_empty());
    assert!(it.client.deadline().unwrap() >= it.now + Duration::from_secs(5));
    assert_eq!(sent(&it.tick()).kind(), Some(MessageType::Discover));
}

#[test]
fn half_way_it_asks_its_server_and_a_renewal_counts_from_the_request() {
    let mut it = It::bound(600);
    let (request, to) = sent_to(&it.tick());
    assert_eq!(it.now.as_secs(), 300);
    assert_eq!(to, Destination::Server { from: ADDRESS.into(), server: SERVER.into() });
    assert_eq!((request.ciaddr, request.option(Code::ServerId)), (ADDRESS.into(), None));
    it.now += Duration::from_secs(3);
    let actions = it.receive(&answer(&request, MessageType::Ack, SERVER, 600));
    assert!(matches!(&actions[..], [Action::Bound(_)]));
    assert_eq!(it.client.deadline(), Some(Duration::from_secs(600)));
}

#[test]
fn a_silent_server_is_followed_by_any_server_and_then_by_the_end_of_the_lease() {
    let mut it = It::bound(600);
    let mut kinds = Vec::new();
    loop {
        let actions = it.tick();
        if actions.iter().any(|action| matches!(action, Action::Lost(Loss::Expired))) {
            assert_eq!(it.now.as_secs(), 600);
            assert!(matches!(&actions[1..], [Action::Send { .. }]), "it looks for another at once");
            break;
        }
        let (_, to) = sent_to(&actions);
        kinds.push((it.now.as_secs(), to == Destination::Everybody));
    }
    assert_eq!(kinds.iter().filter(|(_, everybody)| *everybody).map(|(at, _)| *at).next(), Some(525));
    assert!(kinds.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 5), "{kinds:?}");
    assert!(kinds.len() < 12, "{kinds:?}");
}

#[test]
fn another_server_may_rebind_the_lease() {
    let mut it = It::bound(600);
    let request = loop {
        let (request, to) = sent_to(&it.tick());
        if to == Destination::Everybody {
            break request;
        }
    };
    let actions = it.receive(&answer(&request, MessageType::Ack, OTHER_SERVER, 600));
    assert!(matches!(&actions[..], [Action::Bound(lease)] if lease.server == Ipv4Addr::from(OTHER_SERVER)));
}

#[test]
fn a_refused_renewal_keeps_the_lease_while_another_is_looked_for() {
    let mut it = It::bound(600);
    let request = sent(&it.tick());
    assert!(it.receive(&nak(&request, OTHER_SERVER)).is_empty(), "only its own server may refuse");
    let discover = sent(&it.receive(&nak(&request, SERVER)));
    assert_eq!(discover.kind(), Some(MessageType::Discover));
    assert_eq!(discover.address(Code::RequestedAddress), Some(ADDRESS.into()));
    let mut lost = None;
    while lost.is_none() {
        lost = it.tick().into_iter().find(|action| matches!(action, Action::Lost(_))).map(|_| it.now.as_secs());
    }
    assert_eq!(lost, Some(600), "the lease was in force until its end");
}

#[test]
fn a_new_name_is_told_in_a_new_search_and_none_is_asked_for() {
    let mut it = It::bound(600);
    let name = NameRequest::Tell { host: "cp-1".into(), domain: "example.org".into() };
    let discover = sent(&it.client.handle(it.now, Event::Rename(name.clone())));
    assert_eq!(discover.option(Code::HostName), Some(&b"cp-1"[..]));
    assert_eq!(discover.option(Code::DomainName), Some(&b"example.org"[..]));
    assert!(!discover.option(Code::ParameterList).unwrap().contains(&12));
    assert!(it.client.handle(it.now, Event::Rename(name)).is_empty(), "the same name is no news");
}

#[test]
fn a_lease_without_end_needs_nothing_more() {
    let it = It::bound(u32::MAX);
    assert_eq!(it.client.deadline(), None);
}

/// One step of the outside world.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Deadline,
    Answer(MessageType, bool),
    Noise(Vec<u8>),
    Rename(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![MessageType::Offer, MessageType::Ack, MessageType::Nak]);
    prop_oneof![
        (0u64..400).prop_map(Step::Wait),
        Just(Step::Deadline),
        (kind, any::<bool>()).prop_map(|(kind, own)| Step::Answer(kind, own)),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Step::Noise),
        any::<bool>().prop_map(Step::Rename),
    ]
}

proptest! {
    /// Whatever the network does: a lease is lost at its end and not before, the client never stops, and it never floods.
    #[test]
    fn in_any_order_of_events_leases_end_in_time_and_nobody_is_flooded(
        steps in prop::collection::vec(step(), 1..120),
        seconds in 0u32..1000,
    ) {
        let mut it = It::new();
        let mut last = None;
        let mut expires: Option<Duration> = None;
        let mut messages = 0u64;
        let mut caused = 0u64;
        for step in steps {
            let actions = match step {
                Step::Wait(seconds) => {
                    it.now += Duration::from_secs(seconds);
                    it.client.handle(it.now, Event::Tick)
                }
                Step::Deadline => it.tick(),
                Step::Answer(kind, own) => {
                    let Some(last) = &last else { continue };
                    caused += 1;
                    let server = if own { SERVER } else { OTHER_SERVER };
                    let message = match kind {
                        MessageType::Nak => nak(last, server),
                        kind => answer(last, kind, server, seconds),
                    };
                    it.receive(&message)
                }
                Step::Noise(bytes) => it.client.handle(it.now, Event::Received(&bytes)),
                Step::Rename(ask) => {
                    caused += 1;
                    let name = NameRequest::Tell { host: "a".into(), domain: String::new() };
                    it.client.handle(it.now, Event::Rename(if ask { NameRequest::Ask } else { name }))
                }
            };
            let was = expires;
            for action in actions {
                match action {
                    Action::Send { message, .. } => {
                        messages += 1;
                        last = Some(Message::decode(&message).unwrap());
                    }
                    Action::Bound(lease) => {
                        prop_assert!(lease.time.unwrap() >= Duration::from_secs(10));
                        expires = Some(it.now + lease.time.unwrap());
                    }
                    Action::Lost(Loss::Expired) => {
                        prop_assert!(was.is_some(), "lost without a lease");
                        expires = None;
                    }
                }
            }
            if let Some(expires) = expires {
                prop_assert!(it.now < expires, "a lease outlived its end");
            }
            prop_assert!(it.client.deadline().is_some_and(|deadline| deadline > it.now), "it would spin or stop");
        }
        let by_time = it.now.as_secs() / 5 + 2;
        prop_assert!(messages <= by_time + 2 * caused, "{messages} messages in {:?}", it.now);
    }
}
