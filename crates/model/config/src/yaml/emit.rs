//! The writer of [`stdx::yaml`], tested here against this module's reader.

pub use stdx::yaml::to_text;
pub(crate) use stdx::yaml::{Comments, to_text_with};

#[cfg(test)]
mod tests;
