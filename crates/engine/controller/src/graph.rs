//! The dependency graph: checked when a controller joins, exported for people.

use crate::{
    access::Access,
    io::{Input, OutputMode, Strength},
};

/// How a controller and resources are bound.
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
    /// How they are bound.
    pub kind: EdgeKind,
    /// The namespace; for outputs that of the type, though some of its resources may be in others.
    pub namespace: String,
    /// The full type.
    pub type_name: String,
    /// The id; empty where all are meant.
    pub id: String,
}

/// Declarations that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two controllers of one name.
    #[error("controller {0} is registered twice")]
    DuplicateController(&'static str),
    /// A type with an exclusive writer has another one.
    #[error("{type_name} is written by {first} and by {second}, one of them exclusively")]
    OutputConflict {
        /// The type.
        type_name: &'static str,
        /// Who declared it first.
        first: &'static str,
        /// Who declared it second.
        second: &'static str,
    },
    /// An output declared twice by one controller.
    #[error("controller {controller} declares output {type_name} twice")]
    DuplicateOutput {
        /// Who.
        controller: &'static str,
        /// The type.
        type_name: &'static str,
    },
    /// An input declared twice by one controller.
    #[error("controller {controller} declares input {input} twice")]
    DuplicateInput {
        /// Who.
        controller: &'static str,
        /// The kind or resource.
        input: String,
    },
}

/// Refuses inputs that repeat each other. A resource may be named both by its kind and by id, and the wait for
/// destruction beside a weak or strong input is no repetition.
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

/// Refuses a newcomer that cannot live beside `known`.
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
