//! Resource types: a struct for each, with its YAML form, its protobuf form and its definition.
//!
//! No I/O, no clock, no store: what happens to resources is the business of `state` and of controllers.

pub mod meta;
pub mod spec;

pub use spec::{AnySpec, Column, Definition, Sensitivity, Spec};
