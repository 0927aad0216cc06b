//! The API level, and the system's name on the wire.

/// The supported level of the machine API, the configuration documents and the command line.
pub const TAG: &str = "v1.7.0";

/// The name that clients expect in `Version` responses and operating system strings.
pub const NAME: &str = "Talos";

/// The operating system string of members and nodes: `Talos (v1.7.0)`.
#[must_use]
pub fn os_name() -> String {
    format!("{NAME} ({TAG})")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_os_name_has_name_and_tag() {
        assert_eq!(super::os_name(), "Talos (v1.7.0)");
    }
}
