//! The whole of `apid` on a state socket like the one that machined serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pki::{Authority, Validity};
use resources::secrets::ApiCertificate;
use resources::values::{Certificate, CertificateAndKey};
use state::Store;
use stdx::tasks::{CancellationToken, TaskSet};
use tonic::{Code, Status};
use wire::machine::machine_service_client::MachineServiceClient;

use crate::support::{HOUR, authority, client, client_certificate, now, server_certificate};

fn certificates(ca: &Authority, address: SocketAddr) -> ApiCertificate {
    let server = server_certificate(ca, address.ip());
    let own = client_certificate(ca, &["os:impersonator"], Validity::starting(now(), HOUR));
    ApiCertificate {
        accepted_cas: vec![Certificate::new(ca.certificate().to_pem())],
        client: Some(CertificateAndKey::new(own.crt, own.key)),
        server: Some(CertificateAndKey::new(server.crt, server.key)),
    }
}

async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// How a call ends when it comes through: there is no machined behind this apid.
async fn answer(ca: &Authority, address: SocketAddr) -> Status {
    let certificate = client_certificate(ca, &["os:reader"], Validity::starting(now(), HOUR));
    let mut client = MachineServiceClient::new(client(address, ca, Some(&certificate)));
    client.reboot(wire::machine::RebootRequest::default()).await.unwrap_err()
}

/// Tries until the call comes through to the table of roles, which refuses it.
async fn comes_through(ca: &Authority, address: SocketAddr) {
    let trying = async {
        while answer(ca, address).await.code() != Code::PermissionDenied {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), trying).await.unwrap();
}

#[tokio::test]
async fn it_waits_for_its_certificates_serves_and_takes_up_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let state_socket = directory.path().join("runtime.sock");
    let address = free_address().await;
    let (store, stop, tasks) = (Store::new(), CancellationToken::new(), TaskSet::new("test"));
    let options = apid::Options {
        listen: address,
        port: address.port(),
        machine_socket: PathBuf::from("/nowhere/machine.sock"),
        state_socket: state_socket.clone(),
    };
    let running = stdx::tasks::spawn("apid", apid::run(options, stop.clone()));
    let state =
        machine_api::serve_state(store.clone(), apid::TYPES, &state_socket, 0o600, None, CancellationToken::new());
    let state = state.unwrap();
    tasks.spawn("state", async move { state.await.unwrap() });

    let (first, second) = (authority(), authority());
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::net::TcpStream::connect(address).await.expect_err("it must not listen without certificates");
    store.put(ApiCertificate::ID, certificates(&first, address), "").unwrap();
    comes_through(&first, address).await;

    store.put(ApiCertificate::ID, certificates(&second, address), "").unwrap();
    comes_through(&second, address).await;
    assert_eq!(answer(&first, address).await.code(), Code::Unavailable);

    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), running.join()).await.unwrap();
    assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
}
