//! Certificates of etcd on disk. The authority's key stays in the store: etcd has no use for it.

use std::path::PathBuf;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::{
    etcd::PkiStatus,
    secrets::{EtcdRootSecret, EtcdSecrets},
    values::CertificateAndKey,
};
use sys::files::{Access, write_atomic};

/// `etcd.PKIController`.
#[derive(Debug)]
pub struct PkiController {
    directory: PathBuf,
    user: Option<u32>,
}

impl PkiController {
    /// Writes to `directory`, readable by `user` only; without a user, by the writing process.
    #[must_use]
    pub fn new(directory: PathBuf, user: Option<u32>) -> Self {
        Self { directory, user }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), ReconcileError> {
        let access = self.user.map_or(Access::SECRET, Access::secret_of);
        write_atomic(&self.directory.join(name), content, access)?;
        Ok(())
    }

    fn write_pair(&self, name: &str, pair: &CertificateAndKey) -> Result<(), ReconcileError> {
        self.write(&format!("{name}.crt"), pair.crt.as_bytes())?;
        self.write(&format!("{name}.key"), pair.key.as_bytes())
    }
}

#[async_trait]
impl Controller for PkiController {
    fn name(&self) -> &'static str {
        "etcd.PKIController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<EtcdRootSecret>().id(EtcdRootSecret::ID), Input::weak::<EtcdSecrets>().id(EtcdSecrets::ID)]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<PkiStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let root = ctx.get::<EtcdRootSecret>(EtcdRootSecret::ID)?;
        let secrets = ctx.get::<EtcdSecrets>(EtcdSecrets::ID)?;
        if let (Some(root), Some(secrets)) = (root, secrets)
            && let (Some(ca), Some(server), Some(peer), Some(admin)) =
                (&root.etcd_ca, &secrets.etcd, &secrets.etcd_peer, &secrets.etcd_admin)
        {
            self.write("ca.crt", ca.crt.as_bytes())?;
            self.write_pair("server", server)?;
            self.write_pair("peer", peer)?;
            self.write_pair("admin", admin)?;
            let version = secrets.metadata.version.to_string();
            ctx.put(PkiStatus::ID, PkiStatus { ready: true, version })?;
        }
        ctx.keep_touched::<PkiStatus>()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use controller::testing::Harness;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn files_are_written_before_they_are_announced_and_follow_the_secrets() {
        let dir = TempDir::new().unwrap();
        let harness = Harness::with(PkiController::new(dir.path().join("etcd"), None));
        let pair = |text: &str| Some(CertificateAndKey::new(format!("{text} crt"), format!("{text} key")));
        harness.put(EtcdRootSecret::ID, EtcdRootSecret { etcd_ca: pair("ca") });
        harness.settle().await;
        assert_eq!(harness.list::<PkiStatus>(), []);
        let secrets = |server: &str| EtcdSecrets {
            etcd: pair(server),
            etcd_peer: pair("peer"),
            etcd_admin: pair("admin"),
            etcd_api_server: pair("api"),
        };
        harness.put(EtcdSecrets::ID, secrets("one"));
        harness.settle().await;
        let read = |name: &str| std::fs::read_to_string(dir.path().join("etcd").join(name)).unwrap();
        assert_eq!(
            (read("ca.crt"), read("server.key"), read("peer.crt")),
            ("ca crt".into(), "one key".into(), "peer crt".into())
        );
        assert!(!dir.path().join("etcd/ca.key").exists());
        let mode = std::fs::metadata(dir.path().join("etcd/server.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let status = harness.get::<PkiStatus>(PkiStatus::ID).unwrap();
        assert_eq!((status.ready, status.version.as_str()), (true, "1"));
        harness.put(EtcdSecrets::ID, secrets("two"));
        harness.settle().await;
        assert_eq!(
            (read("server.crt"), harness.get::<PkiStatus>(PkiStatus::ID).unwrap().version.clone()),
            ("two crt".into(), "2".into())
        );
    }
}
