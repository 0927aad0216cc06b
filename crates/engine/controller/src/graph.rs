//! The dependency graph: validated on registration, exported for operators.

use crate::{
    access::Access,
    io::{Input, OutputMode, Strength},
};

/// Relation between a controller and a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeKind {
    /// The only writer of the type.
    OutputExclusive,
    /// One of the writers of the type.
    OutputShared,
    /// Reads and may hold.
    InputStrong,
    /// Reads.
    InputWeak,
    /// Waits until it may be destroyed.
    InputDestroyReady,
}

/// One line of the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The controller's name.
    pub controller: &'static str,
    /// The relation.
    pub kind: EdgeKind,
    /// The namespace; for outputs the type's, although some resources may be in others.
    pub namespace: String,
    /// The full type.
    pub type_name: String,
    /// The id; empty for all.
    pub id: String,
}

/// Invalid declarations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two controllers with one name.
    #[error("controller {0} is registered twice")]
    DuplicateController(&'static str),
    /// A type with an exclusive writer has a second writer.
    #[error("{type_name} is written by {first} and by {second}, one of them exclusively")]
    OutputConflict {
        /// The type.
        type_name: &'static str,
        /// The first writer.
        first: &'static str,
        /// The second writer.
        second: &'static str,
    },
    /// An output declared twice by one controller.
    #[error("controller {controller} declares output {type_name} twice")]
    DuplicateOutput {
        /// The controller.
        controller: &'static str,
        /// The type.
        type_name: &'static str,
    },
    /// An input declared twice by one controller.
    #[error("controller {controller} declares input {input} twice")]
    DuplicateInput {
        /// The controller.
        controller: &'static str,
        /// The kind or resource.
        input: String,
    },
}

/// Refuses duplicate inputs. An input by kind and one by id may coexist, and so may waiting for destruction and a weak
/// or strong input.
pub(crate) fn check_inputs(controller: &'static str, inputs: &[Input]) -> Result<(), GraphError> {
    let waits = |input: &Input| input.strength == Strength::DestroyReady;
    for (i, input) in inputs.iter().enumerate() {
        if inputs[..i].iter().any(|other| other.covers_same(input) && waits(other) == waits(input)) {
            let id = input.id.as_deref().unwrap_or("*");
            return Err(GraphError::DuplicateInput { controller, input: format!("{}/{id}", input.kind) });
        }
    }
    Ok(())
}

/// Refuses a controller in conflict with `known`.
pub(crate) fn check<'a>(known: impl Iterator<Item = &'a Access>, new: &Access) -> Result<(), GraphError> {
    check_inputs(new.controller, &new.inputs)?;
    for (i, output) in new.outputs.iter().enumerate() {
        let type_name = output.definition.type_name;
        if new.outputs[..i].iter().any(|other| other.definition.type_name == type_name) {
            return Err(GraphError::DuplicateOutput { controller: new.controller, type_name });
        }
    }
    for access in known {
        if access.controller == new.controller {
            return Err(GraphError::DuplicateController(new.controller));
        }
        for output in &new.outputs {
            let type_name = output.definition.type_name;
            let conflict = access.outputs.iter().any(|other| {
                other.definition.type_name == type_name
                    && (other.mode == OutputMode::Exclusive || output.mode == OutputMode::Exclusive)
            });
            if conflict {
                let (first, second) = (access.controller, new.controller);
                return Err(GraphError::OutputConflict { type_name, first, second });
            }
        }
    }
    Ok(())
}

/// The edges of one controller: outputs, then inputs.
pub(crate) fn edges(access: &Access) -> impl Iterator<Item = Edge> + '_ {
    let outputs = access.outputs.iter().map(|output| Edge {
        controller: access.controller,
        kind: match output.mode {
            OutputMode::Exclusive => EdgeKind::OutputExclusive,
            OutputMode::Shared => EdgeKind::OutputShared,
        },
        namespace: output.definition.namespace.to_owned(),
        type_name: output.definition.type_name.to_owned(),
        id: String::new(),
    });
    let inputs = access.inputs.iter().map(|input| Edge {
        controller: access.controller,
        kind: match input.strength {
            Strength::Strong => EdgeKind::InputStrong,
            Strength::Weak => EdgeKind::InputWeak,
            Strength::DestroyReady => EdgeKind::InputDestroyReady,
        },
        namespace: input.kind.namespace.clone(),
        type_name: input.kind.type_name.clone(),
        id: input.id.clone().unwrap_or_default(),
    });
    outputs.chain(inputs)
}
