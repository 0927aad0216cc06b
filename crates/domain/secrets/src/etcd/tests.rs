use std::time::Duration;

use controller::testing::Harness;

use super::*;
use crate::{
    root::root_etcd,
    testing::{Cluster, address, certificate, configure, is_pair, ready},
};

#[tokio::test(start_paused = true)]
async fn four_certificates_when_network_and_time_are_ready() {
    let harness = Harness::new();
    harness.run(root_etcd());
    harness.run(EtcdController::default());
    configure(&harness, Cluster::new(&harness).control_plane());
    ready(&harness);
    harness.put(TimeStatus::ID, TimeStatus::default());
    harness.settle().await;
    assert_eq!(harness.list::<EtcdSecrets>(), []);
    harness.put(TimeStatus::ID, TimeStatus { synced: true, ..TimeStatus::default() });
    harness.settle().await;
    let spec = harness.get::<EtcdSecrets>(EtcdSecrets::ID).unwrap();
    for pair in [&spec.etcd, &spec.etcd_peer, &spec.etcd_admin, &spec.etcd_api_server] {
        assert!(is_pair(pair));
        assert!(certificate(pair).allows_client());
    }
    let (server, peer) = (certificate(&spec.etcd), certificate(&spec.etcd_peer));
    assert!(server.allows_server() && peer.allows_server());
    assert!(server.sans().ips.contains(&"127.0.0.1".parse().unwrap()));
    assert!(!peer.sans().ips.contains(&"127.0.0.1".parse().unwrap()));
    assert!(peer.sans().ips.contains(&"10.5.0.2".parse().unwrap()));
    assert!(!certificate(&spec.etcd_admin).allows_server());
}

#[tokio::test(start_paused = true)]
async fn all_are_renewed_at_half_life_and_those_of_the_address_when_it_changes() {
    let harness = Harness::new();
    harness.run(root_etcd());
    harness.run(EtcdController::default());
    configure(&harness, Cluster::new(&harness).control_plane());
    ready(&harness);
    harness.settle().await;
    let all = || {
        let spec = harness.get::<EtcdSecrets>(EtcdSecrets::ID).unwrap();
        [&spec.etcd, &spec.etcd_peer, &spec.etcd_admin, &spec.etcd_api_server].map(certificate)
    };
    let serials = || all().map(|certificate| certificate.serial().to_vec());
    let first = serials();
    let day = Duration::from_secs(24 * 3600);
    harness.advance(182 * day).await;
    assert_eq!(serials(), first, "half of a year is not over");
    harness.advance(day).await;
    let second = serials();
    assert!(second.iter().zip(&first).all(|(new, old)| new != old));
    address(&harness, &["10.5.0.7/24"]);
    harness.settle().await;
    assert!(all()[1].sans().ips.contains(&"10.5.0.7".parse().unwrap()));
    let third = serials();
    let new = [0, 1, 2, 3].map(|at| third[at] != second[at]);
    assert_eq!(new, [true, true, false, false], "clients do not start again for an address that is not in theirs");
}
