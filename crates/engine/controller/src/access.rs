//! Access control by declaration: undeclared resources cannot be read, written or held.

use resources::Spec;
use state::{Key, Kind};

use crate::io::{Input, Output, Strength};

/// A controller accessed a resource that it did not declare. A bug in the controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Neither an input nor an output.
    #[error("{controller} reads {what}, which is not one of its inputs")]
    UndeclaredRead {
        /// The controller.
        controller: &'static str,
        /// The kind or resource.
        what: String,
    },
    /// Not an output.
    #[error("{controller} writes {type_name}, which is not one of its outputs")]
    UndeclaredWrite {
        /// The controller.
        controller: &'static str,
        /// The type.
        type_name: &'static str,
    },
    /// Not a strong input.
    #[error("{controller} holds {what}, which is not one of its strong inputs")]
    NotStrong {
        /// The controller.
        controller: &'static str,
        /// The resource.
        what: String,
    },
}

/// The declarations of one controller.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) controller: &'static str,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
}

impl Access {
    fn is_output(&self, type_name: &str) -> bool {
        self.outputs.iter().any(|output| output.definition.type_name == type_name)
    }

    pub(crate) fn read(&self, key: &Key) -> Result<(), AccessError> {
        if self.inputs.iter().any(|input| input.covers(key)) || self.is_output(&key.kind.type_name) {
            return Ok(());
        }
        Err(AccessError::UndeclaredRead { controller: self.controller, what: key.to_string() })
    }

    pub(crate) fn list(&self, kind: &Kind) -> Result<(), AccessError> {
        let is_input = self.inputs.iter().any(|input| input.kind == *kind && input.id.is_none());
        if is_input || self.is_output(&kind.type_name) {
            return Ok(());
        }
        Err(AccessError::UndeclaredRead { controller: self.controller, what: kind.to_string() })
    }

    pub(crate) fn write<S: Spec>(&self) -> Result<(), AccessError> {
        if self.is_output(S::DEFINITION.type_name) {
            return Ok(());
        }
        Err(AccessError::UndeclaredWrite { controller: self.controller, type_name: S::DEFINITION.type_name })
    }

    pub(crate) fn hold(&self, key: &Key) -> Result<(), AccessError> {
        if self.inputs.iter().any(|input| input.strength == Strength::Strong && input.covers(key)) {
            return Ok(());
        }
        Err(AccessError::NotStrong { controller: self.controller, what: key.to_string() })
    }
}
