//! Maintenance mode over real TLS, for a machine without state and for one of a cluster.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use apid::maintenance::{self, Clients};
use pki::{Authority, PemPair, Validity};
use stdx::tasks::{CancellationToken, TaskSet};
use tokio::net::{TcpListener, UnixListener};
use tonic::{Code, Status};
use transport::{Roots, Slot};
use wire::machine::machine_service_client::MachineServiceClient;

use crate::support::{HOUR, authority, client, client_certificate, machined_of, now, server_certificate};

/// A node in maintenance mode with a certificate of a temporary authority.
struct Maintained {
    own: Authority,
    address: SocketAddr,
    _tasks: TaskSet,
    _directory: tempfile::TempDir,
}

impl Maintained {
    async fn start(clients: Clients) -> Self {
        let (own, tasks, directory) = (authority(), TaskSet::new("test"), tempfile::tempdir().unwrap());
        let socket = directory.path().join("machine.sock");
        let machine = UnixListener::bind(&socket).unwrap();
        tasks.spawn("machined", async move {
            transport::serve::unix(machine, machined_of("node"), CancellationToken::new()).await.unwrap();
        });
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = TcpListener::bind((loopback, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = server_certificate(&own, loopback);
        let tls = Slot::new(maintenance::tls(&server.crt, &server.key, &clients).unwrap());
        tasks.spawn("maintenance", async move {
            maintenance::serve(listener, tls, clients, &socket, CancellationToken::new()).await.unwrap();
        });
        Self { own, address, _tasks: tasks, _directory: directory }
    }

    /// How ApplyConfiguration ends: the machine behind answers with no message, which is an error of its own.
    async fn apply(&self, certificate: Option<&PemPair>) -> Status {
        let mut client = MachineServiceClient::new(client(self.address, &self.own, certificate));
        client.apply_configuration(wire::machine::ApplyConfigurationRequest::default()).await.unwrap_err()
    }
}

fn with_roles(ca: &Authority, roles: &[&str]) -> PemPair {
    client_certificate(ca, roles, Validity::starting(now(), HOUR))
}

const COMES_THROUGH: Code = Code::Internal;

#[tokio::test]
async fn a_machine_without_state_answers_anybody() {
    let node = Maintained::start(Clients::Anybody).await;
    assert_eq!(node.apply(None).await.code(), COMES_THROUGH);
    let mut client = MachineServiceClient::new(client(node.address, &node.own, None));
    let status = client.kubeconfig(()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
}

#[tokio::test]
async fn a_machine_of_a_cluster_answers_only_administrators_of_that_cluster() {
    let (cluster, other) = (authority(), authority());
    let roots = Roots::from_pem([cluster.certificate().to_pem()]).unwrap();
    let node = Maintained::start(Clients::Administrators(roots)).await;
    assert_eq!(node.apply(Some(&with_roles(&cluster, &["os:admin"]))).await.code(), COMES_THROUGH);
    for roles in [&["os:reader"][..], &["os:operator"], &[]] {
        let status = node.apply(Some(&with_roles(&cluster, roles))).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{roles:?}: {status:?}");
    }
    for certificate in [None, Some(with_roles(&other, &["os:admin"]))] {
        let status = node.apply(certificate.as_ref()).await;
        assert!(stdx::error_chain(&status).contains("received fatal alert"), "{status:?}");
    }
}
