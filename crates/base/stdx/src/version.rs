//! Which API level is spoken and what the system calls itself on the wire.

/// The level of the machine API, the configuration documents and the command line that is spoken.
pub const TAG: &str = "v1.7.0";

/// The name that clients expect in `Version` answers and operating system strings.
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
