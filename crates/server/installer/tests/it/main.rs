//! Installations on disks in memory and in files, with the real tools that make file systems.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test names its line")]

mod cuts;
mod image;
mod support;
