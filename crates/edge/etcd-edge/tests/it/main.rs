//! The client against a real etcd with mutual TLS. Needs the `etcd` program (Debian package `etcd-server`).
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    net::TcpListener,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use etcd_edge::{
    Connector, Etcd, EtcdConnector, EtcdError, GoAwayError, LOCAL_ENDPOINT, LeaveError, NodeEtcd, NodeEtcdError, Tls,
    can_leave, health, leave, with_lock,
};
use pki::{Algorithm, Authority, CaProfile, Sans, Subject, Template, Usage, Validity};
use resources::secrets::{EtcdRootSecret, EtcdSecrets};
use resources::values::CertificateAndKey;
use state::Store;
use stdx::{Clock, Secret, SystemClock};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Each step may take this long on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

struct Server {
    // Killed before its directory goes.
    child: Child,
    _dir: TempDir,
    endpoint: String,
    /// Where other members reach it.
    peer: String,
    ca: Arc<Authority>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn template(now: SystemTime, usage: Usage, name: &str) -> Template {
    Template {
        subject: Subject::common_name(name),
        sans: Sans::parse(["127.0.0.1", "localhost"]),
        usage,
        validity: Validity::starting(now, Duration::from_secs(3600)),
    }
}

fn start() -> Server {
    let ca = Arc::new(Authority::generate(CaProfile::Etcd, SystemClock.now()).unwrap());
    let peer = free_peer();
    start_member("one", ca, &peer, "new", &format!("one={peer}"))
}

/// Where a member that is about to start is reached by others.
fn free_peer() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

/// Starts a member of a cluster that is `new` or `existing`.
fn start_member(name: &str, ca: Arc<Authority>, peer: &str, state: &str, members: &str) -> Server {
    let now = SystemClock.now();
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let server = ca.issue_pair(Algorithm::EcdsaP256, &template(now, Usage::Peer, "server")).unwrap();
    std::fs::write(path("ca.crt"), ca.certificate().to_pem()).unwrap();
    std::fs::write(path("server.crt"), &server.crt).unwrap();
    std::fs::write(path("server.key"), &server.key).unwrap();
    let endpoint = format!("https://127.0.0.1:{}", free_port());
    let child = Command::new("etcd")
        .args(["--name", name, "--data-dir", &path("data")])
        .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster-state", state, "--initial-cluster", members])
        .args(["--cert-file", &path("server.crt"), "--key-file", &path("server.key")])
        .args(["--trusted-ca-file", &path("ca.crt"), "--client-cert-auth"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("starting etcd: is the package etcd-server installed?");
    Server { child, _dir: dir, endpoint, peer: peer.to_owned(), ca }
}

fn tls(ca: &Authority, issuer: &Authority) -> Tls {
    let pair = issuer.issue_pair(Algorithm::EcdsaP256, &template(SystemClock.now(), Usage::Client, "client")).unwrap();
    let ca = ca.certificate().to_pem().into_bytes();
    Tls { ca, crt: pair.crt.into_bytes(), key: Secret::new(pair.key.into_bytes()) }
}

async fn connect(server: &Server, tls: &Tls) -> Arc<dyn Etcd> {
    EtcdConnector.connect(std::slice::from_ref(&server.endpoint), tls).await.unwrap()
}

async fn wait_until_up(etcd: &dyn Etcd) {
    let up = async {
        while etcd.members().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, up).await.expect("etcd did not come up");
}

/// Adds a member that votes at once and does not run, by the library itself: this crate adds learners only.
async fn add_missing_voter(server: &Server) {
    let tls = tls(&server.ca, &server.ca);
    let options = etcd_client::TlsOptions::new()
        .ca_certificate(etcd_client::Certificate::from_pem(&tls.ca))
        .identity(etcd_client::Identity::from_pem(&tls.crt, tls.key.expose()));
    let options = etcd_client::ConnectOptions::new().with_tls(options).with_timeout(Duration::from_secs(5));
    let mut client = etcd_client::Client::connect([&server.endpoint], Some(options)).await.unwrap();
    drop(client.member_add(["http://127.0.0.1:9"], None).await);
}

#[tokio::test]
async fn members_status_and_locks_of_a_real_etcd() {
    let server = start();
    let etcd = connect(&server, &tls(&server.ca, &server.ca)).await;
    wait_until_up(&*etcd).await;

    let members = etcd.members().await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!((members[0].name.as_str(), members[0].is_learner), ("one", false));
    assert_eq!(members[0].client_urls.join(","), server.endpoint);
    let status = etcd.status().await.unwrap();
    assert_eq!((status.id, status.leader), (members[0].id, Some(members[0].id)));

    let second = connect(&server, &tls(&server.ca, &server.ca)).await;
    let (ttl, wait) = (Duration::from_secs(2), Duration::from_secs(1));
    let held = etcd.lock("talos:v1:test", ttl, DEADLINE).await.unwrap();
    // Longer than the lease lives: it is kept alive.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let error = with_lock(&*second, "talos:v1:test", wait, async {}).await.unwrap_err();
    assert!(matches!(error, EtcdError::LockTimeout { .. }), "{error:?}");
    held.release().await.unwrap();
    with_lock(&*second, "talos:v1:test", wait, async {}).await.unwrap();
    health::check(&*etcd).await.unwrap();
    // A holder that dies is outlived by its lock for the time to live only.
    drop(etcd.lock("talos:v1:test", ttl, DEADLINE).await.unwrap());
    with_lock(&*second, "talos:v1:test", DEADLINE, async {}).await.unwrap();

    let urls = ["http://127.0.0.1:9".to_owned()];
    let learner = etcd.add_learner(&urls).await.unwrap();
    assert!(learner.is_learner);
    let error = etcd.add_learner(&urls).await.unwrap_err();
    assert!(matches!(error, EtcdError::PeerExists(_)), "{error:?}");
    let error = etcd.promote(learner.id).await.unwrap_err();
    assert!(matches!(error, EtcdError::LearnerNotReady(id) if id == learner.id), "{error:?}");
    let moved = ["http://127.0.0.1:10".to_owned()];
    etcd.update_peers(learner.id, &moved).await.unwrap();
    assert!(etcd.members().await.unwrap().iter().any(|member| member.peer_urls == moved));
    etcd.remove(learner.id).await.unwrap();
    let error = etcd.remove(learner.id).await.unwrap_err();
    assert!(matches!(error, EtcdError::MemberNotFound(id) if id == learner.id), "{error:?}");
}

#[tokio::test]
async fn a_lock_is_lost_when_etcd_is_away_for_its_time_to_live() {
    let mut server = start();
    let etcd = connect(&server, &tls(&server.ca, &server.ca)).await;
    wait_until_up(&*etcd).await;
    let ttl = Duration::from_secs(3);
    let held = etcd.lock("talos:v1:test", ttl, DEADLINE).await.unwrap();
    let early = tokio::time::timeout(Duration::from_secs(5), held.lost()).await;
    assert!(early.is_err(), "it is renewed while etcd is there");
    server.child.kill().await.unwrap();
    let killed = tokio::time::Instant::now();
    let error = held.hold_during(tokio::time::sleep(DEADLINE)).await.unwrap_err();
    assert!(matches!(error, EtcdError::LockLost { .. }), "{error:?}");
    assert!(killed.elapsed() <= ttl + Duration::from_millis(500), "{:?}", killed.elapsed());
    let unhealthy = health::check(&*etcd).await.unwrap_err();
    let expected = |error: &EtcdError| matches!(error, EtcdError::Request { .. } | EtcdError::Timeout { .. });
    assert!(matches!(&unhealthy, health::UnhealthyError::Etcd(error) if expected(error)), "{unhealthy:?}");
}

#[tokio::test]
async fn one_of_two_members_is_no_quorum_and_not_healthy() {
    let server = start();
    let etcd = connect(&server, &tls(&server.ca, &server.ca)).await;
    wait_until_up(&*etcd).await;
    health::check(&*etcd).await.unwrap();
    // A second voter that is nowhere: from now on two are needed. The answer may not come any more.
    add_missing_voter(&server).await;
    let unhealthy = async {
        while health::check(&*etcd).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(DEADLINE, unhealthy).await.expect("it is healthy without a quorum");
}

#[tokio::test]
async fn a_member_leaves_and_ends_and_the_last_one_stays() {
    let first = start();
    let etcd = connect(&first, &tls(&first.ca, &first.ca)).await;
    wait_until_up(&*etcd).await;
    assert!(matches!(can_leave(&*etcd).await, Err(LeaveError::LastMember)));
    let peer = free_peer();
    let learner = etcd.add_learner(std::slice::from_ref(&peer)).await.unwrap();
    let members = format!("one={},two={peer}", first.peer);
    let mut second = start_member("two", Arc::clone(&first.ca), &peer, "existing", &members);
    let leaving = connect(&second, &tls(&second.ca, &second.ca)).await;
    // A learner does not keep the cluster of the one that votes.
    assert!(matches!(leave(&*etcd).await, Err(LeaveError::LastMember)));
    let promoted = async {
        while etcd.promote(learner.id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        while leaving.status().await.is_err() || can_leave(&*leaving).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(DEADLINE, promoted).await.expect("the learner was not promoted");
    tokio::time::timeout(DEADLINE, leave(&*leaving)).await.expect("it does not leave").unwrap();
    tokio::time::timeout(DEADLINE, second.child.wait()).await.expect("a member that was removed runs").unwrap();
    let names: Vec<String> = etcd.members().await.unwrap().into_iter().map(|member| member.name).collect();
    assert_eq!(names, ["one"]);
    etcd.confirm_quorum().await.unwrap();
    assert!(matches!(leave(&*etcd).await, Err(LeaveError::LastMember)));
}

/// Members of one machine have ports of their own.
#[derive(Debug)]
struct OwnPort(String);

#[async_trait]
impl Connector for OwnPort {
    async fn connect(&self, endpoints: &[String], tls: &Tls) -> Result<Arc<dyn Etcd>, EtcdError> {
        let own = |endpoint: &String| if endpoint == LOCAL_ENDPOINT { self.0.clone() } else { endpoint.clone() };
        EtcdConnector.connect(&endpoints.iter().map(own).collect::<Vec<_>>(), tls).await
    }
}

fn node(server: &Server) -> NodeEtcd {
    let store = Store::new();
    let tls = tls(&server.ca, &server.ca);
    let pem = |crt: &[u8], key: &[u8]| Some(CertificateAndKey::new(crt.to_vec(), key.to_vec()));
    store.put(EtcdRootSecret::ID, EtcdRootSecret { etcd_ca: pem(&tls.ca, b"") }, "test").unwrap();
    let secrets = EtcdSecrets { etcd_admin: pem(&tls.crt, tls.key.expose()), ..EtcdSecrets::default() };
    store.put(EtcdSecrets::ID, secrets, "test").unwrap();
    NodeEtcd::new(store, Arc::new(OwnPort(server.endpoint.clone())))
}

#[tokio::test]
async fn one_of_three_members_is_away_at_a_time_and_none_while_another_is_dead() {
    let ca = Arc::new(Authority::generate(CaProfile::Etcd, SystemClock.now()).unwrap());
    let peers: Vec<(String, String)> =
        ["one", "two", "three"].into_iter().map(|name| (name.to_owned(), free_peer())).collect();
    let all: Vec<String> = peers.iter().map(|(name, peer)| format!("{name}={peer}")).collect();
    let member = |(name, peer): &(String, String)| start_member(name, Arc::clone(&ca), peer, "new", &all.join(","));
    let mut servers: Vec<Server> = peers.iter().map(member).collect();
    for server in &servers {
        let etcd = connect(server, &tls(&ca, &ca)).await;
        wait_until_up(&*etcd).await;
        let healthy = async {
            while health::check(&*etcd).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(DEADLINE, healthy).await.expect("a member is not healthy");
    }
    let (first, second) = (node(&servers[0]), node(&servers[1]));
    let away = first.go_away(true).await.unwrap();
    let refused = second.go_away(true).await.unwrap_err();
    assert!(matches!(refused, GoAwayError::OneIsAway), "{refused:?}");
    // It came back: the other one's turn, and then its own again.
    away.release().await.unwrap();
    second.go_away(true).await.unwrap().release().await.unwrap();
    let _away = first.go_away(false).await.unwrap();
    servers[0].child.kill().await.unwrap();
    // The lock of a node that died ends by itself, and the node is missed.
    let is_missed = async {
        loop {
            match second.go_away(true).await.unwrap_err() {
                GoAwayError::Unhealthy { name, .. } | GoAwayError::Silent(name) => return name,
                // The two elect their leader.
                GoAwayError::Node(NodeEtcdError::Etcd(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
                refused => panic!("{refused:?}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, is_missed).await.expect("no leader was elected"), "one");
}

#[tokio::test]
async fn a_client_of_another_authority_gets_no_answer() {
    let server = start();
    wait_until_up(&*connect(&server, &tls(&server.ca, &server.ca)).await).await;
    let other = Authority::generate(CaProfile::Etcd, SystemClock.now()).unwrap();
    let stranger = connect(&server, &tls(&server.ca, &other)).await;
    let error = stranger.members().await.unwrap_err();
    assert!(matches!(error, EtcdError::Request { .. } | EtcdError::Timeout { .. }), "{error:?}");
    let deceived = connect(&server, &tls(&other, &server.ca)).await;
    let error = deceived.members().await.unwrap_err();
    assert!(matches!(error, EtcdError::Request { .. } | EtcdError::Timeout { .. }), "{error:?}");
}
