use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn update(data: &'static str, endpoints: &[&'static str], ttl: Duration) -> Update {
    Update {
        data: Some(Bytes::from_static(data.as_bytes())),
        endpoints: endpoints.iter().map(|e| Bytes::from_static(e.as_bytes())).collect(),
        ttl,
    }
}

/// Runs an operation and returns what changed.
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
    let seen = listed(&mut registry, now + 2 * MINUTE);
    assert_eq!(seen[0].data, "one");
    assert_eq!(seen[0].endpoints, ["e1", "e2"]);
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
        let update = Update { data: Some(vec![0; data].into()), endpoints, ttl };
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

/// A watcher that knows only what the changes told it.
fn follow(view: &mut BTreeMap<String, AffiliateView>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Updated(affiliate) => {
                let before = view.insert(affiliate.id.clone(), affiliate.clone());
                assert_ne!(before.as_ref(), Some(&affiliate), "an update without news");
            }
            Change::Deleted(id) => assert!(view.remove(&id).is_some(), "deleted what was not there"),
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
                        data: data.map(|d| vec![d].into()),
                        endpoints: endpoints.into_iter().map(|e| vec![e].into()).collect(),
                        ttl: Duration::from_secs(ttl),
                    };
                    if registry.update(now, &cluster, &id, update, &mut changes).is_ok() {
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
        }
    }
}
