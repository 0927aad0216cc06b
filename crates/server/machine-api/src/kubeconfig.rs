//! The administrator's kubeconfig, issued anew at each call.

use std::time::Duration;

use pki::{Algorithm, Authority, PemPair, Sans, Subject, Template, Usage, Validity};
use resources::secrets::KubernetesRootSecret;
use tonic::Status;

use crate::machine::Machine;

/// How long the certificate lives: a year.
const LIFETIME: Duration = Duration::from_secs(8760 * 3600);

/// The kubeconfig as text, for `endpoint` or else that of the cluster.
pub(crate) fn text(machine: &Machine, endpoint: Option<&str>) -> Result<String, Status> {
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
        subject: Subject::common_name("admin").with_organization("system:masters"),
        sans: Sans::default(),
        usage: Usage::Client,
        validity: Validity::starting(machine.clock.now(), LIFETIME),
    };
    let own = authority.issue_pair(Algorithm::EcdsaP256, &template).map_err(failed)?;
    let endpoint = endpoint.unwrap_or(&root.endpoint.0);
    kubernetes::kubeconfig::admin(&root.name, endpoint, &authority.certificate().to_pem(), &own.crt, &own.key)
        .map_err(|error| Status::internal(stdx::error_chain(&error)))
}

/// The kubeconfig as clients expect it: a gzipped tar archive with one file, `kubeconfig`.
pub(crate) fn archive(machine: &Machine) -> Result<Vec<u8>, Status> {
    let text = text(machine, None)?;
    let failed = |error: std::io::Error| Status::internal(format!("packing the kubeconfig: {error}"));
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut archive = tar::Builder::new(encoder);
    archive.append_data(&mut header, "kubeconfig", text.as_bytes()).map_err(failed)?;
    archive.into_inner().map_err(failed)?.finish().map_err(failed)
}
