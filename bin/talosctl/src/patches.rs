//! Patches on the command line: inline or as `@file`.

use std::path::Path;

use config::{Documents, Patch};

use crate::command_error::CommandError;
use crate::local_file;

/// Reads patches in order.
pub(crate) fn read(patches: &[String]) -> Result<Vec<Patch>, CommandError> {
    patches.iter().map(|patch| read_one(patch)).collect()
}

fn read_one(patch: &str) -> Result<Patch, CommandError> {
    match patch.strip_prefix('@') {
        Some("") => Err(CommandError::usage("patch \"@\": the name of the file is missing")
            .hint("write @FILE, or the patch itself")),
        Some(file) => read_file(Path::new(file)),
        None => parse(patch, "patch of the command line"),
    }
}

/// Reads a patch from a file.
pub(crate) fn read_file(file: &Path) -> Result<Patch, CommandError> {
    parse(&local_file::read(file)?, &format!("patch {}", file.display()))
}

fn parse(text: &str, name: &str) -> Result<Patch, CommandError> {
    Patch::parse(text).map_err(|error| CommandError::usage(format!("reading {name}")).caused_by(error))
}

/// A configuration with patches applied.
pub(crate) fn apply(documents: &Documents, patches: &[Patch]) -> Result<Documents, CommandError> {
    config::patch::apply(documents, patches)
        .map_err(|error| CommandError::usage("patching the configuration").caused_by(error))
}

/// A configuration read from a file. Its values are not judged: a patch may put them right.
pub(crate) fn documents(path: &Path) -> Result<Documents, CommandError> {
    let text = local_file::read(path)?;
    Documents::unjudged(text.as_bytes())
        .map_err(|errors| CommandError::usage(format!("reading {}", path.display())).caused_by(errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_come_from_the_command_line_and_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("patch.yaml");
        std::fs::write(&file, "machine:\n  network:\n    hostname: from-file\n").unwrap();
        let inline = r#"[{"op": "add", "path": "/machine/network/nameservers", "value": ["1.1.1.1"]}]"#;
        let patches = read(&[format!("@{}", file.display()), inline.to_owned()]).unwrap();
        let base = Documents::from_yaml(b"version: v1alpha1\nmachine:\n  type: worker\n").unwrap();
        let patched = apply(&base, &patches).unwrap();
        let config = patched.v1alpha1().unwrap();
        assert_eq!(config.machine().hostname(), Some("from-file"));
        assert!(patched.to_yaml().contains("1.1.1.1"), "{}", patched.to_yaml());
    }

    #[test]
    fn a_patch_that_cannot_be_read_is_named() {
        let error = read(&["@/nonexistent/patch".to_owned()]).unwrap_err();
        assert!(error.error.to_string().contains("/nonexistent/patch"), "{}", error.error);
        let error = read(&["@".to_owned()]).unwrap_err();
        assert_eq!(error.error.to_string(), "patch \"@\": the name of the file is missing");
        let error = read(&["machine: {wip: 1}".to_owned()]).unwrap_err();
        let text = stdx::error_chain(error.error.as_ref());
        assert!(text.contains("patch of the command line") && text.contains("wip"), "{text}");
    }
}
