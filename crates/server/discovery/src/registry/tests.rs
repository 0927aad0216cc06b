use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn update(data: &'static str, endpoints: &[&'static str], ttl: Duration) -> Update {
    Update {
        source: None,
        data: Some(Bytes::from_static(data.as_bytes())),
        endpoints: endpoints.iter().map(|e| Bytes::from_static(e.as_bytes())).collect(),
        ttl,
    }
}

/// Runs an operation and returns the changes.
fn changed<T>(
    operation: impl FnOnce(&mut Vec<Change>) -> Result<T, RefusedError>,
) -> Result<Vec<Change>, RefusedError> {
    let mut changes = Vec::new();
    operation(&mut changes).map(|_| changes)
}

fn listed(registry: &mut Registry, now: Instant) -> Vec<AffiliateView> {
    registry.list(now, "c", &mut Vec::new()).unwrap()
}

#[test]
fn an_update_is_listed_until_its_time_has_run_out() {
    let now = Instant::now();
    let mut registry = Registry::default();
    changed(|c| registry.update(now, "c", "a", update("one", &["e1"], 10 * MINUTE), c)).unwrap();
    assert_eq!(listed(&mut registry, now + 9 * MINUTE).len(), 1);
    let mut changes = Vec::new();
    let affiliates = registry.list(now + 10 * MINUTE, "c", &mut changes).unwrap();
    assert!(affiliates.is_empty());
    assert_eq!(changes, [Change::Deleted("a".into())]);
}

#[test]
fn an_update_without_data_keeps_the_known_data_and_merges_endpoints() {
    let now = Instant::now();
    let mut registry = Registry::default();
    changed(|c| registry.update(now, "c", "a", update("one", &["e1"], MINUTE), c)).unwrap();
    let more = Update { data: None, ..update("", &["e1", "e2"], 5 * MINUTE) };
    changed(|c| registry.update(now, "c", "a", more, c)).unwrap();
    let seen = listed(&mut registry, now + MINUTE / 2);
    assert_eq!(seen[0].data, "one");
    assert_eq!(seen[0].endpoints, ["e1", "e2"]);
}

#[test]
fn an_update_without_data_does_not_keep_a_dead_affiliate_alive() {
    let now = Instant::now();
    let mut registry = Registry::default();
    changed(|c| registry.update(now, "c", "a", update("one", &["e1"], MINUTE), c)).unwrap();
    for second in 0..60 {
        let others = Update { data: None, ..update("", &["e1"], 30 * MINUTE) };
        changed(|c| registry.update(now + Duration::from_secs(second), "c", "a", others, c)).unwrap();
    }
    let mut changes = Vec::new();
    assert_eq!(registry.list(now + MINUTE, "c", &mut changes).unwrap(), []);
    assert_eq!(changes, [Change::Deleted("a".into())]);
}

#[test]
fn an_affiliate_of_endpoints_alone_lives_as_long_as_they_do() {
    let now = Instant::now();
    let mut registry = Registry::default();
    let endpoints = Update { data: None, ..update("", &["e1"], 5 * MINUTE) };
    changed(|c| registry.update(now, "c", "a", endpoints, c)).unwrap();
    assert_eq!(listed(&mut registry, now + 4 * MINUTE).len(), 1);
    assert_eq!(listed(&mut registry, now + 5 * MINUTE).len(), 0);
    assert_eq!(registry.bytes(), 0);
}

fn source(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn one_source_cannot_take_the_room_of_the_others() {
    let now = Instant::now();
    let limits = Limits { bytes: 12_000, bytes_per_source: 6000, ..Limits::default() };
    let mut registry = Registry::new(limits);
    let mut left = |from: &str, cluster: String| {
        let update = Update { source: source(from), data: Some(vec![0; 2048].into()), ..update("", &[], MINUTE) };
        registry.update(now, &cluster, "a", update, &mut Vec::new())
    };
    let results: Vec<_> = (0..100).map(|n| left("10.0.0.1", format!("c{n}"))).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(results[99], Err(RefusedError::SourceFull { limit: 6000 }));
    assert_eq!(left("10.0.0.2", "d".into()), Ok(()));
    assert_eq!(left("10.0.0.3", "e".into()), Ok(()));
    assert_eq!(left("10.0.0.4", "f".into()), Err(RefusedError::Full { limit: 12_000 }));
    assert_eq!(left("10.0.0.2", "d".into()), Ok(()), "an existing one may be renewed");
    registry.collect(now + MINUTE);
    assert_eq!((registry.bytes(), registry.clusters(), registry.usage.by_source.len()), (0, 0, 0));
}

#[test]
fn clusters_are_bounded_and_an_emptied_one_makes_room() {
    let now = Instant::now();
    let mut registry = Registry::new(Limits { clusters: 2, ..Limits::default() });
    let mut go = |cluster: &str| registry.update(now, cluster, "a", update("x", &[], MINUTE), &mut Vec::new());
    assert_eq!((go("1"), go("2"), go("3")), (Ok(()), Ok(()), Err(RefusedError::TooManyClusters { limit: 2 })));
    registry.delete(now, "1", "a", &mut Vec::new()).unwrap();
    assert_eq!(registry.update(now, "3", "a", update("x", &[], MINUTE), &mut Vec::new()), Ok(()));
}

#[test]
fn a_refused_update_leaves_no_cluster_behind() {
    let now = Instant::now();
    let mut registry = Registry::new(Limits { endpoints: 1, ..Limits::default() });
    let refused = registry.update(now, "c", "a", update("x", &["1", "2"], MINUTE), &mut Vec::new());
    assert_eq!(refused, Err(RefusedError::TooManyEndpoints { limit: 1 }));
    assert_eq!(registry.clusters(), 0);
}

#[test]
fn an_endpoint_runs_out_before_its_affiliate() {
    let now = Instant::now();
    let mut registry = Registry::default();
    changed(|c| registry.update(now, "c", "a", update("one", &["old"], MINUTE), c)).unwrap();
    changed(|c| registry.update(now, "c", "a", update("one", &["new"], 10 * MINUTE), c)).unwrap();
    let changes = registry.collect(now + 2 * MINUTE);
    let view = AffiliateView { id: "a".into(), data: "one".into(), endpoints: vec!["new".into()] };
    assert_eq!(changes, [("c".to_owned(), vec![Change::Updated(view)])]);
}

#[test]
fn a_refresh_without_news_tells_watchers_nothing() {
    let now = Instant::now();
    let mut registry = Registry::default();
    changed(|c| registry.update(now, "c", "a", update("one", &["e"], 10 * MINUTE), c)).unwrap();
    let again = changed(|c| registry.update(now + MINUTE, "c", "a", update("one", &["e"], 10 * MINUTE), c));
    assert_eq!(again, Ok(vec![]));
    assert_eq!(listed(&mut registry, now + 10 * MINUTE).len(), 1, "the refresh prolonged it");
}

#[test]
fn deleting_what_is_not_known_is_no_error_and_no_change() {
    let mut registry = Registry::default();
    assert_eq!(changed(|c| registry.delete(Instant::now(), "c", "a", c)), Ok(vec![]));
}

#[test]
fn each_limit_refuses_one_more_and_takes_the_last() {
    let now = Instant::now();
    let limits = Limits { affiliates: 2, endpoints: 2, ..Limits::default() };
    let mut registry = Registry::new(limits);
    let mut go = |cluster: &str, id: &str, data: usize, endpoints: Vec<Bytes>, ttl: Duration| {
        let update = Update { source: None, data: Some(vec![0; data].into()), endpoints, ttl };
        registry.update(now, cluster, id, update, &mut Vec::new())
    };
    let long = "x".repeat(257);
    assert_eq!(go("", "a", 1, vec![], MINUTE), Err(RefusedError::EmptyId("cluster id")));
    assert_eq!(go("c", "", 1, vec![], MINUTE), Err(RefusedError::EmptyId("affiliate id")));
    assert_eq!(go(&long, "a", 1, vec![], MINUTE), Err(RefusedError::TooLong { field: "cluster id", limit: 256 }));
    assert_eq!(go("c", &long, 1, vec![], MINUTE), Err(RefusedError::TooLong { field: "affiliate id", limit: 256 }));
    assert_eq!(go("c", "a", 2049, vec![], MINUTE), Err(RefusedError::TooLong { field: "affiliate data", limit: 2048 }));
    let wide = vec![Bytes::from(vec![0; 33])];
    let too_long = RefusedError::TooLong { field: "affiliate endpoint", limit: 32 };
    assert_eq!(go("c", "a", 1, wide, MINUTE), Err(too_long));
    assert_eq!(go("c", "a", 1, vec![], Duration::ZERO), Err(RefusedError::BadTtl { limit: limits.ttl }));
    assert_eq!(go("c", "a", 1, vec![], 31 * MINUTE), Err(RefusedError::BadTtl { limit: limits.ttl }));
    let three = vec![Bytes::from("1"), Bytes::from("2"), Bytes::from("3")];
    assert_eq!(go("c", "a", 1, three, MINUTE), Err(RefusedError::TooManyEndpoints { limit: 2 }));
    assert_eq!(go(&long[1..], &long[1..], 2048, vec![vec![0; 32].into()], 30 * MINUTE), Ok(()));
    assert_eq!(go("c", "a", 1, vec![], MINUTE), Ok(()));
    assert_eq!(go("c", "b", 1, vec![], MINUTE), Ok(()));
    assert_eq!(go("c", "d", 1, vec![], MINUTE), Err(RefusedError::TooManyAffiliates { limit: 2 }));
    assert_eq!(go("c", "a", 2, vec![], MINUTE), Ok(()), "a known affiliate may still change");
}

#[test]
fn an_empty_cluster_is_forgotten() {
    let now = Instant::now();
    let mut registry = Registry::default();
    changed(|c| registry.update(now, "c", "a", update("one", &[], MINUTE), c)).unwrap();
    assert_eq!(registry.clusters(), 1);
    registry.collect(now + MINUTE);
    assert_eq!(registry.clusters(), 0);
}

#[derive(Debug, Clone)]
enum Op {
    Update { cluster: u8, id: u8, data: Option<u8>, endpoints: Vec<u8>, ttl: u64 },
    Delete { cluster: u8, id: u8 },
    List { cluster: u8 },
    Collect,
    Wait { seconds: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..2u8, 0..5u8, proptest::option::of(0..3u8), proptest::collection::vec(0..6u8, 0..4), 0..2000u64)
            .prop_map(|(cluster, id, data, endpoints, ttl)| Op::Update { cluster, id, data, endpoints, ttl }),
        1 => (0..2u8, 0..5u8).prop_map(|(cluster, id)| Op::Delete { cluster, id }),
        1 => (0..2u8).prop_map(|cluster| Op::List { cluster }),
        1 => Just(Op::Collect),
        2 => (1..900u64).prop_map(|seconds| Op::Wait { seconds }),
    ]
}

/// A watcher that only knows the changes.
fn follow(view: &mut BTreeMap<String, AffiliateView>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Updated(affiliate) => {
                let before = view.insert(affiliate.id.clone(), affiliate.clone());
                assert_ne!(before.as_ref(), Some(&affiliate), "an update without news");
            }
            Change::Deleted(id) => assert!(view.remove(&id).is_some(), "deleted an unknown affiliate"),
        }
    }
}

proptest! {
    #[test]
    fn a_watcher_that_follows_the_changes_sees_what_a_list_shows(ops in proptest::collection::vec(op(), 1..120)) {
        let limits = Limits { affiliates: 4, endpoints: 4, ..Limits::default() };
        let mut registry = Registry::new(limits);
        let mut now = Instant::now();
        let mut views: BTreeMap<String, BTreeMap<String, AffiliateView>> = BTreeMap::new();
        let mut latest: BTreeMap<(String, String), Instant> = BTreeMap::new();
        for op in ops {
            let mut changes = Vec::new();
            let target = match op {
                Op::Update { cluster, id, data, endpoints, ttl } => {
                    let (cluster, id) = (cluster.to_string(), id.to_string());
                    let update = Update {
                        source: source(if id == "0" { "10.0.0.1" } else { "10.0.0.2" }),
                        data: data.map(|d| vec![d].into()),
                        endpoints: endpoints.into_iter().map(|e| vec![e].into()).collect(),
                        ttl: Duration::from_secs(ttl),
                    };
                    let alive = registry.update(now, &cluster, &id, update, &mut changes).is_ok();
                    if alive {
                        let end = latest.entry((cluster.clone(), id)).or_insert(now);
                        *end = (*end).max(now + Duration::from_secs(ttl));
                    }
                    cluster
                }
                Op::Delete { cluster, id } => {
                    let (cluster, id) = (cluster.to_string(), id.to_string());
                    registry.delete(now, &cluster, &id, &mut changes).unwrap();
                    latest.remove(&(cluster.clone(), id));
                    cluster
                }
                Op::List { cluster } => {
                    registry.list(now, &cluster.to_string(), &mut changes).unwrap();
                    cluster.to_string()
                }
                Op::Collect => {
                    for (cluster, changes) in registry.collect(now) {
                        follow(views.entry(cluster).or_default(), changes);
                    }
                    continue;
                }
                Op::Wait { seconds } => {
                    now += Duration::from_secs(seconds);
                    continue;
                }
            };
            follow(views.entry(target).or_default(), changes);
            for cluster in ["0", "1"] {
                let mut changes = Vec::new();
                let list = registry.list(now, cluster, &mut changes).unwrap();
                let view = views.entry(cluster.to_owned()).or_default();
                follow(view, changes);
                prop_assert!(list.len() <= limits.affiliates);
                for affiliate in &list {
                    prop_assert!(affiliate.endpoints.len() <= limits.endpoints);
                    let distinct: BTreeSet<_> = affiliate.endpoints.iter().collect();
                    prop_assert_eq!(distinct.len(), affiliate.endpoints.len());
                    let end = latest[&(cluster.to_owned(), affiliate.id.clone())];
                    prop_assert!(end > now, "shown after its time");
                }
                prop_assert_eq!(list, view.values().cloned().collect::<Vec<_>>());
            }
            let kept = registry.clusters.iter().flat_map(|(cluster, kept)| {
                kept.affiliates.iter().map(move |(id, affiliate)| (affiliate.source.unwrap(), affiliate.bytes(cluster, id)))
            });
            let mut sums: HashMap<IpAddr, usize> = HashMap::new();
            kept.for_each(|(source, bytes)| *sums.entry(source).or_default() += bytes);
            prop_assert_eq!(sums.values().sum::<usize>(), registry.bytes());
            prop_assert_eq!(&sums, &registry.usage.by_source);
        }
    }
}
