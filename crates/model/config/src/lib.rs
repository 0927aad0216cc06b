//! Configuration documents: decode, validate, patch, generate, compare.
//!
//! A configuration is a stream of YAML documents: one root document (`version: v1alpha1`, with `machine` and `cluster`)
//! and any number of smaller ones, each with its kind. [`Documents`] holds them with their text. Nothing here reads a
//! file or a clock, and no default is written into a document: accessors return the meaning of absent fields.

pub mod acquire;
#[cfg(test)]
mod cases;
mod decode;
pub mod diff;
mod document;
mod documents;
mod effect;
mod error;
mod formats;
pub mod generate;
pub mod images;
pub mod kinds;
mod legacy;
pub mod patch;
pub mod revision;
pub mod scalar;
pub mod schema;
mod shape;
pub mod v1alpha1;
pub mod validate;

pub use document::Document;
pub use documents::Documents;
pub use error::{ConfigError, ConfigErrors};
pub use patch::{Patch, PatchError};
pub use scalar::{MachineType, SecretString};
pub use validate::{Mode, Report, validate};
