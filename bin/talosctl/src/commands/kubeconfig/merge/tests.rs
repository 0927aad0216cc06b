use super::*;

fn fetched(server: &str) -> KubeconfigFile {
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{server: {server}}}\nusers:\n- name: admin@c\n  user: {{token: {server}}}\ncontexts:\n- name: admin@c\n  context: {{cluster: c, user: admin@c, namespace: default}}\ncurrent-context: admin@c\n"
    );
    KubeconfigFile::parse(&text).unwrap()
}

#[test]
fn an_empty_file_takes_all_of_the_other() {
    let mut own = KubeconfigFile::parse("").unwrap();
    assert_eq!(own.merge(&fetched("a"), Conflict::Rename), []);
    assert_eq!(own.current(), "admin@c");
    let read = KubeconfigFile::parse(&own.to_yaml()).unwrap();
    assert_eq!(read.tree, fetched("a").tree);
}

#[test]
fn a_taken_name_is_renamed_and_references_follow() {
    let mut own = fetched("a");
    own.tree.insert("preferences".to_owned(), json!({"colors": true}));
    let renamed = own.merge(&fetched("b"), Conflict::Rename);
    let names: Vec<_> = renamed.iter().map(|(what, from, to)| format!("{what} {from} {to}")).collect();
    assert_eq!(names, ["cluster c c-1", "user admin@c admin@c-1", "context admin@c admin@c-1"]);
    assert_eq!(own.current(), "admin@c-1");
    assert_eq!(own.find(CLUSTERS, "c").unwrap()["server"], "a");
    assert_eq!(own.find(CLUSTERS, "c-1").unwrap()["server"], "b");
    let context = own.find(CONTEXTS, "admin@c-1").unwrap();
    assert_eq!(*context, json!({"cluster": "c-1", "user": "admin@c-1", "namespace": "default"}));
    assert_eq!(own.tree["preferences"], json!({"colors": true}));
}

#[test]
fn merging_the_same_twice_changes_nothing() {
    let mut own = fetched("a");
    assert_eq!(own.merge(&fetched("a"), Conflict::Rename), []);
    assert_eq!(own, fetched("a"));
}

#[test]
fn force_overwrites_in_place() {
    let mut own = fetched("a");
    assert_eq!(own.merge(&fetched("b"), Conflict::Overwrite), []);
    assert_eq!(own, fetched("b"));
}

#[test]
fn the_context_can_be_given_a_name() {
    let mut own = fetched("a");
    own.rename_context("mine");
    assert_eq!(own.current(), "mine");
    assert_eq!(own.find(CONTEXTS, "mine").unwrap()["cluster"], "c");
    assert_eq!(own.find(CONTEXTS, "admin@c"), None);
}

#[test]
fn what_is_no_kubeconfig_is_refused() {
    assert_eq!(KubeconfigFile::parse("[1]").unwrap_err().to_string(), "not a map");
    let mut odd = KubeconfigFile::parse("clusters: null\n").unwrap();
    odd.merge(&fetched("a"), Conflict::Rename);
    assert_eq!(odd.find(CLUSTERS, "c").unwrap()["server"], "a");
}

/// As a cluster's administrator gets it.
fn of_cluster(name: &str, authority: &str) -> KubeconfigFile {
    let text = format!(
        "clusters:\n- name: {name}\n  cluster: {{server: s, certificate-authority-data: {authority}}}\nusers:\n- name: admin@{name}\n  user: {{token: t}}\ncontexts:\n- name: admin@{name}\n  context: {{cluster: {name}, user: admin@{name}}}\ncurrent-context: admin@{name}\n"
    );
    KubeconfigFile::parse(&text).unwrap()
}

#[test]
fn a_context_goes_with_its_own_cluster_and_user_and_nothing_else() {
    let mut own = of_cluster("mine", "bWluZQ==");
    let before = own.clone();
    own.merge(&of_cluster("one", "b25l"), Conflict::Rename);
    assert_eq!(own.authority("admin@one"), Some("b25l"));
    assert_eq!(own.remove("admin@one", "Zm9yZWlnbg==", "admin@mine"), Removed::Nothing);
    assert_eq!(own.remove("admin@one", "b25l", "admin@mine"), Removed::Context);
    assert_eq!(own.tree, before.tree);
    assert_eq!(own.remove("admin@one", "b25l", "admin@mine"), Removed::Nothing);
}

#[test]
fn what_other_contexts_have_too_stays() {
    let mut own = of_cluster("one", "b25l");
    let second = json!({ "name": "other", "context": { "cluster": "one", "user": "admin@one", "namespace": "x" } });
    own.tree["contexts"].as_array_mut().unwrap().push(second);
    own.tree.insert("current-context".to_owned(), json!("other"));
    assert_eq!(own.remove("admin@one", "b25l", ""), Removed::Context);
    assert_eq!((own.entries(CLUSTERS).len(), own.entries(USERS).len(), own.entries(CONTEXTS).len()), (1, 1, 1));
    assert_eq!(own.current(), "other");
    assert_eq!(own.remove("other", "b25l", "gone"), Removed::Context);
    assert_eq!((own.entries(CLUSTERS).len(), own.entries(USERS).len(), own.current()), (0, 0, ""));
}
