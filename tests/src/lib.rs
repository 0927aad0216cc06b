//! What the test programs share: running programs, waiting with a deadline, and counting checks.

pub mod runner;
pub mod support;
pub mod write_log;
