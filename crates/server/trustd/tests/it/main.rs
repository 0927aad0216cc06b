//! The whole of `trustd` on a state socket like the one that machined serves, asked by the client that workers have.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use pki::{
    Algorithm, Authority, CaProfile, Certificate, CertificateRequest, PrivateKey, Sans, Subject, Template, Usage,
    Validity,
};
use resources::network::HostnameStatus;
use resources::secrets::{OsRootSecret, TrustdCertificate};
use resources::values::CertificateAndKey;
use state::Store;
use stdx::tasks::{CancellationToken, TaskSet};
use stdx::{Clock as _, Secret, SystemClock};
use trustd_client::{SignRequest, Signer as _, TrustdClient};

const TOKEN: &str = "abcdef.0123456789abcdef";

fn put_secrets(store: &Store, ca: &Authority) {
    let template = Template {
        subject: Subject::common_name("cp-1"),
        sans: Sans::parse(["127.0.0.1"]),
        usage: Usage::Server,
        validity: Validity::starting(SystemClock.now(), Duration::from_secs(3600)),
    };
    let server = ca.issue_pair(Algorithm::Ed25519, &template).unwrap();
    let server = Some(CertificateAndKey::new(server.crt, server.key));
    store.put(TrustdCertificate::ID, TrustdCertificate { server, ..TrustdCertificate::default() }, "").unwrap();
    let issuing_ca = Some(CertificateAndKey::new(ca.pair().crt, ca.pair().key));
    let root = OsRootSecret { issuing_ca, token: TOKEN.to_owned(), ..OsRootSecret::default() };
    store.put(OsRootSecret::ID, root, "").unwrap();
}

#[tokio::test]
async fn a_worker_gets_a_certificate_for_its_own_names_alone() {
    let directory = tempfile::tempdir().unwrap();
    let state_socket = directory.path().join("runtime.sock");
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let (store, stop, tasks) = (Store::new(), CancellationToken::new(), TaskSet::new("test"));
    let state =
        machine_api::serve_state(store.clone(), trustd::TYPES, &state_socket, 0o600, None, CancellationToken::new());
    let state = state.unwrap();
    tasks.spawn("state", async move { state.await.unwrap() });
    let running = stdx::tasks::spawn("trustd", trustd::run(trustd::Options { listen, state_socket }, stop.clone()));

    let ca = Authority::generate(CaProfile::Os, SystemClock.now()).unwrap();
    let hostname = HostnameStatus { hostname: "cp-1".into(), domainname: String::new() };
    store.put(HostnameStatus::ID, hostname, "").unwrap();
    put_secrets(&store, &ca);
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let names = Sans::parse(["10.5.0.3", "worker-1", "cp-1", "*.example.org"]);
    let csr = CertificateRequest::create(&key, &Subject::common_name("worker-1"), &names).unwrap();
    let request = SignRequest {
        endpoints: vec![listen.ip()],
        accepted_cas: vec![ca.certificate().to_pem().into_bytes()],
        token: Secret::new(TOKEN.to_owned()),
        csr: csr.to_pem().into_bytes(),
    };
    let client = TrustdClient::on_port(listen.port());
    let asking = async {
        loop {
            match client.sign(&request).await {
                Ok(signed) => return signed,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let signed = tokio::time::timeout(Duration::from_secs(20), asking).await.unwrap();
    let signed = Certificate::from_pem(std::str::from_utf8(&signed.crt).unwrap()).unwrap();
    assert_eq!((signed.spki_der(), signed.sans()), (key.spki_der(), &Sans::parse(["10.5.0.3", "worker-1"])));

    let wrong = SignRequest { token: Secret::new("abcdef.fedcba9876543210".to_owned()), ..request.clone() };
    let refused = stdx::error_chain(&client.sign(&wrong).await.unwrap_err());
    assert!(refused.contains("token"), "{refused}");
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), running.join()).await.unwrap();
    assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
}
