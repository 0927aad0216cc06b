//! The identity of this node: generated once, kept in STATE, removed by a reset. A machine without a system on its disks, or with a
//! blank STATE, has its identity in memory until it can be kept: it needs a name before that.

use std::path::Path;

use async_trait::async_trait;
use aws_lc_rs::{digest, rand};
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::block::{DiscoveredVolume, SystemDisk};
use resources::cluster::Identity;
use resources::files::EtcFileSpec;
use resources::runtime::MountStatus;
use sys::files::{self, Access};

/// The file in the state directory.
const FILE: &str = "node-identity.yaml";
const KEY: &str = "nodeId:";
/// The id of the file for programs that want the machine's id.
const MACHINE_ID: &str = "machine-id";

/// `node-identity.yaml` → `Identity` `local`, and `EtcFileSpec` `machine-id` derived from it.
///
/// Nothing is read or written before STATE is mounted; the identity stays known when it is unmounted. It is made before
/// only where no disk has the system, or its STATE is blank; a new STATE gets it then.
#[derive(Debug)]
pub struct NodeIdentityController;

/// The identity in the file; else `known`, or a new one, which is written there.
fn load_or_create(path: &Path, known: Option<String>) -> Result<String, ReconcileError> {
    if let Some(bytes) = files::read(path)? {
        let text = String::from_utf8_lossy(&bytes);
        if let Some(id) = parse(&text) {
            return Ok(id.to_owned());
        }
        tracing::warn!(path = %path.display(), "the node identity is unreadable; a new one takes its place");
    }
    let id = known.map_or_else(new_node_id, Ok)?;
    files::write_atomic(path, format!("{KEY} {id}\n").as_bytes(), Access::SECRET)?;
    Ok(id)
}

/// The random number generator failed.
#[derive(Debug, thiserror::Error)]
#[error("making a node identity: the system has no random bytes")]
pub struct NodeIdError;

/// A new id: 32 random bytes in base 62, 43 characters.
pub fn new_node_id() -> Result<String, NodeIdError> {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes).map_err(|_| NodeIdError)?;
    Ok(base62(bytes))
}

fn base62(mut bytes: [u8; 32]) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    // 62^43 is just above 2^256.
    let mut digits = [0u8; 43];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut bytes {
            let value = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or_default();
            rest = value % 62;
        }
        *digit = ALPHABET[usize::try_from(rest).unwrap_or_default()];
    }
    String::from_utf8_lossy(&digits).into_owned()
}

fn parse(text: &str) -> Option<&str> {
    let id = text.lines().find_map(|line| line.trim().strip_prefix(KEY))?.trim().trim_matches('"');
    (!id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric())).then_some(id)
}

/// 32 hexadecimal digits, the same for the same identity.
fn machine_id(node_id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, node_id.as_bytes());
    stdx::hex(&hash.as_ref()[..16])
}

#[async_trait]
impl Controller for NodeIdentityController {
    fn name(&self) -> &'static str {
        "cluster.NodeIdentityController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::strong::<MountStatus>().id(MountStatus::STATE),
            Input::weak::<SystemDisk>().id(SystemDisk::ID),
            Input::weak::<DiscoveredVolume>(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<Identity>(), Output::shared::<EtcFileSpec>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let state = ctx.hold_while_running::<MountStatus>(MountStatus::STATE)?;
        let known = ctx.get::<Identity>(Identity::ID)?.map(|identity| identity.node_id.clone());
        let node_id = match (state, known) {
            (Some(state), known) => load_or_create(&Path::new(&state.target).join(FILE), known)?,
            (None, None) if has_none(ctx)? => new_node_id()?,
            (None, _) => return Ok(()),
        };
        let contents = format!("{}\n", machine_id(&node_id)).into_bytes();
        ctx.put(Identity::ID, Identity { node_id })?;
        ctx.put(MACHINE_ID, EtcFileSpec { contents, mode: 0o444 })?;
        Ok(())
    }
}

/// Whether the machine has disks of its own, and none of them has an identity: they lack the system, or its STATE is blank.
fn has_none(ctx: &Ctx) -> Result<bool, ReconcileError> {
    let Some(disk) = ctx.get::<SystemDisk>(SystemDisk::ID)? else { return Ok(false) };
    if !disk.installed {
        return Ok(disk.settled);
    }
    let volumes = ctx.list::<DiscoveredVolume>()?;
    let state = volumes.iter().find(|one| one.parent == disk.disk && one.partition_label == MountStatus::STATE);
    Ok(state.is_some_and(|state| state.name.is_empty()))
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[test]
    fn base62_keeps_the_order_of_bytes_and_has_a_fixed_length() {
        assert_eq!(base62([0; 32]), "0".repeat(43));
        let mut one = [0; 32];
        one[31] = 61;
        assert!(base62(one).ends_with("0z"));
        one[31] = 62;
        assert!(base62(one).ends_with("010"));
        assert_eq!(base62([0xff; 32]).len(), 43);
        assert_ne!(new_node_id().unwrap(), new_node_id().unwrap());
    }

    async fn mounted(state: &Path) -> Harness {
        let harness = Harness::with(NodeIdentityController);
        let target = state.display().to_string();
        harness.put(MountStatus::STATE, MountStatus { target, ..MountStatus::default() });
        harness.settle().await;
        harness
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_before_the_volume_is_mounted_or_once_it_goes() {
        let state = tempfile::tempdir().unwrap();
        let harness = Harness::with(NodeIdentityController);
        harness.settle().await;
        assert!(harness.ids::<Identity>().is_empty());
        let target = state.path().display().to_string();
        harness.put(MountStatus::STATE, MountStatus { target, ..MountStatus::default() });
        harness.settle().await;
        let identity = harness.get::<Identity>("local").unwrap();
        assert!(!harness.teardown::<MountStatus>(MountStatus::STATE), "it is held");
        harness.settle().await;
        assert!(harness.teardown::<MountStatus>(MountStatus::STATE), "it was released");
        std::fs::remove_file(state.path().join(FILE)).unwrap();
        harness.settle().await;
        assert!(!state.path().join(FILE).exists());
        assert_eq!(harness.get::<Identity>("local").unwrap().node_id, identity.node_id, "the node keeps its name");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_a_system_has_an_identity_that_its_new_volume_gets() {
        let harness = Harness::with(NodeIdentityController);
        harness.put(SystemDisk::ID, SystemDisk::default());
        harness.settle().await;
        assert!(harness.ids::<Identity>().is_empty(), "disks are still looked at");
        harness.put(SystemDisk::ID, SystemDisk { settled: true, ..SystemDisk::default() });
        harness.settle().await;
        let identity = harness.get::<Identity>("local").unwrap();
        for (text, expected) in [(None, identity.node_id.as_str()), (Some("nodeId: abc\n"), "abc")] {
            let state = tempfile::tempdir().unwrap();
            if let Some(text) = text {
                std::fs::write(state.path().join(FILE), text).unwrap();
            }
            let target = state.path().display().to_string();
            harness.put(MountStatus::STATE, MountStatus { target, ..MountStatus::default() });
            harness.settle().await;
            assert_eq!(harness.get::<Identity>("local").unwrap().node_id, expected);
            let written = std::fs::read_to_string(state.path().join(FILE)).unwrap();
            assert_eq!(written, format!("nodeId: {expected}\n"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_installed_machine_waits_for_the_identity_on_its_disk() {
        let harness = Harness::with(NodeIdentityController);
        harness.put(SystemDisk::ID, SystemDisk { settled: true, installed: true, ..SystemDisk::default() });
        harness.settle().await;
        assert!(harness.ids::<Identity>().is_empty());
        let state = |name: &str| DiscoveredVolume {
            partition_label: MountStatus::STATE.into(),
            name: name.into(),
            ..DiscoveredVolume::default()
        };
        harness.put("vda4", state("luks"));
        harness.settle().await;
        assert!(harness.ids::<Identity>().is_empty(), "it is behind a lock");
        harness.put("vda4", state(""));
        harness.settle().await;
        assert_eq!(harness.ids::<Identity>(), ["local"], "a blank one has none");
    }

    #[tokio::test(start_paused = true)]
    async fn the_identity_outlives_the_process() {
        let state = tempfile::tempdir().unwrap();
        let first = mounted(state.path()).await;
        let identity = first.get::<Identity>("local").unwrap();
        let second = mounted(state.path()).await;
        assert_eq!(second.get::<Identity>("local").unwrap().node_id, identity.node_id);
        let text = std::fs::read_to_string(state.path().join(FILE)).unwrap();
        assert_eq!(text, format!("nodeId: {}\n", identity.node_id));
        let machine_id = second.get::<EtcFileSpec>("machine-id").unwrap();
        assert_eq!(machine_id.contents.len(), 33);
        assert!(machine_id.contents.iter().take(32).all(u8::is_ascii_hexdigit));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_file_gets_a_new_identity() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(FILE), "\0\0garbage").unwrap();
        let harness = mounted(state.path()).await;
        assert_eq!(harness.get::<Identity>("local").unwrap().node_id.len(), 43);
    }
}
