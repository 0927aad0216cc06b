//! `inspect`: the dependency graph of a node's controllers.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use wire::inspect::{ControllerDependencyEdge, DependencyEdgeType};

use crate::command_error::CommandError;
use crate::replies::Replies;
use crate::session::Session;

mod resources;

#[derive(Debug, Subcommand)]
pub(crate) enum InspectCommand {
    /// Shows the graph of controllers and resource types in the DOT language
    Dependencies(DependenciesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DependenciesArgs {
    /// Includes the resources, not only their types
    #[arg(long)]
    with_resources: bool,
}

pub(crate) async fn run(command: InspectCommand, session: &Session) -> Result<(), CommandError> {
    let InspectCommand::Dependencies(args) = command;
    let node = session.one_node("inspect dependencies")?;
    let client = session.connect().await?;
    let routed = client.to_nodes([node.as_str()]);
    let mut nodes = Replies::new(&session.out, &routed);
    for (name, reply) in nodes.take_all(routed.dependencies().await?) {
        let mut found = resources::ExistingResources::default();
        if args.with_resources {
            found = resources::existing(&client.to_node(&node).state(), &reply.edges).await?;
        }
        session.out.line(graph(&reply.edges, &found.existing))?;
        for (resource_type, error) in found.failed {
            // Some types are for administrators only; the rest of the graph is still useful.
            if error.code() == tonic::Code::PermissionDenied {
                session.out.warning(format!("left out {resource_type}: {}", error.status.message()));
            } else {
                nodes.fail(&name, &error);
            }
        }
    }
    nodes.finish()
}

/// An existing resource: type and ID.
type Existing = (String, String);

/// Controllers as boxes, types as notes; edges from inputs to controllers, from controllers to outputs.
fn graph(edges: &[ControllerDependencyEdge], existing: &[Existing]) -> String {
    let mut nodes = BTreeSet::new();
    let mut lines = BTreeSet::new();
    for edge in edges {
        let controller = quote(&edge.controller_name);
        let resource_type = quote(&edge.resource_type);
        nodes.insert(format!("  {controller} [shape=box, style=filled, fillcolor=lightblue];"));
        nodes.insert(format!("  {resource_type} [shape=note, style=filled, fillcolor=azure2];"));
        let label =
            if edge.resource_id.is_empty() { String::new() } else { format!(" [label={}]", quote(&edge.resource_id)) };
        lines.insert(match edge.edge_type() {
            DependencyEdgeType::OutputExclusive => format!("  {controller} -> {resource_type} [style=bold];"),
            DependencyEdgeType::OutputShared => format!("  {controller} -> {resource_type} [style=solid];"),
            DependencyEdgeType::InputStrong | DependencyEdgeType::InputDestroyReady => {
                format!("  {resource_type} -> {controller}{label};")
            }
            DependencyEdgeType::InputWeak if label.is_empty() => {
                format!("  {resource_type} -> {controller} [style=dotted];")
            }
            DependencyEdgeType::InputWeak => {
                format!("  {resource_type} -> {controller} [style=dotted, label={}];", quote(&edge.resource_id))
            }
        });
    }
    for (resource_type, id) in existing {
        let name = quote(&format!("{resource_type}/{id}"));
        nodes.insert(format!("  {name} [shape=ellipse, label={}];", quote(id)));
        lines.insert(format!("  {} -> {name} [style=dashed, arrowhead=none];", quote(resource_type)));
    }
    let body: Vec<String> = nodes.into_iter().chain(lines).collect();
    format!("digraph {{\n{}\n}}", body.join("\n"))
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(controller: &str, kind: DependencyEdgeType, resource: &str, id: &str) -> ControllerDependencyEdge {
        ControllerDependencyEdge {
            controller_name: controller.to_owned(),
            edge_type: kind.into(),
            resource_type: resource.to_owned(),
            resource_id: id.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn inputs_point_to_controllers_and_controllers_to_outputs() {
        let edges = [
            edge("c.A", DependencyEdgeType::InputWeak, "In", "one"),
            edge("c.A", DependencyEdgeType::OutputExclusive, "Out", ""),
        ];
        let expected = "digraph {
  \"In\" [shape=note, style=filled, fillcolor=azure2];
  \"Out\" [shape=note, style=filled, fillcolor=azure2];
  \"c.A\" [shape=box, style=filled, fillcolor=lightblue];
  \"Out\" -> \"Out/x\" [style=dashed, arrowhead=none];
  \"Out/x\" [shape=ellipse, label=\"x\"];
}";
        let shown = graph(&edges, &[("Out".to_owned(), "x".to_owned())]);
        for line in expected.lines() {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
        assert!(shown.contains("  \"In\" -> \"c.A\" [style=dotted, label=\"one\"];"), "{shown}");
        assert!(shown.contains("  \"c.A\" -> \"Out\" [style=bold];"), "{shown}");
    }
}
