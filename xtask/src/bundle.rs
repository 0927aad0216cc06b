//! Makes the offline bundle: builds Kubernetes from Debian's source package, once a machine, and hands it to `imager`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::host;
use crate::paths::Paths;
use crate::step::{Step, Steps, command};

/// Debian packages that building Kubernetes needs.
const BUILD_PACKAGES: &[&str] =
    &["dpkg-dev", "gcc", "golang-1.19-go", "golang-github-modern-go-reflect2-dev", "jq", "make", "musl-tools", "rsync"];

/// Version that the recipe builds, as configurations have it.
pub(crate) const KUBERNETES: &str = "1.20.2";

const RECIPE: &str = include_str!("../bundle/kubernetes.sh");
const PAUSE: &str = include_str!("../bundle/pause.c");

/// What the offline cluster is made of.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// The image layout.
    pub(crate) directory: PathBuf,
    /// The Kubernetes programs that the bundle was made of.
    pub(crate) programs: PathBuf,
    /// kubectl of the same version.
    pub(crate) kubectl: PathBuf,
}

/// Makes the bundle with the `imager` in `programs`, unless it is there already.
pub(crate) fn build(steps: &mut Steps, paths: &Paths, programs: &Path) -> anyhow::Result<Bundle> {
    let directory = paths.cache.join(format!("kubernetes-{:016x}", fingerprint(&[RECIPE, PAUSE])));
    let binaries = directory.join("bin");
    if !directory.join("complete").exists() {
        steps.run("packages for building Kubernetes", |step| host::install(step, BUILD_PACKAGES))?;
        steps.run("Kubernetes source", |step| source(step, paths, &directory, programs))?;
        steps.run("Kubernetes", |step| kubernetes(step, &directory, &binaries))?;
    }
    let kubectl = paths.cache.join("bin/kubectl");
    let directory = steps.run("offline bundle", |step| {
        let output = step.call(
            command(programs.join("imager"))
                .arg("bundle")
                .arg("--programs")
                .arg(&binaries)
                .arg("--packages")
                .arg(paths.packages())
                .arg("--cache")
                .arg(&paths.cache),
        )?;
        let directory = output.lines().last().context("imager printed no directory")?;
        step.note(directory);
        link(&binaries.join("kubectl"), &kubectl)?;
        Ok(PathBuf::from(directory))
    })?;
    Ok(Bundle { directory, programs: binaries, kubectl })
}

fn source(step: &mut Step, paths: &Paths, directory: &Path, programs: &Path) -> anyhow::Result<()> {
    let out = directory.join("source");
    // What an interrupted run left is of no use.
    remove(&out)?;
    remove(&directory.join("work"))?;
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    step.call(
        command(programs.join("imager"))
            .args(["source", "kubernetes", "--release", "bookworm"])
            .arg("--packages")
            .arg(paths.packages())
            .arg("--out")
            .arg(&out),
    )?;
    Ok(())
}

fn kubernetes(step: &mut Step, directory: &Path, binaries: &Path) -> anyhow::Result<()> {
    let work = directory.join("work");
    let (script, pause) = (directory.join("build.sh"), directory.join("pause.c"));
    for (path, text) in [(&script, RECIPE), (&pause, PAUSE)] {
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    step.call(command("bash").arg(&script).arg(directory.join("source")).arg(&work).arg(binaries))?;
    let out = binaries.join("pause");
    step.call(command("musl-gcc").args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"]).arg(&out).arg(&pause))?;
    // The workspace has a gigabyte; the programs are all that is needed from here on.
    remove(&work)?;
    std::fs::write(directory.join("complete"), "").context("marking the build complete")
}

/// Makes `link` a link to `target`, whatever it was.
fn link(target: &Path, link: &Path) -> anyhow::Result<()> {
    if std::fs::read_link(link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let parent = link.parent().context("a link needs a directory")?;
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let partial = link.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    std::os::unix::fs::symlink(target, &partial)
        .and_then(|()| std::fs::rename(&partial, link))
        .with_context(|| format!("linking {}", link.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A fingerprint of the texts, FNV-1a: it names a cache directory, it protects nothing.
fn fingerprint(texts: &[&str]) -> u64 {
    texts
        .iter()
        .flat_map(|text| text.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_builds_the_version_that_is_asked_for() {
        assert!(RECIPE.contains(&format!("version=v{KUBERNETES}\n")));
    }

    #[test]
    fn another_recipe_gets_another_cache_directory() {
        assert_eq!(fingerprint(&["a"]), 0xaf63_dc4c_8601_ec8c);
        assert_ne!(fingerprint(&["ab"]), fingerprint(&["ba"]));
    }
}
