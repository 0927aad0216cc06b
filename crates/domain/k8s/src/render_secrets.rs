//! `k8s.RenderSecretsStaticPodController`: keys, certificates and kubeconfigs of the control plane's pods, each folder
//! readable by the pod's user alone.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::kubeconfig::{self, WithCertificateFile};
use kubernetes::static_pods::{self, API_SERVER_UID, CONTROLLER_MANAGER_UID, SCHEDULER_UID};
use kubernetes::{component_files, paths, yaml};
use pki::PrivateKey;
use resources::k8s::SecretStatus;
use resources::secrets::{
    EtcdRootSecret, EtcdSecrets, KubernetesDynamicCerts, KubernetesRootSecret, KubernetesSecrets,
};
use resources::values::CertificateAndKey;
use sys::files::{self, Access};

use crate::Root;

/// Client certificate and key of a component.
const CLIENT_FILE: &str = "client.pem";

#[derive(Debug)]
pub struct RenderSecretsStaticPodController {
    root: Root,
}

impl RenderSecretsStaticPodController {
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root }
    }
}

/// A secret that another controller has not provided yet is no error; one that is incomplete is.
#[derive(Debug, thiserror::Error)]
#[error("the secrets of Kubernetes lack {what}")]
struct IncompleteSecrets {
    what: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The component reads it once, when it starts.
    Restarts,
    /// The component reads it again when it changes. All supported releases do so with certificates and their keys:
    /// kube-apiserver watches its serving certificate and the aggregator's; client-go reads files that it was given for a
    /// client (kubelets, and those that a kubeconfig names) again; the client of etcd reads them for each connection.
    IsNoticed,
}

struct File {
    component: &'static str,
    uid: u32,
    name: &'static str,
    content: Vec<u8>,
    change: Change,
}

#[async_trait]
impl Controller for RenderSecretsStaticPodController {
    fn name(&self) -> &'static str {
        "k8s.RenderSecretsStaticPodController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<KubernetesRootSecret>().id(KubernetesRootSecret::ID),
            Input::weak::<KubernetesSecrets>().id(KubernetesSecrets::ID),
            Input::weak::<KubernetesDynamicCerts>().id(KubernetesDynamicCerts::ID),
            Input::weak::<EtcdSecrets>().id(EtcdSecrets::ID),
            Input::weak::<EtcdRootSecret>().id(EtcdRootSecret::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<SecretStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (Some(root), Some(secrets), Some(certs), Some(etcd), Some(etcd_root)) = (
            ctx.get::<KubernetesRootSecret>(KubernetesRootSecret::ID)?,
            ctx.get::<KubernetesSecrets>(KubernetesSecrets::ID)?,
            ctx.get::<KubernetesDynamicCerts>(KubernetesDynamicCerts::ID)?,
            ctx.get::<EtcdSecrets>(EtcdSecrets::ID)?,
            ctx.get::<EtcdRootSecret>(EtcdRootSecret::ID)?,
        ) else {
            return Ok(());
        };
        let mut all = api_server_files(&root, &certs, &etcd, &etcd_root)?;
        all.extend(other_files(&root, &secrets)?);
        let base = self.root.at(paths::SECRETS_DIR);
        for file in &all {
            write(&base, file)?;
        }
        let once = all.iter().filter(|file| file.change == Change::Restarts);
        let version = fingerprint(once.map(|file| file.content.as_slice()));
        ctx.put(SecretStatus::ID, SecretStatus { ready: true, version })?;
        Ok(())
    }
}

fn write(base: &Path, file: &File) -> Result<(), ReconcileError> {
    let path = base.join(file.component).join(file.name);
    let access = Access { mode: 0o400, owner: Some((file.uid, file.uid)) };
    files::write_atomic(&path, &file.content, access)?;
    Ok(())
}

/// Says whether contents changed, also over a restart. Not for keeping secrets apart: it is short.
pub(crate) fn fingerprint<'a>(contents: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hasher = DefaultHasher::new();
    for content in contents {
        content.hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

fn pair<'a>(
    pair: Option<&'a CertificateAndKey>,
    what: &'static str,
) -> Result<&'a CertificateAndKey, IncompleteSecrets> {
    pair.ok_or(IncompleteSecrets { what })
}

/// All authorities whose clients are accepted, as one file.
fn accepted_authorities(root: &KubernetesRootSecret) -> Vec<u8> {
    root.accepted_cas.iter().flat_map(|ca| ca.crt.as_bytes().to_vec()).collect()
}

fn api_server_files(
    root: &KubernetesRootSecret,
    certs: &KubernetesDynamicCerts,
    etcd: &EtcdSecrets,
    etcd_root: &EtcdRootSecret,
) -> Result<Vec<File>, ReconcileError> {
    let server = pair(certs.api_server.as_ref(), "the API server's certificate")?;
    let kubelet_client = pair(certs.api_server_kubelet_client.as_ref(), "the client certificate for kubelets")?;
    let front_proxy = pair(certs.front_proxy.as_ref(), "the front proxy's certificate")?;
    let etcd_client = pair(etcd.etcd_api_server.as_ref(), "the client certificate for etcd")?;
    let etcd_ca = pair(etcd_root.etcd_ca.as_ref(), "etcd's authority")?;
    let aggregator = pair(root.aggregator_ca.as_ref(), "the aggregator's authority")?;
    let service_account = service_account(root)?;
    let encryption = component_files::encryption(&root.secretbox_encryption_secret, &root.aes_cbc_encryption_secret);
    let file = |name, content: Vec<u8>| File {
        component: static_pods::API_SERVER,
        uid: API_SERVER_UID,
        name,
        content,
        change: Change::Restarts,
    };
    let text = |name, content: &[u8]| file(name, content.to_vec());
    let noticed = |name, content: &[u8]| File { change: Change::IsNoticed, ..text(name, content) };
    Ok(vec![
        file("ca.crt", accepted_authorities(root)),
        noticed("apiserver.crt", server.crt.as_bytes()),
        noticed("apiserver.key", server.key.as_bytes()),
        noticed("apiserver-kubelet-client.crt", kubelet_client.crt.as_bytes()),
        noticed("apiserver-kubelet-client.key", kubelet_client.key.as_bytes()),
        noticed("front-proxy-client.crt", front_proxy.crt.as_bytes()),
        noticed("front-proxy-client.key", front_proxy.key.as_bytes()),
        text("aggregator-ca.crt", aggregator.crt.as_bytes()),
        text("etcd-client-ca.crt", etcd_ca.crt.as_bytes()),
        noticed("etcd-client.crt", etcd_client.crt.as_bytes()),
        noticed("etcd-client.key", etcd_client.key.as_bytes()),
        text("service-account.key", &service_account.private),
        text("service-account.pub", service_account.public.as_bytes()),
        file(component_files::ENCRYPTION_CONFIG_FILE, yaml::to_string(&encryption)?.into_bytes()),
    ])
}

fn other_files(root: &KubernetesRootSecret, secrets: &KubernetesSecrets) -> Result<Vec<File>, ReconcileError> {
    let issuing = pair(root.issuing_ca.as_ref(), "the issuing authority")?;
    let manager = |name, content: &[u8]| File {
        component: static_pods::CONTROLLER_MANAGER,
        uid: CONTROLLER_MANAGER_UID,
        name,
        content: content.to_vec(),
        change: Change::Restarts,
    };
    let mut files = vec![
        manager("ca.crt", issuing.crt.as_bytes()),
        manager("ca.key", issuing.key.as_bytes()),
        manager("service-account.key", &service_account(root)?.private),
    ];
    for (component, uid, kubeconfig) in [
        (static_pods::CONTROLLER_MANAGER, CONTROLLER_MANAGER_UID, &secrets.controller_manager_kubeconfig),
        (static_pods::SCHEDULER, SCHEDULER_UID, &secrets.scheduler_kubeconfig),
    ] {
        files.extend(kubeconfig_files(component, uid, kubeconfig)?);
    }
    Ok(files)
}

/// The certificate is apart, so that the component need not start again when it is renewed.
fn kubeconfig_files(component: &'static str, uid: u32, kubeconfig: &str) -> Result<[File; 2], ReconcileError> {
    let path = format!("{}/{component}/{CLIENT_FILE}", paths::SECRETS_DIR);
    let WithCertificateFile { kubeconfig, content } = kubeconfig::with_certificate_file(kubeconfig, &path)?;
    let kubeconfig = kubeconfig.into_bytes();
    Ok([
        // Before the kubeconfig that names it.
        File { component, uid, name: CLIENT_FILE, content, change: Change::IsNoticed },
        File { component, uid, name: "kubeconfig", content: kubeconfig, change: Change::Restarts },
    ])
}

struct ServiceAccount {
    private: Vec<u8>,
    public: String,
}

fn service_account(root: &KubernetesRootSecret) -> Result<ServiceAccount, ReconcileError> {
    let key = root.service_account.as_ref().ok_or(IncompleteSecrets { what: "the key of service accounts" })?;
    let private = key.key.as_bytes().to_vec();
    let public = PrivateKey::from_pem(&String::from_utf8_lossy(&private))?.public_key_pem();
    Ok(ServiceAccount { private, public })
}
