use std::time::Duration;

use controller::testing::Harness;
use parking_lot::Mutex;
use pki::Authority;
use resources::secrets::TrustdCertificate;
use stdx::Clock;

use trustd_client::{SignError, Signed};

use super::*;
use crate::{
    cert_sans::ApiCertSansController,
    root::root_os,
    testing::{Cluster, address, certificate, configure, is_pair, pem, ready},
    trustd::TrustdController,
};

/// trustd in memory: signs for the right token, and records the calls.
#[derive(Debug)]
struct FakeTrustd {
    authority: Authority,
    clock: Arc<dyn Clock>,
    asked: Mutex<Vec<Vec<IpAddr>>>,
    down: Mutex<bool>,
    foreign: bool,
}

#[async_trait]
impl Signer for FakeTrustd {
    async fn sign(&self, request: &SignRequest) -> Result<Signed, SignError> {
        self.asked.lock().push(request.endpoints.clone());
        assert!(request.token.matches("abcdef.0123456789abcdef"));
        assert_eq!(request.accepted_cas, [self.authority.certificate().to_pem().into_bytes()]);
        if *self.down.lock() {
            let source = "connection refused".into();
            return Err(SignError::Refused { endpoint: request.endpoints[0], source });
        }
        let mut csr = CertificateRequest::from_pem(std::str::from_utf8(&request.csr).unwrap()).unwrap();
        if self.foreign {
            let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
            csr = CertificateRequest::create(&key, csr.subject(), csr.sans()).unwrap();
        }
        let validity = Validity::starting(self.clock.now(), SERVER_LIFETIME);
        let crt = self.authority.sign_server_request(&csr, validity).unwrap();
        let ca = self.authority.certificate().to_pem().into_bytes();
        Ok(Signed { ca, crt: crt.to_pem().into_bytes() })
    }
}

fn trustd(harness: &Harness, cluster: &Cluster, foreign: bool) -> Arc<FakeTrustd> {
    Arc::new(FakeTrustd {
        authority: cluster.os.clone(),
        clock: Arc::clone(&harness.clock) as _,
        asked: Mutex::default(),
        down: Mutex::new(false),
        foreign,
    })
}

fn run(harness: &Harness, signer: Arc<FakeTrustd>) {
    harness.run(root_os());
    harness.run(ApiCertSansController);
    harness.run(TrustdController::default());
    harness.run(ApiController::new(signer));
}

fn api(harness: &Harness) -> Option<state::Resource<ApiCertificate>> {
    harness.get(ApiCertificate::ID)
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_signs_for_itself() {
    let harness = Harness::new();
    let cluster = Cluster::new(&harness);
    let signer = trustd(&harness, &cluster, false);
    run(&harness, Arc::clone(&signer));
    configure(&harness, cluster.control_plane());
    harness.settle().await;
    assert_eq!(api(&harness), None);
    ready(&harness);
    harness.settle().await;
    let spec = api(&harness).unwrap();
    let (server, client) = (certificate(&spec.server), certificate(&spec.client));
    assert!(is_pair(&spec.server) && is_pair(&spec.client));
    assert_eq!(server.subject(), &Subject::common_name("cp-1.example.org"));
    assert!(server.allows_server() && !server.allows_client());
    assert_eq!(server.sans().ips.len(), 4, "{:?}", server.sans());
    let lifetime = server.not_after().duration_since(harness.clock.now()).unwrap();
    assert_eq!(lifetime, Duration::from_secs(24 * 3600));
    assert_eq!(client.subject().organizations, ["os:impersonator"]);
    assert!(client.allows_client() && !client.allows_server());
    assert_eq!(signer.asked.lock().len(), 0);
    let trustd = harness.get::<TrustdCertificate>(TrustdCertificate::ID).unwrap();
    assert!(is_pair(&trustd.server) && certificate(&trustd.server).allows_server());
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_at_half_life_and_not_before() {
    let harness = Harness::new();
    let cluster = Cluster::new(&harness);
    run(&harness, trustd(&harness, &cluster, false));
    configure(&harness, cluster.control_plane());
    ready(&harness);
    harness.settle().await;
    let serial = |harness: &Harness| certificate(&api(harness).unwrap().server).serial().to_vec();
    let trustd_serial = |harness: &Harness| {
        certificate(&harness.get::<TrustdCertificate>(TrustdCertificate::ID).unwrap().server).serial().to_vec()
    };
    let (first, first_trustd) = (serial(&harness), trustd_serial(&harness));
    for _ in 0..23 {
        harness.advance(Duration::from_secs(1800)).await;
    }
    assert_eq!((serial(&harness), trustd_serial(&harness)), (first.clone(), first_trustd.clone()));
    for _ in 0..2 {
        harness.advance(Duration::from_secs(1800)).await;
    }
    assert_ne!(serial(&harness), first);
    assert_ne!(trustd_serial(&harness), first_trustd);
}

#[tokio::test(start_paused = true)]
async fn a_new_address_or_a_jump_of_the_clock_gives_a_new_certificate() {
    let harness = Harness::new();
    let cluster = Cluster::new(&harness);
    run(&harness, trustd(&harness, &cluster, false));
    configure(&harness, cluster.control_plane());
    ready(&harness);
    harness.settle().await;
    address(&harness, &["10.5.0.2/24", "10.5.0.9/24"]);
    harness.settle().await;
    let server = certificate(&api(&harness).unwrap().server);
    assert!(server.sans().ips.contains(&"10.5.0.9".parse().unwrap()), "{:?}", server.sans());
    let trustd = || certificate(&harness.get::<TrustdCertificate>(TrustdCertificate::ID).unwrap().server);
    let before = trustd();
    harness.put(TimeStatus::ID, TimeStatus { synced: true, epoch: 1, ..TimeStatus::default() });
    harness.settle().await;
    assert_ne!(certificate(&api(&harness).unwrap().server).serial(), server.serial());
    assert_ne!(trustd().serial(), before.serial());
}

#[tokio::test(start_paused = true)]
async fn a_worker_asks_the_control_planes_that_it_knows() {
    let harness = Harness::new();
    let cluster = Cluster::new(&harness);
    let signer = trustd(&harness, &cluster, false);
    run(&harness, Arc::clone(&signer));
    configure(&harness, cluster.worker());
    ready(&harness);
    harness.settle().await;
    // Having no endpoint is not an error.
    assert_eq!((api(&harness), signer.asked.lock().len()), (None, 0));
    assert_eq!(harness.status("secrets.APIController").failures, 0);
    *signer.down.lock() = true;
    harness.put("discovery", Endpoint { addresses: vec!["10.5.0.3".parse().unwrap(), "10.5.0.2".parse().unwrap()] });
    harness.put("kubernetes", Endpoint { addresses: vec!["10.5.0.2".parse().unwrap()] });
    harness.settle().await;
    let error = harness.status("secrets.APIController").last_error;
    assert_eq!(error.as_deref(), Some("asking trustd at 10.5.0.2 for a certificate: connection refused"));
    *signer.down.lock() = false;
    harness.advance(Duration::from_secs(5)).await;
    let spec = api(&harness).unwrap();
    assert!(is_pair(&spec.server) && spec.client.is_none());
    assert_eq!(pem(&spec.accepted_cas[0].crt), cluster.os.certificate().to_pem());
    let both: Vec<IpAddr> = vec!["10.5.0.2".parse().unwrap(), "10.5.0.3".parse().unwrap()];
    assert_eq!(signer.asked.lock().last(), Some(&both));
    assert_eq!(harness.list::<TrustdCertificate>(), []);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_another_key_is_not_taken() {
    let harness = Harness::new();
    let cluster = Cluster::new(&harness);
    run(&harness, trustd(&harness, &cluster, true));
    configure(&harness, cluster.worker());
    ready(&harness);
    harness.put("discovery", Endpoint { addresses: vec!["10.5.0.2".parse().unwrap()] });
    harness.settle().await;
    assert_eq!(api(&harness), None);
    let error = harness.status("secrets.APIController").last_error;
    assert_eq!(error.as_deref(), Some("certificate from trustd is for another key"));
}
