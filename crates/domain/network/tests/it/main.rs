//! All controllers of this crate on a kernel: a network namespace that is the machine, another one with a server of DHCP, and
//! a cable between them. Needs root and busybox.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use controller::testing::Harness;
use dhcp::KernelSockets;
use domain_network::{Arguments, Edges, controllers};
use netlink::{Addresses, KernelNetlink, LinkChange, Links, Namespace, Routes};
use parking_lot::Mutex;
use resources::cluster::Identity;
use resources::config::MachineConfig;
use resources::enums::RoutingTable;
use resources::machine::{PlatformCapabilities, PlatformMode};
use resources::network::{ResolverStatus, TimeServerStatus};
use resources::runtime::DevicesStatus;
use sys::process::{Child, Command};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(30);

/// The machine, and the network that it is connected to.
struct It {
    machine: Arc<Namespace>,
    kernel: KernelNetlink,
    harness: Harness,
    name: Arc<Mutex<String>>,
    network: Namespace,
}

impl It {
    async fn start() -> Self {
        let network = Namespace::create().expect("needs root");
        let machine = Arc::new(Namespace::create().unwrap());
        let outside = KernelNetlink::connect_in(&network).unwrap();
        let kernel = KernelNetlink::connect_in(&machine).unwrap();
        outside.create_veth("server0", "eth0").await.unwrap();
        outside.move_link("eth0", &machine).await.unwrap();
        outside.add_address("server0", "10.77.0.1/24".parse().unwrap()).await.unwrap();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        outside.change_link("server0", up).await.unwrap();
        let name = Arc::new(Mutex::new(String::new()));
        let set = Arc::clone(&name);
        let shared = Arc::new(kernel.clone());
        let edges = Edges {
            links: shared.clone(),
            addresses: shared.clone(),
            routes: shared,
            dhcp: Arc::new(KernelSockets::of(Arc::clone(&machine))),
            set_hostname: Arc::new(move |name: &str| {
                name.clone_into(&mut set.lock());
                Ok(())
            }),
            arguments: Arguments::default(),
        };
        let harness = Harness::new();
        for controller in controllers(&edges) {
            harness.runtime.register_boxed(controller).unwrap();
        }
        harness.put(PlatformCapabilities::ID, PlatformCapabilities::owning_all(PlatformMode::Metal));
        harness.put(DevicesStatus::ID, DevicesStatus { ready: true });
        harness.put(Identity::ID, Identity { node_id: "abc".into() });
        harness.runtime.start();
        Self { machine, kernel, harness, name, network }
    }

    fn configure(&self, interface: &str) {
        let text =
            format!("version: v1alpha1\nmachine:\n  type: worker\n  network:\n    interfaces:\n      - {interface}\n");
        self.harness.put(MachineConfig::ACTIVE_ID, MachineConfig::new(&text));
    }

    /// Addresses and default gateways of the machine.
    async fn seen(&self) -> (Vec<String>, Vec<String>) {
        let addresses = self.kernel.addresses().await.unwrap();
        let addresses = addresses.iter().filter_map(|known| known.address).filter(|net| net.addr().is_ipv4());
        let routes = self.kernel.routes().await.unwrap();
        let routes = routes.iter().filter(|route| route.table == RoutingTable::MAIN && route.gateway.is_some());
        let text = |route: &netlink::Route| {
            let to = route.destination.map_or_else(|| "default".to_owned(), |net| net.to_string());
            format!("{to} {} {}", route.gateway.unwrap(), route.priority)
        };
        (addresses.map(|net| net.to_string()).collect(), routes.map(text).collect())
    }

    /// Waits until the machine has exactly these addresses and routes.
    async fn wait(&self, addresses: &[&str], routes: &[&str]) {
        let end = Instant::now() + DEADLINE;
        loop {
            let seen = self.seen().await;
            if seen.0 == addresses && seen.1 == routes {
                return;
            }
            assert!(Instant::now() < end, "{seen:?} instead of {addresses:?} {routes:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A server of DHCP in a namespace, and what it says.
struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    fn start(network: &Namespace, folder: &Path, options: &str) -> Self {
        use std::os::fd::{AsFd as _, AsRawFd as _};
        let file = |name: &str| folder.join(name).display().to_string();
        let settings = format!(
            "start 10.77.0.100\nend 10.77.0.100\ninterface server0\nmin_lease 10\nlease_file {}\npidfile {}\n\
             opt subnet 255.255.255.0\nopt router 10.77.0.1\n{options}",
            file("leases"),
            file("pid"),
        );
        std::fs::write(folder.join("udhcpd.conf"), settings).unwrap();
        std::fs::write(folder.join("leases"), "").unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&log);
        let namespace = format!("--net=/proc/{}/fd/{}", std::process::id(), network.as_fd().as_raw_fd());
        let child = Command::new("/usr/bin/nsenter")
            .args([&namespace, "busybox", "udhcpd", "-f", &file("udhcpd.conf")])
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .output(Arc::new(move |bytes| sink.lock().push_str(&String::from_utf8_lossy(bytes))))
            .spawn()
            .unwrap();
        Self { child, log }
    }

    async fn wait_for(&self, text: &str, times: usize) {
        let end = Instant::now() + DEADLINE;
        while self.log.lock().matches(text).count() < times {
            assert!(Instant::now() < end, "not {times} times {text:?}: {}", self.log.lock());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn stop(mut self) {
        self.child.stop(Duration::from_secs(5)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_its_settings_by_dhcp_renews_them_and_changes_to_static_ones_and_back() {
    let it = It::start().await;
    let folder = tempfile::tempdir().unwrap();
    let options = "opt dns 10.77.0.1 10.77.0.2\nopt ntpsrv 10.77.0.3\nopt hostname vm-7\nopt domain lab.example\n\
                   opt mtu 1400\nopt lease 10\n";
    let server = Server::start(&it.network, folder.path(), options);
    it.configure("{interface: eth0, dhcp: true}");
    it.wait(&["127.0.0.1/8", "10.77.0.100/24"], &["default 10.77.0.1 1024"]).await;
    assert_eq!(it.kernel.link("eth0").await.unwrap().unwrap().mtu, 1400);
    server.wait_for("sending ACK", 1).await;
    it.harness.settle().await;
    let resolvers = it.harness.get::<ResolverStatus>(ResolverStatus::ID).unwrap();
    let texts: Vec<String> = resolvers.dns_servers.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.77.0.1", "10.77.0.2"]);
    let time = it.harness.get::<TimeServerStatus>(TimeServerStatus::ID).unwrap();
    assert_eq!(time.time_servers, ["10.77.0.3"]);
    assert_eq!(*it.name.lock(), "vm-7");
    // Half of the lease is five seconds.
    server.wait_for("sending ACK", 2).await;

    it.configure(
        "{interface: eth0, mtu: 1300, addresses: [10.77.0.9/24], \
         routes: [{network: 0.0.0.0/0, gateway: 10.77.0.1, metric: 7}, {network: 10.99.0.0/16, gateway: 10.77.0.1}]}",
    );
    it.wait(&["127.0.0.1/8", "10.77.0.9/24"], &["default 10.77.0.1 7", "10.99.0.0/16 10.77.0.1 1024"]).await;
    assert_eq!(it.kernel.link("eth0").await.unwrap().unwrap().mtu, 1300);

    // What somebody else removes comes back.
    let kernel = &it.kernel;
    kernel.delete_address("eth0", "10.77.0.9/24".parse().unwrap()).await.unwrap();
    it.wait(&["127.0.0.1/8", "10.77.0.9/24"], &["default 10.77.0.1 7", "10.99.0.0/16 10.77.0.1 1024"]).await;
    kernel.change_link("eth0", LinkChange { up: Some(false), ..LinkChange::default() }).await.unwrap();
    it.wait(&["127.0.0.1/8", "10.77.0.9/24"], &["default 10.77.0.1 7", "10.99.0.0/16 10.77.0.1 1024"]).await;

    it.configure("{interface: eth0, dhcp: true, dhcpOptions: {routeMetric: 50}}");
    it.wait(&["127.0.0.1/8", "10.77.0.100/24"], &["default 10.77.0.1 50"]).await;
    server.stop().await;
    drop(it.machine);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_renews_is_taken_from_the_kernel_and_a_later_server_is_found() {
    let it = It::start().await;
    let folder = tempfile::tempdir().unwrap();
    it.configure("{interface: eth0, dhcp: true}");
    let server = Server::start(&it.network, folder.path(), "opt lease 10\n");
    it.wait(&["127.0.0.1/8", "10.77.0.100/24"], &["default 10.77.0.1 1024"]).await;
    server.stop().await;
    it.wait(&["127.0.0.1/8"], &[]).await;
    let server = Server::start(&it.network, folder.path(), "opt lease 10\n");
    it.wait(&["127.0.0.1/8", "10.77.0.100/24"], &["default 10.77.0.1 1024"]).await;
    server.stop().await;
}
