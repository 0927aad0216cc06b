//! `image`: images of containers.

use clap::{Args, Subcommand};
use config::images::{self, KubernetesImages};

use crate::command_error::CommandError;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Namespace of containerd: system or cri
    #[arg(long, global = true, value_name = "string", default_value = "cri")]
    namespace: String,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Lists the images that the system uses
    Default,
}

pub(crate) fn run(args: &ImageArgs, session: &Session) -> Result<(), CommandError> {
    match args.command {
        ImageCommand::Default => Ok(session.out.line(default_images().join("\n"))?),
    }
}

/// The images that the configurations of `gen config` lead to, and the one that installs the system.
fn default_images() -> Vec<String> {
    let kubernetes = KubernetesImages::for_version(images::DEFAULT_KUBERNETES_VERSION);
    vec![
        images::FLANNEL.to_owned(),
        images::INSTALL_CNI.to_owned(),
        images::COREDNS.to_owned(),
        images::ETCD.to_owned(),
        kubernetes.api_server,
        kubernetes.controller_manager,
        kubernetes.scheduler,
        kubernetes.proxy,
        kubernetes.kubelet,
        images::installer(),
        images::PAUSE.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_come_in_the_documented_order() {
        let expected = "\
ghcr.io/siderolabs/flannel:v0.25.1
ghcr.io/siderolabs/install-cni:v1.7.0-1-gbb76755
registry.k8s.io/coredns/coredns:v1.11.1
gcr.io/etcd-development/etcd:v3.5.13
registry.k8s.io/kube-apiserver:v1.30.0
registry.k8s.io/kube-controller-manager:v1.30.0
registry.k8s.io/kube-scheduler:v1.30.0
registry.k8s.io/kube-proxy:v1.30.0
ghcr.io/siderolabs/kubelet:v1.30.0
ghcr.io/siderolabs/installer:v1.7.0
registry.k8s.io/pause:3.8";
        assert_eq!(default_images().join("\n"), expected);
    }
}
