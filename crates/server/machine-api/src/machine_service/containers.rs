//! Containers, those of pods with the names that Kubernetes gave them.

use containers::Namespace;
use containers::containerd::ContainerInfo;
use tonic::Status;
use wire::common::ContainerDriver;
use wire::machine as api;

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
    let mut containers: Vec<_> = listed.iter().map(|info| describe(wanted, info)).collect();
    containers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(api::Container { metadata: None, containers })
}

fn describe(namespace: Namespace, info: &ContainerInfo) -> api::ContainerInfo {
    let pod = PodContainer::of(info);
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
        status: info.status.clone(),
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
        let container = describe(Namespace::Kubernetes, &info("0123456789abcdef", &labels));
        assert_eq!(container.id, "kube-system/p:c:0123456789ab");
        assert_eq!((container.pod_id.as_str(), container.name.as_str()), ("kube-system/p", "c"));
        let sandbox = describe(Namespace::Kubernetes, &info("fedcba9876543210", &labels[..3]));
        assert_eq!((sandbox.id.as_str(), sandbox.name.as_str()), ("kube-system/p", "p"));
    }

    #[test]
    fn containers_of_the_node_go_by_their_id() {
        let container = describe(Namespace::System, &info("etcd", &[]));
        assert_eq!((container.id.as_str(), container.pod_id.as_str(), container.pid), ("etcd", "etcd", 7));
    }
}
