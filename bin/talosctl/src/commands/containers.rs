//! `containers`: containers known to containerd.

use clap::Args;
use wire::common::ContainerDriver;
use wire::machine::ContainerInfo;

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

/// The containerd namespaces: system containers and Kubernetes containers.
pub(crate) const SYSTEM_NAMESPACE: &str = "system";
pub(crate) const KUBERNETES_NAMESPACE: &str = "k8s.io";

#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// Lists Kubernetes containers (namespace k8s.io)
    #[arg(short, long)]
    kubernetes: bool,
}

/// Namespace and driver for system containers or Kubernetes containers.
pub(crate) fn namespace(kubernetes: bool) -> (&'static str, ContainerDriver) {
    if kubernetes {
        (KUBERNETES_NAMESPACE, ContainerDriver::Cri)
    } else {
        (SYSTEM_NAMESPACE, ContainerDriver::Containerd)
    }
}

pub(crate) async fn run(args: ContainersArgs, session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    let (namespace, driver) = namespace(args.kubernetes);
    let mut table = Table::new(["NODE", "NAMESPACE", "ID", "IMAGE", "PID", "STATUS"]);
    for (node, reply) in nodes.take_all(client.containers(namespace, driver).await?) {
        let mut containers = reply.containers;
        containers.sort_by(|a, b| a.id.cmp(&b.id));
        for container in containers {
            table.row(cells(&node, &container));
        }
    }
    nodes.print(&mut table)?;
    nodes.finish()
}

/// Containers of a pod are listed below it.
fn cells(node: &str, container: &ContainerInfo) -> [String; 6] {
    let inside = !container.pod_id.is_empty() && container.pod_id != container.id;
    let id = if inside { format!("└─ {}", container.id) } else { container.id.clone() };
    let pid = container.pid.to_string();
    [node.to_owned(), container.namespace.clone(), id, container.image.clone(), pid, container.status.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_of_a_pod_is_drawn_below_it() {
        let container = |id: &str, pod: &str| ContainerInfo { id: id.into(), pod_id: pod.into(), ..Default::default() };
        assert_eq!(cells("n", &container("kube-system/a", "kube-system/a"))[2], "kube-system/a");
        assert_eq!(cells("n", &container("kube-system/a:b:1", "kube-system/a"))[2], "└─ kube-system/a:b:1");
        assert_eq!(cells("n", &container("etcd", ""))[2], "etcd");
    }
}
