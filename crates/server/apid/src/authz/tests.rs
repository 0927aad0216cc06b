use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost_types::{DescriptorProto, FileDescriptorProto, field_descriptor_proto::Label};

use super::*;

/// Services of the wire that do not pass through here, with their servers.
const ELSEWHERE: &[&str] = &[
    "securityapi.SecurityService",     // trustd
    "sidero.discovery.server.Cluster", // discoveryd
    "sidero.kms.KMSService",           // kmsd
    "events.EventSinkService",         // receivers of events
];

fn collect(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "proto") {
            into.push(path);
        }
    }
}

fn wire() -> Vec<FileDescriptorProto> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model/wire/proto");
    let mut files = Vec::new();
    collect(&root, &mut files);
    protox::compile(files, [root]).unwrap().file
}

/// Path, shape and response type of each method that should be in the table.
fn methods_of_the_wire(files: &[FileDescriptorProto]) -> BTreeMap<String, (Shape, String)> {
    let mut methods = BTreeMap::new();
    for file in files {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if ELSEWHERE.contains(&name.as_str()) {
                continue;
            }
            for method in &service.method {
                let shape = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => Shape::Unary,
                    (false, true) => Shape::ServerStream,
                    (true, false) => Shape::ClientStream,
                    (true, true) => panic!("{name}/{} streams both ways, which has no shape yet", method.name()),
                };
                let path = format!("/{name}/{}", method.name());
                methods.insert(path, (shape, method.output_type().trim_start_matches('.').to_owned()));
            }
        }
    }
    methods
}

#[test]
fn the_table_has_each_method_of_the_wire_once_with_its_shape() {
    let wire: BTreeMap<_, _> =
        methods_of_the_wire(&wire()).into_iter().map(|(path, (shape, _))| (path, format!("{shape:?}"))).collect();
    let table: BTreeMap<_, _> = METHODS.iter().map(|m| (m.path.to_owned(), format!("{:?}", m.shape))).collect();
    assert_eq!(table, wire);
    assert_eq!(METHODS.len(), table.len(), "duplicate row");
}

fn messages(files: &[FileDescriptorProto]) -> BTreeMap<String, DescriptorProto> {
    let of = |file: &FileDescriptorProto| {
        let package = file.package().to_owned();
        file.message_type.iter().map(move |m| (format!("{package}.{}", m.name()), m.clone())).collect::<Vec<_>>()
    };
    files.iter().flat_map(of).collect()
}

/// Whether field 1 of the message is `common.Metadata metadata`.
fn has_metadata(message: &DescriptorProto) -> bool {
    message.field.iter().any(|f| f.number() == 1 && f.type_name() == ".common.Metadata")
}

#[test]
fn what_may_go_to_several_nodes_has_room_for_the_name_of_the_node() {
    let files = wire();
    let messages = messages(&files);
    let wire = methods_of_the_wire(&files);
    for method in METHODS {
        let response = &messages[&wire[method.path].1];
        let room = match method.shape {
            Shape::Unary => response.field.iter().any(|field| {
                field.number() == 1
                    && field.label() == Label::Repeated
                    && messages.get(field.type_name().trim_start_matches('.')).is_some_and(has_metadata)
            }),
            Shape::ServerStream => has_metadata(response),
            Shape::ClientStream => false,
        };
        assert_eq!(method.spread == NodeTargets::Nodes, room, "{}", method.path);
    }
}

fn allowed(role: Role) -> Vec<&'static str> {
    let roles = RoleSet::from([role]);
    let mut names: Vec<_> =
        METHODS.iter().filter(|m| m.allows(&roles)).map(|m| m.path.rsplit('/').next().unwrap()).collect();
    names.sort_unstable();
    names
}

const READS: &[&str] = &[
    "CPUInfo",
    "Containers",
    "ControllerRuntimeDependencies",
    "DiskStats",
    "DiskUsage",
    "Disks",
    "Dmesg",
    "EtcdMemberList",
    "Events",
    "Get",
    "HealthCheck",
    "Hostname",
    "ImageList",
    "List",
    "List",
    "LoadAvg",
    "Logs",
    "LogsContainers",
    "Memory",
    "Mounts",
    "Netstat",
    "NetworkDeviceStats",
    "Processes",
    "ServiceList",
    "Stats",
    "SystemStat",
    "Time",
    "TimeCheck",
    "Version",
    "Watch",
];
const OPERATES: &[&str] = &[
    "EtcdAlarmDisarm",
    "EtcdAlarmList",
    "EtcdDefragment",
    "EtcdSnapshot",
    "EtcdStatus",
    "ImagePull",
    "PacketCapture",
    "Reboot",
    "Restart",
    "ServiceRestart",
    "ServiceStart",
    "ServiceStop",
    "Shutdown",
];
const ADMINISTERS: &[&str] = &[
    "AddRecoveryKey",
    "ApplyConfiguration",
    "Bootstrap",
    "Copy",
    "Create",
    "Destroy",
    "EtcdForfeitLeadership",
    "EtcdLeaveCluster",
    "EtcdRecover",
    "EtcdRemoveMemberByID",
    "GenerateClientConfiguration",
    "GenerateConfiguration",
    "Kubeconfig",
    "MetaDelete",
    "MetaWrite",
    "Read",
    "Rebind",
    "Reset",
    "Rollback",
    "Slots",
    "Teardown",
    "TeardownAndDestroy",
    "Unlock",
    "Update",
    "Upgrade",
];

fn union(lists: &[&[&'static str]]) -> Vec<&'static str> {
    let mut all: Vec<_> = lists.concat();
    all.sort_unstable();
    all
}

#[test]
fn each_role_gets_exactly_its_methods() {
    assert_eq!(allowed(Role::Reader), READS);
    assert_eq!(allowed(Role::Operator), union(&[READS, OPERATES]));
    assert_eq!(allowed(Role::Admin), union(&[READS, OPERATES, ADMINISTERS]));
    assert_eq!(allowed(Role::EtcdBackup), ["EtcdSnapshot"]);
    assert_eq!(allowed(Role::Impersonator), Vec::<&str>::new());
    assert!(METHODS.iter().all(|m| !m.allows(&RoleSet::default())));
}

#[test]
fn maintenance_mode_serves_what_brings_a_configuration_and_little_else() {
    let served =
        METHODS.iter().filter(|m| m.maintenance == Maintenance::Served).map(|m| m.path.rsplit('/').next().unwrap());
    let mut served: Vec<_> = served.collect();
    served.sort_unstable();
    let expected = [
        "ApplyConfiguration",
        "Disks",
        "GenerateConfiguration",
        "Get",
        "List",
        "MetaDelete",
        "MetaWrite",
        "Reset",
        "Slots",
        "Unlock",
        "Upgrade",
        "Version",
        "Watch",
    ];
    assert_eq!(served, expected);
}

#[test]
fn an_unknown_path_has_no_row() {
    assert!(lookup("/machine.MachineService/Nope").is_none());
    assert!(lookup("/machine.MachineService/Version").is_some());
}
