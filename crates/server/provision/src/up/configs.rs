//! The machine configurations of a local cluster and its talosconfig.
//!
//! They are generated (`generated`) or the operator's own (`existing`); in both cases `local` adds what a local cluster has
//! that others have not: the images of the bundle, mirrors, and room on the host's disk. The operator's patches come last.

mod existing;
mod generated;
mod local;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use client::{ConfigContext, TalosConfig};
use config::generate::Contract;
use config::{ConfigError, Documents, MachineType, Mode, Patch, validate};
use pki::{SecretsBundle, SecretsOptions};
use serde_json::json;
use stdx::{Clock as _, SystemClock};

use super::failure::UpError;
use super::offline::Images;
use crate::machines::UserDisk;
use crate::plan::{Plan, PlannedNode, Role};

pub use existing::Existing;

#[cfg(test)]
pub(super) mod tests;

/// The operator's choices.
#[derive(Debug, Clone)]
pub struct ConfigRequest {
    /// Configurations to take instead of generating some. The choices about the content of generated ones (from
    /// `kubernetes_version` to `custom_cni`) are then without effect, but for `discovery`.
    pub existing: Option<Existing>,
    /// With or without `v`; defaults to the bundle's version, else to ours.
    pub kubernetes_version: Option<String>,
    /// The version of the system whose fields are written.
    pub contract: Contract,
    /// The kinds of secrets of that version.
    pub secrets: SecretsOptions,
    /// The installer's image; defaults to ours.
    pub install_image: Option<String>,
    pub dns_domain: String,
    pub nameservers: Vec<String>,
    pub control_plane_port: u16,
    /// How nodes install themselves; none where they are containers.
    pub install: Option<Install>,
    /// None switches KubePrism off.
    pub kubeprism_port: Option<u16>,
    /// Registry host and URL of its mirror; these win over the bundle's, and come after an installer's of the same host.
    pub mirrors: Vec<(String, String)>,
    /// Registries whose certificates are not checked.
    pub insecure_registries: Vec<String>,
    /// Manifests of another pod network; empty takes the native one.
    pub custom_cni: Vec<String>,
    /// Whether the discovery server of the cluster runs.
    pub discovery: bool,
    /// Name or address that the operator reaches the first control plane by, instead of its own.
    pub endpoint: Option<String>,
    /// Whether services log to the console.
    pub debug: bool,
    /// Whether the first control plane has the old type `init`.
    pub init_node: bool,
    /// Whether nodes are without IPv6.
    pub disable_ipv6: bool,
    pub patches: Patches,
}

/// How machines install themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    pub disk: String,
    /// For the kernel of the installed system.
    pub kernel_arguments: Vec<String>,
    pub user_disks: Vec<UserDisk>,
}

/// Patches of the configurations, applied in this order: those of all, of the role, of the node.
#[derive(Debug, Clone, Default)]
pub struct Patches {
    pub all: Vec<Patch>,
    pub control_plane: Vec<Patch>,
    pub worker: Vec<Patch>,
    /// For single nodes, by name.
    pub nodes: BTreeMap<String, Vec<Patch>>,
}

impl Patches {
    fn of<'a>(&'a self, node: &PlannedNode) -> impl Iterator<Item = &'a Patch> + use<'a> {
        let role = match node.role {
            Role::ControlPlane => &self.control_plane,
            Role::Worker => &self.worker,
        };
        self.all.iter().chain(role).chain(self.nodes.get(&node.name).into_iter().flatten())
    }
}

/// The documents of a cluster.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) kubernetes_version: String,
    pub(super) endpoint: String,
    /// By name of the node.
    nodes: BTreeMap<String, Vec<u8>>,
    /// Warnings about the operator's choices, each once for all nodes.
    pub(super) warnings: BTreeSet<String>,
    pub(super) talosconfig: TalosConfig,
    /// Whether the nodes will run the cluster's DNS.
    pub(super) dns: ClusterDns,
}

/// The resolver of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClusterDns {
    CoreDns,
    /// None, or one that the operator deploys.
    Foreign,
}

/// Configurations before anything local is in them.
struct Foundation {
    /// Without `v`.
    kubernetes_version: String,
    /// URL of the Kubernetes API.
    endpoint: String,
    context: String,
    credentials: ConfigContext,
    control_plane: Documents,
    worker: Documents,
}

/// Sources of configurations.
#[derive(Debug, Clone)]
pub(super) enum Material {
    Secrets(Box<SecretsBundle>),
    Existing(Existing),
}

impl Rendered {
    /// The configuration of a node of the plan.
    pub(super) fn of(&self, node: &PlannedNode) -> &[u8] {
        self.nodes.get(&node.name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Addresses and ports of all URLs in the configurations: mirrors of registries, manifests, time and log servers. Some of them
    /// may be on this host, whose firewall lets nodes reach nothing but what is listed.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddrV4> {
        let texts = self.nodes.values().map(|document| String::from_utf8_lossy(document));
        let separates = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '[' | ']' | '{' | '}');
        texts.flat_map(|text| text.split(separates).filter_map(local::address_of).collect::<Vec<_>>()).collect()
    }

    /// Notices about nodes that will install another image than that of the operator's installer, which the cluster's registry
    /// serves: their configurations name another one, or another mirror first.
    pub(super) fn unused_installer(
        &self,
        images: &Images,
        registry: Option<&str>,
    ) -> Result<BTreeSet<String>, UpError> {
        let (Some(installer), Some(registry)) = (&images.installer, registry) else { return Ok(BTreeSet::new()) };
        let layout = installer.layout().display();
        let mut notices = BTreeSet::new();
        for (node, document) in &self.nodes {
            let documents = Documents::from_yaml(document).map_err(generating("machine configuration"))?;
            let Some(machine) = documents.v1alpha1().and_then(|config| config.machine.as_ref()) else { continue };
            let image = machine.install.as_ref().map(|install| install.image.clone()).filter(|image| !image.is_empty());
            let image = image.unwrap_or_else(config::images::installer);
            if !installer.has(&image) {
                let has = installer.references().join(", ");
                notices.insert(format!("the installer of {layout} ({has}) is not used by {node}: it installs {image}"));
                continue;
            }
            let host = image.split_once('/').map_or("", |(host, _)| host);
            let mirror = machine.registries.as_ref().and_then(|registries| registries.mirrors.get(host));
            if mirror.and_then(|mirror| mirror.endpoints.first()).is_none_or(|first| first != registry) {
                notices.insert(format!(
                    "the installer of {layout} may not be used by {node}: its configuration names another mirror of {host} first"
                ));
            }
        }
        Ok(notices)
    }
}

/// Makes new secrets, which takes most of the time that configurations cost. Configurations that exist have theirs.
pub(super) fn material(request: &ConfigRequest) -> Result<Material, UpError> {
    if let Some(existing) = &request.existing {
        return Ok(Material::Existing(existing.clone()));
    }
    let secrets = SecretsBundle::generate(SystemClock.now(), request.secrets).map_err(generating("secrets"))?;
    Ok(Material::Secrets(Box::new(secrets)))
}

/// Makes the documents.
pub(super) fn render(
    request: &ConfigRequest,
    plan: &Plan,
    material: Material,
    images: &Images,
    registry: Option<&str>,
) -> Result<Rendered, UpError> {
    if let Some(name) = request.patches.nodes.keys().find(|name| plan.nodes.iter().all(|node| node.name != **name)) {
        return Err(UpError::NoSuchNode(name.clone()));
    }
    let local = local::Local { request, plan, images, registry };
    let complete = matches!(material, Material::Secrets(_));
    let foundation = match material {
        Material::Existing(existing) => existing::foundation(&existing, plan, images.offline.as_ref())?,
        Material::Secrets(secrets) => generated::foundation(request, plan, *secrets, images, registry)?,
    };
    let (mut nodes, mut warnings) = (BTreeMap::new(), BTreeSet::new());
    for node in &plan.nodes {
        let base = match node.role {
            Role::ControlPlane => &foundation.control_plane,
            Role::Worker => &foundation.worker,
        };
        let added = if complete { local.additions(node.role) } else { local.absent(node.role, base) };
        let added = Patch::parse(&added.to_string()).map_err(generating(subject(node.role)))?;
        let wanted: Vec<Patch> = local.choices(node)?.into_iter().chain(request.patches.of(node).cloned()).collect();
        let mode = if request.install.is_some() { Mode::Metal } else { Mode::Container };
        let (text, noticed) = document(base, &added, &wanted, mode, node.role)?;
        warnings.extend(noticed);
        nodes.insert(node.name.clone(), text);
    }
    let first = plan.first_control_plane().and_then(|node| nodes.get(&node.name));
    let context = reachable(foundation.credentials, request, plan);
    Ok(Rendered {
        dns: first.map_or(Ok(ClusterDns::Foreign), |document| cluster_dns(document))?,
        nodes,
        warnings,
        talosconfig: TalosConfig {
            context: foundation.context.clone(),
            contexts: [(foundation.context, context)].into_iter().collect(),
        },
        kubernetes_version: foundation.kubernetes_version,
        endpoint: foundation.endpoint,
    })
}

/// The credentials with the endpoints by which the operator reaches the control planes.
fn reachable(credentials: ConfigContext, request: &ConfigRequest, plan: &Plan) -> ConfigContext {
    let control_planes = plan.nodes.iter().filter(|node| node.role == Role::ControlPlane);
    let addresses: Vec<String> = control_planes.map(|node| node.address.to_string()).collect();
    let or = |given: Vec<String>, usual: Vec<String>| if given.is_empty() { usual } else { given };
    ConfigContext {
        nodes: or(credentials.nodes, addresses.iter().take(1).cloned().collect()),
        endpoints: match &request.endpoint {
            Some(endpoint) => vec![endpoint.clone()],
            None => or(credentials.endpoints, addresses),
        },
        ..credentials
    }
}

/// Whether a control plane with this configuration runs CoreDNS.
fn cluster_dns(document: &[u8]) -> Result<ClusterDns, UpError> {
    let documents = Documents::from_yaml(document).map_err(generating("control plane configuration"))?;
    let disabled = |value: serde_json::Value| value.pointer("/cluster/coreDNS/disabled") == Some(&json!(true));
    let disabled = documents.documents().iter().any(|document| disabled(document.to_value()));
    Ok(if disabled { ClusterDns::Foreign } else { ClusterDns::CoreDns })
}

/// Validates the operator's choices here instead of on a node. Returns the text, and warnings about what these choices brought
/// in; those about the rest say nothing that the operator could change.
fn document(
    base: &Documents,
    added: &Patch,
    wanted: &[Patch],
    mode: Mode,
    role: Role,
) -> Result<(Vec<u8>, Vec<String>), UpError> {
    let subject = subject(role);
    let documents = config::patch::apply(base, std::slice::from_ref(added)).map_err(generating(subject))?;
    let field = |warning: &ConfigError| (warning.kind.clone(), warning.path.clone());
    let known: BTreeSet<_> = validate(&documents, mode).warnings().map(field).collect();
    let documents = config::patch::apply(&documents, wanted).map_err(generating(subject))?;
    let warnings = validate(&documents, mode).into_result().map_err(generating(subject))?;
    let new = warnings.into_iter().filter(|warning| !known.contains(&field(warning)));
    let texts = new.map(|warning| format!("{} {}: {}", warning.kind, warning.path, warning.message));
    Ok((documents.to_yaml().into_bytes(), texts.collect()))
}

fn subject(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "control plane configuration",
        Role::Worker => "worker configuration",
    }
}

fn kind(role: Role) -> MachineType {
    match role {
        Role::ControlPlane => MachineType::ControlPlane,
        Role::Worker => MachineType::Worker,
    }
}

fn generating<E: std::error::Error + Send + Sync + 'static>(subject: &'static str) -> impl Fn(E) -> UpError {
    move |source| UpError::Generate { subject, source: Box::new(source) }
}
