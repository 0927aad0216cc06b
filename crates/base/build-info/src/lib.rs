//! Which commit a program was built from, of which date, by which compiler.
//!
//! A crate of its own, so that a new commit rebuilds this one and the few that tell it to somebody, and nothing else.

#[cfg(test)]
mod date;

/// Twelve digits, and `-dirty` where the project's own command built it from changed files; `unknown` outside of a repository.
pub const COMMIT: &str = env!("BUILT_COMMIT");

/// When the commit was made, like `2026-01-31T07:05:00Z`, not when it was built: builds are reproducible.
pub const DATE: &str = env!("BUILT_DATE");

/// Like `rustc 1.95.0`.
pub const COMPILER: &str = env!("BUILT_COMPILER");
