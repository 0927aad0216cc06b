//! GenerateConfiguration: a machine configuration and a talosconfig from the choices of an operator who has no tool that
//! generates them. Nothing of it is applied or kept here.
//!
//! A control plane node generates with the secrets of its cluster, a node without a configuration with new ones.

use std::time::{Duration, SystemTime};

use config::generate::{self, CommentStyle, Contract, GenerateError, Input};
use config::patch::{self, Patch};
use config::{Documents, MachineType};
use pki::secrets::{SecretsBundle, SecretsOptions};
use pki::{Role, RoleSet};
use resources::config::MachineConfig;
use serde_json::{Map, Value, json};
use stdx::error_chain;
use tonic::Status;
use wire::machine as api;
use wire::machine::machine_config::MachineType as WireType;

use crate::machine::Machine;

/// The one version of configurations (Talos 1.7).
const VERSION: &str = "v1alpha1";

/// Generates what is asked for.
///
/// # Errors
/// FAILED_PRECONDITION on a worker, which has no authorities; INVALID_ARGUMENT for choices that give no valid configuration.
pub(crate) async fn generate(
    machine: &Machine,
    request: api::GenerateConfigurationRequest,
) -> Result<api::GenerateConfiguration, Status> {
    let active = machine.store.get_as::<MachineConfig>(MachineConfig::ACTIVE_ID).map_err(|error| internal(&error))?;
    let root = MachineConfig::root_of(active.as_deref()).map_err(|error| internal(&error))?;
    let own = match root {
        Some(root) if root.machine().r#type == Some(MachineType::Worker) => {
            return Err(Status::failed_precondition("config can't be generated on worker nodes"));
        }
        Some(root) => Some(generate::secrets_from_config(root).map_err(|error| internal(&error))?),
        None => None,
    };
    let now = overridden(request.override_time.as_ref())?.unwrap_or_else(|| machine.clock.now());
    let work = move || {
        let secrets = match own {
            Some(secrets) => secrets,
            None => SecretsBundle::generate(now, SecretsOptions::default()).map_err(|error| internal(&error))?,
        };
        with_secrets(&request, secrets, now)
    };
    // Making keys takes a while.
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(format!("generating failed: {error}")))?
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::internal(error_chain(error))
}

fn overridden(time: Option<&prost_types::Timestamp>) -> Result<Option<SystemTime>, Status> {
    let convert = |time: &prost_types::Timestamp| SystemTime::try_from(*time);
    time.map(convert).transpose().map_err(|_| Status::invalid_argument("override_time is not a time"))
}

fn with_secrets(
    request: &api::GenerateConfigurationRequest,
    secrets: SecretsBundle,
    now: SystemTime,
) -> Result<api::GenerateConfiguration, Status> {
    if request.config_version != VERSION {
        let version = crate::access::quoted(&request.config_version);
        return Err(Status::invalid_argument(format!("unsupported config version {version}")));
    }
    let (Some(machine), Some(cluster)) = (&request.machine_config, &request.cluster_config) else {
        return Err(Status::invalid_argument("invalid generate request"));
    };
    let Some(endpoint) = cluster.control_plane.as_ref().map(|control_plane| control_plane.endpoint.clone()) else {
        return Err(Status::invalid_argument("invalid generate request"));
    };
    let kind = match machine.r#type() {
        WireType::TypeInit => MachineType::Init,
        WireType::TypeControlPlane => MachineType::ControlPlane,
        WireType::TypeWorker => MachineType::Worker,
        WireType::TypeUnknown => return Err(Status::invalid_argument("the type of the machine is not known")),
    };
    let input = input(cluster, machine, endpoint, secrets);
    let text = generate::generate(&input, kind, CommentStyle::FULL).map_err(|error| refused(&error))?;
    let text = with_network(text, machine.network_config.as_ref())?;
    let talosconfig = talosconfig(&input, now).map_err(|error| refused(&error))?;
    Ok(api::GenerateConfiguration {
        metadata: None,
        data: vec![text.into()],
        talosconfig: yaml::to_text(&talosconfig).into(),
    })
}

fn refused(error: &GenerateError) -> Status {
    match error {
        GenerateError::Endpoint { .. }
        | GenerateError::Name(_)
        | GenerateError::KubernetesVersion(_)
        | GenerateError::Invalid { .. } => Status::invalid_argument(error_chain(error)),
        GenerateError::Certificate(_) => Status::internal(error_chain(error)),
    }
}

/// What is left empty has its default.
fn input(
    cluster: &api::ClusterConfig,
    machine: &api::MachineConfig,
    endpoint: String,
    secrets: SecretsBundle,
) -> Input {
    let mut input = Input::new(cluster.name.clone(), endpoint, secrets);
    let given = |into: &mut String, text: &str| {
        if !text.is_empty() {
            text.clone_into(into);
        }
    };
    given(&mut input.kubernetes_version, &machine.kubernetes_version);
    if let Some(install) = &machine.install_config {
        given(&mut input.install_disk, &install.install_disk);
        given(&mut input.install_image, &install.install_image);
    }
    if let Some(network) = &cluster.cluster_network {
        given(&mut input.dns_domain, &network.dns_domain);
        if let Some(cni) = network.cni_config.as_ref().filter(|cni| !cni.name.is_empty()) {
            input.cni = Some(cni.name.clone());
            input.cni_urls.clone_from(&cni.urls);
        }
    }
    input.allow_scheduling_on_control_planes = cluster.allow_scheduling_on_control_planes;
    input.contract = Contract::default();
    input
}

/// The configuration with the host name and the interfaces of the request.
fn with_network(text: String, network: Option<&api::NetworkConfig>) -> Result<String, Status> {
    let Some(section) = network.and_then(network_section) else { return Ok(text) };
    let invalid = |error: &(dyn std::error::Error + 'static)| Status::invalid_argument(error_chain(error));
    let base = Documents::from_yaml(text.as_bytes()).map_err(|error| internal(&error))?;
    let patch = yaml::to_text(&json!({ "machine": { "network": section } }));
    let patch = Patch::parse(&patch).map_err(|error| invalid(&error))?;
    let patched = patch::apply(&base, &[patch]).map_err(|error| invalid(&error))?;
    Ok(generate::write_with_comments(&patched, CommentStyle::FULL))
}

/// `machine.network`; none where the request says nothing about it.
fn network_section(network: &api::NetworkConfig) -> Option<Value> {
    let mut section = Map::new();
    if !network.hostname.is_empty() {
        section.insert("hostname".to_owned(), json!(network.hostname));
    }
    let interfaces: Vec<Value> = network.interfaces.iter().map(interface).collect();
    if !interfaces.is_empty() {
        section.insert("interfaces".to_owned(), json!(interfaces));
    }
    (!section.is_empty()).then(|| section.into())
}

fn interface(device: &api::NetworkDeviceConfig) -> Value {
    let mut interface = Map::new();
    interface.insert("interface".to_owned(), json!(device.interface));
    if !device.cidr.is_empty() {
        interface.insert("addresses".to_owned(), json!([device.cidr]));
    }
    if device.mtu != 0 {
        interface.insert("mtu".to_owned(), json!(device.mtu));
    }
    for (key, is_set) in [("dhcp", device.dhcp), ("ignore", device.ignore)] {
        if is_set {
            interface.insert(key.to_owned(), json!(true));
        }
    }
    if let Some(options) = &device.dhcp_options {
        interface.insert("dhcpOptions".to_owned(), json!({ "routeMetric": options.route_metric }));
    }
    let route = |route: &api::RouteConfig| {
        let mut value = Map::new();
        for (key, text) in [("network", &route.network), ("gateway", &route.gateway)] {
            if !text.is_empty() {
                value.insert(key.to_owned(), json!(text));
            }
        }
        if route.metric != 0 {
            value.insert("metric".to_owned(), json!(route.metric));
        }
        Value::from(value)
    };
    let routes: Vec<Value> = device.routes.iter().map(route).collect();
    if !routes.is_empty() {
        interface.insert("routes".to_owned(), json!(routes));
    }
    interface.into()
}

/// A talosconfig of an administrator. Its endpoint is the host of the cluster's endpoint.
fn talosconfig(input: &Input, now: SystemTime) -> Result<Value, GenerateError> {
    const LIFETIME: Duration = generate::CLIENT_LIFETIME;
    let roles: RoleSet = [Role::Admin].into_iter().collect();
    let host = url::Url::parse(&input.endpoint).ok().and_then(|url| url.host_str().map(str::to_owned));
    let endpoints = host.map(|host| host.trim_matches(['[', ']']).to_owned()).into_iter().collect();
    let context = generate::client_context(&input.cluster_name, endpoints, &input.secrets, &roles, now, LIFETIME)?;
    Ok(json!({
        "context": context.context,
        "contexts": {
            &context.context: {
                "endpoints": context.endpoints,
                "ca": context.ca,
                "crt": context.crt,
                "key": context.key,
            }
        }
    }))
}
