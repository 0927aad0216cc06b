//! Kubeconfigs with a certificate that is issued anew at each call: the administrator's, and that of health checks.

use std::sync::Arc;
use std::time::Duration;

use pki::{Algorithm, Authority, PemPair, Sans, Subject, Template, Usage, Validity};
use resources::config::MachineConfig;
use resources::secrets::KubernetesRootSecret;
use tonic::Status;

use crate::machine::Machine;

/// How long the certificate of a health check lives.
pub(crate) const HEALTH_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The administrator's kubeconfig as text.
fn admin(machine: &Machine) -> Result<String, Status> {
    let subject = Subject::common_name("admin").with_organization("system:masters");
    let Issued { root, ca, own } = issue(machine, subject, admin_lifetime(machine)?)?;
    rendered(kubernetes::kubeconfig::admin(&root.name, &root.endpoint.0, &ca, &own.crt, &own.key))
}

/// As the configuration in force says.
fn admin_lifetime(machine: &Machine) -> Result<Duration, Status> {
    let active = machine.store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID);
    let active = active.map_err(|error| Status::internal(stdx::error_chain(&error)))?;
    let config = MachineConfig::root_of(active.as_deref());
    let config = config.map_err(|error| Status::internal(stdx::error_chain(&error)))?;
    let config = config.ok_or_else(|| Status::failed_precondition("this machine has no configuration"))?;
    Ok(config.cluster().admin_kubeconfig_lifetime())
}

/// A kubeconfig for health checks, for `endpoint` or else that of the cluster. What its group may do is in the manifest
/// `02-health-reader`, and no more than the checks need.
pub(crate) fn health(machine: &Machine, endpoint: Option<&str>) -> Result<String, Status> {
    const USER: &str = "talos:health";
    let subject = Subject::common_name(USER).with_organization(kubernetes::manifests::HEALTH_READERS);
    let Issued { root, ca, own } = issue(machine, subject, HEALTH_LIFETIME)?;
    let endpoint = endpoint.unwrap_or(&root.endpoint.0);
    rendered(kubernetes::kubeconfig::component(&root.name, USER, endpoint, &ca, &own.crt, &own.key))
}

fn rendered(kubeconfig: Result<String, impl std::error::Error>) -> Result<String, Status> {
    kubeconfig.map_err(|error| Status::internal(stdx::error_chain(&error)))
}

/// A client certificate of Kubernetes, with its authority.
struct Issued {
    root: Arc<KubernetesRootSecret>,
    ca: String,
    own: PemPair,
}

fn issue(machine: &Machine, subject: Subject, lifetime: Duration) -> Result<Issued, Status> {
    let root = machine
        .store
        .get_as::<KubernetesRootSecret>(KubernetesRootSecret::ID)
        .map_err(|error| Status::internal(stdx::error_chain(&error)))?
        .ok_or_else(|| {
            Status::failed_precondition("this node has no Kubernetes authority: ask a control plane node")
        })?;
    let failed = |error: pki::PkiError| Status::internal(format!("issuing: {}", stdx::error_chain(&error)));
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ca = root
        .issuing_ca
        .as_ref()
        .filter(|ca| !ca.key.0.is_empty())
        .ok_or_else(|| Status::failed_precondition("this node has no key of the Kubernetes authority"))?;
    let authority = Authority::from_pair(&PemPair::new(utf8(&ca.crt.0), utf8(&ca.key.0))).map_err(failed)?;
    let template = Template {
        subject,
        sans: Sans::default(),
        usage: Usage::Client,
        validity: Validity::starting(machine.clock.now(), lifetime),
    };
    let own = authority.issue_pair(Algorithm::EcdsaP256, &template).map_err(failed)?;
    Ok(Issued { root: Arc::clone(&root.spec), ca: authority.certificate().to_pem(), own })
}

/// The kubeconfig as clients expect it: a gzipped tar archive with one file, `kubeconfig`.
pub(crate) fn archive(machine: &Machine) -> Result<Vec<u8>, Status> {
    let text = admin(machine)?;
    let failed = |error: std::io::Error| Status::internal(format!("packing the kubeconfig: {error}"));
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut archive = tar::Builder::new(encoder);
    archive.append_data(&mut header, "kubeconfig", text.as_bytes()).map_err(failed)?;
    archive.into_inner().map_err(failed)?.finish().map_err(failed)
}
