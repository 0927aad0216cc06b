//! Makes the offline bundle: builds Kubernetes from source, once a machine, and hands it to `imager`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::host;
use crate::paths::Paths;
use crate::step::{Step, Steps, command};

const PAUSE: &str = include_str!("../bundle/pause.c");

/// Go for building modules: Debian 12's own is too old for them. It is unpacked, not installed.
const GO_PACKAGES: &[&str] = &["golang-1.24-go", "golang-1.24-src"];

/// The versions of Kubernetes that can be built here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Kubernetes {
    /// 1.20.2, from Debian's source package
    #[default]
    #[value(name = "1.20")]
    Debian,
    /// 1.30.14 with CoreDNS and Flannel, from Go modules
    #[value(name = "1.30")]
    Modules,
}

/// How a version is built.
struct Recipe {
    /// Version of Kubernetes, as configurations have it.
    version: &'static str,
    /// What is built beside it, with versions.
    more: &'static [(&'static str, &'static str)],
    /// Directory of Go below the unpacked packages, where it is not the machine's own.
    go: Option<&'static str>,
    /// Debian packages that the build needs.
    packages: &'static [&'static str],
    /// What the build reads, with paths below one directory; the first is the script. They name the cache directory.
    files: &'static [(&'static str, &'static str)],
}

const DEBIAN: Recipe = Recipe {
    version: "1.20.2",
    more: &[],
    go: None,
    packages: &[
        "dpkg-dev",
        "gcc",
        "golang-1.19-go",
        "golang-github-modern-go-reflect2-dev",
        "jq",
        "make",
        "musl-tools",
        "rsync",
    ],
    files: &[("build.sh", include_str!("../bundle/kubernetes.sh")), ("pause.c", PAUSE)],
};

const MODULES: Recipe = Recipe {
    version: "1.30.14",
    more: &[("coredns", "1.11.1"), ("flannel", "0.25.7")],
    go: Some("usr/lib/go-1.24"),
    packages: &["ca-certificates", "dpkg", "gcc", "libc6-dev", "musl-tools"],
    files: &[
        ("build.sh", include_str!("../bundle/modules/build.sh")),
        ("kubernetes/go.mod", include_str!("../bundle/modules/kubernetes/go.mod")),
        ("kubernetes/go.sum", include_str!("../bundle/modules/kubernetes/go.sum")),
        ("kubernetes/tools.go", include_str!("../bundle/modules/kubernetes/tools.go")),
        ("coredns/go.mod", include_str!("../bundle/modules/coredns/go.mod")),
        ("coredns/go.sum", include_str!("../bundle/modules/coredns/go.sum")),
        ("coredns/main.go", include_str!("../bundle/modules/coredns/main.go")),
        ("flannel/go.mod", include_str!("../bundle/modules/flannel/go.mod")),
        ("flannel/go.sum", include_str!("../bundle/modules/flannel/go.sum")),
        ("flannel/tools.go", include_str!("../bundle/modules/flannel/tools.go")),
        ("cni/go.mod", include_str!("../bundle/modules/cni/go.mod")),
        ("cni/go.sum", include_str!("../bundle/modules/cni/go.sum")),
        ("cni/tools.go", include_str!("../bundle/modules/cni/tools.go")),
        ("install-cni.sh", include_str!("../bundle/modules/install-cni.sh")),
        ("pause.c", PAUSE),
    ],
};

impl Kubernetes {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Debian, Self::Modules];

    fn recipe(self) -> &'static Recipe {
        match self {
            Self::Debian => &DEBIAN,
            Self::Modules => &MODULES,
        }
    }

    /// The version, as configurations have it.
    pub(crate) fn version(self) -> &'static str {
        self.recipe().version
    }
}

/// What the offline cluster is made of.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// The image layout.
    pub(crate) directory: PathBuf,
    /// The Kubernetes programs that the bundle was made of.
    pub(crate) programs: PathBuf,
    /// kubectl of the same version.
    pub(crate) kubectl: PathBuf,
    /// The version of Kubernetes, as configurations have it.
    pub(crate) version: &'static str,
}

/// Makes the bundle with the `imager` in `programs`, unless it is there already.
pub(crate) fn build(
    steps: &mut Steps,
    paths: &Paths,
    programs: &Path,
    kubernetes: Kubernetes,
) -> anyhow::Result<Bundle> {
    let recipe = kubernetes.recipe();
    let version = recipe.version;
    let directory = paths.cache.join(format!("kubernetes-{:016x}", recipe.fingerprint()));
    let binaries = directory.join("bin");
    if !directory.join("complete").exists() {
        steps.run("packages for building Kubernetes", |step| host::install(step, recipe.packages))?;
        steps.run(&format!("what Kubernetes {version} is built with"), |step| {
            // What an interrupted run left is of no use.
            remove(&directory)?;
            std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
            ingredients(step, paths, &directory, programs, recipe)
        })?;
        steps.run(&format!("Kubernetes {version}"), |step| compile(step, &directory, &binaries, recipe))?;
    }
    let kubectl = paths.cache.join("bin").join(format!("kubectl-{version}"));
    let directory = steps.run(&format!("offline bundle of Kubernetes {version}"), |step| {
        let mut imager = command(programs.join("imager"));
        imager
            .arg("bundle")
            .arg("--programs")
            .arg(&binaries)
            .arg("--packages")
            .arg(paths.packages())
            .arg("--cache")
            .arg(&paths.cache);
        for (name, version) in [("kubernetes", version)].iter().chain(recipe.more) {
            imager.args(["--component", &format!("{name}={version}")]);
        }
        let output = step.call(&mut imager)?;
        let directory = output.lines().last().context("imager printed no directory")?;
        step.note(directory);
        link(&binaries.join("kubectl"), &kubectl)?;
        Ok(PathBuf::from(directory))
    })?;
    Ok(Bundle { directory, programs: binaries, kubectl, version })
}

/// Brings the source, or the compiler that fetches it.
fn ingredients(
    step: &mut Step,
    paths: &Paths,
    directory: &Path,
    programs: &Path,
    recipe: &Recipe,
) -> anyhow::Result<()> {
    let mut imager = command(programs.join("imager"));
    match recipe.go {
        None => imager.args(["source", "kubernetes", "--release", "bookworm"]),
        Some(_) => imager.arg("unpack").args(GO_PACKAGES),
    };
    step.call(imager.arg("--packages").arg(paths.packages()).arg("--out").arg(directory.join("source")))?;
    for (path, text) in recipe.files {
        let path = directory.join("recipe").join(path);
        let parent = path.parent().context("a file needs a directory")?;
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn compile(step: &mut Step, directory: &Path, binaries: &Path, recipe: &Recipe) -> anyhow::Result<()> {
    let (source, work, texts) = (directory.join("source"), directory.join("work"), directory.join("recipe"));
    let mut build = command("bash");
    build.arg(texts.join("build.sh"));
    match recipe.go {
        Some(go) => build.arg(&texts).arg(source.join(go)),
        None => build.arg(&source),
    };
    step.call(build.arg(&work).arg(binaries))?;
    let out = binaries.join("pause");
    let pause = texts.join("pause.c");
    step.call(command("musl-gcc").args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"]).arg(&out).arg(&pause))?;
    // These are gigabytes; the programs are all that is needed from here on.
    for directory in [&work, &source] {
        remove(directory)?;
    }
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

impl Recipe {
    /// A fingerprint of what the build reads, FNV-1a: it names a cache directory, it protects nothing.
    fn fingerprint(&self) -> u64 {
        self.files
            .iter()
            .flat_map(|(_, text)| text.bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(recipe: &Recipe, wanted: &str) -> &'static str {
        recipe.files.iter().find(|(path, _)| *path == wanted).unwrap().1
    }

    #[test]
    fn the_recipes_build_the_versions_that_are_asked_for() {
        for kubernetes in Kubernetes::ALL {
            let recipe = kubernetes.recipe();
            assert!(text(recipe, "build.sh").contains(&format!("version=v{}\n", recipe.version)));
        }
        let (minor, patch) = MODULES.version.strip_prefix("1.").unwrap().split_once('.').unwrap();
        let modules = text(&MODULES, "kubernetes/go.mod");
        assert!(modules.contains(&format!("require k8s.io/kubernetes v1.{minor}.{patch}\n")));
        let parts = modules.lines().filter(|line| line.contains(" => "));
        assert!(
            parts.clone().count() > 20 && parts.clone().all(|line| line.ends_with(&format!(" v0.{minor}.{patch}")))
        );
        for (name, module) in [("coredns", "github.com/coredns/coredns"), ("flannel", "github.com/flannel-io/flannel")]
        {
            let version = MODULES.more.iter().find(|(component, _)| *component == name).unwrap().1;
            let file = text(&MODULES, &format!("{name}/go.mod"));
            assert!(file.contains(&format!("require {module} v{version}\n")), "{file}");
        }
        assert!(text(&MODULES, "build.sh").contains(&format!("flannel_version=v{}\n", MODULES.more[1].1)));
    }

    #[test]
    fn another_recipe_gets_another_cache_directory() {
        let of = |files| Recipe { files, ..DEBIAN }.fingerprint();
        assert_eq!(of(&[("x", "a")]), 0xaf63_dc4c_8601_ec8c);
        assert_ne!(of(&[("x", "ab")]), of(&[("x", "ba")]));
        assert_ne!(DEBIAN.fingerprint(), MODULES.fingerprint());
    }
}
