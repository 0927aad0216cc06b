//! Who reaches whom: nodes, this host, and hosts beside it. Each test has a network of its own, with another host in it, so
//! that nothing of the machine that it runs on is touched.

use std::net::TcpListener;
use std::process::{Child, Command};

use provision::{Cluster, ExposedPort};

use crate::support::{self, Place, make, run, start};

/// The network of other hosts: their link here, this host's address, theirs.
const OUTSIDE: [&str; 3] = ["outside", "198.51.100.1", "198.51.100.2"];
const FAR: [&str; 3] = ["far", "203.0.113.1", "203.0.113.2"];

/// A network without forwarding; the control groups stay those of the machine.
const SETUP: &str = r#"set -e
mount -t tmpfs tmpfs /run; mkdir /run/cgroup; mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys; mount --rbind /run/cgroup /sys/fs/cgroup
ip link set lo up; echo 0 > /proc/sys/net/ipv4/ip_forward
exec "$0" --exact "$1" --nocapture"#;

/// Runs a test in a network of its own.
#[expect(clippy::disallowed_methods, reason = "a test that runs itself once more says so by a variable")]
fn in_own_network(name: &str, test: impl FnOnce()) {
    if std::env::var_os("IN_OWN_NETWORK").is_some() {
        return test();
    }
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", SETUP]);
    let output = command.arg(own).arg(name).env("IN_OWN_NETWORK", "yes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Another host on a link of its own.
fn add_host([name, here, there]: [&str; 3]) {
    run("ip", &["netns", "add", name]);
    run("ip", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name]);
    run("ip", &["address", "add", &format!("{here}/24"), "dev", name]);
    run("ip", &["link", "set", name, "up"]);
    run("ip", &["-n", name, "address", "add", &format!("{there}/24"), "dev", "eth0"]);
    run("ip", &["-n", name, "link", "set", "lo", "up"]);
    run("ip", &["-n", name, "link", "set", "eth0", "up"]);
    run("ip", &["-n", name, "route", "add", "default", "via", here]);
}

/// Something that listens on port 80 in a network, until it is dropped.
struct Listener(Child);

impl Listener {
    fn new(network: &str) -> Self {
        let listening = ["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/busybox", "true"];
        let mut arguments = vec![network];
        arguments.extend(listening);
        let listener = Self(support::spawn("nsenter".as_ref(), &arguments));
        support::wait_for("the listener", || reaches(network, "127.0.0.1:80"));
        listener
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whether a connection comes about, from a network or from here.
#[expect(clippy::disallowed_methods, reason = "a tool that may fail")]
fn reaches(network: &str, address: &str) -> bool {
    let (host, port) = address.split_once(':').unwrap();
    let mut command = Command::new(if network.is_empty() { "/bin/busybox" } else { "nsenter" });
    if !network.is_empty() {
        command.args([network, "/bin/busybox"]);
    }
    let connect = command.args(["timeout", "1", "/bin/busybox", "nc", host, port]).stdin(std::process::Stdio::null());
    connect.output().unwrap().status.success()
}

/// Accepts connections at an address of this host and closes them, as long as the test runs.
fn listen_here(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

#[expect(clippy::disallowed_methods, reason = "a tool that may fail")]
fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().unwrap().status.success()
}

fn network_of(name: &str) -> String {
    format!("--net=/run/netns/{name}")
}

/// A cluster with one node that runs; gives the node's network.
fn cluster(place: &Place, name: &str, reachable: &[&str]) -> (Cluster, String) {
    let mut spec = place.spec(name, "10.240.0.0/24");
    spec.reachable = reachable.iter().map(|address| address.parse().unwrap()).collect();
    let mut cluster = make(&place.root(), &spec).unwrap();
    let node = format!("{name}-worker-1");
    start(&mut cluster, &node, None);
    place.written(name, &node, "hostname");
    let network = format!("--net={}", place.root().join(name).join("netns").join(node).display());
    (cluster, network)
}

fn forwarding() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned()
}

#[test]
fn nodes_reach_of_the_host_only_what_is_meant_for_them() {
    in_own_network("firewall::nodes_reach_of_the_host_only_what_is_meant_for_them", || {
        let place = Place::new();
        add_host(OUTSIDE);
        let (cluster, node) = cluster(&place, "fw-host", &["10.240.0.1:5001", "198.51.100.1:5002"]);
        let open = ["10.240.0.1:5001", "198.51.100.1:5002", "10.240.0.1:3000", "10.240.0.1:53"];
        let closed = ["10.240.0.1:22", "198.51.100.1:5001", "198.51.100.1:3000", "198.51.100.1:53"];
        open.iter().chain(&closed).for_each(|address| listen_here(address));
        for address in open {
            assert!(reaches(&node, address), "{address}");
        }
        for address in closed {
            assert!(!reaches(&node, address), "{address}");
            assert!(reaches("", address), "the host itself reaches {address}");
        }
        // By IPv6 there is nothing for nodes; a host without it has nothing to keep from them.
        if std::path::Path::new("/proc/sys/net/ipv6").exists() {
            let bridge = &cluster.plan().bridge;
            let has_address =
                || run("ip", &["-6", "-o", "address", "show", "dev", bridge, "scope", "link", "-tentative"]);
            support::wait_for("the bridge's link-local address", || !has_address().is_empty());
            let shown = has_address();
            let address = shown.split("inet6 ").nth(1).unwrap().split('/').next().unwrap().to_owned();
            let answers = || {
                succeeds("nsenter", &[&node, "/bin/busybox", "ping6", "-c", "1", "-W", "1", &format!("{address}%eth0")])
            };
            assert!(!answers(), "{address}");
            run("nft", &["delete", "table", "inet", &cluster.plan().table]);
            support::wait_for("an answer without the rules", answers);
        }
    });
}

#[test]
fn nodes_reach_other_hosts_and_nobody_reaches_nodes_or_others_through_this_host() {
    in_own_network("firewall::nodes_reach_other_hosts_and_nobody_reaches_nodes_or_others_through_this_host", || {
        let place = Place::new();
        add_host(OUTSIDE);
        add_host(FAR);
        let (cluster, node) = cluster(&place, "fw-out", &[]);
        let (outside, far) = (network_of("outside"), network_of("far"));
        let _listeners = [&outside, &far, &node].map(|network| Listener::new(network));
        assert!(reaches(&node, "198.51.100.2:80") && reaches(&node, "203.0.113.2:80"), "nodes reach other hosts");
        assert!(reaches("", "10.240.0.3:80"), "the host reaches nodes");
        assert!(!reaches(&outside, "10.240.0.3:80"), "another host reaches a node");
        assert!(!reaches(&outside, "203.0.113.2:80"), "this host has become a router");
        assert_eq!(forwarding(), "1");
        drop(cluster);
        assert!(support::destroy(&place.root(), "fw-out").unwrap().errors.is_empty());
        assert_eq!((forwarding().as_str(), run("nft", &["list", "tables"]).as_str()), ("0", ""));
    });
}

#[test]
fn a_host_that_was_a_router_before_stays_one() {
    in_own_network("firewall::a_host_that_was_a_router_before_stays_one", || {
        let place = Place::new();
        add_host(OUTSIDE);
        add_host(FAR);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let (cluster, _) = cluster(&place, "fw-router", &[]);
        let (outside, far) = (network_of("outside"), network_of("far"));
        let _listener = Listener::new(&far);
        assert!(reaches(&outside, "203.0.113.2:80"));
        drop(cluster);
        assert!(support::destroy(&place.root(), "fw-router").unwrap().errors.is_empty());
        assert_eq!(forwarding(), "1");
        assert!(reaches(&outside, "203.0.113.2:80"));
    });
}

#[test]
fn clusters_do_not_reach_each_other() {
    in_own_network("firewall::clusters_do_not_reach_each_other", || {
        let place = Place::new();
        let (_one, one) = cluster(&place, "fw-one", &[]);
        let mut other = make(&place.root(), &place.spec("fw-other", "10.241.0.0/24")).unwrap();
        start(&mut other, "fw-other-worker-1", None);
        let network = format!("--net={}", place.root().join("fw-other/netns/fw-other-worker-1").display());
        let _listener = Listener::new(&network);
        assert!(reaches("", "10.241.0.3:80") && !reaches(&one, "10.241.0.3:80"));
    });
}

#[test]
fn room_is_made_in_the_firewall_that_docker_leaves_and_taken_back() {
    in_own_network("firewall::room_is_made_in_the_firewall_that_docker_leaves_and_taken_back", || {
        let place = Place::new();
        add_host(OUTSIDE);
        let docker = ["-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-I FORWARD -j DOCKER-USER"];
        for rule in docker {
            run("iptables", &rule.split(' ').collect::<Vec<_>>());
        }
        let before = run("iptables", &["-S"]);
        let (cluster, node) = cluster(&place, "fw-docker", &[]);
        let notices = cluster.notices();
        assert!(notices.iter().any(|notice| notice.starts_with("Docker's firewall drops")), "{notices:?}");
        assert!(!notices.iter().any(|notice| notice.contains("nft insert rule")), "{notices:?}");
        let _listener = Listener::new(&network_of("outside"));
        assert!(reaches(&node, "198.51.100.2:80"), "{}", run("iptables", &["-S"]));
        drop(cluster);
        assert!(support::destroy(&place.root(), "fw-docker").unwrap().errors.is_empty());
        assert_eq!(run("iptables", &["-S"]), before);
    });
}

#[test]
fn a_firewall_that_drops_is_told_of_with_commands_that_help() {
    in_own_network("firewall::a_firewall_that_drops_is_told_of_with_commands_that_help", || {
        let place = Place::new();
        add_host(OUTSIDE);
        run("nft", &["add", "table", "inet", "own"]);
        run("nft", &["add chain inet own forward { type filter hook forward priority 0; policy drop; }"]);
        let (cluster, node) = cluster(&place, "fw-own", &[]);
        let _listener = Listener::new(&network_of("outside"));
        assert!(!reaches(&node, "198.51.100.2:80"));
        let notices = cluster.notices();
        let notice = notices.iter().find(|notice| notice.contains("drops forwarded packets")).unwrap();
        let commands: Vec<&str> = notice.split('`').filter(|text| text.starts_with("nft ")).collect();
        assert_eq!(commands.len(), 2, "{notice}");
        commands.iter().for_each(|command| drop(run("sh", &["-c", command])));
        assert!(reaches(&node, "198.51.100.2:80"));
    });
}

#[test]
fn exposed_ports_lead_to_the_first_control_plane_and_other_ports_do_not() {
    in_own_network("firewall::exposed_ports_lead_to_the_first_control_plane_and_other_ports_do_not", || {
        let place = Place::new();
        add_host(OUTSIDE);
        let mut spec = place.spec("fw-ports", "10.240.0.0/24");
        let port = |text: &str, host: &str| ExposedPort::parse(text, host.parse().unwrap()).unwrap();
        spec.exposed = vec![port("8080:80", "0.0.0.0"), port("8081:80", "198.51.100.1")];
        let mut cluster = make(&place.root(), &spec).unwrap();
        let node = "fw-ports-controlplane-1";
        start(&mut cluster, node, None);
        place.written("fw-ports", node, "hostname");
        let network = format!("--net={}", place.root().join("fw-ports/netns").join(node).display());
        let _listener = Listener::new(&network);
        let outside = network_of("outside");
        for address in ["198.51.100.1:8080", "198.51.100.1:8081"] {
            assert!(reaches(&outside, address), "another host by {address}: {}", run("nft", &["list", "ruleset"]));
            assert!(reaches("", address), "this host by {address}");
        }
        assert!(reaches("", "127.0.0.1:8080") && !reaches("", "127.0.0.1:8081"), "one is at an address only");
        assert!(!reaches(&outside, "198.51.100.1:80") && !reaches(&outside, "10.240.0.2:80"));
        // The way back from a node stays closed.
        listen_here("127.0.0.1:7");
        assert!(!reaches(&network, "10.240.0.1:7") && reaches("", "127.0.0.1:7"));
        drop(cluster);
        assert!(support::destroy(&place.root(), "fw-ports").unwrap().errors.is_empty());
        assert_eq!(run("nft", &["list", "tables"]), "");
    });
}
