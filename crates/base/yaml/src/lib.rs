//! YAML, read and written in this crate only.
//!
//! Four ways lead in and two out:
//!
//! * [`parse`] reads a stream into trees that remember where each value stood, and [`from_node`] decodes a tree with errors
//!   that say path and position. This is for what strangers send: depth, size and aliases are bounded, and the time taken
//!   is linear in the length of the text. Trees are read the way that existing configurations were always read: `yes` and
//!   `0644` mean something where a boolean or a number is asked for, `~` is an empty value of any type, and any plain
//!   scalar may be a string.
//! * [`from_str`] and [`from_multiple`] decode files that belong to whoever reads them.
//! * [`split`] takes a stream apart into the texts of its documents, with their comments.
//! * [`to_text`] writes ordered values with four spaces a level, [`to_string`] writes them as Kubernetes' tools do.
//!
//! Nothing here knows any document, and nothing does I/O.

mod de;
mod emit;
mod node;
mod parse;
pub mod plain;
mod split;
mod typed;

pub use de::{DecodeError, from_node};
pub use emit::{Comments, NoComments, to_text, to_text_with, to_text_with_timestamps};
pub use node::{Entry, FieldPath, Kind, Node, Position, Segment};
pub use parse::{MAX_BYTES, MAX_DEPTH, MAX_NODES, ParseError, parse};
pub use split::split;
pub use typed::{ReadError, WriteError, from_multiple, from_str, to_string};

#[cfg(test)]
mod round_trip_tests;
