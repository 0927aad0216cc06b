//! Writes the files of `/etc` that machined renders.
//!
//! The root is read-only: a file is written below `/system/etc` and bound over its placeholder, or lies in a directory
//! that is bound as a whole (`cri`). A bound file is written in place: replacing it would leave the old one bound.

use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::files::{EtcFileSpec, EtcFileStatus};
use state::Resource;
use sys::files::{Access, write_atomic};

/// Writes `EtcFileSpec`s and reports them as `EtcFileStatus`.
#[derive(Debug)]
pub struct EtcFileController {
    /// Where files are written (`/system/etc`).
    pub rendered: PathBuf,
    /// The target of the bind mounts (`/etc`); `None` binds nothing, for tests.
    pub bound_over: Option<PathBuf>,
}

#[async_trait]
impl Controller for EtcFileController {
    fn name(&self) -> &'static str {
        "files.EtcFileController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::strong::<EtcFileSpec>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::shared::<EtcFileStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        // A failing file does not block the others, nor the services that wait for them.
        let mut failures = Vec::new();
        for file in ctx.list::<EtcFileSpec>()? {
            let id = file.id().to_owned();
            let is_going = file.metadata.phase == state::Phase::TearingDown;
            let outcome = if is_going { self.release(ctx, &id) } else { self.keep(ctx, &file) };
            if let Err(error) = outcome {
                failures.push(format!("{id:?}: {error}"));
                // The previous content is still in place.
                if let Some(written) = ctx.get::<EtcFileStatus>(&id)?.filter(|_| !is_going) {
                    ctx.put(&id, EtcFileStatus::clone(&written))?;
                }
            }
        }
        ctx.keep_touched::<EtcFileStatus>()?;
        if failures.is_empty() { Ok(()) } else { Err(ReconcileError::msg(failures.join("; "))) }
    }
}

/// The path of a file below `/etc`. Ids come from names in the configuration: they must not lead elsewhere.
fn relative(id: &str) -> Result<&Path, ReconcileError> {
    let path = Path::new(id);
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    if is_below && !id.is_empty() && !id.contains('\0') {
        return Ok(path);
    }
    Err(ReconcileError::msg(format!("{id:?} cannot be a path below /etc")))
}

impl EtcFileController {
    fn keep(&self, ctx: &mut Ctx, file: &Resource<EtcFileSpec>) -> Result<(), ReconcileError> {
        let id = file.id().to_owned();
        ctx.add_finalizer::<EtcFileSpec>(&id)?;
        self.write(&id, &file.contents, file.mode)?;
        let spec_version = file.metadata.version.to_string();
        ctx.put(&id, EtcFileStatus { spec_version })?;
        Ok(())
    }

    fn release(&self, ctx: &Ctx, id: &str) -> Result<(), ReconcileError> {
        // A path that was refused was never written.
        if let Ok(path) = relative(id) {
            sys::files::remove(&self.rendered.join(path))?;
        }
        ctx.remove_finalizer::<EtcFileSpec>(id)
    }

    fn write(&self, id: &str, contents: &[u8], mode: u32) -> Result<(), ReconcileError> {
        let relative = relative(id)?;
        let path = self.rendered.join(relative);
        let target =
            self.bound_over.as_ref().map(|etc| etc.join(relative)).filter(|target| is_placeholder(target, &path));
        let mode = if mode == 0 { 0o644 } else { mode };
        match target {
            Some(target) if path.exists() => {
                sys::files::write_in_place(&path, contents)?;
                bind_once(&path, &target)?;
            }
            Some(target) => {
                write_atomic(&path, contents, Access { mode, owner: None })?;
                bind_once(&path, &target)?;
            }
            None => {
                write_atomic(&path, contents, Access { mode, owner: None })?;
            }
        }
        Ok(())
    }
}

/// A file of the image to bind over. One that is the rendered file already (its directory is bound) is none.
fn is_placeholder(target: &Path, rendered: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let in_bound_directory = rendered.parent().zip(target.parent()).is_some_and(|(a, b)| {
        let identity = |p: &Path| std::fs::metadata(p).map(|m| (m.dev(), m.ino())).ok();
        identity(a).is_some() && identity(a) == identity(b)
    });
    target.is_file() && !in_bound_directory
}

fn bind_once(path: &Path, target: &Path) -> Result<(), sys::mounts::MountError> {
    if sys::mounts::is_mounted(target) { Ok(()) } else { sys::mounts::bind(path, target) }
}

#[cfg(test)]
mod tests {
    use controller::testing::Harness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn files_are_written_reported_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let harness = Harness::with(EtcFileController { rendered: dir.path().into(), bound_over: None });
        harness.put("cri/a.toml", EtcFileSpec { contents: b"x = 1".to_vec(), mode: 0o600 });
        harness.settle().await;
        assert_eq!(std::fs::read(dir.path().join("cri/a.toml")).unwrap(), b"x = 1");
        assert!(harness.get::<EtcFileStatus>("cri/a.toml").is_some());
        assert!(!harness.teardown::<EtcFileSpec>("cri/a.toml"), "the file is still there");
        harness.settle().await;
        assert!(!dir.path().join("cri/a.toml").exists());
        assert!(harness.get::<EtcFileStatus>("cri/a.toml").is_none());
        harness.destroy::<EtcFileSpec>("cri/a.toml");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_fails_does_not_keep_the_others_back() {
        let dir = tempfile::tempdir().unwrap();
        let rendered = dir.path().join("etc");
        // Sorted before the good ones; the second cannot be written, since a directory is in its place.
        std::fs::create_dir_all(rendered.join("a-directory")).unwrap();
        let harness = Harness::with(EtcFileController { rendered: rendered.clone(), bound_over: None });
        for id in ["../passwd", "a-directory", "hosts", "resolv.conf"] {
            harness.put(id, EtcFileSpec { contents: b"x".to_vec(), mode: 0 });
        }
        harness.settle().await;
        assert!(rendered.join("hosts").exists() && rendered.join("resolv.conf").exists());
        assert_eq!(harness.ids::<EtcFileStatus>(), ["hosts", "resolv.conf"]);
        let said = harness.status("files.EtcFileController").last_error.unwrap();
        assert!(said.contains("../passwd") && said.contains("a-directory"), "{said}");
        assert!(!dir.path().join("passwd").exists());
        assert!(!harness.teardown::<EtcFileSpec>("../passwd"));
        std::fs::remove_dir(rendered.join("a-directory")).unwrap();
        harness.advance(std::time::Duration::from_secs(60)).await;
        harness.destroy::<EtcFileSpec>("../passwd");
        assert_eq!(harness.ids::<EtcFileStatus>(), ["a-directory", "hosts", "resolv.conf"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_renewed_is_still_said_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let harness = Harness::with(EtcFileController { rendered: dir.path().into(), bound_over: None });
        harness.put("hosts", EtcFileSpec { contents: b"one".to_vec(), mode: 0 });
        harness.settle().await;
        let first = harness.get::<EtcFileStatus>("hosts").unwrap();
        std::fs::remove_file(dir.path().join("hosts")).unwrap();
        std::fs::create_dir(dir.path().join("hosts")).unwrap();
        harness.put("hosts", EtcFileSpec { contents: b"two".to_vec(), mode: 0 });
        harness.settle().await;
        let status = harness.get::<EtcFileStatus>("hosts").unwrap();
        assert_eq!(status.spec_version, first.spec_version);
        assert!(harness.status("files.EtcFileController").failures > 0);
    }

    #[test]
    fn a_path_that_leaves_etc_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let controller = EtcFileController { rendered: dir.path().join("etc"), bound_over: None };
        let error = controller.write("../passwd", b"x", 0).unwrap_err();
        assert!(error.to_string().contains("cannot be a path below /etc"), "{error}");
        assert!(!dir.path().join("passwd").exists());
    }
}
