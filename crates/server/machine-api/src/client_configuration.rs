//! A talosconfig with a certificate of chosen roles and lifetime, signed by this node's authority.
//!
//! Authorization is decided before this service. The node does not know how clients reach it: endpoints and nodes are
//! left empty.

use std::time::Duration;

use config::generate::{base64, client_certificate};
use pki::{PemPair, RoleSet};
use resources::secrets::{KubernetesRootSecret, OsRootSecret};
use serde_json::json;
use tonic::Status;
use wire::machine as api;

use crate::machine::Machine;

pub(crate) fn generate(
    machine: &Machine,
    request: &api::GenerateClientConfigurationRequest,
) -> Result<api::GenerateClientConfiguration, Status> {
    let roles = roles(&request.roles)?;
    let lifetime = lifetime(request.crt_ttl.as_ref())?;
    let internal = |error: &dyn std::error::Error| Status::internal(stdx::error_chain(error));
    let root = machine.store.get_as::<OsRootSecret>(OsRootSecret::ID).map_err(|error| internal(&error))?;
    let authority = root.and_then(|root| root.issuing_ca.clone()).filter(|ca| !ca.key.0.is_empty());
    let authority = authority.ok_or_else(|| {
        Status::failed_precondition("this node has no key of the machine API's authority: ask a control plane node")
    })?;
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let authority = PemPair::new(utf8(&authority.crt.0), utf8(&authority.key.0));
    let kubernetes = machine.store.get_as::<KubernetesRootSecret>(KubernetesRootSecret::ID);
    let name = kubernetes.map_err(|error| internal(&error))?.map_or_else(String::new, |root| root.name.clone());
    let name = if name.is_empty() { "default".to_owned() } else { name };
    let own = client_certificate(&authority, &roles, machine.clock.now(), lifetime)
        .map_err(|error| Status::internal(format!("issuing: {}", stdx::error_chain(&error))))?;
    let talosconfig = json!({
        "context": name,
        "contexts": {
            &name: {
                "endpoints": [],
                "ca": base64(&authority.crt),
                "crt": base64(&own.crt),
                "key": base64(&own.key),
            }
        }
    });
    Ok(api::GenerateClientConfiguration {
        metadata: None,
        ca: authority.crt.into(),
        crt: own.crt.into(),
        key: own.key.into(),
        talosconfig: yaml::to_text(&talosconfig).into(),
    })
}

fn roles(wanted: &[String]) -> Result<RoleSet, Status> {
    let (roles, unknown) = RoleSet::parse_with_unknown(wanted);
    if !unknown.is_empty() {
        return Err(Status::invalid_argument(format!("no such role: {}", unknown.join(", "))));
    }
    if roles.is_empty() {
        return Err(Status::invalid_argument("a certificate needs at least one role"));
    }
    Ok(roles)
}

fn lifetime(wanted: Option<&prost_types::Duration>) -> Result<Duration, Status> {
    let wanted = wanted.copied().and_then(|wanted| Duration::try_from(wanted).ok());
    wanted
        .filter(|wanted| !wanted.is_zero())
        .ok_or_else(|| Status::invalid_argument("a certificate needs a lifetime (crt_ttl) of more than nothing"))
}
