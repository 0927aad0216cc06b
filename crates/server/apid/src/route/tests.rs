use tonic::Code;

use super::*;
use crate::authz::{METHODS, Shape, lookup};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (key, value) in pairs {
        headers.append(*key, value.parse().unwrap());
    }
    headers
}

fn node(forwarding: Forwarding) -> NodeState {
    NodeState {
        forwarding,
        addresses: ["10.5.0.2".parse().unwrap()].into(),
        names: ["cp-1".to_owned()].into(),
        ..NodeState::default()
    }
}

fn admin() -> Caller {
    Caller { roles: RoleSet::from([Role::Admin]), forwarded: false }
}

fn to(method: &str, pairs: &[(&'static str, &str)], forwarding: Forwarding) -> Result<Route, (Code, String)> {
    route(lookup(method).unwrap(), &admin(), &headers(pairs), &node(forwarding))
        .map_err(|status| (status.code(), status.message().to_owned()))
}

const VERSION: &str = "/machine.MachineService/Version";

#[test]
fn a_call_without_a_target_is_for_this_node() {
    assert_eq!(to(VERSION, &[], Forwarding::Refuses), Ok(Route::Local));
}

#[test]
fn a_call_for_this_node_stays_here_by_address_name_and_loopback() {
    for target in ["10.5.0.2", "cp-1", "localhost", "127.0.0.1", "::1", "::ffff:10.5.0.2"] {
        assert_eq!(to(VERSION, &[(NODE, target)], Forwarding::Refuses), Ok(Route::Local), "{target}");
    }
}

#[test]
fn a_control_plane_forwards_and_a_worker_refuses() {
    let other = [(NODE, "10.5.0.3")];
    assert_eq!(to(VERSION, &other, Forwarding::Forwards), Ok(Route::Node("10.5.0.3".into())));
    let (code, message) = to(VERSION, &other, Forwarding::Refuses).unwrap_err();
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.starts_with("no request forwarding"), "{message}");
    let (code, _) = to(VERSION, &[(NODES, "10.5.0.2"), (NODES, "10.5.0.3")], Forwarding::Refuses).unwrap_err();
    assert_eq!(code, Code::PermissionDenied);
}

#[test]
fn a_worker_answers_for_itself_in_a_list() {
    assert_eq!(to(VERSION, &[(NODES, "10.5.0.2")], Forwarding::Refuses), Ok(Route::Nodes(vec!["10.5.0.2".into()])));
}

#[test]
fn a_list_is_taken_in_order_and_each_node_once() {
    let pairs = [(NODES, "10.5.0.3"), (NODES, "10.5.0.2, 10.5.0.3"), (NODES, "w")];
    let expected = Route::Nodes(vec!["10.5.0.3".into(), "10.5.0.2".into(), "w".into()]);
    assert_eq!(to(VERSION, &pairs, Forwarding::Forwards), Ok(expected));
}

#[test]
fn the_state_api_refuses_a_list() {
    for method in METHODS.iter().filter(|m| m.path.starts_with("/cosi.") || m.shape == Shape::ClientStream) {
        let (code, _) = to(method.path, &[(NODES, "10.5.0.2")], Forwarding::Forwards).unwrap_err();
        assert_eq!(code, Code::InvalidArgument, "{}", method.path);
    }
}

#[test]
fn one_node_and_a_list_together_are_refused() {
    let (code, _) = to(VERSION, &[(NODE, "a"), (NODES, "b")], Forwarding::Forwards).unwrap_err();
    assert_eq!(code, Code::InvalidArgument);
    let (code, _) = to(VERSION, &[(NODE, "a"), (NODE, "b")], Forwarding::Forwards).unwrap_err();
    assert_eq!(code, Code::InvalidArgument);
}

#[test]
fn every_role_passes_exactly_its_methods() {
    for method in METHODS {
        for role in Role::ALL {
            let caller = Caller { roles: RoleSet::from([role]), forwarded: false };
            let outcome = route(method, &caller, &HeaderMap::new(), &node(Forwarding::Forwards));
            match outcome {
                Ok(route) => {
                    assert_eq!(route, Route::Local);
                    assert!(method.roles.contains(&role), "{} for {role}", method.path);
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::PermissionDenied);
                    assert!(!method.roles.contains(&role), "{} for {role}", method.path);
                }
            }
        }
    }
}

#[test]
fn a_client_cannot_give_itself_roles_or_claim_to_be_forwarded() {
    let claims = headers(&[(ROLE, "os:admin"), (PROXY_FROM, "10.5.0.9")]);
    let caller = Caller::new(RoleSet::from([Role::Reader]), &claims);
    assert_eq!(caller, Caller { roles: RoleSet::from([Role::Reader]), forwarded: false });
}

#[test]
fn a_node_speaks_with_the_roles_of_its_client() {
    let claims = headers(&[(ROLE, "os:reader"), (ROLE, "os:etcd:backup"), (ROLE, "os:impersonator")]);
    let caller = Caller::new(RoleSet::from([Role::Impersonator]), &claims);
    assert_eq!(caller.roles, RoleSet::from([Role::Reader, Role::EtcdBackup]));
    assert!(caller.forwarded);
    let alone = Caller::new(RoleSet::from([Role::Impersonator]), &HeaderMap::new());
    assert!(alone.roles.is_empty());
}

#[test]
fn a_forwarded_call_is_never_forwarded_again() {
    let caller = Caller { forwarded: true, ..admin() };
    let target = headers(&[(NODE, "10.5.0.9")]);
    let to = route(lookup(VERSION).unwrap(), &caller, &target, &node(Forwarding::Forwards)).unwrap();
    assert_eq!(to, Route::Local);
}
