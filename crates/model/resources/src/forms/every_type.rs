//! Both forms of every registered type, from a filled value: the protobuf form through the other decoder and back, the
//! YAML and JSON forms against files. A type that is not in the table fails the test.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;
use serde_json::Value;
use wire::resource as plain;
use wire::talos::resource::definitions as proto;

use crate::field::{Element as _, decode};
use crate::sample::{self, Sample};
use crate::spec::{AnySpec, Spec};
use crate::{
    block, cluster, config, cri, etcd, files, hardware, k8s, kubeaccess, kubespan, lifecycle, machine, meta, network,
    perf, registry, revision, runtime, secrets, siderolink, time, v1alpha1,
};

/// A type with a filled value, and an empty one where the type has a default.
struct Row {
    filled: Box<dyn AnySpec>,
    empty: Option<Box<dyn AnySpec>>,
}

/// The type's fields are those of the generated message `M`: no number is missing there, none has another encoding.
fn fields<S, M>() -> Row
where
    S: Spec + crate::field::Message + Sample,
    M: prost::Message + Default,
{
    let filled: S = sample::of();
    let name = S::DEFINITION.type_name;
    assert_eq!(decode::<S>(&filled.to_proto()).unwrap(), filled, "{name}");
    let message = M::decode(filled.to_proto().as_slice()).unwrap();
    // What the message does not know is lost here.
    assert_eq!(decode::<S>(&message.encode_to_vec()).unwrap(), filled, "{name}: the generated message differs");
    Row { filled: Box::new(filled), empty: Some(Box::new(S::default())) }
}

/// A type of our own, which no message describes.
fn ours<S: Spec + crate::field::Message + Sample>() -> Row {
    let filled: S = sample::of();
    assert_eq!(decode::<S>(&filled.to_proto()).unwrap(), filled, "{}", S::DEFINITION.type_name);
    Row { filled: Box::new(filled), empty: Some(Box::new(S::default())) }
}

/// A type whose spec is no list of fields: `back` reads it out of its message.
fn special<S: Spec + Sample>(back: impl Fn(&[u8]) -> S) -> Row {
    let filled: S = sample::of();
    assert_eq!(back(&filled.to_proto()), filled, "{}", S::DEFINITION.type_name);
    Row { filled: Box::new(filled), empty: None }
}

/// The object in the only field of a message.
fn object(bytes: &[u8]) -> crate::Object {
    decode::<k8s::SingleManifest>(bytes).unwrap().object
}

fn machine_config(bytes: &[u8]) -> config::MachineConfig {
    let message = plain::config::MachineConfigSpec::decode(bytes).unwrap();
    config::MachineConfig::new(String::from_utf8(message.yaml_marshalled.to_vec()).unwrap())
}

fn machine_type(bytes: &[u8]) -> config::MachineType {
    let message = plain::config::MachineTypeSpec::decode(bytes).unwrap();
    let number = message.encode_to_vec()[1..].to_vec();
    config::MachineType::decode_element(prost::encoding::WireType::Varint, &mut number.as_slice()).unwrap()
}

fn device(bytes: &[u8]) -> network::DeviceConfigSpec {
    let message = plain::network::DeviceConfigSpecSpec::decode(bytes).unwrap();
    let device = yaml::from_str(std::str::from_utf8(&message.yaml_marshalled).unwrap()).unwrap();
    network::DeviceConfigSpec { device }
}

/// Two Kubernetes objects in a message of their own each.
fn pod<M: prost::Message + Default>(bytes: &[u8]) -> crate::Object {
    object(&M::decode(bytes).unwrap().encode_to_vec())
}

fn rows() -> Vec<Row> {
    let mut rows = model_rows();
    rows.extend(network_rows());
    rows.extend(machine_rows());
    rows
}

fn model_rows() -> Vec<Row> {
    vec![
        fields::<block::BlockDevice, proto::block::DeviceSpec>(),
        fields::<block::DiscoveredVolume, proto::block::DiscoveredVolumeSpec>(),
        ours::<block::Disk>(),
        ours::<block::SystemDisk>(),
        ours::<block::UserDiskStatus>(),
        ours::<block::VolumeStatus>(),
        fields::<cluster::Affiliate, proto::cluster::AffiliateSpec>(),
        fields::<cluster::DiscoveryConfig, proto::cluster::ConfigSpec>(),
        fields::<cluster::Identity, proto::cluster::IdentitySpec>(),
        fields::<cluster::Info, proto::cluster::InfoSpec>(),
        fields::<cluster::Member, proto::cluster::MemberSpec>(),
        special::<config::MachineConfig>(machine_config),
        special::<config::MachineType>(machine_type),
        ours::<revision::MachineConfigRequest>(),
        ours::<revision::MachineConfigResult>(),
        ours::<revision::MachineConfigRevision>(),
        fields::<cri::SeccompProfile, proto::cri::SeccompProfileSpec>(),
        fields::<etcd::EtcdConfig, proto::etcd::ConfigSpec>(),
        fields::<etcd::EtcdMember, proto::etcd::MemberSpec>(),
        fields::<etcd::PkiStatus, proto::etcd::PkiStatusSpec>(),
        fields::<etcd::EtcdSpec, proto::etcd::SpecSpec>(),
        fields::<files::EtcFileSpec, proto::files::EtcFileSpecSpec>(),
        fields::<files::EtcFileStatus, proto::files::EtcFileStatusSpec>(),
        fields::<hardware::MemoryModule, proto::hardware::MemoryModuleSpec>(),
        fields::<hardware::Processor, proto::hardware::ProcessorSpec>(),
        fields::<hardware::SystemInformation, proto::hardware::SystemInformationSpec>(),
        fields::<k8s::AdmissionControlConfig, proto::k8s::AdmissionControlConfigSpec>(),
        fields::<k8s::ApiServerConfig, proto::k8s::ApiServerConfigSpec>(),
        fields::<k8s::AuditPolicyConfig, proto::k8s::AuditPolicyConfigSpec>(),
        fields::<k8s::ConfigStatus, proto::k8s::ConfigStatusSpec>(),
        fields::<k8s::ControllerManagerConfig, proto::k8s::ControllerManagerConfigSpec>(),
        fields::<k8s::Endpoint, proto::k8s::EndpointSpec>(),
        fields::<k8s::ExtraManifestsConfig, proto::k8s::ExtraManifestsConfigSpec>(),
        fields::<k8s::KubeletConfig, proto::k8s::KubeletConfigSpec>(),
        ours::<k8s::KubeletIdentityStatus>(),
        ours::<k8s::KubeletLifecycle>(),
        fields::<k8s::KubeletSpec, proto::k8s::KubeletSpecSpec>(),
        fields::<k8s::KubePrismStatus, proto::k8s::KubePrismStatusesSpec>(),
        fields::<k8s::KubePrismConfig, proto::k8s::KubePrismConfigSpec>(),
        fields::<k8s::KubePrismEndpoints, proto::k8s::KubePrismEndpointsSpec>(),
        special::<k8s::Manifest>(|bytes| {
            decode(&proto::k8s::ManifestSpec::decode(bytes).unwrap().encode_to_vec()).unwrap()
        }),
        fields::<k8s::ManifestStatus, proto::k8s::ManifestStatusSpec>(),
        fields::<k8s::BootstrapManifestsConfig, proto::k8s::BootstrapManifestsConfigSpec>(),
        ours::<k8s::NodeCordonedSpec>(),
        fields::<k8s::NodeLabelSpec, proto::k8s::NodeLabelSpecSpec>(),
        fields::<k8s::NodeStatus, proto::k8s::NodeStatusSpec>(),
        fields::<k8s::NodeTaintSpec, proto::k8s::NodeTaintSpecSpec>(),
        fields::<k8s::NodeIp, proto::k8s::NodeIpSpec>(),
        fields::<k8s::NodeIpConfig, proto::k8s::NodeIpConfigSpec>(),
        fields::<k8s::Nodename, proto::k8s::NodenameSpec>(),
        ours::<k8s::PodSubnetAllocation>(),
        fields::<k8s::SchedulerConfig, proto::k8s::SchedulerConfigSpec>(),
        fields::<k8s::SecretStatus, proto::k8s::SecretsStatusSpec>(),
        special::<k8s::StaticPod>(|bytes| k8s::StaticPod { pod: pod::<proto::k8s::StaticPodSpec>(bytes) }),
        fields::<k8s::StaticPodServerStatus, proto::k8s::StaticPodServerStatusSpec>(),
        special::<k8s::StaticPodStatus>(|bytes| k8s::StaticPodStatus {
            pod_status: pod::<proto::k8s::StaticPodStatusSpec>(bytes),
        }),
        fields::<kubeaccess::KubernetesAccessConfig, proto::kubeaccess::ConfigSpec>(),
        fields::<kubespan::KubeSpanConfig, proto::kubespan::ConfigSpec>(),
        fields::<kubespan::KubeSpanEndpoint, proto::kubespan::EndpointSpec>(),
        fields::<kubespan::KubeSpanIdentity, proto::kubespan::IdentitySpec>(),
        fields::<kubespan::KubeSpanPeerSpec, proto::kubespan::PeerSpecSpec>(),
        fields::<kubespan::KubeSpanPeerStatus, proto::kubespan::PeerStatusSpec>(),
    ]
}

fn network_rows() -> Vec<Row> {
    vec![
        fields::<network::AddressSpec, proto::network::AddressSpecSpec>(),
        fields::<network::AddressStatus, proto::network::AddressStatusSpec>(),
        special::<network::DeviceConfigSpec>(device),
        fields::<network::DnsResolveCache, proto::network::DnsResolveCacheSpec>(),
        // It has no protobuf form.
        Row { filled: Box::new(sample::of::<network::DnsUpstream>()), empty: None },
        fields::<network::HardwareAddress, proto::network::HardwareAddrSpec>(),
        fields::<network::HostDnsConfig, proto::network::HostDnsConfigSpec>(),
        fields::<network::HostnameSpec, proto::network::HostnameSpecSpec>(),
        fields::<network::HostnameStatus, proto::network::HostnameStatusSpec>(),
        fields::<network::LinkRefresh, proto::network::LinkRefreshSpec>(),
        fields::<network::LinkSpec, proto::network::LinkSpecSpec>(),
        fields::<network::LinkStatus, proto::network::LinkStatusSpec>(),
        fields::<network::NfTablesChain, proto::network::NfTablesChainSpec>(),
        fields::<network::NodeAddress, proto::network::NodeAddressSpec>(),
        fields::<network::NodeAddressFilter, proto::network::NodeAddressFilterSpec>(),
        fields::<network::OperatorSpec, proto::network::OperatorSpecSpec>(),
        fields::<network::ProbeSpec, proto::network::ProbeSpecSpec>(),
        fields::<network::ProbeStatus, proto::network::ProbeStatusSpec>(),
        fields::<network::ResolverSpec, proto::network::ResolverSpecSpec>(),
        fields::<network::ResolverStatus, proto::network::ResolverStatusSpec>(),
        fields::<network::RouteSpec, proto::network::RouteSpecSpec>(),
        fields::<network::RouteStatus, proto::network::RouteStatusSpec>(),
        fields::<network::NetworkStatus, proto::network::StatusSpec>(),
        fields::<network::TimeServerSpec, proto::network::TimeServerSpecSpec>(),
        fields::<network::TimeServerStatus, proto::network::TimeServerStatusSpec>(),
    ]
}

fn machine_rows() -> Vec<Row> {
    vec![
        fields::<perf::CpuStats, proto::perf::CpuSpec>(),
        fields::<perf::MemoryStats, proto::perf::MemorySpec>(),
        fields::<runtime::DevicesStatus, proto::runtime::DevicesStatusSpec>(),
        fields::<runtime::EventSinkConfig, proto::runtime::EventSinkConfigSpec>(),
        fields::<runtime::ExtensionServiceConfig, proto::runtime::ExtensionServiceConfigSpec>(),
        fields::<runtime::ExtensionServiceConfigStatus, proto::runtime::ExtensionServiceConfigStatusSpec>(),
        fields::<runtime::ExtensionStatus, proto::extensions::Layer>(),
        fields::<runtime::KernelModuleSpec, proto::runtime::KernelModuleSpecSpec>(),
        fields::<runtime::KernelParamSpec, proto::runtime::KernelParamSpecSpec>(),
        fields::<runtime::KernelParamDefaultSpec, proto::runtime::KernelParamSpecSpec>(),
        fields::<runtime::KernelParamStatus, proto::runtime::KernelParamStatusSpec>(),
        fields::<runtime::KmsgLogConfig, proto::runtime::KmsgLogConfigSpec>(),
        ours::<machine::PlatformCapabilities>(),
        ours::<runtime::MachineResetSignal>(),
        fields::<runtime::MachineStatus, proto::runtime::MachineStatusSpec>(),
        ours::<machine::MaintenanceAccess>(),
        ours::<machine::UpgradeTrial>(),
        fields::<runtime::MaintenanceServiceConfig, proto::runtime::MaintenanceServiceConfigSpec>(),
        ours::<runtime::MaintenanceServiceRequest>(),
        fields::<runtime::MetaKey, proto::runtime::MetaKeySpec>(),
        fields::<runtime::MetaLoad, proto::runtime::MetaLoadedSpec>(),
        ours::<machine::VolumeRequest>(),
        fields::<runtime::MountStatus, proto::runtime::MountStatusSpec>(),
        fields::<runtime::PlatformMetadata, proto::runtime::PlatformMetadataSpec>(),
        fields::<runtime::SecurityState, proto::runtime::SecurityStateSpec>(),
        fields::<runtime::UniqueMachineToken, proto::runtime::UniqueMachineTokenSpec>(),
        fields::<runtime::WatchdogTimerConfig, proto::runtime::WatchdogTimerConfigSpec>(),
        fields::<runtime::WatchdogTimerStatus, proto::runtime::WatchdogTimerStatusSpec>(),
        fields::<secrets::ApiCertificate, proto::secrets::ApiCertsSpec>(),
        fields::<secrets::CertSans, proto::secrets::CertSanSpec>(),
        fields::<secrets::EtcdSecrets, proto::secrets::EtcdCertsSpec>(),
        fields::<secrets::EtcdRootSecret, proto::secrets::EtcdRootSpec>(),
        fields::<secrets::KubeletSecrets, proto::secrets::KubeletSpec>(),
        fields::<secrets::KubernetesSecrets, proto::secrets::KubernetesCertsSpec>(),
        fields::<secrets::KubernetesDynamicCerts, proto::secrets::KubernetesDynamicCertsSpec>(),
        fields::<secrets::KubernetesRootSecret, proto::secrets::KubernetesRootSpec>(),
        fields::<secrets::MaintenanceServiceCertificate, proto::secrets::MaintenanceServiceCertsSpec>(),
        fields::<secrets::MaintenanceRootSecret, proto::secrets::MaintenanceRootSpec>(),
        fields::<secrets::OsRootSecret, proto::secrets::OsRootSpec>(),
        fields::<secrets::TrustdCertificate, proto::secrets::TrustdCertsSpec>(),
        fields::<siderolink::SiderolinkConfig, proto::siderolink::ConfigSpec>(),
        fields::<siderolink::SiderolinkTunnel, proto::siderolink::TunnelSpec>(),
        fields::<time::AdjtimeStatus, proto::time::AdjtimeStatusSpec>(),
        fields::<time::TimeStatus, proto::time::StatusSpec>(),
        ours::<v1alpha1::AcquireConfigSpec>(),
        ours::<v1alpha1::AcquireConfigStatus>(),
        fields::<v1alpha1::Service, proto::v1alpha1::ServiceSpec>(),
        ours::<lifecycle::SequenceStatus>(),
        ours::<lifecycle::ServiceOverride>(),
        ours::<etcd::EtcdStart>(),
        ours::<lifecycle::ServiceSpec>(),
    ]
}

#[test]
fn every_registered_type_survives_its_protobuf_form() {
    let mut known: Vec<&str> = rows().iter().map(|row| row.filled.definition().type_name).collect();
    known.sort_unstable();
    let mut registered: Vec<&str> = registry::definitions().iter().map(|definition| definition.type_name).collect();
    registered.sort_unstable();
    assert_eq!(known, registered, "the table of this test lacks a type, or has one too many");
}

/// Holds `text` against the file, or renews it.
#[expect(clippy::disallowed_methods, reason = "a test reads the switch that renews golden files")]
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (line, (expected, is)) in expected.lines().zip(text.lines()).enumerate() {
        assert_eq!(is, expected, "line {} of {name}; renew with UPDATE_GOLDEN=1 and read the difference", line + 1);
    }
    assert_eq!(text.len(), expected.len(), "{name} is longer or shorter; renew with UPDATE_GOLDEN=1");
}

fn sorted(rows: &[Row]) -> BTreeMap<&'static str, &Row> {
    rows.iter().map(|row| (row.filled.definition().type_name, row)).collect()
}

#[test]
fn the_yaml_form_of_every_type_is_the_one_that_scripts_read() {
    let rows = rows();
    let definition = meta::ResourceDefinition(<config::MachineType as Spec>::DEFINITION);
    let mut text = format!("# {}\n{}", meta::ResourceDefinition::DEFINITION.type_name, AnySpec::yaml(&definition));
    for (name, row) in sorted(&rows) {
        text.push_str(&format!("---\n# {name}\n{}", row.filled.yaml()));
        if let Some(empty) = &row.empty {
            text.push_str(&format!("---\n# {name}, empty\n{}", empty.yaml()));
        }
    }
    golden("forms.yaml", &text);
}

/// Clients read the YAML text and print JSON from it: reading must give what was written.
#[test]
fn the_json_form_of_every_type_is_read_from_its_yaml_form() {
    let rows = rows();
    let mut forms = serde_json::Map::new();
    for (name, row) in sorted(&rows) {
        let text = row.filled.yaml();
        let documents = yaml::parse(&text).unwrap_or_else(|error| panic!("{name}: {error:?}\n{text}"));
        let read = documents.first().map_or(Value::Null, yaml::Node::to_value);
        assert_eq!(read, row.filled.tree(), "{name}: the text does not say what the tree says\n{text}");
        forms.insert(name.to_owned(), read);
    }
    golden("forms.json", &format!("{:#}\n", Value::Object(forms)));
}
