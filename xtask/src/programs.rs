//! Builds our programs and the node image made of them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::host::{self, TARGET};
use crate::paths::Paths;
use crate::step::{Steps, command};

/// Debian packages that building our programs needs: a C compiler, the C library that nodes' programs link with, and the
/// compiler of protobuf definitions with its well-known types, which the etcd client runs.
pub(crate) const BUILD_PACKAGES: &[&str] =
    &["gcc", "libc6-dev", "libprotobuf-dev", "make", "musl-tools", "protobuf-compiler"];

const PROGRAMS: &[&str] =
    &["init", "machined", "apid", "trustd", "installer", "discoveryd", "kmsd", "talosctl", "imager", "api-load"];

/// Builds all programs for the node's target; returns the directory that they are in.
pub(crate) fn build(steps: &mut Steps, paths: &Paths) -> anyhow::Result<PathBuf> {
    steps.run("packages for building", |step| host::install(step, BUILD_PACKAGES))?;
    steps.run("rust target", host::rust_target)?;
    steps.run("programs", |step| {
        let mut cargo = command("cargo");
        cargo.current_dir(&paths.root).args(["build", "--locked", "--profile", "node", "--target", TARGET]);
        for program in PROGRAMS {
            cargo.args(["--bin", program]);
        }
        if let Some(commit) = commit(paths) {
            cargo.env("BUILD_COMMIT", commit);
        }
        step.call(&mut cargo)?;
        Ok(())
    })?;
    directory(paths)
}

/// The checkout's commit, marked where files differ from it: the build script of `build-info` is not run for those. None
/// outside of a repository.
fn commit(paths: &Paths) -> Option<String> {
    let mut describe = command("git");
    describe.current_dir(&paths.root).args(["describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"]);
    let output = describe.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The directory that [`build`] leaves the programs in.
pub(crate) fn directory(paths: &Paths) -> anyhow::Result<PathBuf> {
    Ok(target_directory(paths)?.join(TARGET).join("node"))
}

/// Makes the root file system of a node, and kernel, initramfs and installer image of a machine, unless they are up to date.
pub(crate) fn image(steps: &mut Steps, paths: &Paths, programs: &Path) -> anyhow::Result<()> {
    steps.run("node image", |step| {
        let output = step.call(
            command(programs.join("imager"))
                .arg("rootfs")
                .arg("--out")
                .arg(paths.image())
                .arg("--programs")
                .arg(programs)
                .arg("--packages")
                .arg(paths.packages()),
        )?;
        step.note(output.lines().last().unwrap_or_default());
        Ok(())
    })?;
    steps.run("kernel and initramfs", |step| {
        let output = step.call(
            command(programs.join("imager"))
                .arg("boot")
                .arg("--out")
                .arg(&paths.out)
                .arg("--rootfs")
                .arg(paths.image())
                .arg("--programs")
                .arg(programs)
                .arg("--packages")
                .arg(paths.packages()),
        )?;
        step.note(output.lines().last().unwrap_or_default());
        Ok(())
    })?;
    steps.run("installer image", |step| {
        let output = step.call(
            command(programs.join("imager"))
                .arg("installer")
                .arg("--layout")
                .arg(paths.out.join("installer"))
                .arg("--assets")
                .arg(&paths.out)
                .arg("--programs")
                .arg(programs)
                .arg("--packages")
                .arg(paths.packages()),
        )?;
        step.note(output.lines().last().unwrap_or_default());
        Ok(())
    })
}

/// Cargo's target directory.
fn target_directory(paths: &Paths) -> anyhow::Result<PathBuf> {
    let metadata = crate::metadata::read(&paths.root)?;
    let directory = metadata["target_directory"].as_str().context("cargo's metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}
