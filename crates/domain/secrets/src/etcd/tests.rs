use controller::testing::Harness;

use super::*;
use crate::{
    root::root_etcd,
    testing::{Cluster, certificate, configure, is_pair, ready},
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
