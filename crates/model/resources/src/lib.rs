//! Resource types: a struct per type with its YAML form, its protobuf form and its definition.
//!
//! Types are tables (`macros`): one line per field with its protobuf number and YAML key. `decode` reads a spec from
//! protobuf; [`definitions`] lists every type. No I/O, no clock, no store: the life of resources is the business of
//! `state` and of controllers.

#[macro_use]
mod macros;

mod decode_error;
pub mod enums;
pub mod field;
#[cfg(test)]
mod forms;
pub mod meta;
pub mod object;
mod registry;
#[cfg(test)]
mod sample;
pub mod spec;
pub mod subnets;
pub mod url;
pub mod values;

pub mod block;
pub mod cluster;
pub mod config;
pub mod cri;
pub mod etcd;
pub mod files;
pub mod hardware;
pub mod k8s;
pub mod kubeaccess;
pub mod kubespan;
pub mod lifecycle;
pub mod machine;
pub mod network;
pub mod perf;
pub mod revision;
pub mod runtime;
pub mod secrets;
pub mod siderolink;
pub mod time;
pub mod v1alpha1;

pub use enums::MachineType;
pub use field::{DecodeError, decode};
pub use object::Object;
pub use registry::{NAMESPACES, definitions, find_definition};
pub use spec::{AnySpec, Column, Definition, Sensitivity, Spec};

/// A map of strings, in alphabetical order.
pub type StringMap = std::collections::BTreeMap<String, String>;
