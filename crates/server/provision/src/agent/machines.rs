//! The sockets of what machines need beside images: DHCP and TFTP on the cluster's bridges, and the time and the load balancer of
//! the Kubernetes API on its gateway. They end with the agent, and begin again with the next.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube_edge::balancer::{Balancer, Upstream};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use stdx::tasks::TaskSet;
use stdx::{Clock as _, SystemClock};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use super::AgentError;
use crate::boot::dhcp::{LONGEST, Reply, SERVER_PORT, Server};
use crate::boot::tftp::{LARGEST_FILE, LONGEST_REQUEST, PORT, Refusal, Request, Step, Transfer, refuse};
use crate::boot::{IPXE_BIOS, IPXE_UEFI, time};
use crate::folder::Folder;
use crate::machines::{MachineSettings, Media};
use crate::plan::{Plan, Role};
use crate::state::State;

/// Transfers by TFTP at a time; firmware that is not served asks again.
const TRANSFERS: usize = 32;
/// Between two packets of a client.
const CLIENT_PAUSE: Duration = Duration::from_secs(1);
/// For one transfer.
const TRANSFER_TIME: Duration = Duration::from_secs(120);
/// Before a socket is read again that could not be read.
const PAUSE: Duration = Duration::from_millis(100);

/// All of it, until it is dropped.
#[derive(Debug)]
pub(super) struct MachineServices {
    _balancer: Balancer,
    _tasks: TaskSet,
}

impl MachineServices {
    /// Listens. `http_port` is that of the registry.
    pub(super) async fn start(
        plan: &Plan,
        settings: &MachineSettings,
        folder: &Folder,
        http_port: u16,
    ) -> Result<Self, AgentError> {
        let balanced = SocketAddr::from((plan.gateway, settings.api_port));
        let balancer = Balancer::bind(balanced).await?;
        balancer.set_upstreams(control_planes(plan, settings.api_port));
        let tasks = TaskSet::new("machines");
        for network in plan.networks() {
            let dhcp = dhcp_socket(&network.bridge).map_err(listening(Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
            let (dhcp, folder, number) = (Arc::new(dhcp), folder.clone(), network.number);
            tasks.keep("dhcp", move || answer_requests(Arc::clone(&dhcp), folder.clone(), number, http_port));
        }
        let clock = UdpSocket::bind((plan.gateway, time::PORT)).await;
        let clock = Arc::new(clock.map_err(listening(plan.gateway, time::PORT))?);
        tasks.keep("time", move || tell_time(Arc::clone(&clock)));
        if matches!(settings.media, Media::Network(_)) {
            let bound = UdpSocket::bind((plan.gateway, PORT)).await;
            let socket = Arc::new(bound.map_err(listening(plan.gateway, PORT))?);
            let (transfers, gateway) = (Arc::new(Semaphore::new(TRANSFERS)), plan.gateway);
            tasks.keep("tftp", move || send_files(Arc::clone(&socket), gateway, Arc::clone(&transfers)));
        }
        Ok(Self { _balancer: balancer, _tasks: tasks })
    }
}

fn listening(address: Ipv4Addr, port: u16) -> impl FnOnce(std::io::Error) -> AgentError {
    move |source| AgentError::Listen { address: SocketAddr::from((address, port)), source }
}

fn control_planes(plan: &Plan, port: u16) -> impl Iterator<Item = Upstream> {
    let nodes = plan.nodes.iter().filter(|node| node.role == Role::ControlPlane);
    nodes.map(move |node| Upstream { host: node.address.to_string(), port })
}

/// A socket for all that arrives on one bridge, sent by whoever has no address yet.
fn dhcp_socket(bridge: &str) -> std::io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    // Each cluster has one, on its own bridge.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_broadcast(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.bind_device(Some(bridge.as_bytes()))?;
    Ok(socket)
}

/// Answers by DHCP in the network of this number. Machines come and go: which there are is read anew for each request.
async fn answer_requests(socket: Arc<UdpSocket>, folder: Folder, number: usize, http_port: u16) {
    let mut packet = [0; LONGEST];
    loop {
        let received = match socket.recv_from(&mut packet).await {
            Ok((length, _)) => &packet[..length],
            Err(error) => {
                tracing::warn!(%error, "no DHCP request can be received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(Some(state)) = State::read(&folder) else { continue };
        let Some(settings) = state.driver.machines() else { continue };
        let networks = state.plan.networks();
        let Some(network) = networks.get(number) else { continue };
        let server = Server { plan: &state.plan, network, settings, http_port };
        let Some(Reply { packet, to }) = server.answer(received) else { continue };
        if let Err(error) = socket.send_to(&packet, to).await {
            tracing::warn!(%error, %to, "a DHCP answer cannot be sent");
        }
    }
}

/// Answers by NTP.
async fn tell_time(socket: Arc<UdpSocket>) {
    let mut packet = [0; time::LONGEST];
    loop {
        let (length, client) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "no question for the time can be received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if let Some(answer) = time::answer(&packet[..length], SystemClock.now()) {
            // It asks again.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

/// Answers by TFTP, each client from a socket of its own.
async fn send_files(socket: Arc<UdpSocket>, gateway: Ipv4Addr, transfers: Arc<Semaphore>) {
    let running = TaskSet::new("tftp");
    let mut packet = [0; LONGEST_REQUEST + 1];
    loop {
        let (length, client) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "no TFTP request can be received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let answer = match Request::parse(&packet[..length]) {
            Ok(request) => match Arc::clone(&transfers).try_acquire_owned() {
                Ok(permit) => {
                    running.spawn("transfer", async move {
                        let sent = tokio::time::timeout(TRANSFER_TIME, send_file(&request, gateway, client)).await;
                        tracing::info!(%client, name = request.name, sent = ?sent.ok(), "boot file requested");
                        drop(permit);
                    });
                    continue;
                }
                // It asks again.
                Err(_) => continue,
            },
            Err(Some(refusal)) => refuse(refusal),
            Err(None) => continue,
        };
        // A refusal that is lost is asked for again.
        let _ = socket.send_to(&answer, client).await;
    }
}

/// Where a boot file is that clients know by this name.
fn path_of(name: &str) -> Option<&'static Path> {
    let name = name.trim_start_matches('/');
    [IPXE_BIOS, IPXE_UEFI].into_iter().find(|(known, _)| *known == name).map(|(_, path)| Path::new(path))
}

/// Sends one file; whether all of it was received.
async fn send_file(request: &Request, gateway: Ipv4Addr, client: SocketAddr) -> std::io::Result<bool> {
    let socket = UdpSocket::bind((gateway, 0)).await?;
    socket.connect(client).await?;
    let Some(path) = path_of(&request.name) else {
        socket.send(&refuse(Refusal::NotFound)).await?;
        return Ok(false);
    };
    let data = match tokio::fs::metadata(path).await {
        Ok(metadata) if metadata.len() <= LARGEST_FILE => tokio::fs::read(path).await?,
        _ => {
            socket.send(&refuse(Refusal::NotFound)).await?;
            return Ok(false);
        }
    };
    let (mut transfer, first) = Transfer::begin(request, data);
    socket.send(&first).await?;
    let mut packet = [0; LONGEST_REQUEST];
    loop {
        // Received or not, the transfer says what comes next.
        let step = match tokio::time::timeout(CLIENT_PAUSE, socket.recv(&mut packet)).await {
            Ok(length) => transfer.receive(&packet[..length?]),
            Err(_) => transfer.repeat(),
        };
        match step {
            Step::Send(packet) => drop(socket.send(&packet).await?),
            Step::Wait => {}
            Step::Done => return Ok(true),
            Step::GiveUp => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_know_boot_files_by_two_names_and_no_path() {
        assert_eq!(path_of("ipxe/amd64/snp.efi"), Some(Path::new("/usr/lib/ipxe/snponly.efi")));
        assert_eq!(path_of("/ipxe/amd64/undionly.kpxe"), Some(Path::new("/usr/lib/ipxe/undionly.kpxe")));
        for name in ["", "snp.efi", "../../etc/passwd", "/usr/lib/ipxe/snponly.efi", "ipxe/amd64/../amd64/snp.efi"] {
            assert_eq!(path_of(name), None, "{name}");
        }
    }

    #[tokio::test]
    async fn whoever_asks_for_the_time_is_told_that_of_this_host() {
        let server = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let port = server.local_addr().unwrap().port();
        let tasks = TaskSet::new("test");
        tasks.spawn("time", tell_time(server));
        let target = ntp::Target { server: "127.0.0.1".to_owned(), address: None };
        let (answer, _) = ntp::Ask::ask(&ntp::KernelAsk::at_port(port), &target).await.unwrap();
        let ntp::Answer::Sample(sample) = answer else { panic!("{answer:?}") };
        assert!(sample.offset.seconds().abs() < 1.0, "{}", sample.offset);
    }

    #[tokio::test]
    async fn a_client_on_another_port_gets_the_file_in_blocks() {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let request = Request::parse(b"\0\x01nothing\0octet\0").unwrap();
        let sent = send_file(&request, Ipv4Addr::LOCALHOST, client.local_addr().unwrap()).await.unwrap();
        assert!(!sent);
        let mut packet = [0; 100];
        let (length, server) = client.recv_from(&mut packet).await.unwrap();
        assert_eq!(&packet[..4], [0, 5, 0, 1], "{:?}", &packet[..length]);
        assert_ne!(server.port(), PORT);
    }
}
