//! Configurations that are generated around new secrets.

use client::ConfigContext;
use client::talosconfig::SecretText;
use config::generate::{CLIENT_LIFETIME, CommentStyle, Input, client_context, generate};
use config::{Documents, images};
use pki::{RoleSet, SecretsBundle};
use stdx::{Clock as _, SystemClock};

use super::{ConfigRequest, Foundation, generating, kind, subject};
use crate::plan::{Plan, Role};
use crate::up::failure::UpError;
use crate::up::offline::{Images, Installer, Offline};

pub(super) fn foundation(
    request: &ConfigRequest,
    plan: &Plan,
    secrets: SecretsBundle,
    images: &Images,
    registry: Option<&str>,
) -> Result<Foundation, UpError> {
    let version = version(request, images.offline.as_ref())?;
    // Machines have a load balancer on the gateway.
    let first = plan.first_control_plane().filter(|_| request.install.is_none());
    let host = first.map_or(plan.gateway, |node| node.address);
    let endpoint = format!("https://{host}:{}", request.control_plane_port);
    let credentials = credentials(&plan.name, &secrets)?;
    let cni = if request.custom_cni.is_empty() { "native" } else { "custom" };
    let mut input = Input {
        kubernetes_version: version.clone(),
        contract: request.contract,
        dns_domain: request.dns_domain.clone(),
        cni: Some(cni.to_owned()),
        cni_urls: request.custom_cni.clone(),
        registry_mirrors: mirrors(request, images, registry),
        insecure_registries: request.insecure_registries.clone(),
        discovery: request.discovery,
        discovery_endpoint: Some(plan.discovery_endpoint()),
        kubeprism_port: request.kubeprism_port,
        local_api_server_port: Some(request.control_plane_port),
        nameservers: request.nameservers.clone(),
        ..Input::new(&plan.name, &endpoint, secrets)
    };
    if let Some(install) = &request.install {
        input.install_disk.clone_from(&install.disk);
    }
    if let Some(image) = &request.install_image {
        input.install_image.clone_from(image);
    }
    let documents = |role: Role| {
        let text = generate(&input, kind(role), CommentStyle::NONE).map_err(generating(subject(role)))?;
        Documents::from_yaml(text.as_bytes()).map_err(generating(subject(role)))
    };
    Ok(Foundation {
        kubernetes_version: version,
        endpoint,
        context: plan.name.clone(),
        credentials,
        control_plane: documents(Role::ControlPlane)?,
        worker: documents(Role::Worker)?,
    })
}

/// An administrator's, without endpoints.
pub(super) fn credentials(name: &str, secrets: &SecretsBundle) -> Result<ConfigContext, UpError> {
    let roles = RoleSet::parse(["os:admin"]);
    let context = client_context(name, Vec::new(), secrets, &roles, SystemClock.now(), CLIENT_LIFETIME)
        .map_err(generating("talosconfig"))?;
    Ok(ConfigContext { ca: context.ca, crt: context.crt, key: SecretText(context.key), ..ConfigContext::default() })
}

/// The version of Kubernetes without `v`.
fn version(request: &ConfigRequest, offline: Option<&Offline>) -> Result<String, UpError> {
    let wanted = request.kubernetes_version.as_deref();
    offline.map_or(Ok(()), |offline| offline.check_version(wanted))?;
    let version = wanted.or_else(|| offline.and_then(Offline::kubernetes_version));
    Ok(version.unwrap_or(images::DEFAULT_KUBERNETES_VERSION).trim_start_matches('v').to_owned())
}

/// The operator's mirrors, and the cluster's registry for other hosts that it has images of. For the host of the operator's
/// installer it comes first: another mirror has another installer of the same name.
fn mirrors(request: &ConfigRequest, images: &Images, registry: Option<&str>) -> Vec<(String, Vec<String>)> {
    let mut mirrors: Vec<(String, Vec<String>)> = Vec::new();
    for (host, url) in &request.mirrors {
        match mirrors.iter_mut().find(|(known, _)| known == host) {
            Some((_, urls)) => urls.push(url.clone()),
            None => mirrors.push((host.clone(), vec![url.clone()])),
        }
    }
    if let Some(registry) = registry {
        let of_installer: Vec<&str> = images.installer.iter().flat_map(Installer::hosts).collect();
        for host in images.hosts() {
            match mirrors.iter_mut().find(|(known, _)| known == host) {
                Some((_, urls)) if of_installer.contains(&host) => urls.insert(0, registry.to_owned()),
                Some(_) => {}
                None => mirrors.push((host.to_owned(), vec![registry.to_owned()])),
            }
        }
    }
    mirrors
}
