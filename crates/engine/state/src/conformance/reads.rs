//! Get and list.

use super::{TestResource, create_labeled, kind, put};
use crate::{Kind, LabelOp, LabelQuery, LabelTerm, Phase, Query, ReadError, Reader, Store};

/// `get rd` and `get ns` work.
pub async fn the_stores_own_types_are_listed(store: &Store, reader: &dyn Reader) {
    use resources::{
        Spec,
        meta::{Namespace, ResourceDefinition},
    };
    store.register(&TestResource::DEFINITION);
    let definitions = reader.list(&Kind::of::<ResourceDefinition>(), &Query::default()).await.expect("list");
    for id in ["namespaces.meta.cosi.dev", "resourcedefinitions.meta.cosi.dev", "specimens.test.cosi.dev"] {
        assert!(definitions.iter().any(|d| d.metadata.id == id), "{id} is missing");
    }
    let specimen = definitions.iter().find(|d| d.metadata.id == "specimens.test.cosi.dev").expect("specimens");
    assert!(specimen.yaml.contains("displayType: Specimen\n"), "{}", specimen.yaml);
    assert!(!specimen.proto.is_empty());
    let namespaces = reader.list(&Kind::of::<Namespace>(), &Query::default()).await.expect("list");
    for id in ["meta", "conformance"] {
        assert!(namespaces.iter().any(|n| n.metadata.id == id), "{id} is missing");
    }
}

/// Absence is its own error and names the resource.
pub async fn a_missing_resource_is_not_found(_store: &Store, reader: &dyn Reader) {
    let key = kind("missing").key("nobody");
    let error = reader.get(&key).await.expect_err("there is no such resource");
    assert!(matches!(&error, ReadError::NotFound(found) if *found == key), "{error:?}");
    assert_eq!(reader.list(&key.kind, &Query::default()).await.expect("list"), []);
}

/// Versions, phase, finalizers, owner, stamps, YAML and protobuf all arrive.
pub async fn get_shows_metadata_and_both_forms(store: &Store, reader: &dyn Reader) {
    let kind = kind("get");
    let key = kind.key("a");
    store.put_in(&kind.namespace, "a", TestResource { value: 1 }, "Owner").expect("create");
    store.put_in(&kind.namespace, "a", TestResource { value: 2 }, "Owner").expect("update");
    store.add_finalizer(&key, "Holder").expect("add finalizer");
    store.teardown(&key, "Owner").expect("teardown");
    let seen = reader.get(&key).await.expect("get");
    let kept = store.get(&key).expect("get");
    assert_eq!(seen.metadata, *kept.metadata);
    assert_eq!((seen.metadata.version, seen.metadata.owner.as_str()), (4, "Owner"));
    assert_eq!(seen.metadata.phase, Phase::TearingDown);
    assert_eq!(seen.metadata.finalizers, ["Holder"]);
    assert_eq!(seen.yaml, "value: 2\n");
    assert_eq!(seen.proto, [0, 0, 0, 2]);
}

/// Lists are ordered by id and filtered by labels and id pattern.
pub async fn list_is_sorted_and_filtered(store: &Store, reader: &dyn Reader) {
    let kind = kind("list");
    create_labeled(store, &kind, "c1", ("zone", "x"));
    create_labeled(store, &kind, "a1", ("zone", "x"));
    create_labeled(store, &kind, "b2", ("zone", "y"));
    put(store, &kind, "d2", 0);
    let zone = |op| LabelQuery { terms: vec![LabelTerm { key: "zone".into(), op, invert: false }] };
    let by_id = |pattern| Query::default().id_matches(pattern).expect("pattern");
    for (query, expected) in [
        (Query::default(), vec!["a1", "b2", "c1", "d2"]),
        (Query::default().labels(vec![zone(LabelOp::Equal("x".into()))]), vec!["a1", "c1"]),
        (Query::default().labels(vec![zone(LabelOp::NotExists)]), vec!["d2"]),
        (Query::default().labels(vec![zone(LabelOp::NotExists), zone(LabelOp::Equal("y".into()))]), vec!["b2", "d2"]),
        (by_id("2$"), vec!["b2", "d2"]),
        (by_id("2$").labels(vec![zone(LabelOp::Exists)]), vec!["b2"]),
    ] {
        let listed = reader.list(&kind, &query).await.expect("list");
        let ids: Vec<&str> = listed.iter().map(|r| r.metadata.id.as_str()).collect();
        assert_eq!(ids, expected, "{query:?}");
    }
}
