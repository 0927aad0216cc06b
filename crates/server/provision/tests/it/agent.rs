//! The agent as a process of its own: serving, dying, coming back, ending with its cluster.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use provision::agent::{self, AgentError, AgentProgram};
use provision::{Cluster, Leftovers, Limits};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Place, census, wait_for};

fn program() -> AgentProgram {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(|deps| deps.parent()).unwrap();
    AgentProgram { program: folder.join("examples/cluster_agent"), arguments: vec![] }
}

/// A cluster with a tiny bundle, and a server that does nothing for discovery.
fn cluster(place: &Place, name: &str, cidr: &str) -> Cluster {
    let server = place.root().with_file_name("discoveryd");
    std::fs::write(&server, "#!/bin/busybox sh\necho \"asked for $*\"\nexec /bin/busybox sleep 3600\n").unwrap();
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
    let bundle = place.root().with_file_name("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    std::fs::write(bundle.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    let mut spec = place.spec(name, cidr);
    spec.bundle = Some(bundle);
    spec.discoveryd = Some(server);
    Cluster::create(&place.root(), &spec).unwrap()
}

fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn server_pid(place: &Place, name: &str) -> Option<i32> {
    let card: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.root().join(name).join("discoveryd.json")).ok()?).ok()?;
    let pid = i32::try_from(card["pid"].as_i64()?).ok()?;
    PathBuf::from(format!("/proc/{pid}")).exists().then_some(pid)
}

#[test]
fn the_agent_serves_comes_back_on_its_port_and_ends_with_its_cluster() {
    let place = Place::new();
    let cluster = cluster(&place, "pt-agent", "10.212.0.0/24");
    let first = agent::start(&place.root(), "pt-agent", &program()).unwrap();
    let address = format!("10.212.0.1:{}", first.registry_port);
    assert!(ask(&address).starts_with("HTTP/1.1 200 OK"));
    let again = agent::start(&place.root(), "pt-agent", &program()).unwrap();
    assert_eq!(again, first, "an agent that runs is not started again");

    kill(first.pid);
    wait_for("the agent's end", || agent::status(&place.root(), "pt-agent").is_none());
    let second = agent::start(&place.root(), "pt-agent", &program()).unwrap();
    assert_eq!(second.registry_port, first.registry_port, "nodes know the port");
    assert_ne!(second.pid, first.pid);
    assert!(ask(&address).starts_with("HTTP/1.1 200 OK"));

    drop(cluster);
    wait_for("discovery server", || server_pid(&place, "pt-agent").is_some());
    let server = server_pid(&place, "pt-agent").unwrap();
    let destroyed = provision::destroy(&place.root(), "pt-agent", Leftovers::Keep).unwrap();
    assert!(destroyed.errors.is_empty(), "{:?}", destroyed.errors);
    assert!(census(&place.root(), "pt-agent").is_empty());
    let gone = |pid: i32| !std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    wait_for("the end of agent and server", || gone(second.pid) && gone(server));
}

#[test]
fn a_discovery_server_that_is_killed_comes_back_and_one_whose_agent_is_killed_ends() {
    let place = Place::new();
    let _cluster = cluster(&place, "pt-disc", "10.213.0.0/24");
    let agent = agent::start(&place.root(), "pt-disc", &program()).unwrap();
    wait_for("discovery server", || server_pid(&place, "pt-disc").is_some());
    let first = server_pid(&place, "pt-disc").unwrap();
    let log = place.root().join("pt-disc/logs/discoveryd.log");
    wait_for("its log", || {
        std::fs::read_to_string(&log).is_ok_and(|l| l.contains("asked for --listen 10.213.0.1:3000"))
    });
    kill(first);
    wait_for("another discovery server", || server_pid(&place, "pt-disc").is_some_and(|pid| pid != first));
    let second = server_pid(&place, "pt-disc").unwrap();
    kill(agent.pid);
    wait_for("its end", || server_pid(&place, "pt-disc") != Some(second));
}

#[test]
fn an_agent_that_cannot_serve_says_why() {
    let place = Place::new();
    let missing = agent::start(&place.root(), "pt-none", &program()).unwrap_err();
    assert!(matches!(missing, AgentError::NoSuchCluster { .. }), "{missing}");
    assert!(census(&place.root(), "pt-none").is_empty());
    let cluster = cluster(&place, "pt-why", "10.214.0.0/24");
    crate::support::run("ip", &["link", "delete", &cluster.plan().bridge]);
    let error = agent::start(&place.root(), "pt-why", &program()).unwrap_err();
    let AgentError::NotStarted { last_words, .. } = &error else { panic!("{error}") };
    assert!(last_words.contains("Listen") && last_words.contains("10.214.0.1"), "{last_words}");
}

#[test]
fn nodes_reach_the_registry_and_the_agent_outlives_them() {
    let place = Place::new();
    let cluster = cluster(&place, "pt-pull", "10.215.0.0/24");
    let agent = agent::start(&place.root(), "pt-pull", &program()).unwrap();
    cluster.start_node("pt-pull-worker-1", None, Limits::default()).unwrap();
    place.written("pt-pull", "pt-pull-worker-1", "hostname");
    let namespace = place.root().join("pt-pull/netns/pt-pull-worker-1");
    let url = format!("http://10.215.0.1:{}/v2/", agent.registry_port);
    let enter = format!("--net={}", namespace.to_string_lossy());
    assert_eq!(crate::support::run("nsenter", &[&enter, "/bin/busybox", "wget", "-q", "-O", "-", &url]), "{}");
}

#[test]
fn a_node_whose_init_is_killed_is_started_again_with_its_disks_and_a_new_network() {
    let place = Place::new();
    let cluster = cluster(&place, "pt-power", "10.216.0.0/24");
    let agent = agent::start(&place.root(), "pt-power", &program()).unwrap();
    let node = "pt-power-worker-1";
    cluster.start_node(node, None, Limits::default()).unwrap();
    place.written("pt-power", node, "hostname");
    let var = place.root().join("pt-power/nodes").join(node).join("var");
    std::fs::write(var.join("kept"), "yes").unwrap();
    let enter = format!("--net={}", place.root().join("pt-power/netns").join(node).to_string_lossy());
    let links = || crate::support::run("nsenter", &[&enter, "ip", "-brief", "link"]);
    crate::support::run("nsenter", &[&enter, "ip", "link", "add", "stray", "type", "bridge"]);
    assert!(links().contains("stray"));
    // While a command works on the cluster, its agent keeps away; this one is done with it.
    drop(cluster);
    let pid = || Cluster::show(&place.root(), "pt-power").unwrap().1[1].pid;
    for _ in 0..2 {
        let first = pid().unwrap();
        std::fs::remove_file(var.join("done")).unwrap();
        kill(i32::try_from(first).unwrap());
        wait_for("another init", || pid().is_some_and(|pid| pid != first));
        assert!(place.written("pt-power", node, "ping").contains(" 0% packet loss"));
    }
    assert_eq!(std::fs::read_to_string(var.join("kept")).unwrap(), "yes");
    assert!(!links().contains("stray"), "the network is that of before: {}", links());
    assert_eq!(agent::status(&place.root(), "pt-power"), Some(agent));
    let (_, nodes) = Cluster::show(&place.root(), "pt-power").unwrap();
    assert_eq!(nodes[0].status, "absent", "a node that was never started is left alone");
}
