//! Authorization: one table over all methods of all services that pass through `apid`. A test holds it against the
//! wire, so a method that is added there fails until it has a row here.
//!
//! Which resources a role may read is decided by the state service, from the roles that `apid` passes on.

use pki::{Role, RoleSet};

/// How messages flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One request, one response.
    Unary,
    /// One request, any number of responses.
    ServerStream,
    /// Any number of requests, one response.
    ClientStream,
}

/// Whether a call may be routed to several nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeTargets {
    /// It may: the responses have room for the name of the node.
    Nodes,
    /// One node at a time.
    OneNode,
}

/// Whether a node without a configuration answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance {
    /// It does.
    Served,
    /// It refuses.
    Refused,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// The path on the wire: `/machine.MachineService/Version`.
    pub path: &'static str,
    /// How messages flow.
    pub shape: Shape,
    /// The roles of which a client must have one.
    pub roles: &'static [Role],
    /// Whether it may go to several nodes.
    pub spread: NodeTargets,
    /// Whether it is served in maintenance mode.
    pub maintenance: Maintenance,
    /// The most bytes of a request; of a stream of requests there is no bound.
    pub request: Option<usize>,
}

/// Names, options and lists of nodes fit into this many bytes.
const SMALL_REQUEST: usize = 64 << 10;
/// A message of the largest size with its frame.
const LARGE_REQUEST: usize = transport::MAX_MESSAGE + 5;

const ADMIN: &[Role] = &[Role::Admin];
const OPERATOR: &[Role] = &[Role::Admin, Role::Operator];
const READER: &[Role] = &[Role::Admin, Role::Operator, Role::Reader];
const BACKUP: &[Role] = &[Role::Admin, Role::Operator, Role::EtcdBackup];

const fn method(path: &'static str, shape: Shape, roles: &'static [Role]) -> Method {
    let request = match shape {
        Shape::ClientStream => None,
        Shape::Unary | Shape::ServerStream => Some(SMALL_REQUEST),
    };
    Method { path, shape, roles, spread: NodeTargets::Nodes, maintenance: Maintenance::Refused, request }
}

const fn unary(path: &'static str, roles: &'static [Role]) -> Method {
    method(path, Shape::Unary, roles)
}

const fn stream(path: &'static str, roles: &'static [Role]) -> Method {
    method(path, Shape::ServerStream, roles)
}

impl Method {
    const fn one_node(self) -> Self {
        Self { spread: NodeTargets::OneNode, ..self }
    }

    const fn in_maintenance(self) -> Self {
        Self { maintenance: Maintenance::Served, ..self }
    }

    const fn large(self) -> Self {
        Self { request: Some(LARGE_REQUEST), ..self }
    }

    /// Whether its requests may be large, so that a server must bound how many it takes at a time.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.request.is_none_or(|most| most > SMALL_REQUEST)
    }

    /// Whether a client with `roles` may call it.
    #[must_use]
    pub fn allows(&self, roles: &RoleSet) -> bool {
        roles.intersects(self.roles)
    }
}

/// The row of a path.
#[must_use]
pub fn lookup(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

/// All methods.
pub const METHODS: &[Method] = &[
    unary("/cosi.resource.State/Get", READER).one_node().in_maintenance(),
    stream("/cosi.resource.State/List", READER).one_node().in_maintenance(),
    stream("/cosi.resource.State/Watch", READER).one_node().in_maintenance(),
    unary("/cosi.resource.State/Create", ADMIN).one_node(),
    unary("/cosi.resource.State/Update", ADMIN).one_node(),
    unary("/cosi.resource.State/Destroy", ADMIN).one_node(),
    unary("/cosi.resource.State/Teardown", ADMIN).one_node(),
    unary("/cosi.resource.State/TeardownAndDestroy", ADMIN).one_node(),
    stream("/cluster.ClusterService/HealthCheck", READER),
    unary("/inspect.InspectService/ControllerRuntimeDependencies", READER),
    unary("/storage.StorageService/Disks", READER).in_maintenance(),
    unary("/time.TimeService/Time", READER),
    unary("/time.TimeService/TimeCheck", READER),
    unary("/volumekeys.VolumeKeysService/Slots", ADMIN).in_maintenance(),
    unary("/volumekeys.VolumeKeysService/AddRecoveryKey", ADMIN),
    unary("/volumekeys.VolumeKeysService/Unlock", ADMIN).in_maintenance(),
    unary("/volumekeys.VolumeKeysService/Rebind", ADMIN),
    unary("/machine.MachineService/Version", READER).in_maintenance(),
    unary("/machine.MachineService/Hostname", READER),
    unary("/machine.MachineService/LoadAvg", READER),
    unary("/machine.MachineService/Memory", READER),
    unary("/machine.MachineService/Mounts", READER),
    unary("/machine.MachineService/CPUInfo", READER),
    unary("/machine.MachineService/DiskStats", READER),
    unary("/machine.MachineService/NetworkDeviceStats", READER),
    unary("/machine.MachineService/SystemStat", READER),
    unary("/machine.MachineService/Processes", READER),
    unary("/machine.MachineService/Containers", READER),
    unary("/machine.MachineService/Stats", READER),
    unary("/machine.MachineService/ServiceList", READER),
    unary("/machine.MachineService/LogsContainers", READER),
    unary("/machine.MachineService/Netstat", READER),
    unary("/machine.MachineService/EtcdMemberList", READER),
    stream("/machine.MachineService/Dmesg", READER),
    stream("/machine.MachineService/Events", READER),
    stream("/machine.MachineService/Logs", READER),
    stream("/machine.MachineService/List", READER),
    stream("/machine.MachineService/DiskUsage", READER),
    stream("/machine.MachineService/ImageList", READER),
    unary("/machine.MachineService/ImagePull", OPERATOR),
    stream("/machine.MachineService/PacketCapture", OPERATOR),
    unary("/machine.MachineService/Reboot", OPERATOR),
    unary("/machine.MachineService/Shutdown", OPERATOR),
    unary("/machine.MachineService/Restart", OPERATOR),
    unary("/machine.MachineService/ServiceStart", OPERATOR),
    unary("/machine.MachineService/ServiceStop", OPERATOR),
    unary("/machine.MachineService/ServiceRestart", OPERATOR),
    unary("/machine.MachineService/EtcdStatus", OPERATOR),
    unary("/machine.MachineService/EtcdAlarmList", OPERATOR),
    unary("/machine.MachineService/EtcdAlarmDisarm", OPERATOR),
    unary("/machine.MachineService/EtcdDefragment", OPERATOR),
    stream("/machine.MachineService/EtcdSnapshot", BACKUP),
    unary("/machine.MachineService/ApplyConfiguration", ADMIN).in_maintenance().large(),
    unary("/machine.MachineService/Bootstrap", ADMIN),
    unary("/machine.MachineService/GenerateConfiguration", ADMIN).in_maintenance().large(),
    unary("/machine.MachineService/GenerateClientConfiguration", ADMIN),
    unary("/machine.MachineService/Upgrade", ADMIN).in_maintenance(),
    unary("/machine.MachineService/Rollback", ADMIN),
    unary("/machine.MachineService/Reset", ADMIN).in_maintenance(),
    unary("/machine.MachineService/MetaWrite", ADMIN).in_maintenance().large(),
    unary("/machine.MachineService/MetaDelete", ADMIN).in_maintenance(),
    unary("/machine.MachineService/EtcdLeaveCluster", ADMIN),
    unary("/machine.MachineService/EtcdRemoveMemberByID", ADMIN),
    unary("/machine.MachineService/EtcdForfeitLeadership", ADMIN),
    method("/machine.MachineService/EtcdRecover", Shape::ClientStream, ADMIN).one_node(),
    stream("/machine.MachineService/Kubeconfig", ADMIN),
    stream("/machine.MachineService/Copy", ADMIN),
    stream("/machine.MachineService/Read", ADMIN),
];

#[cfg(test)]
mod tests;
