//! The COSI state of a node: reading and watching resources without knowing their types. A resource is its metadata and
//! its spec as an ordered tree out of the YAML form.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use indexmap::IndexMap;
use prost::Message as _;
use serde_json::Value;
use tonic::{Request, Status};
use wire::cosi::resource as pb;
use wire::cosi::resource::meta::ResourceDefinitionSpec;
use wire::cosi::resource::state_client;
use wire::resource::config::MachineConfigSpec;

use crate::connection::{Channel, Client, MAX_MESSAGE_SIZE};
use crate::error::CallError;

/// Namespace and type of the resources that describe types.
const META_NAMESPACE: &str = "meta";
const DEFINITION_TYPE: &str = "ResourceDefinitions.meta.cosi.dev";
const MACHINE_CONFIG_TYPE: &str = "MachineConfigs.config.talos.dev";

/// Reads the state of the node that the client is routed to.
#[derive(Debug, Clone)]
pub struct StateClient {
    client: Client,
}

/// A resource in its wire form.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub metadata: ResourceMetadata,
    /// `null` when the resource has no YAML form.
    pub spec: Value,
    /// The YAML form as the node wrote it.
    pub yaml: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceMetadata {
    pub namespace: String,
    pub resource_type: String,
    pub id: String,
    pub version: String,
    pub owner: String,
    pub phase: String,
    /// Seconds and nanoseconds since 1970.
    pub created: Option<(i64, i32)>,
    pub updated: Option<(i64, i32)>,
    pub finalizers: Vec<String>,
    pub labels: IndexMap<String, String>,
    pub annotations: IndexMap<String, String>,
}

/// A resource type: names and columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    pub resource_type: String,
    pub display_type: String,
    pub default_namespace: String,
    pub aliases: Vec<String>,
    pub all_aliases: Vec<String>,
    pub columns: Vec<PrintColumn>,
    pub sensitive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintColumn {
    pub name: String,
    pub json_path: String,
}

/// A change, or a mark in the stream.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    pub kind: WatchEventKind,
    /// Absent for marks and errors.
    pub resource: Option<Resource>,
    pub bookmark: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEventKind {
    Created,
    Updated,
    Destroyed,
    /// All that existed at the start has been sent.
    Bootstrapped,
    Noop,
    Errored(String),
}

impl Client {
    /// The state of the node that this client is routed to; servers refuse several nodes.
    pub fn state(&self) -> StateClient {
        StateClient { client: self.clone() }
    }
}

impl StateClient {
    fn grpc(&self) -> state_client::StateClient<Channel> {
        state_client::StateClient::new(self.client.channel()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    pub async fn get(&self, namespace: &str, resource_type: &str, id: &str) -> Result<Resource, CallError> {
        let request = pb::GetRequest {
            namespace: namespace.to_owned(),
            r#type: resource_type.to_owned(),
            id: id.to_owned(),
            options: None,
        };
        let reply = self.grpc().get(self.client.unary(request)).await;
        let resource = reply.map_err(|status| CallError::new("Get", status))?.into_inner().resource;
        convert(resource).map_err(|status| CallError::new("Get", status))
    }

    pub async fn list(&self, namespace: &str, resource_type: &str) -> Result<Vec<Resource>, CallError> {
        let request =
            pb::ListRequest { namespace: namespace.to_owned(), r#type: resource_type.to_owned(), options: None };
        let failed = |status| CallError::new("List", status);
        let whole = async {
            let mut stream = self.grpc().list(self.client.unary(request)).await.map_err(failed)?.into_inner();
            let mut resources = Vec::new();
            while let Some(part) = stream.message().await.map_err(failed)? {
                resources.push(convert(part.resource).map_err(failed)?);
            }
            Ok(resources)
        };
        self.client.within_deadline("List", whole).await
    }

    /// All changes, preceded by the existing resources (one resource, or all of a type if `id` is none).
    pub async fn watch(
        &self,
        namespace: &str,
        resource_type: &str,
        id: Option<&str>,
    ) -> Result<Pin<Box<dyn Stream<Item = Result<WatchEvent, CallError>> + Send>>, CallError> {
        let options = pb::WatchOptions { bootstrap_contents: id.is_none(), ..Default::default() };
        let request = pb::WatchRequest {
            namespace: namespace.to_owned(),
            r#type: resource_type.to_owned(),
            id: id.map(str::to_owned),
            options: Some(options),
            api_version: 1,
        };
        let begun = async {
            let reply = self.grpc().watch(Request::new(request)).await;
            reply.map_err(|status| CallError::new("Watch", status))
        };
        let stream = self.client.within_deadline("Watch", begun).await?.into_inner();
        let events = stream.flat_map(|part| {
            let events = match part {
                Ok(response) => response.event.into_iter().map(event).collect(),
                Err(status) => vec![Err(CallError::new("Watch", status))],
            };
            futures::stream::iter(events)
        });
        Ok(Box::pin(events))
    }

    /// The text of a machine configuration: all its documents, as they were applied.
    ///
    /// Errors: code `DATA_LOSS` when the node sent something else.
    pub async fn machine_config(&self, namespace: &str, id: &str) -> Result<String, CallError> {
        let request = pb::GetRequest {
            namespace: namespace.to_owned(),
            r#type: MACHINE_CONFIG_TYPE.to_owned(),
            id: id.to_owned(),
            options: None,
        };
        let failed = |status| CallError::new("Get", status);
        let reply = self.grpc().get(self.client.unary(request)).await.map_err(failed)?.into_inner();
        configuration_text(reply.resource.and_then(|resource| resource.spec).unwrap_or_default()).map_err(failed)
    }

    /// The definitions of all types that the node has.
    pub async fn definitions(&self) -> Result<Vec<Definition>, CallError> {
        let resources = self.list(META_NAMESPACE, DEFINITION_TYPE).await?;
        Ok(resources.iter().map(|resource| definition(&resource.spec)).collect())
    }
}

fn event(event: pb::Event) -> Result<WatchEvent, CallError> {
    let kind = match pb::EventType::try_from(event.event_type) {
        Ok(pb::EventType::Created) => WatchEventKind::Created,
        Ok(pb::EventType::Updated) => WatchEventKind::Updated,
        Ok(pb::EventType::Destroyed) => WatchEventKind::Destroyed,
        Ok(pb::EventType::Bootstrapped) => WatchEventKind::Bootstrapped,
        Ok(pb::EventType::Errored) => WatchEventKind::Errored(event.error.unwrap_or_default()),
        Ok(pb::EventType::Noop) | Err(_) => WatchEventKind::Noop,
    };
    let has_resource = matches!(kind, WatchEventKind::Created | WatchEventKind::Updated | WatchEventKind::Destroyed);
    let resource = if has_resource {
        Some(convert(event.resource).map_err(|status| CallError::new("Watch", status))?)
    } else {
        None
    };
    Ok(WatchEvent { kind, resource, bookmark: event.bookmark.map(|bytes| bytes.to_vec()) })
}

fn convert(resource: Option<pb::Resource>) -> Result<Resource, Status> {
    let resource = resource.ok_or_else(|| Status::internal("the node sent no resource"))?;
    let metadata = resource.metadata.ok_or_else(|| Status::internal("the node sent a resource without metadata"))?;
    let yaml = resource.spec.map(|spec| spec.yaml_spec).unwrap_or_default();
    let spec = parse_spec(&yaml).map_err(|error| {
        Status::internal(format!("spec of {} {} is not YAML: {error}", metadata.r#type, metadata.id))
    })?;
    Ok(Resource { metadata: convert_metadata(metadata), spec, yaml })
}

/// The text in the message; without one, the YAML form, which is the documents themselves or a string with them.
fn configuration_text(spec: pb::Spec) -> Result<String, Status> {
    let broken = |reason: String| Status::data_loss(format!("the node sent no machine configuration: {reason}"));
    let message = MachineConfigSpec::decode(&*spec.proto_spec).unwrap_or_default();
    if !message.yaml_marshalled.is_empty() {
        return String::from_utf8(message.yaml_marshalled.into()).map_err(|error| broken(error.to_string()));
    }
    match parse_spec(&spec.yaml_spec) {
        Ok(Value::String(text)) => Ok(text),
        Ok(Value::Null) => Err(broken("it is empty".to_owned())),
        // Several documents are not one value.
        Ok(_) | Err(_) => Ok(spec.yaml_spec),
    }
}

fn parse_spec(yaml: &str) -> Result<Value, yaml::ReadError> {
    if yaml.trim().is_empty() {
        return Ok(Value::Null);
    }
    yaml::from_str(yaml)
}

fn convert_metadata(metadata: pb::Metadata) -> ResourceMetadata {
    let time = |stamp: Option<prost_types::Timestamp>| stamp.map(|at| (at.seconds, at.nanos));
    let sorted = |map: std::collections::HashMap<String, String>| {
        let mut map: IndexMap<_, _> = map.into_iter().collect();
        map.sort_keys();
        map
    };
    ResourceMetadata {
        namespace: metadata.namespace,
        resource_type: metadata.r#type,
        id: metadata.id,
        version: metadata.version,
        owner: metadata.owner,
        phase: metadata.phase,
        created: time(metadata.created),
        updated: time(metadata.updated),
        finalizers: metadata.finalizers,
        labels: sorted(metadata.labels),
        annotations: sorted(metadata.annotations),
    }
}

/// Reads the YAML form of a definition; absent fields are empty.
fn definition(spec: &Value) -> Definition {
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |key: &str| {
        let values = spec.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let columns = spec.get("printColumns").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let column = |value: &Value| {
        let of = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(PrintColumn { name: of("name")?, json_path: of("jsonPath")? })
    };
    Definition {
        resource_type: text("type"),
        display_type: text("displayType"),
        default_namespace: text("defaultNamespace"),
        aliases: list("aliases"),
        all_aliases: list("allAliases"),
        columns: columns.iter().filter_map(column).collect(),
        sensitive: text("sensitivity") == "sensitive",
    }
}

impl From<ResourceDefinitionSpec> for Definition {
    fn from(spec: ResourceDefinitionSpec) -> Self {
        let sensitive =
            spec.sensitivity() == wire::cosi::resource::meta::resource_definition_spec::Sensitivity::Sensitive;
        let columns = spec.print_columns.into_iter();
        Self {
            resource_type: spec.resource_type,
            display_type: spec.display_type,
            default_namespace: spec.default_namespace,
            aliases: spec.aliases,
            all_aliases: spec.all_aliases,
            columns: columns.map(|one| PrintColumn { name: one.name, json_path: one.json_path }).collect(),
            sensitive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_keeps_the_order_of_its_keys_and_untyped_words() {
        let spec = parse_spec("zeta: 1\nalpha: yes\nlist:\n  - on\n  - true\n").unwrap();
        assert_eq!(spec.to_string(), r#"{"zeta":1,"alpha":"yes","list":["on",true]}"#);
        assert_eq!(parse_spec("").unwrap(), Value::Null);
        assert_eq!(parse_spec("controlplane").unwrap(), Value::String("controlplane".to_owned()));
    }

    #[test]
    fn a_configuration_is_read_from_its_message_else_from_its_yaml_form() {
        let text = |proto: &[u8], yaml: &str| {
            configuration_text(pb::Spec { proto_spec: proto.to_vec().into(), yaml_spec: yaml.to_owned() })
        };
        let message = MachineConfigSpec { yaml_marshalled: "# mine\ndebug: true\n".into() }.encode_to_vec();
        assert_eq!(text(&message, "debug: true\n").unwrap(), "# mine\ndebug: true\n");
        assert_eq!(text(b"", "|\n    a: 1\n    b: 2\n").unwrap(), "a: 1\nb: 2\n");
        assert_eq!(text(b"a: 1\n", "a: 1\n").unwrap(), "a: 1\n");
        assert_eq!(text(b"", "a: 1\n---\nb: 2\n").unwrap(), "a: 1\n---\nb: 2\n");
        assert_eq!(text(b"", "").unwrap_err().code(), tonic::Code::DataLoss);
        let broken = MachineConfigSpec { yaml_marshalled: vec![0xff].into() }.encode_to_vec();
        assert_eq!(text(&broken, "").unwrap_err().code(), tonic::Code::DataLoss);
    }

    #[test]
    fn a_definition_is_read_from_its_yaml_form() {
        let yaml = "type: Members.cluster.talos.dev\ndisplayType: Member\ndefaultNamespace: cluster\naliases: []\n\
                    allAliases: [member, members]\nprintColumns:\n  - name: Hostname\n    jsonPath: '{.hostname}'\n\
                    sensitivity: sensitive\n";
        let read = definition(&parse_spec(yaml).unwrap());
        assert_eq!(read.resource_type, "Members.cluster.talos.dev");
        assert_eq!(read.all_aliases, ["member", "members"]);
        assert_eq!(read.columns, [PrintColumn { name: "Hostname".to_owned(), json_path: "{.hostname}".to_owned() }]);
        assert!(read.sensitive);
    }
}
