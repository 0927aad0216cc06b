use super::*;

fn member(id: u64, name: &str, host: u8) -> Member {
    let client_urls = if name.is_empty() { vec![] } else { vec![format!("https://10.5.0.{host}:2379")] };
    let peer_urls = vec![format!("https://10.5.0.{host}:2380")];
    Member { id: MemberId(id), name: name.into(), peer_urls, client_urls, is_learner: false }
}

fn learner(id: u64, name: &str, host: u8) -> Member {
    Member { is_learner: true, ..member(id, name, host) }
}

fn cluster(members: &[Member], running: &[u64]) -> Cluster {
    Cluster { members: members.to_vec(), running: running.iter().copied().map(MemberId).collect() }
}

/// The node at 10.5.0.3, new.
fn own() -> Own {
    Own {
        name: "cp-2".into(),
        peer_urls: vec!["https://10.5.0.3:2380".into()],
        has_data: false,
        record: None,
        may_found: false,
        running: None,
        stuck_for: Duration::ZERO,
    }
}

const LONG: Duration = Duration::from_secs(601);

#[test]
fn a_node_founds_with_permission_and_never_beside_a_cluster() {
    assert_eq!(decide(&own(), None), Step::Wait(Waits::Cluster));
    let allowed = Own { may_found: true, ..own() };
    assert_eq!(decide(&allowed, None), Step::Run(Start::Found));
    let one = cluster(&[member(1, "cp-1", 2)], &[1]);
    assert_eq!(decide(&allowed, Some(&one)), Step::Keep(Record::Joining(None)));
}

#[test]
fn a_node_says_that_it_joins_before_it_asks_and_runs_with_all_members() {
    let one = cluster(&[member(1, "cp-1", 2)], &[1]);
    let mut node = Own { record: Some(Record::Joining(None)), ..own() };
    assert_eq!(decide(&node, Some(&one)), Step::AddLearner);
    let two = cluster(&[member(1, "cp-1", 2), learner(2, "", 3)], &[1]);
    let record = Record::Joining(Some(MemberId(2)));
    assert_eq!(decide(&node, Some(&two)), Step::Keep(record));
    node.record = Some(record);
    let all = [("cp-2", "https://10.5.0.3:2380"), ("cp-1", "https://10.5.0.2:2380")];
    let all = all.map(|(label, url)| (label.to_owned(), url.to_owned())).to_vec();
    assert_eq!(decide(&node, Some(&two)), Step::Run(Start::Join(all)));
}

#[test]
fn members_of_one_name_have_labels_of_their_own_and_none_is_removed() {
    let members = [member(1, "cp-2", 2), member(7, "a", 4), member(8, "a", 5), learner(2, "", 3)];
    let node = Own { record: Some(Record::Joining(Some(MemberId(2)))), ..own() };
    let Step::Run(Start::Join(all)) = decide(&node, Some(&cluster(&members, &[1, 7, 8]))) else { panic!("no join") };
    let labels: Vec<&str> = all.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, ["cp-2", "0000000000000001", "0000000000000007", "0000000000000008"]);
}

#[test]
fn a_learner_asks_for_its_vote_also_after_a_restart_and_is_given_up_in_the_end() {
    let running = Some(Running { id: MemberId(2), is_learner: true });
    let mut node = Own { has_data: true, running, ..own() };
    let record = Record::Joining(Some(MemberId(2)));
    assert_eq!(decide(&node, None), Step::Keep(record));
    node.record = Some(record);
    assert_eq!(decide(&node, None), Step::Promote(MemberId(2)));
    node.stuck_for = LONG;
    assert_eq!(decide(&node, None), Step::Remove(MemberId(2), Removal::NeverCaughtUp));
    node.running = Some(Running { id: MemberId(2), is_learner: false });
    assert_eq!(decide(&node, None), Step::Keep(Record::Voting(MemberId(2))));
    node.record = Some(Record::Voting(MemberId(2)));
    assert_eq!(decide(&node, None), Step::Settled);
}

#[test]
fn data_of_a_learner_that_was_removed_are_wiped_and_those_of_a_voter_kept() {
    let one = cluster(&[member(1, "cp-1", 2)], &[1]);
    let mut node = Own { has_data: true, record: Some(Record::Joining(Some(MemberId(2)))), ..own() };
    assert_eq!(decide(&node, None), Step::Run(Start::Resume));
    assert_eq!(decide(&node, Some(&one)), Step::Wipe);
    node.record = Some(Record::Voting(MemberId(2)));
    assert_eq!(decide(&node, Some(&one)), Step::Wait(Waits::Removed(MemberId(2))));
    assert_eq!(decide(&node, None), Step::Run(Start::Resume));
    node.record = None;
    assert_eq!(decide(&node, Some(&one)), Step::Run(Start::Resume), "data of an older version");
}

#[test]
fn a_node_that_lost_its_data_comes_back_as_another_member_where_the_quorum_stays() {
    let three = [member(1, "cp-1", 2), member(2, "cp-2", 3), member(3, "cp-3", 4)];
    let remove = Step::Remove(MemberId(2), Removal::DataLost);
    assert_eq!(decide(&own(), Some(&cluster(&three, &[1, 3]))), remove);
    assert_eq!(decide(&own(), Some(&cluster(&three, &[1]))), Step::Wait(Waits::Quorum(MemberId(2))));
    let taken = decide(&own(), Some(&cluster(&three, &[1, 2, 3])));
    assert_eq!(taken, Step::Wait(Waits::AddressTaken(MemberId(2))));
}

#[test]
fn one_node_at_a_time_joins_and_one_that_is_gone_makes_room() {
    let joining = [member(1, "cp-1", 2), learner(3, "cp-3", 4)];
    let wait = Step::Wait(Waits::Joining("cp-3".into()));
    assert_eq!(decide(&own(), Some(&cluster(&joining, &[1]))), wait);
    let stuck = Own { stuck_for: LONG, ..own() };
    assert_eq!(decide(&stuck, Some(&cluster(&joining, &[1, 3]))), wait, "it runs");
    assert_eq!(decide(&stuck, Some(&cluster(&joining, &[1]))), Step::Remove(MemberId(3), Removal::Abandoned));
}

#[test]
fn a_quorum_counts_voters_that_run_without_the_one_that_goes() {
    let all = [member(1, "a", 2), member(2, "b", 3), member(3, "c", 4), learner(4, "d", 5)];
    assert!(cluster(&all, &[1, 2]).can_lose(MemberId(3)));
    assert!(!cluster(&all, &[1, 3]).can_lose(MemberId(3)));
    assert!(cluster(&all, &[1]).can_lose(MemberId(4)), "it does not vote");
    assert!(!cluster(&all[..1], &[1]).can_lose(MemberId(1)), "the last one");
}

#[test]
fn records_are_read_as_they_are_written() {
    for record in [Record::Joining(None), Record::Joining(Some(MemberId(7))), Record::Voting(MemberId(u64::MAX))] {
        assert_eq!(format!("{record}\n").parse(), Ok(record));
    }
    for text in ["", "voting", "joining x", "leaving 1", "voting 1 2"] {
        assert_eq!(text.parse::<Record>(), Err(RecordError(text.to_owned())), "{text}");
    }
}
