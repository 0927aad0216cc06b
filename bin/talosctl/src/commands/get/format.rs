//! Output formats of `get`: a table with the columns of the type, YAML, JSON, or a JSONPath template.

use std::str::FromStr;

use client::{Definition, Resource, ResourceMetadata, WatchEventKind};
use serde_json::{Map, Value, json};

use crate::command_error::CommandError;
use crate::jsonpath::Template;
use crate::output::json;
use crate::output::table::Table;

#[cfg(test)]
mod tests;

/// The value of `--output`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Format {
    Table,
    Yaml,
    Json,
    JsonPath(Template),
}

/// Whether the type of change is shown beside each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Shown,
    Hidden,
}

/// Formats resources one after another.
#[derive(Debug)]
pub(super) struct Printer {
    form: Form,
    change: Change,
    pending: Vec<String>,
}

#[derive(Debug)]
enum Form {
    Table { table: Table, display_type: String, columns: Vec<Template> },
    Yaml { begun: bool },
    Json,
    JsonPath(Template),
}

impl FromStr for Format {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "table" => Ok(Self::Table),
            "yaml" => Ok(Self::Yaml),
            "json" => Ok(Self::Json),
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => Template::parse(template)
                    .map(Self::JsonPath)
                    .map_err(|error| CommandError::usage("reading --output").caused_by(error)),
                None => Err(CommandError::usage(format!("output format {text:?} is not supported"))
                    .hint("the formats are table, yaml, json and jsonpath=TEMPLATE")),
            },
        }
    }
}

impl Printer {
    pub(super) fn new(format: Format, definition: &Definition, change: Change) -> Result<Self, CommandError> {
        let form = match format {
            Format::Yaml => Form::Yaml { begun: false },
            Format::Json => Form::Json,
            Format::JsonPath(template) => Form::JsonPath(template),
            Format::Table => {
                let mut header = vec!["NODE".to_owned()];
                if change == Change::Shown {
                    header.push("*".to_owned());
                }
                header.extend(["NAMESPACE", "TYPE", "ID", "VERSION"].map(str::to_owned));
                header.extend(definition.columns.iter().map(|column| column.name.to_uppercase()));
                let columns: Result<Vec<_>, _> =
                    definition.columns.iter().map(|column| Template::parse(&column.json_path)).collect();
                let columns = columns.map_err(CommandError::wrap("reading the columns of the type"))?;
                let display_type = definition.display_type.clone();
                Form::Table { table: Table::new(header), display_type, columns }
            }
        };
        Ok(Self { form, change, pending: Vec::new() })
    }

    pub(super) fn add(
        &mut self,
        node: &str,
        resource: &Resource,
        event: Option<&WatchEventKind>,
    ) -> Result<(), CommandError> {
        match &mut self.form {
            Form::Table { table, display_type, columns } => {
                let metadata = &resource.metadata;
                let mut row = vec![node.to_owned()];
                if self.change == Change::Shown {
                    row.push(event.map(sign).unwrap_or_default().to_owned());
                }
                row.extend([metadata.namespace.clone(), display_type.clone()]);
                row.extend([metadata.id.clone(), metadata.version.clone()]);
                for column in columns {
                    let cell = column.cell(&resource.spec);
                    row.push(cell.map_err(CommandError::wrap(format!("formatting {}", metadata.id)))?);
                }
                table.row(row);
            }
            Form::Yaml { begun } => {
                let separator = if std::mem::replace(begun, true) { "---\n" } else { "" };
                self.pending.push(format!("{separator}{}", yaml(node, resource, event)));
            }
            Form::Json => self.pending.push(json::pretty(&tree(node, resource, event))),
            Form::JsonPath(template) => {
                let text = template.render(&tree(node, resource, event));
                self.pending.push(text.map_err(CommandError::wrap(format!("formatting {}", resource.metadata.id)))?);
            }
        }
        Ok(())
    }

    /// Rows added since the last call; empty for a table without rows.
    pub(super) fn take(&mut self) -> String {
        match &mut self.form {
            Form::Table { table, .. } => table.take(),
            _ => std::mem::take(&mut self.pending).join("\n"),
        }
    }
}

fn sign(event: &WatchEventKind) -> &'static str {
    match event {
        WatchEventKind::Created => "+",
        WatchEventKind::Destroyed => "-",
        _ => " ",
    }
}

fn event_name(event: &WatchEventKind) -> &'static str {
    match event {
        WatchEventKind::Created => "created",
        WatchEventKind::Updated => "updated",
        WatchEventKind::Destroyed => "destroyed",
        _ => "other",
    }
}

fn tree(node: &str, resource: &Resource, event: Option<&WatchEventKind>) -> Value {
    let mut tree = Map::new();
    tree.insert("node".to_owned(), json!(node));
    if let Some(event) = event {
        tree.insert("event".to_owned(), json!(event_name(event)));
    }
    tree.insert("metadata".to_owned(), metadata(&resource.metadata));
    tree.insert("spec".to_owned(), resource.spec.clone());
    Value::Object(tree)
}

fn metadata(metadata: &ResourceMetadata) -> Value {
    let version = metadata.version.parse::<u64>().map_or_else(|_| json!(metadata.version), |number| json!(number));
    let mut tree = Map::new();
    let mut put = |key: &str, value: Value| tree.insert(key.to_owned(), value);
    put("namespace", json!(metadata.namespace));
    put("type", json!(metadata.resource_type));
    put("id", json!(metadata.id));
    put("version", version);
    put("owner", json!(metadata.owner));
    put("phase", json!(metadata.phase));
    for (key, stamp) in [("created", metadata.created), ("updated", metadata.updated)] {
        if let Some(at) = stamp.and_then(|(seconds, _)| jiff::Timestamp::from_second(seconds).ok()) {
            put(key, json!(at.to_string()));
        }
    }
    if !metadata.labels.is_empty() {
        put("labels", json!(metadata.labels));
    }
    if !metadata.annotations.is_empty() {
        put("annotations", json!(metadata.annotations));
    }
    if !metadata.finalizers.is_empty() {
        put("finalizers", json!(metadata.finalizers));
    }
    Value::Object(tree)
}

/// The metadata followed by the spec as the node wrote it, with its comments and style.
fn yaml(node: &str, resource: &Resource, event: Option<&WatchEventKind>) -> String {
    let mut head = Map::new();
    head.insert("node".to_owned(), json!(node));
    if let Some(event) = event {
        head.insert("event".to_owned(), json!(event_name(event)));
    }
    head.insert("metadata".to_owned(), metadata(&resource.metadata));
    let head = crate::output::yaml_of(&Value::Object(head));
    let head: Vec<String> = head.trim_end().lines().map(plain_stamp).collect();
    let spec = resource.yaml.trim_end();
    let is_block = match &resource.spec {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    let spec = match is_block {
        _ if spec.is_empty() => " {}".to_owned(),
        true => {
            let indent = |line: &str| if line.is_empty() { String::new() } else { format!("    {line}") };
            format!("\n{}", spec.lines().map(indent).collect::<Vec<_>>().join("\n"))
        }
        // The lines of a block scalar are already indented.
        false => format!(" {spec}"),
    };
    format!("{}\nspec:{spec}", head.join("\n"))
}

/// Timestamps in the metadata are YAML timestamps, not strings.
fn plain_stamp(line: &str) -> String {
    let is_stamp = ["    created: ", "    updated: "].iter().any(|key| line.starts_with(key));
    if is_stamp { line.replace('"', "") } else { line.to_owned() }
}
