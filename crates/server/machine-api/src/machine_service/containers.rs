//! Containers, those of pods with the names that Kubernetes gave them; and the programs of the node's image that run as
//! services, which clients look for among the containers of namespace `system`.

use containers::Namespace;
use containers::containerd::ContainerInfo;
use resources::lifecycle::ServiceSpec;
use sys::proc::ProcessInfo;
use tonic::Status;
use wire::common::ContainerDriver;
use wire::machine as api;

use super::on_thread;
use crate::machine::Machine;

/// The namespace of that name; the API's default is the node's own.
pub(super) fn namespace(name: &str) -> Result<Namespace, Status> {
    match name {
        "" | "system" => Ok(Namespace::System),
        "k8s.io" => Ok(Namespace::Kubernetes),
        _ => Err(Status::invalid_argument(format!("namespace {name} is neither system nor k8s.io"))),
    }
}

/// A container of a pod, or the pod's sandbox, by its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodContainer<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) uid: &'a str,
    /// Empty for the sandbox.
    pub(super) container: &'a str,
    id: &'a str,
}

impl<'a> PodContainer<'a> {
    pub(super) fn of(info: &'a ContainerInfo) -> Option<Self> {
        let label = |key: &str| info.labels.get(key).map(String::as_str);
        Some(Self {
            namespace: label("io.kubernetes.pod.namespace")?,
            pod: label("io.kubernetes.pod.name")?,
            uid: label("io.kubernetes.pod.uid")?,
            container: label("io.kubernetes.container.name").unwrap_or_default(),
            id: &info.id,
        })
    }

    /// `kube-system/kube-proxy-x`.
    pub(super) fn pod_id(&self) -> String {
        format!("{}/{}", self.namespace, self.pod)
    }

    /// `kube-system/kube-proxy-x:kube-proxy:0123456789ab`; a sandbox goes by its pod.
    pub(super) fn display_id(&self) -> String {
        if self.container.is_empty() {
            return self.pod_id();
        }
        let short = self.id.get(..12).unwrap_or(self.id);
        format!("{}:{}:{short}", self.pod_id(), self.container)
    }
}

pub(super) async fn containers(machine: &Machine, request: api::ContainersRequest) -> Result<api::Container, Status> {
    let wanted = match request.driver() {
        ContainerDriver::Cri => Namespace::Kubernetes,
        ContainerDriver::Containerd => namespace(&request.namespace)?,
    };
    let listed = machine.containers.containers(wanted).await;
    let listed = listed.map_err(|error| Status::unavailable(stdx::error_chain(&error)))?;
    let driver = request.driver();
    let mut containers: Vec<_> = listed.iter().map(|info| describe(wanted, driver, info)).collect();
    if wanted == Namespace::System {
        let specs = machine.store.list_as::<ServiceSpec>();
        let specs = specs.map_err(|error| Status::internal(stdx::error_chain(&error)))?;
        let processes =
            on_thread(|| sys::proc::processes().map_err(|error| Status::internal(error.to_string()))).await?;
        let specs = specs.iter().map(|spec| (spec.id(), &**spec));
        containers.extend(specs.filter_map(|(id, spec)| program(id, spec, &processes)));
    }
    containers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(api::Container { metadata: None, containers })
}

/// A service that is a program of the image. containerd is none: it runs the containers.
fn program(id: &str, spec: &ServiceSpec, processes: &[ProcessInfo]) -> Option<api::ContainerInfo> {
    if spec.program.is_empty() || id == "containerd" {
        return None;
    }
    let runs = |process: &&ProcessInfo| process.ppid == 1 && process.executable == spec.program;
    let pid = processes.iter().find(runs).and_then(|process| u32::try_from(process.pid).ok());
    Some(api::ContainerInfo {
        namespace: Namespace::System.name().to_owned(),
        id: id.to_owned(),
        image: spec.program.clone(),
        pid: pid.unwrap_or_default(),
        status: if pid.is_some() { "RUNNING" } else { "STOPPED" }.to_owned(),
        pod_id: id.to_owned(),
        name: id.to_owned(),
        network_namespace: String::new(),
    })
}

/// The state as the driver's own clients call it; `status` is containerd's. What has no task any more has exited.
fn state(driver: ContainerDriver, is_sandbox: bool, status: &str) -> &str {
    match (driver, is_sandbox, status) {
        (ContainerDriver::Containerd, _, status) => status,
        (ContainerDriver::Cri, true, "RUNNING") => "SANDBOX_READY",
        (ContainerDriver::Cri, true, _) => "SANDBOX_NOTREADY",
        (ContainerDriver::Cri, false, "RUNNING" | "PAUSED" | "PAUSING") => "CONTAINER_RUNNING",
        (ContainerDriver::Cri, false, "CREATED") => "CONTAINER_CREATED",
        (ContainerDriver::Cri, false, "STOPPED" | "NO TASK") => "CONTAINER_EXITED",
        (ContainerDriver::Cri, false, _) => "CONTAINER_UNKNOWN",
    }
}

fn describe(namespace: Namespace, driver: ContainerDriver, info: &ContainerInfo) -> api::ContainerInfo {
    let pod = PodContainer::of(info);
    let is_sandbox = pod.is_some_and(|pod| pod.container.is_empty());
    let name = match pod {
        Some(pod) if pod.container.is_empty() => pod.pod,
        Some(pod) => pod.container,
        None => &info.id,
    };
    api::ContainerInfo {
        namespace: namespace.name().to_owned(),
        id: pod.map_or_else(|| info.id.clone(), |pod| pod.display_id()),
        image: info.image.clone(),
        pid: info.pid,
        status: state(driver, is_sandbox, &info.status).to_owned(),
        pod_id: pod.map_or_else(|| info.id.clone(), |pod| pod.pod_id()),
        name: name.to_owned(),
        network_namespace: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: &str, labels: &[(&str, &str)]) -> ContainerInfo {
        let labels = labels.iter().map(|(key, value)| (format!("io.kubernetes.{key}"), (*value).to_owned())).collect();
        ContainerInfo { id: id.into(), image: "image".into(), labels, pid: 7, status: "RUNNING".into() }
    }

    #[test]
    fn containers_of_pods_go_by_pod_name_and_short_id() {
        let labels = [("pod.namespace", "kube-system"), ("pod.name", "p"), ("pod.uid", "u"), ("container.name", "c")];
        let cri = ContainerDriver::Cri;
        let container = describe(Namespace::Kubernetes, cri, &info("0123456789abcdef", &labels));
        assert_eq!(container.id, "kube-system/p:c:0123456789ab");
        assert_eq!((container.pod_id.as_str(), container.name.as_str()), ("kube-system/p", "c"));
        let sandbox = describe(Namespace::Kubernetes, cri, &info("fedcba9876543210", &labels[..3]));
        assert_eq!((sandbox.id.as_str(), sandbox.name.as_str()), ("kube-system/p", "p"));
        assert_eq!((sandbox.status.as_str(), container.status.as_str()), ("SANDBOX_READY", "CONTAINER_RUNNING"));
    }

    #[test]
    fn containers_of_the_node_go_by_their_id() {
        let container = describe(Namespace::System, ContainerDriver::Containerd, &info("etcd", &[]));
        assert_eq!((container.id.as_str(), container.pod_id.as_str(), container.pid), ("etcd", "etcd", 7));
        assert_eq!(container.status, "RUNNING");
    }

    #[test]
    fn each_driver_has_its_own_words_for_a_state() {
        use ContainerDriver::{Containerd, Cri};
        for (driver, is_sandbox, status, expected) in [
            (Containerd, false, "STOPPED", "STOPPED"),
            (Cri, true, "NO TASK", "SANDBOX_NOTREADY"),
            (Cri, false, "CREATED", "CONTAINER_CREATED"),
            (Cri, false, "NO TASK", "CONTAINER_EXITED"),
            (Cri, false, "UNKNOWN", "CONTAINER_UNKNOWN"),
        ] {
            assert_eq!(state(driver, is_sandbox, status), expected);
        }
    }

    #[test]
    fn programs_of_the_image_are_listed_with_their_process() {
        let spec = |program: &str| ServiceSpec { program: program.into(), ..ServiceSpec::default() };
        let process = |pid, ppid, executable: &str| ProcessInfo {
            pid,
            ppid,
            state: 'S',
            threads: 1,
            cpu_time: 0.0,
            virtual_memory: 0,
            resident_memory: 0,
            command: String::new(),
            executable: executable.to_owned(),
            args: String::new(),
        };
        // A program of the same name in a container is another one.
        let processes = [process(9, 7, "/usr/bin/apid"), process(12, 1, "/usr/bin/apid")];
        let apid = program("apid", &spec("/usr/bin/apid"), &processes).unwrap();
        assert_eq!((apid.namespace.as_str(), apid.pid, apid.status.as_str()), ("system", 12, "RUNNING"));
        let trustd = program("trustd", &spec("/usr/bin/trustd"), &processes).unwrap();
        assert_eq!((trustd.pid, trustd.status.as_str()), (0, "STOPPED"));
        assert!(program("containerd", &spec("/usr/bin/containerd"), &processes).is_none());
        assert!(program("etcd", &spec(""), &processes).is_none(), "it has a container");
    }
}
