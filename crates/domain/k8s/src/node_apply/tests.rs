use super::*;
use kube_edge::{FakeKube, KubeApi as _};

fn wanted(labels: &[(&str, &str)], taints: &[&str]) -> DesiredNode {
    DesiredNode {
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        taints: taints.iter().map(|key| taint(key, "NoSchedule")).collect(),
        cordoned: false,
    }
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.to_owned(), value: String::new(), effect: effect.to_owned() }
}

/// Applies to a fake cluster until nothing is left to change.
async fn applied(kube: &FakeKube, wanted: &DesiredNode) -> Node {
    for _ in 0..3 {
        let node = kube.stored_node("n").unwrap();
        let patch = wanted.patch(&node);
        if patch.is_empty() {
            return node;
        }
        kube.patch_node("n", &patch).await.unwrap();
    }
    panic!("the node does not come to rest");
}

fn cluster(node: Node) -> FakeKube {
    let kube = FakeKube::new("v1.30.0");
    kube.put_node(Node { name: "n".into(), ..node });
    kube
}

#[tokio::test]
async fn own_labels_are_put_changed_and_removed_and_others_are_left() {
    let others = BTreeMap::from([("theirs".to_owned(), "1".to_owned())]);
    let kube = cluster(Node { labels: others, ..Node::default() });

    let node = applied(&kube, &wanted(&[("a", "1"), ("b", "1"), ("theirs", "2")], &[])).await;
    assert_eq!(node.labels["a"], "1");
    assert_eq!(node.labels["theirs"], "1", "another writer's label is not adopted");
    assert_eq!(node.annotations[OWNED_LABELS], r#"["a","b"]"#);

    let node = applied(&kube, &wanted(&[("a", "2")], &[])).await;
    assert_eq!(node.labels["a"], "2");
    assert!(!node.labels.contains_key("b"));

    let node = applied(&kube, &wanted(&[], &[])).await;
    assert_eq!(node.labels.keys().collect::<Vec<_>>(), ["theirs"]);
    assert!(!node.annotations.contains_key(OWNED_LABELS));
}

#[tokio::test]
async fn own_taints_come_and_go_and_those_of_kubernetes_stay() {
    let not_ready = taint("node.kubernetes.io/not-ready", "NoSchedule");
    let kube = cluster(Node { taints: vec![not_ready.clone()], ..Node::default() });

    let node = applied(&kube, &wanted(&[], &["mine"])).await;
    assert_eq!(node.taints, [not_ready.clone(), taint("mine", "NoSchedule")]);

    let node = applied(&kube, &wanted(&[], &[])).await;
    assert_eq!(node.taints, [not_ready]);
}

#[tokio::test]
async fn changed_effect_replaces_the_taint() {
    let kube = cluster(Node::default());
    applied(&kube, &wanted(&[], &["mine"])).await;
    let other = DesiredNode { taints: vec![taint("mine", "NoExecute")], ..DesiredNode::default() };
    assert_eq!(applied(&kube, &other).await.taints, [taint("mine", "NoExecute")]);
}

#[tokio::test]
async fn own_cordon_is_lifted_and_that_of_somebody_else_is_not() {
    let cordon = DesiredNode { cordoned: true, ..DesiredNode::default() };
    let kube = cluster(Node::default());
    assert!(applied(&kube, &cordon).await.unschedulable);
    assert!(!applied(&kube, &DesiredNode::default()).await.unschedulable);

    let kube = cluster(Node { unschedulable: true, ..Node::default() });
    applied(&kube, &cordon).await;
    assert!(applied(&kube, &DesiredNode::default()).await.unschedulable);
}
