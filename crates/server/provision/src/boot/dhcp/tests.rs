use dhcproto::v4::{Architecture, Flags};

use super::*;
use crate::machines::DhcpSettings;
use crate::plan::NodeSpec;

const UNKNOWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

struct Cluster {
    plan: Plan,
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
        Self { plan, settings }
    }

    fn worker(&self) -> [u8; 6] {
        machines::mac(&self.plan, &self.plan.nodes[1])
    }

    fn answer(&self, request: &Message) -> Option<(Message, SocketAddrV4)> {
        let server = Server { plan: &self.plan, settings: &self.settings, http_port: 5000 };
        let Reply { packet, to } = server.answer(&request.to_vec().unwrap())?;
        Some((Message::decode(&mut Decoder::new(&packet)).unwrap(), to))
    }
}

fn request(hardware: [u8; 6], kind: MessageType, options: impl IntoIterator<Item = DhcpOption>) -> Message {
    let mut message = Message::default();
    message.set_opcode(Opcode::BootRequest).set_xid(7).set_chaddr(&hardware).set_flags(Flags::default());
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    options.into_iter().for_each(|option| drop(message.opts_mut().insert(option)));
    message
}

fn kind(message: &Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

#[test]
fn a_machine_is_offered_the_address_of_its_slot_with_all_settings() {
    let cluster = Cluster::new(None);
    let (offer, to) = cluster.answer(&request(cluster.worker(), MessageType::Discover, [])).unwrap();
    assert_eq!((kind(&offer), offer.yiaddr(), offer.xid()), (MessageType::Offer, [10, 5, 0, 3].into(), 7));
    assert_eq!(to, "255.255.255.255:68".parse().unwrap());
    let gateway = Ipv4Addr::new(10, 5, 0, 1);
    for wanted in [
        DhcpOption::SubnetMask([255, 255, 255, 0].into()),
        DhcpOption::BroadcastAddr([10, 5, 0, 255].into()),
        DhcpOption::Router(vec![gateway]),
        DhcpOption::ServerIdentifier(gateway),
        DhcpOption::ClasslessStaticRoute(vec![(Ipv4Net::default(), gateway)]),
        DhcpOption::DomainNameServer(vec![[8, 8, 8, 8].into(), [1, 1, 1, 1].into()]),
        DhcpOption::Hostname("one-worker-1".to_owned()),
        DhcpOption::InterfaceMtu(1450),
        DhcpOption::AddressLeaseTime(300),
        DhcpOption::Renewal(150),
        DhcpOption::Rebinding(259),
    ] {
        let code = OptionCode::from(&wanted);
        assert_eq!(offer.opts().get(code), Some(&wanted));
    }
    assert_eq!(offer.opts().get(OptionCode::BootfileName), None, "these machines boot from elsewhere");
}

#[test]
fn a_request_is_granted_for_the_own_address_alone() {
    let cluster = Cluster::new(None);
    let wants = |address: [u8; 4]| {
        let options =
            [DhcpOption::RequestedIpAddress(address.into()), DhcpOption::ServerIdentifier(cluster.plan.gateway)];
        cluster.answer(&request(cluster.worker(), MessageType::Request, options)).unwrap()
    };
    assert_eq!(kind(&wants([10, 5, 0, 3]).0), MessageType::Ack);
    let (refusal, to) = wants([10, 5, 0, 2]);
    assert_eq!((kind(&refusal), refusal.yiaddr()), (MessageType::Nak, Ipv4Addr::UNSPECIFIED));
    assert_eq!(to.ip(), &Ipv4Addr::BROADCAST);
}

#[test]
fn a_renewal_is_answered_where_the_machine_is() {
    let cluster = Cluster::new(None);
    let mut renewal = request(cluster.worker(), MessageType::Request, []);
    renewal.set_ciaddr([10, 5, 0, 3]);
    let (ack, to) = cluster.answer(&renewal).unwrap();
    assert_eq!(
        (kind(&ack), ack.yiaddr(), to),
        (MessageType::Ack, [10, 5, 0, 3].into(), "10.5.0.3:68".parse().unwrap())
    );
    let mut inform = request(cluster.worker(), MessageType::Inform, []);
    inform.set_ciaddr([10, 5, 0, 3]);
    let (settings, _) = cluster.answer(&inform).unwrap();
    assert_eq!((kind(&settings), settings.yiaddr()), (MessageType::Ack, Ipv4Addr::UNSPECIFIED));
    assert_eq!(settings.opts().get(OptionCode::AddressLeaseTime), None);
}

#[test]
fn what_is_not_for_this_server_gets_no_answer() {
    let cluster = Cluster::new(None);
    let own = cluster.worker();
    assert_eq!(cluster.answer(&request(UNKNOWN, MessageType::Discover, [])), None, "a machine of another cluster");
    let other = DhcpOption::ServerIdentifier([10, 5, 0, 9].into());
    assert_eq!(cluster.answer(&request(own, MessageType::Request, [other])), None, "another server's offer");
    for kind in [MessageType::Release, MessageType::Decline, MessageType::Offer, MessageType::Ack] {
        assert_eq!(cluster.answer(&request(own, kind, [])), None, "{kind:?}");
    }
    let mut relayed = request(own, MessageType::Discover, []);
    relayed.set_giaddr([10, 0, 0, 1]);
    assert_eq!(cluster.answer(&relayed), None, "a relay's");
    let mut reply = request(own, MessageType::Discover, []);
    reply.set_opcode(Opcode::BootReply);
    assert_eq!(cluster.answer(&reply), None, "a server's");
}

#[test]
fn no_bytes_make_it_stumble() {
    let cluster = Cluster::new(Some(Media::Network(BootScript::Url("http://a/b".to_owned()))));
    let server = Server { plan: &cluster.plan, settings: &cluster.settings, http_port: 5000 };
    let good =
        request(cluster.worker(), MessageType::Discover, [DhcpOption::Hostname("a".to_owned())]).to_vec().unwrap();
    assert!(server.answer(&good).is_some());
    for length in 0..good.len() {
        server.answer(&good[..length]);
    }
    for position in 0..good.len() {
        for value in [0, 1, 6, 16, 17, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[position] = value;
            server.answer(&bad);
        }
    }
    assert_eq!(server.answer(&[0; 65000]), None);
}

#[test]
fn firmware_is_given_ipxe_and_ipxe_its_script() {
    let files = BootScript::Files { kernel: "/k".into(), initramfs: "/i".into() };
    let cluster = Cluster::new(Some(Media::Network(files)));
    let file = |cluster: &Cluster, options: Vec<DhcpOption>| {
        let (offer, _) = cluster.answer(&request(cluster.worker(), MessageType::Discover, options)).unwrap();
        let option = match offer.opts().get(OptionCode::BootfileName) {
            Some(DhcpOption::BootfileName(name)) => Some(String::from_utf8(name.clone()).unwrap()),
            _ => None,
        };
        let field = offer.fname_str().map(|name| name.unwrap().trim_end_matches('\0').to_owned());
        assert_eq!(field.filter(|name| !name.is_empty()), option);
        option
    };
    let firmware = |architecture| {
        vec![
            DhcpOption::ClassIdentifier(b"PXEClient:Arch:00007:UNDI:003016".to_vec()),
            DhcpOption::ClientSystemArchitecture(Architecture(architecture)),
        ]
    };
    assert_eq!(file(&cluster, firmware(0)).as_deref(), Some("ipxe/amd64/undionly.kpxe"));
    assert_eq!(file(&cluster, firmware(7)).as_deref(), Some("ipxe/amd64/snp.efi"));
    assert_eq!(file(&cluster, firmware(9)).as_deref(), Some("ipxe/amd64/snp.efi"));
    assert_eq!(file(&cluster, firmware(11)), None, "another kind of processor");
    assert_eq!(file(&cluster, vec![]), None, "a system that runs");
    let ipxe = || [firmware(7), vec![DhcpOption::UserClass(b"iPXE".to_vec())]].concat();
    assert_eq!(file(&cluster, ipxe()).as_deref(), Some("http://10.5.0.1:5000/boot/script.ipxe"));
    let elsewhere = Cluster::new(Some(Media::Network(BootScript::Url("http://10.9.9.9/own.ipxe".to_owned()))));
    assert_eq!(file(&elsewhere, ipxe()).as_deref(), Some("http://10.9.9.9/own.ipxe"));
}
