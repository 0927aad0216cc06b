//! The agent as a process of its own: serving, dying, coming back, ending with its cluster.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use provision::agent::{self, Agent, AgentError, AgentProgram};
use provision::{Cluster, NodeStatus, Phase, Power};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::support::{self, Place, arguments, census, make, processes, program, show, spawn, start, wait_for};

/// A cluster with a tiny bundle, and a server that does nothing for discovery and for keys.
fn cluster(place: &Place, name: &str, cidr: &str) -> Cluster {
    let server = place.root().with_file_name("discoveryd");
    std::fs::write(&server, "#!/bin/busybox sh\necho \"asked for $*\"\nexec /bin/busybox sleep 3600\n").unwrap();
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
    let bundle = place.root().with_file_name("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    std::fs::write(bundle.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    let mut spec = place.spec(name, cidr);
    spec.bundle = Some(bundle);
    spec.discoveryd = Some(server.clone());
    spec.kmsd = Some(server);
    make(&place.root(), &spec).unwrap()
}

fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The init of the worker, if it runs.
fn pid_of(place: &Place, name: &str) -> Option<u32> {
    match show(&place.root(), name).unwrap().1[1].status {
        NodeStatus::Running { pid } => Some(pid),
        _ => None,
    }
}

fn server_pid(place: &Place, name: &str) -> Option<i32> {
    let card: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.root().join(name).join("discoveryd.json")).ok()?).ok()?;
    let pid = i32::try_from(card["pid"].as_i64()?).ok()?;
    PathBuf::from(format!("/proc/{pid}")).exists().then_some(pid)
}

fn serving(place: &Place, name: &str) -> Option<Agent> {
    agent::status(&place.root(), name)
}

/// The agent's guard, which comes a moment after the agent.
fn guard(place: &Place, name: &str) -> i32 {
    wait_for("the guard", || agent::guarded(&place.root(), name).is_some());
    agent::guarded(&place.root(), name).unwrap().pid
}

/// Waits until an agent other than the former one serves.
fn another(place: &Place, name: &str, than: Agent) -> Agent {
    wait_for("another agent", || serving(place, name).is_some_and(|agent| agent.pid != than.pid));
    serving(place, name).unwrap()
}

fn kill_both(place: &Place, name: &str) {
    let both = [guard(place, name), serving(place, name).unwrap().pid];
    let handles = both.map(|pid| pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap());
    // Stopped first, so that neither sees the other's end.
    both.iter().for_each(|pid| signal(*pid, Signal::STOP));
    both.iter().for_each(|pid| kill(*pid));
    // A process has no arguments any more before its sockets are closed; its handle says when it has ended altogether.
    let ended = |handle| poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1;
    wait_for("the end of both", || handles.iter().all(ended));
    assert_eq!(processes(&format!(" --name {name} ")), [""; 0]);
}

fn destroy(place: &Place, name: &str) {
    let destroyed = support::destroy(&place.root(), name).unwrap();
    assert!(destroyed.errors.is_empty(), "{:?}", destroyed.errors);
    let left = census(&place.root(), name);
    assert!(left.is_empty(), "left behind: {left:#?}");
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

    let guarded = guard(&place, "pt-agent");
    kill(first.pid);
    let second = another(&place, "pt-agent", first);
    assert_eq!(second.registry_port, first.registry_port, "nodes know the port");
    assert!(ask(&address).starts_with("HTTP/1.1 200 OK"));
    assert_eq!(guard(&place, "pt-agent"), guarded, "there is one guard");

    drop(cluster);
    wait_for("discovery server", || server_pid(&place, "pt-agent").is_some());
    let server = server_pid(&place, "pt-agent").unwrap();
    destroy(&place, "pt-agent");
    assert_eq!(arguments(server), None, "the discovery server runs");
}

#[test]
fn a_guard_that_is_killed_comes_back_and_guards() {
    let place = Place::new();
    let _cluster = cluster(&place, "pt-guard", "10.217.0.0/24");
    let mut agent = agent::start(&place.root(), "pt-guard", &program()).unwrap();
    for _ in 0..2 {
        let first = guard(&place, "pt-guard");
        kill(first);
        wait_for("another guard", || agent::guarded(&place.root(), "pt-guard").is_some_and(|guard| guard.pid != first));
        assert_eq!(serving(&place, "pt-guard"), Some(agent), "the agent serves on");
        kill(agent.pid);
        agent = another(&place, "pt-guard", agent);
    }
    guard(&place, "pt-guard");
    assert_eq!(processes(" --name pt-guard ").len(), 2, "an agent and a guard");
}

#[test]
fn an_agent_and_a_guard_that_are_both_killed_wait_for_somebody() {
    let place = Place::new();
    let cluster = cluster(&place, "pt-both", "10.218.0.0/24");
    let first = agent::start(&place.root(), "pt-both", &program()).unwrap();
    kill_both(&place, "pt-both");
    assert_eq!((serving(&place, "pt-both"), agent::guarded(&place.root(), "pt-both")), (None, None));
    let second = agent::start(&place.root(), "pt-both", &program()).unwrap();
    assert_eq!(second.registry_port, first.registry_port);
    guard(&place, "pt-both");
    kill_both(&place, "pt-both");
    drop(cluster);
    destroy(&place, "pt-both");
}

#[test]
fn an_agent_that_is_asked_to_stop_takes_its_guard_with_it() {
    let place = Place::new();
    let _cluster = cluster(&place, "pt-stop", "10.219.0.0/24");
    let agent = agent::start(&place.root(), "pt-stop", &program()).unwrap();
    guard(&place, "pt-stop");
    signal(agent.pid, Signal::TERM);
    wait_for("the end of both", || processes(" --name pt-stop ").is_empty());
    agent::start(&place.root(), "pt-stop", &program()).unwrap();
}

#[test]
fn agent_and_guard_end_when_the_folder_of_the_cluster_is_gone() {
    let place = Place::new();
    let cluster = cluster(&place, "pt-away", "10.220.0.0/24");
    agent::start(&place.root(), "pt-away", &program()).unwrap();
    guard(&place, "pt-away");
    drop(cluster);
    let (folder, away) = (place.root().join("pt-away"), place.root().join("pt-elsewhere"));
    std::fs::rename(&folder, &away).unwrap();
    wait_for("the end of both", || processes(" --name pt-away ").is_empty());
    std::fs::rename(&away, &folder).unwrap();
    destroy(&place, "pt-away");
}

#[test]
fn an_agent_that_is_killed_does_not_come_back_to_a_cluster_that_is_being_destroyed() {
    let place = Place::new();
    let mut cluster = cluster(&place, "pt-killed", "10.221.0.0/24");
    let agent = agent::start(&place.root(), "pt-killed", &program()).unwrap();
    guard(&place, "pt-killed");
    // Remains of a destroy that was killed right after it ended the agent.
    cluster.remember(|state| state.phase = Phase::Destroying).unwrap();
    drop(cluster);
    kill(agent.pid);
    wait_for("the end of both", || processes(" --name pt-killed ").is_empty());
    let refused = agent::start(&place.root(), "pt-killed", &program()).unwrap_err();
    assert!(matches!(refused, AgentError::Destroying(_)), "{refused}");
    destroy(&place, "pt-killed");
}

#[test]
fn nothing_is_left_of_an_agent_that_hangs_and_whose_guard_knows_nothing_of_the_destroy() {
    let place = Place::new();
    let cluster = cluster(&place, "pt-odd", "10.222.0.0/24");
    let agent = agent::start(&place.root(), "pt-odd", &program()).unwrap();
    guard(&place, "pt-odd");
    drop(cluster);
    // The agent cannot take its guard with it, and the state says nothing of the destroy: the locks keep what the guard
    // starts from being an agent.
    signal(agent.pid, Signal::STOP);
    std::fs::write(place.root().join("pt-odd/state.json"), "{").unwrap();
    destroy(&place, "pt-odd");
}

#[test]
fn a_port_that_is_taken_when_the_agent_comes_back_is_waited_for() {
    let place = Place::new();
    let _cluster = cluster(&place, "pt-port", "10.223.0.0/24");
    let first = agent::start(&place.root(), "pt-port", &program()).unwrap();
    kill_both(&place, "pt-port");
    let taken = TcpListener::bind(("10.223.0.1", first.registry_port)).unwrap();
    let refused = agent::start(&place.root(), "pt-port", &program()).unwrap_err();
    assert!(matches!(refused, AgentError::NotStarted { .. }), "{refused}");
    let log = place.root().join("pt-port/logs/agent.log");
    std::fs::write(&log, "").unwrap();
    let root = place.root().to_string_lossy().into_owned();
    let mut guard = spawn(&program().program, &["--state", &root, "--name", "pt-port", "--guard"]);
    let refusals = || std::fs::read_to_string(&log).unwrap().matches("Listen").count();
    wait_for("a second attempt", || refusals() >= 2);
    assert_eq!(serving(&place, "pt-port"), None);
    drop(taken);
    let second = another(&place, "pt-port", first);
    assert_eq!(second.registry_port, first.registry_port);
    kill_both(&place, "pt-port");
    guard.wait().unwrap();
}

#[test]
fn an_agent_comes_back_though_its_program_was_removed() {
    let place = Place::new();
    let _cluster = cluster(&place, "pt-prog", "10.224.0.0/24");
    let copy = place.root().with_file_name("talosctl");
    std::fs::copy(program().program, &copy).unwrap();
    let first = agent::start(&place.root(), "pt-prog", &AgentProgram { program: copy.clone(), arguments: vec![] });
    let first = first.unwrap();
    guard(&place, "pt-prog");
    std::fs::remove_file(&copy).unwrap();
    kill(first.pid);
    let second = another(&place, "pt-prog", first);
    assert!(arguments(second.pid).unwrap().starts_with(&*copy.to_string_lossy()), "{:?}", arguments(second.pid));
    assert_eq!(std::fs::read_to_string(format!("/proc/{}/comm", second.pid)).unwrap().trim(), "talosctl");
}

#[test]
fn a_discovery_server_that_is_killed_comes_back_and_one_whose_agent_is_killed_is_replaced() {
    let place = Place::new();
    let _cluster = cluster(&place, "pt-disc", "10.213.0.0/24");
    let agent = agent::start(&place.root(), "pt-disc", &program()).unwrap();
    wait_for("discovery server", || server_pid(&place, "pt-disc").is_some());
    let first = server_pid(&place, "pt-disc").unwrap();
    let log = place.root().join("pt-disc/logs/discoveryd.log");
    wait_for("its log", || {
        std::fs::read_to_string(&log).is_ok_and(|l| l.contains("asked for --listen 10.213.0.1:3000"))
    });
    let keys = place.root().join("pt-disc");
    wait_for("the key service", || {
        let expected = format!("asked for --listen 10.213.0.1:4050 --key {}", keys.join("kms.key").display());
        keys.join("kmsd.json").exists()
            && std::fs::read_to_string(keys.join("logs/kmsd.log")).is_ok_and(|log| log.contains(&expected))
    });
    kill(first);
    wait_for("another discovery server", || server_pid(&place, "pt-disc").is_some_and(|pid| pid != first));
    let second = server_pid(&place, "pt-disc").unwrap();
    guard(&place, "pt-disc");
    kill(agent.pid);
    another(&place, "pt-disc", agent);
    wait_for("a third discovery server", || server_pid(&place, "pt-disc").is_some_and(|pid| pid != second));
    assert_eq!(arguments(second), None, "the server of the agent that was killed runs");
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
    assert_eq!(processes(" --name pt-why "), [""; 0], "a failed start is retried");
    let AgentError::NotStarted { last_words, .. } = &error else { panic!("{error}") };
    assert!(last_words.contains("Listen") && last_words.contains("10.214.0.1"), "{last_words}");
}

#[test]
fn nodes_reach_the_registry_and_the_agent_outlives_them() {
    let place = Place::new();
    let mut cluster = cluster(&place, "pt-pull", "10.215.0.0/24");
    let agent = agent::start(&place.root(), "pt-pull", &program()).unwrap();
    start(&mut cluster, "pt-pull-worker-1", None);
    place.written("pt-pull", "pt-pull-worker-1", "hostname");
    let namespace = place.root().join("pt-pull/netns/pt-pull-worker-1");
    let url = format!("http://10.215.0.1:{}/v2/", agent.registry_port);
    let enter = format!("--net={}", namespace.to_string_lossy());
    assert_eq!(crate::support::run("nsenter", &[&enter, "/bin/busybox", "wget", "-q", "-O", "-", &url]), "{}");
}

#[test]
fn a_node_whose_init_is_killed_is_started_again_with_its_disks_and_a_new_network() {
    let place = Place::new();
    let mut cluster = cluster(&place, "pt-power", "10.216.0.0/24");
    let agent = agent::start(&place.root(), "pt-power", &program()).unwrap();
    let node = "pt-power-worker-1";
    start(&mut cluster, node, None);
    place.written("pt-power", node, "hostname");
    let var = place.root().join("pt-power/nodes").join(node).join("var");
    std::fs::write(var.join("kept"), "yes").unwrap();
    let enter = format!("--net={}", place.root().join("pt-power/netns").join(node).to_string_lossy());
    let links = || crate::support::run("nsenter", &[&enter, "ip", "-brief", "link"]);
    crate::support::run("nsenter", &[&enter, "ip", "link", "add", "stray", "type", "bridge"]);
    assert!(links().contains("stray"));
    // While a command works on the cluster, its agent keeps away; this one is done with it.
    drop(cluster);
    let pid = || pid_of(&place, "pt-power");
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
    let (_, nodes) = show(&place.root(), "pt-power").unwrap();
    assert_eq!(nodes[0].status, NodeStatus::Absent, "a node that was never started is left alone");
}

/// Ends the worker's init with this status.
fn end_init(place: &Place, name: &str, status: &str) {
    let var = place.root().join(name).join("nodes").join(format!("{name}-worker-1")).join("var");
    std::fs::write(var.join("exit"), status).unwrap();
    std::fs::remove_file(var.join("done")).unwrap();
    signal(i32::try_from(pid_of(place, name).unwrap()).unwrap(), Signal::TERM);
}

#[test]
fn how_an_init_ends_decides_whether_its_node_is_powered_on_again() {
    let place = Place::new();
    let (name, node) = ("pt-ends", "pt-ends-worker-1");
    let mut cluster = cluster(&place, name, "10.225.0.0/24");
    let agent = agent::start(&place.root(), name, &program()).unwrap();
    start(&mut cluster, node, None);
    place.written(name, node, "hostname");
    drop(cluster);
    for status in ["64", "1"] {
        let before = pid_of(&place, name);
        end_init(&place, name, status);
        wait_for("another init", || pid_of(&place, name).is_some_and(|pid| Some(pid) != before));
        place.written(name, node, "hostname");
    }
    end_init(&place, name, "0");
    let is_off = || show(&place.root(), name).unwrap().0.settings(node).power == Power::Off;
    wait_for("the power off", is_off);
    assert_eq!(show(&place.root(), name).unwrap().1[1].status.to_string(), "powered off");
    // Also for the agent that comes after this one.
    kill(agent.pid);
    another(&place, name, agent);
    std::thread::park_timeout(std::time::Duration::from_secs(3));
    assert_eq!(pid_of(&place, name), None);
    let mut cluster = Cluster::open(&place.root(), name, &program()).unwrap();
    support::wait(cluster.power_on(node)).unwrap();
    drop(cluster);
    place.written(name, node, "hostname");
    assert!(pid_of(&place, name).is_some() && !is_off());
    destroy(&place, name);
}

#[test]
fn a_node_whose_monitor_is_killed_runs_on_and_counts_as_crashed_when_it_ends() {
    let place = Place::new();
    let (name, node) = ("pt-monitor", "pt-monitor-worker-1");
    let mut cluster = cluster(&place, name, "10.226.0.0/24");
    agent::start(&place.root(), name, &program()).unwrap();
    start(&mut cluster, node, None);
    place.written(name, node, "hostname");
    drop(cluster);
    let monitors = processes(" --monitor pt-monitor-worker-1 ");
    assert_eq!(monitors.len(), 1, "{monitors:?}");
    kill(monitors[0].parse().unwrap());
    wait_for("its end", || processes(" --monitor pt-monitor-worker-1 ").is_empty());
    let before = pid_of(&place, name);
    assert!(before.is_some());
    end_init(&place, name, "0");
    wait_for("another init", || pid_of(&place, name).is_some_and(|pid| Some(pid) != before));
    assert_eq!(processes(" --monitor pt-monitor-worker-1 ").len(), 1);
    destroy(&place, name);
}
