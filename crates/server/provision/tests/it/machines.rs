//! Clusters of virtual machines whose only program is the iPXE of their network card. It gets its address from the cluster's
//! DHCP server, fetches a script from here, and does what that says: reset the machine, or load a boot sector that powers it
//! off.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddrV4, TcpListener};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use provision::machines::{BootScript, DhcpSettings, Firmware, MachineSettings, Media, SystemDisk};
use provision::{
    Cluster, ClusterSpec, DriverSettings, Ended, Exit, Limits, NodeSpec, NodeStatus, Plan, Power, ProvisionError, agent,
};

use crate::support::{arguments, census, destroy, processes, program, run, show, spawn, start_within, wait};

const SCRIPT: &[u8] = b"#!ipxe\nreboot\n";
const LAST_SCRIPT: &[u8] = b"#!ipxe\nchain off.bin\n";
/// `mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt; jmp`: the board's power switch.
const POWER_OFF: [u8; 10] = [0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd];
const LIMITS: Limits = Limits { milli_cpus: Some(1000), memory: Some(512 << 20) };

/// Serves a script that resets so often, and then one that powers off.
struct Scripts {
    port: u16,
    served: Arc<AtomicUsize>,
    /// Addresses of the clients.
    clients: Arc<Mutex<Vec<IpAddr>>>,
}

impl Scripts {
    fn serve(resets: usize) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let scripts = Self { port, served: Arc::default(), clients: Arc::default() };
        let (served, clients) = (Arc::clone(&scripts.served), Arc::clone(&scripts.clients));
        // It ends with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut line, mut rest) = (String::new(), String::new());
                reader.read_line(&mut line).unwrap();
                while reader.read_line(&mut rest).unwrap() > 2 {
                    rest.clear();
                }
                clients.lock().push(stream.peer_addr().unwrap().ip());
                let body = if line.contains("off.bin") {
                    [POWER_OFF.as_slice(), &[0; 502]].concat()
                } else if served.fetch_add(1, Ordering::SeqCst) < resets {
                    SCRIPT.to_vec()
                } else {
                    LAST_SCRIPT.to_vec()
                };
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                // Firmware that was reset does not read on.
                drop(stream.write_all(&[head.as_bytes(), &body].concat()));
            }
        });
        scripts
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

/// A machine without a program: an interface on a bridge, whose packets pass the cluster's firewall.
struct Stranger(&'static str);

impl Stranger {
    fn connect(name: &'static str, bridge: &str) -> Self {
        run("ip", &["netns", "add", name]);
        run("ip", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name]);
        run("ip", &["link", "set", name, "master", bridge, "up"]);
        run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        Self(name)
    }

    fn run(&self, arguments: &[&str]) -> String {
        run("ip", &[&["netns", "exec", self.0], arguments].concat())
    }

    /// Does something in its network.
    fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        let thread = std::thread::spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    fn has(&self, address: std::net::Ipv4Addr) {
        self.run(&["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"]);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        run("ip", &["netns", "delete", self.0]);
    }
}

struct Machines {
    folder: tempfile::TempDir,
    name: &'static str,
    bridge: String,
}

impl Machines {
    fn create(
        name: &'static str,
        cidr: &str,
        scripts: &Scripts,
        change: impl FnOnce(&mut MachineSettings),
    ) -> (Self, Cluster) {
        Self::create_in(name, cidr, &[], scripts, change)
    }

    /// Machines that boot from a script at this address.
    fn settings(address: SocketAddrV4) -> MachineSettings {
        MachineSettings {
            firmware: Firmware::Bios,
            media: Media::Network(BootScript::Url(format!("http://{address}/script.ipxe"))),
            disk: SystemDisk { size: 1 << 20, preallocate: false },
            dhcp: DhcpSettings { hostnames: true, resolvers: vec![*address.ip()] },
            ..MachineSettings::default()
        }
    }

    fn create_in(
        name: &'static str,
        cidr: &str,
        sides: &[&str],
        scripts: &Scripts,
        change: impl FnOnce(&mut MachineSettings),
    ) -> (Self, Cluster) {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let mut plan = Plan::new(name, cidr, 1500, &NodeSpec { controlplanes: 1, workers: 0 }).unwrap();
        sides.iter().for_each(|side| plan.add_network(side).unwrap());
        let this = Self { folder: tempfile::tempdir().unwrap(), name, bridge: plan.bridge.clone() };
        let address = SocketAddrV4::new(plan.gateway, scripts.port);
        let mut settings = Self::settings(address);
        change(&mut settings);
        let driver = DriverSettings::Qemu(Box::new(settings));
        let spec = ClusterSpec {
            plan,
            driver,
            bundle: None,
            discoveryd: None,
            kmsd: None,
            reachable: vec![address],
            exposed: vec![],
        };
        let cluster = wait(Cluster::create(&this.root(), &spec, &program()));
        let cluster = cluster.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        agent::start(&this.root(), name, &program()).unwrap();
        (this, cluster)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("clusters")
    }

    fn node(&self) -> String {
        format!("{}-controlplane-1", self.name)
    }

    fn status(&self) -> NodeStatus {
        show(&self.root(), self.name).unwrap().1[0].status
    }

    fn is_off(&self) -> bool {
        self.status() == NodeStatus::Ended(Ended::PoweredOff)
    }

    /// Waits under the emulator, beside other tests.
    fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        for _ in 0..1200 {
            if done() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let logs = self.root().join(self.name).join("logs");
        let log = |name: &str| std::fs::read_to_string(logs.join(format!("{name}.log"))).unwrap_or_default();
        let (events, own) = (log(&format!("{}.events", self.node())), log("agent"));
        panic!("waited 120 s for {what}; {:?}; {events}; {own}", self.status());
    }

    fn monitor(&self) -> String {
        let monitors = processes(&format!("--monitor {} ", self.node()));
        let [monitor] = &monitors[..] else { panic!("monitors {monitors:?}") };
        monitor.clone()
    }

    fn destroy(&self) {
        let destroyed = destroy(&self.root(), self.name).unwrap();
        assert!(destroyed.errors.is_empty(), "{:?}", destroyed.errors);
        let left = census(&self.root(), self.name);
        assert!(left.is_empty(), "left behind: {left:#?}");
        assert_eq!(processes(&format!("talos:{}:", self.name)), [""; 0]);
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        drop(destroy(&self.root(), self.name));
    }
}

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_machine_gets_its_address_comes_back_from_a_reset_and_stays_off_when_it_powers_itself_off() {
    let scripts = Scripts::serve(1);
    let (machines, mut cluster) = Machines::create("vm-cycle", "10.227.0.0/24", &scripts, |_| {});
    let node = machines.node();
    start_within(&mut cluster, &node, None, LIMITS);
    let NodeStatus::Running { pid } = machines.status() else { panic!("{}", machines.status()) };
    let line = arguments(pid).unwrap();
    assert!(line.contains(" -name talos:vm-cycle:vm-cycle-controlplane-1 "), "{line}");
    drop(cluster);
    machines.wait_for("the machine to power off", || machines.is_off());
    assert_eq!(scripts.served(), 2, "it came back once");
    let own: IpAddr = [10, 227, 0, 2].into();
    assert!(scripts.clients.lock().iter().all(|client| *client == own), "{:?}", scripts.clients.lock());
    machines.wait_for("the power state", || {
        show(&machines.root(), machines.name).unwrap().0.settings(&node).power == Power::Off
    });
    let mut cluster = Cluster::open(&machines.root(), machines.name, &program()).unwrap();
    wait(cluster.power_on(&node)).unwrap();
    drop(cluster);
    machines.wait_for("the machine to power off again", || scripts.served() == 3 && machines.is_off());
    machines.destroy();
}

/// Firmware without iPXE of its own.
#[test]
fn firmware_fetches_ipxe_from_the_gateway_by_tftp() {
    let scripts = Scripts::serve(0);
    let (machines, cluster) = Machines::create("vm-tftp", "10.230.0.0/24", &scripts, |_| {});
    let stranger = Stranger::connect("vm-tftp-client", &machines.bridge);
    stranger.has(cluster.plan().nodes[0].address);
    let file = machines.folder.path().join("snp.efi");
    let (local, gateway) = (file.to_string_lossy().into_owned(), cluster.plan().gateway.to_string());
    stranger.run(&["busybox", "tftp", "-g", "-b", "1468", "-l", &local, "-r", "ipxe/amd64/snp.efi", &gateway]);
    let same = std::fs::read(&file).unwrap() == std::fs::read("/usr/lib/ipxe/snponly.efi").unwrap();
    assert!(same, "another file");
    drop(stranger);
    drop(cluster);
    machines.destroy();
}

/// By the rules of the cluster, whatever else listens on the usual port.
#[test]
fn the_gateway_tells_the_time() {
    let scripts = Scripts::serve(0);
    let (machines, cluster) = Machines::create("vm-time", "10.231.0.0/24", &scripts, |_| {});
    let stranger = Stranger::connect("vm-time-client", &machines.bridge);
    stranger.has(cluster.plan().nodes[0].address);
    let gateway = cluster.plan().gateway.to_string();
    let answer = stranger.enter(move || {
        let target = ntp::Target { server: gateway, address: None };
        wait(ntp::Ask::ask(&ntp::KernelAsk::default(), &target))
    });
    let ntp::Answer::Sample(sample) = answer.unwrap().0 else { panic!("refused") };
    assert!(sample.offset.seconds().abs() < 1.0, "{}", sample.offset);
    drop(stranger);
    drop(cluster);
    machines.destroy();
}

#[test]
fn a_machine_of_several_networks_has_a_link_and_an_address_in_each_and_they_stay_apart() {
    let scripts = Scripts::serve(1000);
    let (machines, mut cluster) = Machines::create_in("vm-nets", "10.232.0.0/24", &["10.233.0.0/24"], &scripts, |_| {});
    start_within(&mut cluster, &machines.node(), None, LIMITS);
    let plan = cluster.plan().clone();
    let NodeStatus::Running { pid } = machines.status() else { panic!("{}", machines.status()) };
    let line = arguments(pid).unwrap();
    let side = &plan.side_networks[0];
    for (network, netdev) in plan.networks().iter().zip(["net0", "net1"]) {
        let link = plan.link(&plan.nodes[0], network);
        assert!(line.contains(&format!("tap,id={netdev},ifname={link},")), "{line}");
        let master = std::fs::read_link(format!("/sys/class/net/{link}/master")).unwrap();
        assert!(master.ends_with(&network.bridge), "{master:?}");
    }
    let (_, rest) = line.split_once("netdev=net1,mac=").unwrap();
    let hardware = rest.split([',', ' ']).next().unwrap();
    let stranger = Stranger::connect("vm-nets-client", &side.bridge);
    stranger.run(&["ip", "link", "set", "eth0", "address", hardware]);
    let script = machines.folder.path().join("told");
    std::fs::write(&script, "#!/bin/sh\n[ \"$1\" != bound ] || env\n").unwrap();
    run("chmod", &["755", &script.to_string_lossy()]);
    let told = stranger.run(&["busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", &script.to_string_lossy()]);
    assert!(told.lines().any(|line| line == "ip=10.233.0.2") && told.contains("serverid=10.233.0.1"), "{told}");
    assert!(!told.contains("router=") && !told.contains("dns=") && !told.contains("ntpsrv="), "{told}");
    // It reaches the gateway, and through it neither the other network nor a server of this host.
    stranger.has([10, 233, 0, 2].into());
    stranger.run(&["ip", "route", "add", "default", "via", "10.233.0.1"]);
    stranger.run(&["busybox", "ping", "-c", "1", "-W", "2", "10.233.0.1"]);
    let refused =
        ["! busybox ping -c 1 -W 1 10.232.0.2".to_owned(), format!("! busybox nc -w 1 10.233.0.1 {}", scripts.port)];
    refused.iter().for_each(|line| drop(stranger.run(&["sh", "-c", line])));
    drop(stranger);
    drop(cluster);
    machines.destroy();
    assert!(!PathBuf::from("/sys/class/net").join(&side.bridge).exists());
}

/// Wherever a create is killed, what it made is seen, is in the way of another create, and can be removed.
#[test]
fn a_create_that_is_killed_at_any_moment_leaves_nothing_that_destroy_does_not_remove() {
    let scripts = Scripts::serve(1000);
    let name = "vm-kill";
    let settings = MachineSettings { tpm: true, ..Machines::settings("10.234.0.1:1".parse().unwrap()) };
    let settings = serde_json::to_string(&settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("clusters");
    let (agent, place) = (program().program, root.to_string_lossy().into_owned());
    let create = agent.with_file_name("make_machines");
    let start = || spawn(&create, &[&agent.to_string_lossy(), &place, name, "10.234.0.0/24", &settings]);
    let remove = |when: &str| {
        let destroyed = destroy(&root, name);
        match destroyed {
            Ok(destroyed) => assert!(destroyed.errors.is_empty(), "{when}: {:?}", destroyed.errors),
            Err(ProvisionError::NoSuchCluster { .. }) => {}
            Err(error) => panic!("{when}: {error}"),
        }
        let left = || {
            let mut left = census(&root, name);
            left.extend(processes(&format!("talos:{name}:")));
            left.extend(processes(&format!("{place}/{name}/")));
            left
        };
        // An agent whose cluster is gone ends by itself.
        for _ in 0..100 {
            if left().is_empty() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("{when}: left behind: {:#?}", left());
    };
    let began = tokio::time::Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = began.elapsed();
    assert_eq!(processes(&format!("talos:{name}:")).len(), 2);
    let again = start().wait().unwrap();
    assert!(!again.success(), "a second one of the same name");
    remove("after all of it");
    const KILLS: u32 = 20;
    for kill in 0..KILLS {
        let mut child = start();
        std::thread::park_timeout(whole * kill / KILLS);
        child.kill().unwrap();
        child.wait().unwrap();
        remove(&format!("killed after {kill}/{KILLS} of {whole:?}"));
    }
    // Nothing is in the way of the next one.
    assert!(start().wait().unwrap().success());
    remove("at the end");
    drop(scripts);
}

#[test]
fn clusters_of_machines_side_by_side_do_not_touch_each_other() {
    let scripts = Scripts::serve(1000);
    let (one, mut first) = Machines::create("vm-one", "10.236.0.0/24", &scripts, |_| {});
    let (two, mut second) = Machines::create("vm-two", "10.237.0.0/24", &scripts, |_| {});
    start_within(&mut first, &one.node(), None, LIMITS);
    start_within(&mut second, &two.node(), None, LIMITS);
    drop((first, second));
    let before = census(&two.root(), two.name);
    let serving = agent::status(&two.root(), two.name).unwrap();
    one.destroy();
    assert_eq!(census(&two.root(), two.name), before);
    assert_eq!(agent::status(&two.root(), two.name), Some(serving));
    assert_eq!(processes("talos:vm-two:").len(), 1);
    two.destroy();
}

#[test]
fn how_a_machine_ended_is_known_without_its_monitor_and_a_killed_one_comes_back() {
    let scripts = Scripts::serve(0);
    let (machines, mut cluster) =
        Machines::create("vm-lone", "10.228.0.0/24", &scripts, |settings| settings.tpm = true);
    start_within(&mut cluster, &machines.node(), None, LIMITS);
    let NodeStatus::Running { pid } = machines.status() else { panic!("{}", machines.status()) };
    kill(&machines.monitor());
    kill(&pid.to_string());
    let dead = NodeStatus::Ended(Ended::Crashed(Exit::Unknown));
    machines.wait_for("the machine to be seen dead", || machines.status() == dead);
    drop(cluster);
    // The agent starts it again, and it powers itself off; this time the monitor alone goes earlier.
    machines.wait_for("another emulator", || matches!(machines.status(), NodeStatus::Running { .. }));
    kill(&machines.monitor());
    machines.wait_for("the machine to power off", || machines.is_off());
    machines.destroy();
}

#[test]
fn machines_are_removed_by_the_name_of_their_cluster_alone() {
    let scripts = Scripts::serve(1000);
    let (machines, mut cluster) = Machines::create("vm-lost", "10.229.0.0/24", &scripts, |_| {});
    start_within(&mut cluster, &machines.node(), None, LIMITS);
    drop(cluster);
    // Without its folder, the agent goes by itself.
    std::fs::remove_dir_all(machines.root().join(machines.name)).unwrap();
    assert_eq!(processes("talos:vm-lost:").len(), 1);
    let destroyed = destroy(&machines.root(), machines.name).unwrap();
    assert!(destroyed.errors.is_empty(), "{:?}", destroyed.errors);
    assert_eq!(processes("talos:vm-lost:"), [""; 0]);
    assert!(!PathBuf::from("/sys/class/net").join(&machines.bridge).exists());
    let gone = || census(&machines.root(), machines.name).is_empty();
    for _ in 0..200 {
        if gone() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("left behind: {:?}", census(&machines.root(), machines.name));
}
