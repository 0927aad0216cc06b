use proptest::prelude::*;

use super::*;
use crate::machines::DhcpSettings;
use crate::plan::NodeSpec;

const UNKNOWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

struct Cluster {
    plan: Plan,
    network: Network,
    settings: MachineSettings,
}

impl Cluster {
    fn new(media: Option<Media>) -> Self {
        let plan = Plan::new("one", "10.5.0.0/24", 1450, &NodeSpec { controlplanes: 1, workers: 1 }).unwrap();
        let usual = MachineSettings::default();
        let settings = MachineSettings {
            media: media.unwrap_or(usual.media.clone()),
            dhcp: DhcpSettings { hostnames: true, resolvers: vec![[8, 8, 8, 8].into(), [1, 1, 1, 1].into()] },
            ..usual
        };
        let network = plan.networks().remove(0);
        Self { plan, network, settings }
    }

    fn worker(&self) -> [u8; 6] {
        machines::mac(&self.plan, &self.plan.nodes[1], &self.network)
    }

    fn answer(&self, request: &Message) -> Option<(Message, SocketAddrV4)> {
        let Reply { packet, to } = self.server().answer(&request.encode())?;
        Some((Message::decode(&packet).unwrap(), to))
    }

    fn server(&self) -> Server<'_> {
        Server { plan: &self.plan, network: &self.network, settings: &self.settings, http_port: 5000 }
    }
}

fn request(hardware: [u8; 6], kind: MessageType) -> Message {
    Message::request(7, hardware).of(kind)
}

fn kind(message: &Message) -> MessageType {
    message.kind().unwrap()
}

#[test]
fn a_machine_is_offered_the_address_of_its_slot_with_all_settings() {
    let cluster = Cluster::new(None);
    let (offer, to) = cluster.answer(&request(cluster.worker(), MessageType::Discover)).unwrap();
    assert_eq!((kind(&offer), offer.yiaddr, offer.xid), (MessageType::Offer, [10, 5, 0, 3].into(), 7));
    assert_eq!((offer.op, offer.chaddr), (Op::Reply, cluster.worker()));
    assert_eq!(to, "255.255.255.255:68".parse().unwrap());
    let gateway = Ipv4Addr::new(10, 5, 0, 1);
    for (code, wanted) in [
        (Code::SubnetMask, &[255, 255, 255, 0][..]),
        (Code::Broadcast, &[10, 5, 0, 255]),
        (Code::Router, &gateway.octets()),
        (Code::NtpServers, &gateway.octets()),
        (Code::ServerId, &gateway.octets()),
        (Code::ClasslessRoutes, &[0, 10, 5, 0, 1]),
        (Code::DnsServers, &[8, 8, 8, 8, 1, 1, 1, 1]),
        (Code::HostName, b"one-worker-1"),
        (Code::Mtu, &1450u16.to_be_bytes()),
        (Code::LeaseTime, &300u32.to_be_bytes()),
        (Code::RenewalTime, &150u32.to_be_bytes()),
        (Code::RebindingTime, &259u32.to_be_bytes()),
    ] {
        assert_eq!(offer.option(code), Some(wanted), "{code:?}");
    }
    assert_eq!(offer.option(Code::BootFile), None, "these machines boot from elsewhere");
}

#[test]
fn in_a_side_network_a_machine_gets_an_address_and_no_way_out() {
    let mut cluster = Cluster::new(Some(Media::Network(BootScript::Url("http://a/b".to_owned()))));
    let elsewhere = request(cluster.worker(), MessageType::Discover);
    cluster.plan.add_network("10.6.0.0/24").unwrap();
    cluster.network = cluster.plan.networks().remove(1);
    assert_eq!(cluster.answer(&elsewhere), None, "the hardware address of another network");
    let ipxe = request(cluster.worker(), MessageType::Discover).with(Code::UserClass, *b"iPXE");
    let (offer, _) = cluster.answer(&ipxe).unwrap();
    assert_eq!((kind(&offer), offer.yiaddr), (MessageType::Offer, [10, 6, 0, 3].into()));
    assert_eq!(offer.address(Code::ServerId), Some([10, 6, 0, 1].into()));
    assert_eq!((offer.prefix_len(), offer.mtu(), offer.number(Code::LeaseTime)), (Some(24), Some(1450), Some(300)));
    for code in [
        Code::Router,
        Code::ClasslessRoutes,
        Code::DnsServers,
        Code::NtpServers,
        Code::HostName,
        Code::BootFile,
        Code::TftpServer,
    ] {
        assert_eq!(offer.option(code), None, "{code:?}");
    }
}

#[test]
fn a_request_is_granted_for_the_own_address_alone() {
    let cluster = Cluster::new(None);
    let wants = |address: [u8; 4]| {
        let request = request(cluster.worker(), MessageType::Request)
            .with(Code::RequestedAddress, address)
            .with_addresses(Code::ServerId, &[cluster.plan.gateway]);
        cluster.answer(&request).unwrap()
    };
    assert_eq!(kind(&wants([10, 5, 0, 3]).0), MessageType::Ack);
    let (refusal, to) = wants([10, 5, 0, 2]);
    assert_eq!((kind(&refusal), refusal.yiaddr), (MessageType::Nak, Ipv4Addr::UNSPECIFIED));
    assert_eq!(to.ip(), &Ipv4Addr::BROADCAST);
}

#[test]
fn a_renewal_is_answered_where_the_machine_is() {
    let cluster = Cluster::new(None);
    let mut renewal = request(cluster.worker(), MessageType::Request);
    renewal.ciaddr = [10, 5, 0, 3].into();
    let (ack, to) = cluster.answer(&renewal).unwrap();
    assert_eq!((kind(&ack), ack.yiaddr, to), (MessageType::Ack, [10, 5, 0, 3].into(), "10.5.0.3:68".parse().unwrap()));
    let mut inform = request(cluster.worker(), MessageType::Inform);
    inform.ciaddr = [10, 5, 0, 3].into();
    let (settings, _) = cluster.answer(&inform).unwrap();
    assert_eq!((kind(&settings), settings.yiaddr), (MessageType::Ack, Ipv4Addr::UNSPECIFIED));
    assert_eq!(settings.option(Code::LeaseTime), None);
}

#[test]
fn what_is_not_for_this_server_gets_no_answer() {
    let cluster = Cluster::new(None);
    let own = cluster.worker();
    assert_eq!(cluster.answer(&request(UNKNOWN, MessageType::Discover)), None, "a machine of another cluster");
    let other = request(own, MessageType::Request).with(Code::ServerId, [10, 5, 0, 9]);
    assert_eq!(cluster.answer(&other), None, "another server's offer");
    for kind in [MessageType::Release, MessageType::Decline, MessageType::Offer, MessageType::Ack] {
        assert_eq!(cluster.answer(&request(own, kind)), None, "{kind:?}");
    }
    let mut relayed = request(own, MessageType::Discover);
    relayed.giaddr = [10, 0, 0, 1].into();
    assert_eq!(cluster.answer(&relayed), None, "a relay's");
    let mut reply = request(own, MessageType::Discover);
    reply.op = Op::Reply;
    assert_eq!(cluster.answer(&reply), None, "a server's");
}

/// A request of iPXE in a cluster whose machines boot from the network.
fn booting() -> (Cluster, Vec<u8>) {
    let cluster = Cluster::new(Some(Media::Network(BootScript::Url("http://a/b".to_owned()))));
    let request = request(cluster.worker(), MessageType::Discover)
        .with(Code::HostName, *b"a")
        .with(Code::VendorClass, *b"PXEClient")
        .with(Code::UserClass, *b"iPXE")
        .with(Code::ClientArchitecture, [0, 7]);
    (cluster, request.encode())
}

#[test]
fn a_cut_message_and_a_hardware_address_of_another_length_get_no_answer() {
    let (cluster, good) = booting();
    let server = cluster.server();
    assert!(server.answer(&good).is_some());
    for length in 0..240 {
        assert_eq!(server.answer(&good[..length]), None, "{length} bytes");
    }
    for length in (0..=255).filter(|length| *length != 6) {
        let mut bad = good.clone();
        bad[2] = length;
        assert_eq!(server.answer(&bad), None, "an address of {length} bytes");
    }
    assert_eq!(server.answer(&[0; 65000]), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_stumble(bytes in prop::collection::vec(any::<u8>(), 0..1600)) {
        booting().0.server().answer(&bytes);
    }

    #[test]
    fn no_damage_to_a_message_makes_it_stumble(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        options in prop::collection::vec(any::<u8>(), 0..400),
        length in 0usize..700,
    ) {
        let (cluster, mut message) = booting();
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        message.truncate(length.max(240));
        message.extend(options);
        if let Some(Reply { packet, .. }) = cluster.server().answer(&message) {
            prop_assert_eq!(Message::decode(&packet).unwrap().op, Op::Reply);
        }
    }
}

#[test]
fn firmware_is_given_ipxe_and_ipxe_its_script() {
    let files = BootScript::Files { kernel: "/k".into(), initramfs: "/i".into() };
    let cluster = Cluster::new(Some(Media::Network(files)));
    let system = |cluster: &Cluster| request(cluster.worker(), MessageType::Discover);
    let firmware = |cluster: &Cluster, architecture: u8| {
        system(cluster)
            .with(Code::VendorClass, *b"PXEClient:Arch:00007:UNDI:003016")
            .with(Code::ClientArchitecture, [0, architecture])
    };
    let ipxe = |cluster: &Cluster| firmware(cluster, 7).with(Code::UserClass, *b"iPXE");
    let file = |cluster: &Cluster, request: Message| {
        let (offer, _) = cluster.answer(&request).unwrap();
        let option = offer.option(Code::BootFile).map(|name| String::from_utf8(name.to_vec()).unwrap());
        assert_eq!(offer.file, option.clone().unwrap_or_default().into_bytes());
        let (server, address) = (offer.option(Code::TftpServer), offer.siaddr);
        let wanted = option.as_ref().map(|_| &b"10.5.0.1"[..]);
        assert_eq!((server, address.is_unspecified()), (wanted, option.is_none()));
        option
    };
    assert_eq!(file(&cluster, firmware(&cluster, 0)).as_deref(), Some("ipxe/amd64/undionly.kpxe"));
    assert_eq!(file(&cluster, firmware(&cluster, 7)).as_deref(), Some("ipxe/amd64/snp.efi"));
    assert_eq!(file(&cluster, firmware(&cluster, 9)).as_deref(), Some("ipxe/amd64/snp.efi"));
    assert_eq!(file(&cluster, firmware(&cluster, 11)), None, "another kind of processor");
    assert_eq!(file(&cluster, system(&cluster)), None, "a system that runs");
    assert_eq!(file(&cluster, ipxe(&cluster)).as_deref(), Some("http://10.5.0.1:5000/boot/script.ipxe"));
    let with_length = firmware(&cluster, 7).with(Code::UserClass, *b"\x04iPXE");
    assert_eq!(file(&cluster, with_length).as_deref(), Some("http://10.5.0.1:5000/boot/script.ipxe"));
    let elsewhere = Cluster::new(Some(Media::Network(BootScript::Url("http://10.9.9.9/own.ipxe".to_owned()))));
    assert_eq!(file(&elsewhere, ipxe(&elsewhere)).as_deref(), Some("http://10.9.9.9/own.ipxe"));
}
