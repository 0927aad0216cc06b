//! `cluster create --input-dir`: configurations that were made before.

use std::path::Path;

use client::TalosConfig;
use config::Documents;
use provision::up::Existing;

use crate::command_error::CommandError;
use crate::patches;

/// Reads the files that `gen config` writes. A talosconfig may be missing.
pub(super) fn read(folder: &Path, workers: bool) -> Result<Existing, CommandError> {
    let documents = |name: &str| -> Result<Documents, CommandError> { patches::documents(&folder.join(name)) };
    let talosconfig = folder.join("talosconfig");
    Ok(Existing {
        control_plane: documents("controlplane.yaml")?,
        worker: if workers { Some(documents("worker.yaml")?) } else { None },
        talosconfig: if talosconfig.exists() { Some(TalosConfig::load(&talosconfig)?) } else { None },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_error::Kind;

    #[test]
    fn the_files_of_the_nodes_are_required_and_the_talosconfig_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let missing = |workers| read(dir.path(), workers).unwrap_err();
        assert_eq!(missing(false).kind, Kind::Usage);
        write("controlplane.yaml", "version: v1alpha1\nmachine: {type: controlplane}\n");
        let alone = read(dir.path(), false).unwrap();
        assert!(alone.worker.is_none() && alone.talosconfig.is_none());
        assert!(missing(true).error.to_string().ends_with("worker.yaml"));
        write("worker.yaml", "version: v1alpha1\nmachine: {type: worker}\n");
        write("talosconfig", "context: a\ncontexts: {a: {endpoints: [b]}}\n");
        let all = read(dir.path(), true).unwrap();
        assert_eq!(all.talosconfig.unwrap().context, "a");
        assert!(all.worker.is_some());
    }
}
