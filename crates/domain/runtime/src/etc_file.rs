//! Writes the files of `/etc` that machined renders.
//!
//! The root is read-only: a file is written below `/system/etc` and bound over its placeholder, or lies in a directory
//! that is bound as a whole (`cri`). A bound file is written in place: replacing it would leave the old one bound.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use resources::files::{EtcFileSpec, EtcFileStatus};
use sys::files::{Access, write_atomic};

/// Writes `EtcFileSpec`s and reports them as `EtcFileStatus`.
#[derive(Debug)]
pub struct EtcFileController {
    /// Where files are written (`/system/etc`).
    pub rendered: PathBuf,
    /// What they are bound over (`/etc`); `None` binds nothing, for tests.
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
        for file in ctx.list::<EtcFileSpec>()? {
            let id = file.id().to_owned();
            if file.metadata.phase == state::Phase::TearingDown {
                sys::files::remove(&self.rendered.join(&id))?;
                ctx.remove_finalizer::<EtcFileSpec>(&id)?;
                continue;
            }
            ctx.add_finalizer::<EtcFileSpec>(&id)?;
            self.write(&id, &file.contents, file.mode)?;
            let spec_version = file.metadata.version.to_string();
            ctx.put(&id, EtcFileStatus { spec_version })?;
        }
        ctx.keep_touched::<EtcFileStatus>()
    }
}

impl EtcFileController {
    fn write(&self, id: &str, contents: &[u8], mode: u32) -> Result<(), ReconcileError> {
        let relative = Path::new(id);
        if !relative.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(ReconcileError::msg(format!("{id:?} is no path below /etc")));
        }
        let path = self.rendered.join(relative);
        let target =
            self.bound_over.as_ref().map(|etc| etc.join(relative)).filter(|target| is_placeholder(target, &path));
        let mode = if mode == 0 { 0o644 } else { mode };
        match target {
            Some(target) if path.exists() => {
                write_in_place(&path, contents)?;
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

fn write_in_place(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    if std::fs::read(path)? != contents {
        std::fs::write(path, contents)?;
    }
    Ok(())
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

    #[test]
    fn a_path_that_leaves_etc_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let controller = EtcFileController { rendered: dir.path().join("etc"), bound_over: None };
        let error = controller.write("../passwd", b"x", 0).unwrap_err();
        assert!(error.to_string().contains("no path below /etc"), "{error}");
        assert!(!dir.path().join("passwd").exists());
    }
}
