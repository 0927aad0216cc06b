//! The kernel edge of a node: processes and their reaper, signals, mounts, cgroups, kernel parameters, kmsg and `/proc`.
//!
//! `unsafe` code, signal dispositions, children and mounts live here and nowhere else. This crate decides nothing: it
//! does what it is told, and says exactly what failed and on which subject.

#![expect(unsafe_code, reason = "this crate is where system calls are made; each use says why it is sound")]

pub mod capabilities;
pub mod cgroups;
pub mod files;
pub mod host;
pub mod kernel_param;
pub mod kmsg;
pub mod mounts;
pub mod proc;
pub mod process;
pub mod signals;
