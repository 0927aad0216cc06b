//! Tests of both forms of specs: hand-written examples of what matters to clients here, every type in `every_type`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use wire::talos::resource::definitions as proto;

use crate::enums::*;
use crate::field::{DecodeError, decode};
use crate::spec::{AnySpec, Spec};
use crate::values::*;
use crate::{Object, StringMap, cluster, etcd, files, k8s, kubespan, network, perf, runtime, secrets, time};

mod every_type;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 5, 0, 2));

fn object(value: serde_json::Value) -> Object {
    serde_json::from_value(value).unwrap()
}

/// The protobuf form decodes to an equal spec and to an equal `M`, the generated message.
fn wire_form<S, M>(spec: &S) -> M
where
    S: Spec + crate::field::Message,
    M: prost::Message + Default,
{
    let bytes = spec.to_proto();
    assert_eq!(&decode::<S>(&bytes).unwrap(), spec);
    let message = M::decode(bytes.as_slice()).unwrap();
    assert_eq!(&decode::<S>(&message.encode_to_vec()).unwrap(), spec, "the other encoder's bytes differ in meaning");
    message
}

#[test]
fn affiliate_has_addresses_as_text_and_as_raw_bytes() {
    let affiliate = cluster::Affiliate {
        node_id: "abc".into(),
        addresses: vec![V4, "fd00::1".parse().unwrap()],
        hostname: "cp-1".into(),
        operating_system: "Talos (v1.7.0)".into(),
        machine_type: MachineType::ControlPlane,
        kubespan: cluster::KubeSpanAffiliate {
            public_key: "key".into(),
            address: Some("fd01::2".parse().unwrap()),
            additional_addresses: vec!["10.244.0.0/24".parse().unwrap()],
            endpoints: vec!["10.5.0.2:51820".parse().unwrap()],
        },
        control_plane: Some(cluster::ControlPlane { port: 6443 }),
        ..Default::default()
    };
    assert_eq!(
        AnySpec::yaml(&affiliate),
        "nodeId: abc\naddresses:\n    - 10.5.0.2\n    - fd00::1\nhostname: cp-1\noperatingSystem: Talos (v1.7.0)\n\
         machineType: controlplane\nkubespan:\n    publicKey: key\n    address: fd01::2\n    additionalAddresses:\n        \
         - 10.244.0.0/24\n    endpoints:\n        - \"10.5.0.2:51820\"\ncontrolPlane:\n    port: 6443\n"
    );
    let message: proto::cluster::AffiliateSpec = wire_form(&affiliate);
    assert_eq!(message.addresses[0].ip.as_ref(), [10, 5, 0, 2]);
    assert_eq!(message.addresses[1].ip.len(), 16);
    assert_eq!(message.machine_type(), proto::enums::MachineType::TypeControlPlane);
    let mesh = message.kube_span.unwrap();
    assert_eq!((mesh.additional_addresses[0].prefix_length, mesh.endpoints[0].port), (24, 51820));
    assert_eq!(message.control_plane.unwrap().api_server_port, 6443);
}

#[test]
fn what_is_absent_is_left_out_or_printed_empty_as_the_field_says() {
    assert_eq!(
        cluster::Affiliate::default().to_yaml(),
        json!({ "nodeId": "", "addresses": [], "hostname": "", "operatingSystem": "", "machineType": "unknown" })
    );
    let route = network::RouteStatus::default().to_yaml();
    assert_eq!((&route["dst"], &route["gateway"], &route["scope"]), (&json!(""), &json!(""), &json!("global")));
    assert_eq!(k8s::ApiServerConfig::default().to_yaml()["extraArgs"], json!({}));
    assert_eq!(secrets::EtcdRootSecret::default().to_yaml(), json!({ "etcdCA": null }));
    assert!(cluster::Affiliate::default().to_proto().is_empty());
}

#[test]
fn address_status_prints_words_for_kernel_numbers() {
    let status = network::AddressStatus {
        address: Some("10.5.0.2/24".parse().unwrap()),
        local: Some(V4),
        broadcast: Some("10.5.0.255".parse().unwrap()),
        link_index: 7,
        link_name: "eth0".into(),
        family: Family::INET4,
        scope: Scope::GLOBAL,
        flags: AddressFlags(0x280),
        ..Default::default()
    };
    assert_eq!(
        AnySpec::yaml(&status),
        "address: 10.5.0.2/24\nlinkIndex: 7\nlinkName: eth0\nfamily: inet4\nscope: global\n\
         flags: permanent,noprefixroute\n",
        "clients of Talos 1.7 never see `local` and `broadcast` in YAML"
    );
    let message: proto::network::AddressStatusSpec = wire_form(&status);
    assert_eq!((message.flags, message.family), (0x280, 2));
}

#[test]
fn link_status_has_hardware_addresses_and_nested_settings() {
    let status = network::LinkStatus {
        index: 2,
        r#type: LinkType::ETHER,
        flags: LinkFlags(0x1_1043),
        hardware_addr: "4e:95:8e:8f:e4:47".parse().unwrap(),
        mtu: 1500,
        operational_state: OperationalState::UP,
        kind: "vlan".into(),
        link_state: true,
        duplex: Duplex::UNKNOWN,
        vlan: network::Vlan { vlan_id: 5, vlan_protocol: VlanProtocol::IEEE8021Q },
        bond_master: network::BondMaster { mode: BondMode::IEEE8023AD, num_peer_notif: 3, ..Default::default() },
        ..Default::default()
    };
    let yaml = status.to_yaml();
    assert_eq!(yaml["flags"], "UP,BROADCAST,RUNNING,MULTICAST,LOWER_UP");
    assert_eq!(yaml["hardwareAddr"], "4e:95:8e:8f:e4:47");
    assert_eq!(yaml["vlan"], json!({ "vlanID": 5, "vlanProtocol": "802.1q" }));
    assert_eq!((&yaml["type"], &yaml["operationalState"]), (&json!("ether"), &json!("up")));
    let message: proto::network::LinkStatusSpec = wire_form(&status);
    assert_eq!(message.vlan.unwrap().vid, 5);
    assert_eq!(message.bond_master.unwrap().num_peer_notif, 3);
}

#[test]
fn membership_in_a_bond_stands_among_the_keys_of_the_link() {
    let spec = network::LinkSpec {
        name: "eth0".into(),
        bond_slave: network::BondSlave { master_name: "bond0".into(), slave_index: 1 },
        layer: ConfigLayer::MachineConfiguration,
        ..Default::default()
    };
    let yaml = spec.to_yaml();
    assert_eq!((&yaml["masterName"], &yaml["slaveIndex"]), (&json!("bond0"), &json!(1)));
    assert_eq!(yaml["layer"], "configuration");
    let message: proto::network::LinkSpecSpec = wire_form(&spec);
    assert_eq!(message.bond_slave.unwrap().master_name, "bond0");
}

#[test]
fn firewall_rules_tell_drop_from_no_verdict() {
    let chain = network::NfTablesChain {
        r#type: "filter".into(),
        priority: NfTablesChainPriority::FIRST,
        rules: vec![network::NfTablesRule {
            verdict: Some(NfTablesVerdict::Drop),
            match_conntrack_state: Some(network::NfTablesConntrackStateMatch {
                states: vec![ConntrackState::ESTABLISHED, ConntrackState::RELATED],
            }),
            match_layer4: Some(network::NfTablesLayer4Match {
                protocol: Protocol::TCP,
                match_destination_port: Some(network::NfTablesPortMatch {
                    ranges: vec![network::PortRange { lo: 50000, hi: 50001 }],
                }),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let rule = &chain.to_yaml()["rules"][0];
    assert_eq!(rule["verdict"], "drop");
    assert_eq!(rule["matchConntrackState"]["states"], json!(["established", "related"]));
    let bytes = chain.to_proto();
    assert_eq!(decode::<network::NfTablesChain>(&bytes).unwrap(), chain);
    let message = proto::network::NfTablesChainSpec::decode(bytes.as_slice()).unwrap();
    let states = &message.rules[0].match_conntrack_state.as_ref().unwrap().states;
    assert_eq!((states.as_slice(), message.priority), ([2, 4].as_slice(), i32::MIN));
}

#[test]
fn kubernetes_specs_carry_maps_and_free_form_objects() {
    let spec = k8s::KubeletSpec {
        image: "kubelet:v1".into(),
        args: vec!["--a".into(), String::new()],
        config: object(json!({ "kind": "KubeletConfiguration", "maxPods": 110, "b": [true, null, 1.5] })),
        extra_mounts: vec![Mount { destination: "/d".into(), options: vec!["rbind".into()], ..Default::default() }],
        ..Default::default()
    };
    let message: proto::k8s::KubeletSpecSpec = wire_form(&spec);
    assert_eq!((message.args.len(), message.extra_mounts[0].options.len()), (2, 1));
    let text = AnySpec::yaml(&spec);
    assert!(text.find("    b:") < text.find("    kind:"), "keys are not sorted: {text}");

    let config = k8s::ApiServerConfig {
        extra_args: StringMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
        resources: k8s::Resources { requests: StringMap::from([("cpu".into(), "200m".into())]), ..Default::default() },
        ..Default::default()
    };
    let message: proto::k8s::ApiServerConfigSpec = wire_form(&config);
    assert_eq!(message.extra_args["a"], "1");

    let manifest = k8s::Manifest { items: vec![k8s::SingleManifest { object: object(json!({ "kind": "Pod" })) }] };
    assert_eq!(manifest.to_yaml(), json!([{ "kind": "Pod" }]));
    let _: proto::k8s::ManifestSpec = wire_form(&manifest);
}

#[test]
fn static_pods_have_no_key_around_them() {
    let pod = k8s::StaticPod { pod: object(json!({ "kind": "Pod", "apiVersion": "v1" })) };
    assert_eq!(AnySpec::yaml(&pod), "apiVersion: v1\nkind: Pod\n");
    let message = proto::k8s::StaticPodSpec::decode(pod.to_proto().as_slice()).unwrap();
    assert_eq!(message.pod.unwrap().fields.len(), 2);
    let status = k8s::StaticPodStatus { pod_status: object(json!({ "phase": "Running" })) };
    assert_eq!(AnySpec::yaml(&status), "phase: Running\n");
}

#[test]
fn certificates_are_base64_of_pem_and_debug_does_not_show_keys() {
    let secret = secrets::OsRootSecret {
        issuing_ca: Some(CertificateAndKey::new("CRT", "KEY")),
        accepted_cas: vec![Certificate::new("CRT")],
        cert_san_ips: vec![V4],
        cert_san_dns_names: vec!["cp-1".into()],
        token: "t".into(),
    };
    assert_eq!(
        secret.to_yaml(),
        json!({
            "issuingCA": { "crt": "Q1JU", "key": "S0VZ" }, "acceptedCAs": [{ "crt": "Q1JU" }],
            "certSANIPs": ["10.5.0.2"], "certSANDNSNames": ["cp-1"], "token": "t",
        })
    );
    let message: proto::secrets::OsRootSpec = wire_form(&secret);
    assert_eq!(message.issuing_ca.unwrap().key.as_ref(), b"KEY");
    assert!(!format!("{:?}", secret.issuing_ca).contains("KEY"));

    let root = secrets::KubernetesRootSecret { endpoint: "https://10.5.0.2:6443".into(), ..Default::default() };
    let message: proto::secrets::KubernetesRootSpec = wire_form(&root);
    assert_eq!(message.endpoint.unwrap().full_path, "https://10.5.0.2:6443");
    let endpoint = &root.to_yaml()["endpoint"];
    assert_eq!((&endpoint["scheme"], &endpoint["host"]), (&json!("https"), &json!("10.5.0.2:6443")));
}

#[test]
fn durations_and_instants_print_as_go_prints_them() {
    let status = time::AdjtimeStatus {
        offset: Nanoseconds(-1_500_000),
        max_error: Duration::from_secs(90).into(),
        frequency_adjustment_ratio: 1.25,
        ..Default::default()
    };
    let yaml = status.to_yaml();
    assert_eq!((&yaml["offset"], &yaml["maxError"]), (&json!("-1.5ms"), &json!("1m30s")));
    let message: proto::time::AdjtimeStatusSpec = wire_form(&status);
    assert_eq!(message.offset.unwrap().nanos, -1_500_000);

    let peer = kubespan::KubeSpanPeerStatus {
        endpoint: Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 51820)),
        state: PeerState::Up,
        last_handshake_time: Timestamp(Some(prost_types::Timestamp { seconds: 1_713_484_800, nanos: 0 })),
        ..Default::default()
    };
    let yaml = peer.to_yaml();
    assert_eq!((&yaml["endpoint"], &yaml["state"]), (&json!("[::1]:51820"), &json!("up")));
    assert_eq!(yaml["lastHandshakeTime"], "2024-04-19T00:00:00Z");
    assert_eq!(yaml["lastEndpointChange"], "0001-01-01T00:00:00Z");
    let _: proto::kubespan::PeerStatusSpec = wire_form(&peer);
}

#[test]
fn machine_status_stage_and_conditions() {
    let status = runtime::MachineStatus {
        stage: MachineStage::ShuttingDown,
        status: runtime::MachineStatusStatus {
            ready: false,
            unmet_conditions: vec![runtime::UnmetCondition { name: "time".into(), reason: "not in sync".into() }],
        },
    };
    assert_eq!(status.to_yaml()["stage"], "shutting down");
    let message: proto::runtime::MachineStatusSpec = wire_form(&status);
    assert_eq!(message.status.unwrap().unmet_conditions[0].name, "time");
}

#[test]
fn the_other_packages_agree_with_the_wire_too() {
    let file = files::EtcFileSpec { contents: b"127.0.0.1 localhost\n".to_vec(), mode: 0o644 };
    assert_eq!(file.to_yaml(), json!({ "contents": b"127.0.0.1 localhost\n", "mode": 420 }));
    let _: proto::files::EtcFileSpecSpec = wire_form(&file);

    let spec = etcd::EtcdSpec { name: "n".into(), listen_peer_addresses: vec![V4], ..Default::default() };
    let message: proto::etcd::SpecSpec = wire_form(&spec);
    assert_eq!(message.listen_peer_addresses.len(), 1);

    let cpu = perf::CpuStat { user: 1.5, guest_nice: 2.0, ..Default::default() };
    let stats = perf::CpuStats { cpu: vec![cpu.clone(), cpu], soft_irq_total: 9, ..Default::default() };
    let message: proto::perf::CpuSpec = wire_form(&stats);
    assert_eq!((message.cpu[1].guest_nice, message.soft_irq_total), (2.0, 9));

    let config = cluster::DiscoveryConfig { service_encryption_key: vec![0xff; 32], ..Default::default() };
    let message: proto::cluster::ConfigSpec = wire_form(&config);
    assert_eq!(message.service_encryption_key.len(), 32);
}

#[test]
fn the_machine_type_is_a_word() {
    assert_eq!(AnySpec::yaml(&MachineType::ControlPlane).trim(), "controlplane");
    assert_eq!("worker".parse::<MachineType>().unwrap(), MachineType::Worker);
}

#[test]
fn broken_bytes_are_refused_and_unknown_fields_skipped() {
    assert!(matches!(
        decode::<cluster::Identity>(&[0x0a, 0x05, b'a']),
        Err(DecodeError::Protobuf(_) | DecodeError::Truncated { .. })
    ));
    let odd_address = [0x0a, 0x05, 0x0a, 0x03, 1, 2, 3];
    assert!(matches!(decode::<k8s::NodeIp>(&odd_address), Err(DecodeError::AddressLength(3))));
    let identity = decode::<cluster::Identity>(&[0xfa, 0x01, 0x01, b'x', 0x0a, 0x01, b'a']).unwrap();
    assert_eq!(identity.node_id, "a");
}
