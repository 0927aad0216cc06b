//! Flags of `cluster create` about encrypted volumes.

use config::Patch;
use serde_json::{Value, json};

use crate::command_error::CommandError;

/// A key of the machine's UUID.
pub(super) const UUID: &str = "uuid";

/// Keys of the given kinds for volumes, in slots from 0.
pub(super) fn patch(state: bool, ephemeral: bool, kinds: &[String]) -> Result<Option<Patch>, CommandError> {
    if !state && !ephemeral {
        return Ok(None);
    }
    let patch = Patch::parse(&text(state, ephemeral, kinds)?);
    patch.map(Some).map_err(|error| CommandError::usage("encrypting volumes").caused_by(error))
}

fn text(state: bool, ephemeral: bool, kinds: &[String]) -> Result<String, CommandError> {
    let keys = kinds.iter().enumerate().map(|(slot, kind)| key(slot, kind)).collect::<Result<Vec<_>, _>>()?;
    let volume = json!({"provider": "luks2", "keys": keys});
    let mut volumes = serde_json::Map::new();
    for (name, _) in [("state", state), ("ephemeral", ephemeral)].into_iter().filter(|(_, is_asked)| *is_asked) {
        volumes.insert(name.to_owned(), volume.clone());
    }
    Ok(json!({"machine": {"systemDiskEncryption": volumes}}).to_string())
}

fn key(slot: usize, kind: &str) -> Result<Value, CommandError> {
    let hint = match kind {
        UUID => return Ok(json!({"nodeID": {}, "slot": slot})),
        "kms" => "run `kmsd` where machines reach it, and name it by --config-patch (docs/encryption.md)",
        "tpm" => "it waits for keys that a TPM seals",
        _ => return Err(CommandError::usage(format!("--disk-encryption-key-types: {kind:?} is not uuid, kms or tpm"))),
    };
    Err(CommandError::not_available(&format!("`talosctl cluster create --disk-encryption-key-types {kind}`"))
        .hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_that_are_asked_for_get_keys_of_the_machine_and_other_kinds_are_refused() {
        let kinds = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
        assert!(patch(false, false, &kinds(&["tpm"])).unwrap().is_none(), "it is not used");
        let expected = concat!(
            r#"{"machine":{"systemDiskEncryption":{"state":"#,
            r#"{"provider":"luks2","keys":[{"nodeID":{},"slot":0}]}}}}"#
        );
        assert_eq!(text(true, false, &kinds(&[UUID])).unwrap(), expected);
        assert!(patch(true, true, &kinds(&[UUID])).unwrap().is_some());
        for refused in ["kms", "tpm", "key"] {
            assert!(patch(true, true, &kinds(&[UUID, refused])).is_err(), "{refused}");
        }
    }
}
