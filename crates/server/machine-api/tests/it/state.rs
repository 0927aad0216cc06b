//! The state API.

use ::state::{Kind, Query, ReadError, Reader, Store, conformance};
use machine_api::{Access, StateService};
use stdx::tasks::{CancellationToken, TaskSet};
use tempfile::TempDir;
use tonic::Code;
use wire::cosi::resource as api;
use wire::cosi::resource::state_client::StateClient;

use crate::remote::Remote;

struct Served {
    store: Store,
    reader: Remote,
    _tasks: TaskSet,
    _directory: TempDir,
}

fn served(access: Access) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("state.sock");
    let listener = transport::unix::bind(&socket, 0o600, None).unwrap();
    let store = Store::new();
    for definition in resources::definitions() {
        store.register(definition);
    }
    let service = StateService::new(store.clone(), access).server();
    let tasks = TaskSet::new("test");
    let serving = transport::serve::unix(listener, service, CancellationToken::new());
    tasks.spawn("state", async move { serving.await.unwrap() });
    let reader = Remote { channel: transport::unix::channel(&socket), role: "os:admin" };
    Served { store, reader, _tasks: tasks, _directory: directory }
}

#[tokio::test]
async fn the_api_passes_the_conformance_suite_of_the_store() {
    let it = served(Access::ByRole);
    conformance::all(&it.store, &it.reader).await;
}

fn code(error: &ReadError) -> Code {
    let ReadError::Unavailable { source, .. } = error else { panic!("{error:?}") };
    source.downcast_ref::<tonic::Status>().unwrap().code()
}

/// Talos 1.7 has them open: tools read links before there is a configuration, when the caller has no role at all.
#[tokio::test]
async fn links_chains_and_access_from_pods_are_open_to_readers_and_in_maintenance_mode() {
    let mut it = served(Access::ByRole);
    for role in ["os:reader", "none"] {
        it.reader.role = role;
        for (namespace, name) in [
            ("network", "LinkStatuses.net.talos.dev"),
            ("network", "NfTablesChains.net.talos.dev"),
            ("config", "KubernetesAccessConfigs.cluster.talos.dev"),
        ] {
            assert_eq!(it.reader.list(&Kind::new(namespace, name), &Query::default()).await.unwrap(), [], "{role}");
        }
        let secret = Kind::new("network", "LinkSpecs.net.talos.dev");
        let refused = it.reader.list(&secret, &Query::default()).await.unwrap_err();
        assert_eq!(code(&refused), Code::PermissionDenied, "a spec of a link may hold a private key");
    }
}

#[tokio::test]
async fn what_is_sensitive_is_for_admins() {
    let mut it = served(Access::ByRole);
    let secret = Kind::new("secrets", "OSRootSecrets.secrets.talos.dev");
    let open = Kind::new("network", "HostnameStatuses.net.talos.dev");
    for (role, allowed) in [("os:admin", true), ("os:operator", false), ("os:reader", false), ("os:nobody", false)] {
        it.reader.role = role;
        let expected = (!allowed).then_some(Code::PermissionDenied);
        let listed = it.reader.list(&secret, &Query::default()).await.err().map(|error| code(&error));
        assert_eq!(listed, expected, "{role}");
        let watched = it.reader.watch(&secret, None, Default::default()).await.err().map(|error| code(&error));
        assert_eq!(watched, expected, "{role}");
        assert_eq!(it.reader.list(&open, &Query::default()).await.unwrap(), []);
    }
    it.reader.role = "os:reader";
    let error = it.reader.get(&secret.key("os")).await.unwrap_err();
    assert_eq!(code(&error), Code::PermissionDenied, "absence is not told either");
}

#[tokio::test]
async fn types_and_namespaces_that_are_not_registered_are_not_found_and_leave_nothing_behind() {
    let mut it = served(Access::ByRole);
    let before = it.store.kinds();
    for role in ["os:admin", "os:reader"] {
        it.reader.role = role;
        for kind in [
            Kind::new("network", "Nobodies.example.com"),
            Kind::new("nowhere", "HostnameStatuses.net.talos.dev"),
            Kind::new("nowhere", "Nobodies.example.com"),
        ] {
            let missing = |error: ReadError| matches!(error, ReadError::NotFound(_));
            assert!(it.reader.get(&kind.key("a")).await.is_err_and(missing), "{kind} for {role}");
            assert!(it.reader.list(&kind, &Query::default()).await.is_err_and(missing), "{kind} for {role}");
            assert!(
                it.reader.watch(&kind, None, Default::default()).await.err().is_some_and(missing),
                "{kind} for {role}"
            );
        }
        // A kind that is known and empty is neither an error nor made by looking at it.
        let empty = Kind::new("cluster", "HostnameStatuses.net.talos.dev");
        assert_eq!(it.reader.list(&empty, &Query::default()).await.unwrap(), []);
        drop(it.reader.watch(&empty, Some("a"), Default::default()).await.unwrap());
    }
    assert_eq!(it.store.kinds(), before);
}

#[tokio::test]
async fn names_of_any_length_cost_nothing() {
    let it = served(Access::ByRole);
    let before = it.store.kinds();
    let mut client = StateClient::new(it.reader.channel.clone());
    let watch = |namespace: &str, kind: &str, id: Option<String>| api::WatchRequest {
        namespace: namespace.to_owned(),
        r#type: kind.to_owned(),
        id,
        ..Default::default()
    };
    let long = "x".repeat(10_000);
    for request in [
        watch(&long, "HostnameStatuses.net.talos.dev", None),
        watch("network", &long, None),
        watch("network", "HostnameStatuses.net.talos.dev", Some(long.clone())),
    ] {
        let status = client.watch(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().len() < 200, "a refusal does not repeat what was sent: {}", status.message().len());
    }
    let huge = client.watch(watch(&"x".repeat(1 << 20), "HostnameStatuses.net.talos.dev", None)).await.unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange);
    assert_eq!(it.store.kinds(), before);
}

#[tokio::test]
async fn a_filtered_server_shows_its_types_and_no_others() {
    let it = served(Access::Only(&[("secrets", "ApiCertificates.secrets.talos.dev")]));
    let own = Kind::new("secrets", "ApiCertificates.secrets.talos.dev");
    assert_eq!(it.reader.list(&own, &Query::default()).await.unwrap(), []);
    for other in [
        Kind::new("network", "ApiCertificates.secrets.talos.dev"),
        Kind::new("secrets", "OSRootSecrets.secrets.talos.dev"),
        Kind::new("network", "HostnameStatuses.net.talos.dev"),
    ] {
        let error = it.reader.list(&other, &Query::default()).await.unwrap_err();
        assert_eq!(code(&error), Code::PermissionDenied, "{other}");
    }
}

#[tokio::test]
async fn a_write_is_answered_with_a_conflict_in_the_status_that_clients_look_for() {
    let it = served(Access::ByRole);
    let mut client = StateClient::new(it.reader.channel.clone());
    let metadata = api::Metadata {
        namespace: "network".into(),
        r#type: "HostnameStatuses.net.talos.dev".into(),
        id: "hostname".into(),
        ..Default::default()
    };
    let resource = api::Resource { metadata: Some(metadata), spec: None };
    let create = api::CreateRequest { resource: Some(resource.clone()), options: None };
    assert_eq!(client.create(create).await.unwrap_err().code(), Code::AlreadyExists);
    let update = api::UpdateRequest { new_resource: Some(resource), options: None };
    assert_eq!(client.update(update).await.unwrap_err().code(), Code::FailedPrecondition);
    let (namespace, r#type, id) = ("network".to_owned(), "HostnameStatuses.net.talos.dev".to_owned(), "x".to_owned());
    let destroy =
        api::DestroyRequest { namespace: namespace.clone(), r#type: r#type.clone(), id: id.clone(), options: None };
    assert_eq!(client.destroy(destroy).await.unwrap_err().code(), Code::FailedPrecondition);
    let teardown =
        api::TeardownRequest { namespace: namespace.clone(), r#type: r#type.clone(), id: id.clone(), options: None };
    assert_eq!(client.teardown(teardown).await.unwrap_err().code(), Code::FailedPrecondition);
    let both = api::TeardownAndDestroyRequest { namespace, r#type, id, options: None };
    assert_eq!(client.teardown_and_destroy(both).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_invalid() {
    let it = served(Access::ByRole);
    let mut client = StateClient::new(it.reader.channel.clone());
    let status = client.get(api::GetRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let id_query = Some(api::IdQuery { regexp: "(".into() });
    let options = Some(api::ListOptions { id_query, ..Default::default() });
    let r#type = "HostnameStatuses.net.talos.dev".to_owned();
    let list = api::ListRequest { namespace: "network".into(), r#type, options };
    assert_eq!(client.list(list).await.unwrap_err().code(), Code::InvalidArgument);
}
