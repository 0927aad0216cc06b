//! Flags of `cluster create` about encrypted volumes.

use config::Patch;
use serde_json::{Value, json};

use crate::command_error::CommandError;

/// A key of the machine's UUID.
pub(super) const UUID: &str = "uuid";
/// A key that the machine's TPM seals.
const TPM: &str = "tpm";

/// A key that a key service seals.
const KMS: &str = "kms";

/// What machines have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machines {
    WithTpm,
    WithoutTpm,
}

/// The flags: which volumes are encrypted, with keys of which kinds, in slots from 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags<'a> {
    pub(super) state: bool,
    pub(super) ephemeral: bool,
    pub(super) kinds: &'a [String],
}

impl Flags<'_> {
    /// Whether they need the key service of the cluster.
    pub(super) fn need_key_service(&self) -> bool {
        (self.state || self.ephemeral) && self.kinds.iter().any(|kind| kind == KMS)
    }

    /// What they ask for, on machines that reach their key service at `endpoint`.
    pub(super) fn patch(&self, machines: Machines, endpoint: &str) -> Result<Option<Patch>, CommandError> {
        if !self.state && !self.ephemeral {
            return Ok(None);
        }
        if machines == Machines::WithoutTpm && self.kinds.iter().any(|kind| kind == TPM) {
            let text = "--disk-encryption-key-types tpm needs machines with a TPM";
            return Err(CommandError::usage(text).hint("add --with-tpm2"));
        }
        let patch = Patch::parse(&self.text(endpoint)?);
        patch.map(Some).map_err(|error| CommandError::usage("encrypting volumes").caused_by(error))
    }

    fn text(&self, endpoint: &str) -> Result<String, CommandError> {
        let keys = self.kinds.iter().enumerate().map(|(slot, kind)| key(slot, kind, endpoint));
        let volume = json!({"provider": "luks2", "keys": keys.collect::<Result<Vec<_>, _>>()?});
        let mut volumes = serde_json::Map::new();
        let all = [("state", self.state), ("ephemeral", self.ephemeral)];
        for (name, _) in all.into_iter().filter(|(_, is_asked)| *is_asked) {
            volumes.insert(name.to_owned(), volume.clone());
        }
        Ok(json!({"machine": {"systemDiskEncryption": volumes}}).to_string())
    }
}

fn key(slot: usize, kind: &str, endpoint: &str) -> Result<Value, CommandError> {
    match kind {
        UUID => Ok(json!({"nodeID": {}, "slot": slot})),
        TPM => Ok(json!({"tpm": {}, "slot": slot})),
        KMS => Ok(json!({"kms": {"endpoint": endpoint}, "slot": slot})),
        _ => Err(CommandError::usage(format!("--disk-encryption-key-types: {kind:?} is not uuid, kms or tpm"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "grpc://10.5.0.1:4050";

    #[test]
    fn volumes_that_are_asked_for_get_keys_of_the_machine_and_kinds_that_cannot_be_are_refused() {
        let kinds = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
        let patch = |state, ephemeral, of: &[&str], machines| {
            Flags { state, ephemeral, kinds: &kinds(of) }.patch(machines, ENDPOINT)
        };
        let without = Machines::WithoutTpm;
        assert!(patch(false, false, &[KMS], without).unwrap().is_none(), "it is not used");
        let expected = concat!(
            r#"{"machine":{"systemDiskEncryption":{"state":{"provider":"luks2","keys":[{"nodeID":{},"slot":0},"#,
            r#"{"tpm":{},"slot":1},{"kms":{"endpoint":"grpc://10.5.0.1:4050"},"slot":2}]}}}}"#
        );
        let all = kinds(&[UUID, TPM, KMS]);
        assert_eq!(Flags { state: true, ephemeral: false, kinds: &all }.text(ENDPOINT).unwrap(), expected);
        assert!(patch(true, true, &[UUID], without).unwrap().is_some());
        assert!(patch(true, true, &[KMS], without).unwrap().is_some());
        assert!(patch(true, true, &[TPM], Machines::WithTpm).unwrap().is_some());
        let error = patch(true, true, &[UUID, TPM], without).unwrap_err();
        assert!(format!("{error:?}").contains("--with-tpm2"), "{error:?}");
        let error = patch(true, true, &[UUID, "key"], Machines::WithTpm).unwrap_err();
        assert!(format!("{error:?}").contains("is not uuid, kms or tpm"), "{error:?}");
    }

    #[test]
    fn a_key_service_is_needed_where_it_has_a_key() {
        let (kms, uuid) = ([KMS.to_owned()], [UUID.to_owned()]);
        assert!(Flags { state: false, ephemeral: true, kinds: &kms }.need_key_service());
        assert!(!Flags { state: false, ephemeral: false, kinds: &kms }.need_key_service());
        assert!(!Flags { state: true, ephemeral: true, kinds: &uuid }.need_key_service());
    }
}
